//! `shipimg mkimg`: an image file of a Debian or Ubuntu system, from signed packages.

mod steps;
mod wanted;

pub use wanted::Wanted;

use super::phases::Phases;
use super::{Context, Result};
use crate::debian::{self, Progress};
use crate::sys::mount::Mount;
use crate::sys::sandbox::private_mounts;
use crate::{disk, error::Kind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `mkimg`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image file to make, as bookworm.img; an ext4 filesystem
    #[arg(value_name = "FILE.img")]
    file: PathBuf,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    steps: steps::Steps,
    /// The size of the filesystem, as 800M or 2G [default: computed, with a quarter free]
    #[arg(long, value_parser = size)]
    size: Option<u64>,
}

/// What is wrong with the arguments.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of a kind that is not made.
    #[error("{}: the name must end with .img", file.display())]
    Format {
        /// The file.
        file: PathBuf,
    },
    /// A shell was asked for, but nobody can type.
    #[error("--shell-on-error needs a terminal as standard input")]
    NoTerminal,
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Format { .. } | Self::NoTerminal => Kind::Input,
        }
    }
}

/// Reads `800M`, `2G`, `1073741824`.
pub(super) fn size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        _ => return Err("a size is a number with K, M, G or T behind it".to_string()),
    };
    let number: u64 =
        digits.parse().map_err(|_| "a size is a number with K, M, G or T behind it".to_string())?;
    number.checked_mul(1 << shift).filter(|n| *n > 0).ok_or_else(|| "out of range".to_string())
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let suite = self.suite()?;
        let mut request = self.wanted.request(&suite)?;
        self.steps.apply(&mut request)?;
        // Mounts made from here on are seen by no other process and end with this one.
        private_mounts()?;
        let store = context.store()?;
        let scratch = store.scratch()?;
        let root = scratch.path().join("root");
        std::fs::create_dir(&root)?;
        let phases = Phases::new();
        let mut memory = None;
        let outcome = debian::bootstrap(&request, &store, &root, &phases, &mut |planned| {
            memory = in_memory(&root, planned.installed_size())?;
            Ok(())
        })?;
        phases.phase("image", None);
        let layout = disk::ext4::write(&root, &self.file, self.size, &suite)?;
        if let Some(memory) = memory {
            memory.close()?;
        }
        drop(scratch);
        self.summary(&outcome, layout, &phases);
        Ok(ExitCode::SUCCESS)
    }

    fn suite(&self) -> std::result::Result<String, Error> {
        let format = || Error::Format { file: self.file.clone() };
        if self.file.extension().is_none_or(|e| e != "img") {
            return Err(format());
        }
        let stem = self.file.file_stem().and_then(|s| s.to_str()).ok_or_else(format)?;
        Ok(self.wanted.suite.clone().unwrap_or_else(|| stem.to_string()))
    }

    fn summary(&self, outcome: &debian::Outcome, layout: disk::ext4::Layout, phases: &Phases) {
        let (total, times) = phases.finish();
        say!(
            "{}: {} packages, {} MiB; {total:.1} s: {times}",
            self.file.display(),
            outcome.packages.len(),
            layout.size >> 20
        );
    }
}

/// Mounts a tmpfs at `root` when the system will take less than a third of the free memory:
/// it is read once more, for the image, and then gone.
fn in_memory(root: &Path, expected: u64) -> debian::Result<Option<Mount>> {
    let free = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = free.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let available = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10;
    if expected > available / 3 {
        return Ok(None);
    }
    let options = format!("mode=755,size={}", available / 2);
    Ok(Some(Mount::new(Path::new("tmpfs"), root, "tmpfs", sys_mount::MountFlags::empty(), &options)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!((size("2G"), size("800M"), size("5")), (Ok(2 << 30), Ok(800 << 20), Ok(5)));
        assert!(["", "G", "2X", "-1", "0", "99999999999T"].iter().all(|s| size(s).is_err()));
    }
}
