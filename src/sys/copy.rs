//! Copies of files that share blocks or leave holes where they can.

use super::{Call, Result};
use rustix::fs;
use rustix::io::Errno;
use std::fs::File;

/// Copies all of `from` to `to`, which is empty: by sharing blocks where the filesystem can
/// (`FICLONE`, `ioctl_ficlone(2)`), else data only, so that holes stay holes.
///
/// # Errors
/// The failed call.
pub fn file(from: &File, to: &File, size: u64) -> Result<()> {
    if fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    fs::ftruncate(to, size).call(|| format!("ftruncate({size})"))?;
    let mut at = 0;
    while at < size {
        let start = match fs::seek(from, fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e).call(|| "lseek(SEEK_DATA)".to_string()),
        };
        let end = fs::seek(from, fs::SeekFrom::Hole(start)).call(|| "lseek(SEEK_HOLE)".to_string())?;
        range(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

fn range(from: &File, to: &File, start: u64, end: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let left = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), left) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => break,
            Err(e) => return Err(e).call(|| "copy_file_range".to_string()),
        }
    }
    let mut buffer = vec![0; 128 << 10];
    while read_at < end {
        let left = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(buffer.len());
        let n = from.read_at(&mut buffer[..left], read_at).call(|| "pread".to_string())?;
        if n == 0 {
            break;
        }
        to.write_all_at(&buffer[..n], read_at).call(|| "pwrite".to_string())?;
        read_at += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::dir::Dir;
    use std::ffi::OsStr;

    #[test]
    fn copies_with_holes() {
        use std::io::{Seek, SeekFrom, Write};
        use std::os::unix::fs::MetadataExt;
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path()).unwrap();
        let mut a = dir.create(OsStr::new("a")).unwrap();
        a.write_all(b"start").unwrap();
        a.seek(SeekFrom::Start(64 << 20)).unwrap();
        a.write_all(b"end").unwrap();
        let b = dir.create(OsStr::new("b")).unwrap();
        file(&dir.file(OsStr::new("a")).unwrap(), &b, (64 << 20) + 3).unwrap();
        let read = |n: &str| std::fs::read(tmp.path().join(n)).unwrap();
        assert!(read("a") == read("b"));
        assert!(b.metadata().unwrap().blocks() < 1024);
    }
}
