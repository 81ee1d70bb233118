//! Files with holes in tars, in the form of GNU tar's PAX format 1.0 (its manual, "Storing Sparse
//! Files"), which Go's and Python's readers know too: a map of the pieces of data before the data.
//!
//! The filesystem only says whether a file has holes; where they are its content says: zeros of at
//! least [`HOLE`] bytes. So copies on filesystems with other blocks are written the same.

use super::archive::Piece;
use crate::sys::{self, Call};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The shortest hole.
const HOLE: u64 = 64 << 10;

/// What is looked at together.
const BLOCK: usize = 4096;

/// The pieces of data in a file of `size` bytes that has holes; none where it has none.
///
/// # Errors
/// The failed call.
pub(super) fn pieces(file: &File, size: u64) -> sys::Result<Option<Vec<Piece>>> {
    let seek = |to| match rustix::fs::seek(file, to) {
        Err(Errno::NXIO) => Ok(size),
        other => other.call(|| "lseek".to_string()).map(|at| at.min(size)),
    };
    let mut hole = seek(SeekFrom::Hole(0))?;
    if hole == size {
        return Ok(None);
    }
    let (mut pieces, mut data, mut buffer) = (Vec::<Piece>::new(), 0, vec![0; 64 * BLOCK]);
    while data < size {
        while data < hole {
            let want = usize::try_from(hole - data).unwrap_or(usize::MAX).min(buffer.len());
            let n = file.read_at(&mut buffer[..want], data).call(|| format!("pread({want}, {data})"))?;
            if n == 0 {
                // It became shorter; whoever reads the pieces finds out.
                hole = data;
                break;
            }
            let blocks = buffer[..n].chunks(BLOCK).zip((data..).step_by(BLOCK));
            for (block, at) in blocks.filter(|(b, _)| b.iter().any(|&byte| byte != 0)) {
                let len = block.len() as u64;
                match pieces.last_mut() {
                    Some((begin, all)) if at < *begin + *all + HOLE => *all = at + len - *begin,
                    _ => pieces.push((at, len)),
                }
            }
            data += n as u64;
        }
        data = seek(SeekFrom::Data(hole))?;
        hole = seek(SeekFrom::Hole(data))?;
    }
    let stored: u64 = pieces.iter().map(|(_, len)| len).sum();
    if size - stored < HOLE {
        return Ok(None);
    }
    if pieces.last().is_none_or(|(at, len)| at + len < size) {
        pieces.push((size, 0));
    }
    Ok(Some(pieces))
}

/// The map that precedes the data: how many pieces, then where each begins and its length; filled
/// up to whole blocks of a tar.
pub(super) fn map(pieces: &[Piece]) -> Vec<u8> {
    let numbers = pieces.iter().flat_map(|(at, len)| [*at, *len]);
    let lines = std::iter::once(pieces.len() as u64).chain(numbers).map(|n| format!("{n}\n"));
    let mut map = lines.collect::<String>().into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_where_the_content_has_them() {
        let dir = tempfile::tempdir().unwrap();
        File::create_new(dir.path().join("f")).unwrap();
        let file = File::options().read(true).write(true).open(dir.path().join("f")).unwrap();
        let piece = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(pieces(&file, 1 << 20).unwrap().unwrap(), [(1 << 20, 0)]);
        piece(300_000, &[1; 5000]);
        // Zeros are as good as a hole, and a short hole is as good as zeros.
        piece(400_000, &vec![0; 200_000]);
        piece(310_000, &[1]);
        let want = [(299_008, 12_288), (1 << 20, 0)];
        assert_eq!(pieces(&file, 1 << 20).unwrap().unwrap(), want);
        piece((1 << 20) - 1, &[1]);
        assert_eq!(pieces(&file, 1 << 20).unwrap().unwrap(), [want[0], ((1 << 20) - 4096, 4096)]);
        assert_eq!(&map(&want)[..30], b"2\n299008\n12288\n1048576\n0\n\0\0\0\0\0");
        piece(0, &vec![0; 1 << 20]);
        assert_eq!(pieces(&file, 1 << 20).unwrap(), None, "no holes, only zeros");
    }
}
