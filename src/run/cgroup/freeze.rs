//! Frozen groups (kernel, `cgroup-v1/freezer-subsystem.rst`; `cgroup-v2.rst`, `cgroup.freeze`).

use crate::run::{Error, Result, io_error};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long processes may take to stand still, in seconds.
const LIMIT: u64 = 10;

fn read(group: &Path, name: &str) -> String {
    fs::read_to_string(group.join(name)).unwrap_or_default()
}

/// Whether the groups are frozen, or about to be.
#[must_use]
pub fn is_frozen(paths: &[PathBuf]) -> bool {
    let frozen = |group: &Path| {
        read(group, "freezer.state").contains("FR")
            || read(group, "cgroup.freeze").trim() == "1"
            || is_still(group)
    };
    paths.iter().any(|path| frozen(path))
}

/// Whether all processes of a group stand still.
fn is_still(group: &Path) -> bool {
    read(group, "freezer.state").trim() == "FROZEN"
        || read(group, "cgroup.events").lines().any(|l| l == "frozen 1")
}

/// Freezes the groups and waits until nothing in them moves any more.
///
/// # Errors
/// [`Error::Unsupported`] without a freezer; [`Error::Timeout`], nothing is frozen then.
pub fn freeze(paths: &[PathBuf]) -> Result<()> {
    let kinds = [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")];
    // On a machine with both versions the older one has the freezer.
    let found = kinds.iter().find_map(|(name, value)| {
        let group = paths.iter().find(|p| p.join(name).exists())?;
        Some((group, group.join(name), value))
    });
    let Some((group, file, value)) = found else {
        return Err(Error::Unsupported { what: "a freezer for control groups".into() });
    };
    let end = Instant::now() + Duration::from_secs(LIMIT);
    // Version 1 may stay half-way where processes were born meanwhile, until it is asked again.
    loop {
        io_error("write", &file, fs::write(&file, value))?;
        if is_still(group) {
            return Ok(());
        }
        if Instant::now() > end {
            thaw(paths);
            let what = format!("control group {} did not freeze", group.display());
            return Err(Error::Timeout { what, seconds: LIMIT });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets frozen groups go on.
pub fn thaw(paths: &[PathBuf]) {
    for path in paths {
        for (name, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let file = path.join(name);
            if file.exists() {
                let _ = fs::write(file, value);
            }
        }
    }
}
