//! Commands of the host at fixed stages of a root's making.

use super::{Error, Progress, Result};
use crate::sys::program;
use std::collections::VecDeque;
use std::path::Path;
use std::str::FromStr;

/// How many lines of output are kept for an error.
const TAIL: usize = 40;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The root is an empty folder.
    Setup,
    /// The base is unpacked and the database is written, no script has run. The other packages come later.
    Extract,
    /// All packages are configured; caches and identities are still to be removed.
    Customize,
}

impl Stage {
    const ALL: [(&str, Self); 3] =
        [("setup", Self::Setup), ("extract", Self::Extract), ("customize", Self::Customize)];
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Self::ALL.iter().find(|(_, stage)| stage == self).map_or("", |(name, _)| name);
        f.pad(name)
    }
}

/// A command, run by the host's `/bin/sh -c` with the root's path as `$1` and in `SHIPIMG_TARGET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub stage: Stage,
    /// What.
    pub command: String,
}

impl FromStr for Hook {
    type Err = String;

    /// Reads `STAGE=COMMAND`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("a hook is written STAGE=COMMAND")?;
        let found = Stage::ALL.iter().find(|(n, _)| *n == name);
        let (_, stage) = found.ok_or("the stages are setup, extract and customize")?;
        Ok(Self { stage: *stage, command: command.to_string() })
    }
}

/// Runs the hooks of a stage, in their order.
///
/// # Errors
/// [`Error::Hook`] with the output's end, [`Error::Sys`].
pub(super) fn run(hooks: &[Hook], stage: Stage, root: &Path, progress: &dyn Progress) -> Result<()> {
    for hook in hooks.iter().filter(|h| h.stage == stage) {
        progress.phase("hook", None);
        let mut tail = VecDeque::new();
        let path = root.to_string_lossy();
        let args = ["-c", &hook.command, "hook", &path];
        let status = program::told("/bin/sh", &args, &[("SHIPIMG_TARGET", &path)], &mut |line| {
            progress.detail(line);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line.to_string());
        })?;
        if !status.success() {
            let output = tail.make_contiguous().join("\n");
            let (command, status) = (hook.command.clone(), status.to_string());
            return Err(Error::Hook { stage, command, status, output });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hooks() {
        let hook: Hook = "customize=a=b".parse().unwrap();
        assert_eq!((hook.stage, hook.command.as_str()), (Stage::Customize, "a=b"));
        assert_eq!(Stage::Setup.to_string(), "setup");
        for bad in ["setup", "later=x", "=x"] {
            assert!(bad.parse::<Hook>().is_err(), "{bad}");
        }
    }
}
