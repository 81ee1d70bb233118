//! Extended attributes, of a descriptor or of a name that is not followed (xattr(7)).

use super::{Call, Result, dir::Dir};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// An attribute: name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// The kernel's limit for a value and for a list of names, in bytes.
const MAX: usize = 64 << 10;

/// `/proc/self/fd/N`.
#[must_use]
pub fn proc_fd(fd: BorrowedFd<'_>) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}

fn call_name(call: &str, name: &[u8]) -> String {
    format!("{call}({})", name.escape_ascii())
}

/// Sets an attribute of an open file.
///
/// # Errors
/// The failed fsetxattr call.
pub fn set_fd(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<()> {
    fs::fsetxattr(fd, name, value, XattrFlags::empty()).call(|| call_name("fsetxattr", name))
}

/// Sets an attribute of `file` in `dir`, also of a symbolic link itself. It goes by
/// `/proc/self/fd`, which every kernel has, not by setxattrat(2) of Linux 6.13.
///
/// # Errors
/// The failed lsetxattr call.
pub fn set_at(dir: &Dir, file: &OsStr, name: &[u8], value: &[u8]) -> Result<()> {
    let call = || format!("lsetxattr({}, {})", dir.path().join(file).display(), name.escape_ascii());
    fs::lsetxattr(dir.proc_path(file), name, value, XattrFlags::empty()).call(call)
}

/// Removes an attribute of an open file; it need not be there.
///
/// # Errors
/// The failed fremovexattr call.
pub fn remove_fd(fd: impl AsFd, name: &[u8]) -> Result<()> {
    match fs::fremovexattr(fd, name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => other.call(|| call_name("fremovexattr", name)),
    }
}

/// The value of an attribute of an open file; none where it has none.
///
/// # Errors
/// The failed fgetxattr call.
pub fn get_fd(fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(MAX);
    match fs::fgetxattr(fd, name, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(e).call(|| call_name("fgetxattr", name)),
    }
}

/// All attributes of an open file.
///
/// # Errors
/// The failed flistxattr or fgetxattr call.
pub fn all_fd(fd: impl AsFd) -> Result<Vec<Xattr>> {
    let fd = fd.as_fd();
    let mut names = Vec::with_capacity(MAX);
    match fs::flistxattr(fd, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e).call(|| "flistxattr".to_string()),
    }
    let mut all = Vec::new();
    for name in names.split(|&b| b == 0).filter(|n| !n.is_empty()) {
        if let Some(value) = get_fd(fd, name)? {
            all.push((name.to_vec(), value));
        }
    }
    Ok(all)
}

/// All attributes of `file` in `dir`, also of a symbolic link itself.
///
/// # Errors
/// The failed llistxattr or lgetxattr call.
pub fn all_at(dir: &Dir, file: &OsStr) -> Result<Vec<Xattr>> {
    let path = dir.proc_path(file);
    let call = |call: &str| format!("{call}({})", dir.path().join(file).display());
    let mut names = Vec::with_capacity(MAX);
    match fs::llistxattr(&path, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e).call(|| call("llistxattr")),
    }
    let mut all = Vec::new();
    for name in names.split(|&b| b == 0).filter(|n| !n.is_empty()) {
        let mut value = Vec::with_capacity(MAX);
        fs::lgetxattr(&path, OsStr::from_bytes(name), rustix::buffer::spare_capacity(&mut value))
            .call(|| call("lgetxattr"))?;
        all.push((name.to_vec(), value));
    }
    Ok(all)
}
