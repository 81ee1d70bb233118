//! What the drivers share: folders of a bundle, the lock of the layers area.

use super::Result;
use crate::sys::dir::{self, Dir};
use crate::sys::userns::{self, Ids};
use crate::sys::{self, Call, mount};
use rustix::fs::{CWD, FlockOperation, Mode};
use std::fs::File;
use std::path::Path;

/// What the names of unpacked layers begin with: with other ids their files have other owners.
pub(super) fn prefix() -> &'static str {
    PREFIXES[match userns::ids() {
        Ids::Host => 0,
        Ids::Mapped => 1,
        Ids::Single => 2,
    }]
}

/// All that there are.
pub(super) const PREFIXES: [&str; 3] = ["", "mapped-", "single-"];

/// Holds the lock of the layers area until dropped.
pub(super) struct LayersLock {
    _file: File,
}

impl LayersLock {
    /// Waits for the lock.
    pub(super) fn take(layers: &Path) -> Result<Self> {
        let path = layers.join("lock");
        let file = File::create(&path).call(|| format!("open({})", path.display()))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .call(|| format!("flock({})", path.display()))?;
        Ok(Self { _file: file })
    }
}

/// Makes a directory of mode 0755.
pub(super) fn make_dir(path: &Path) -> sys::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(CWD, path, mode).call(|| format!("mkdir({})", path.display()))?;
    rustix::fs::chmod(path, mode).call(|| format!("chmod({})", path.display()))
}

/// Mounts a filesystem in memory at the empty folder `path`.
pub(super) fn mount_memory(path: &Path) -> sys::Result<()> {
    let flags = sys_mount::MountFlags::empty();
    mount::Mount::new(Path::new("tmpfs"), path, "tmpfs", flags, "mode=755")?.keep();
    Ok(())
}

/// Unmounts and deletes these folders of a bundle.
pub(super) fn remove_dirs(bundle: &Path, names: &[&str]) -> Result<()> {
    for name in names {
        let path = bundle.join(name);
        mount::unmount_below(&path)?;
        dir::remove(&path)?;
    }
    Ok(())
}

/// Writes the filesystem of `path` to its device.
pub(super) fn sync(path: &Path) -> Result<()> {
    Ok(Dir::open(path)?.syncfs()?)
}
