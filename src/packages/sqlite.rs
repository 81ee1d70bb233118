//! The rows of one table of an `SQLite` database, from its bytes and those of its write-ahead log.
//!
//! Read-only, without indices and without SQL, after <https://www.sqlite.org/fileformat2.html>. The
//! bytes are hostile: every offset is checked, each page is visited once at most, so that the work is
//! bounded by the size of the file whatever its pointers say, and one row is held at a time.
//! Transactions of the log count as far as `SQLite` would recover them: while salts and checksums are
//! right, up to the last one that was committed.

use std::collections::HashMap;

const MAGIC: &[u8] = b"SQLite format 3\0";
/// Pages of a tree above one another; `SQLite` makes far fewer.
const DEPTH: usize = 24;
/// How many columns of a row are read.
const COLUMNS: usize = 8;

/// What is wrong with a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first bytes are others.
    #[error("it does not begin as databases of SQLite do")]
    NoDatabase,
    /// A version or an encoding of the format that is not read.
    #[error("its {0} is none that is read")]
    Unsupported(&'static str),
    /// The named part is not where it should be, or not as it should be.
    #[error("its {0} is damaged")]
    Damaged(&'static str),
    /// There is no such table.
    #[error("it has no table {0}")]
    NoTable(&'static str),
}

/// Result of reading a database.
pub type Result<T> = std::result::Result<T, Error>;

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A whole number.
    Integer(i64),
    /// Text or bytes.
    Bytes(&'a [u8]),
    /// Nothing, or a number with a fraction.
    Other,
}

/// Gives the rows of the table `name` of `database` to `each`, in the order of their numbers.
/// `log` is the file that is called as it with `-wal` behind.
///
/// # Errors
/// What is damaged or not supported; what `each` was given until then is worthless.
pub fn rows(
    database: &[u8],
    log: Option<&[u8]>,
    name: &'static str,
    each: &mut dyn FnMut(&[Value]),
) -> Result<()> {
    let mut pages = Pages::new(database, log)?;
    let mut root = None;
    pages.table(1, &mut |row| {
        if let [Value::Bytes(b"table"), Value::Bytes(found), _, Value::Integer(page), ..] = *row
            && found == name.as_bytes()
        {
            root = u32::try_from(page).ok();
        }
    })?;
    pages.table(root.ok_or(Error::NoTable(name))?, each)
}

/// The pages of a database.
struct Pages<'a> {
    database: &'a [u8],
    log: &'a [u8],
    /// Where pages lie in the log that are newer there.
    newer: HashMap<u32, usize>,
    size: usize,
    /// Bytes of a page that are used.
    usable: usize,
    visited: Vec<bool>,
    /// Bytes that cells may still have: those of sound ones lie beside one another.
    left: usize,
}

impl<'a> Pages<'a> {
    fn new(database: &'a [u8], log: Option<&'a [u8]>) -> Result<Self> {
        let header = database.get(..100).filter(|h| h.starts_with(MAGIC)).ok_or(Error::NoDatabase)?;
        let size = match u16_at(header, 16) {
            Some(1) => 65536,
            Some(size) if size >= 512 && size.is_power_of_two() => usize::from(size),
            _ => return Err(Error::Damaged("size of pages")),
        };
        let usable = size - usize::from(header[20]);
        if usable < 480 {
            return Err(Error::Damaged("size of pages"));
        }
        let log = log.unwrap_or_default();
        let (newer, pages) = newer(log, size)?;
        let pages = pages.unwrap_or(database.len() / size).min((database.len() + log.len()) / size);
        let (visited, left) = (vec![false; pages], pages * size);
        let mut all = Self { database, log, newer, size, usable, visited, left };
        let first = all.page(1)?;
        all.visited[0] = false;
        // Of writers and readers: a rollback journal or a write-ahead log.
        if ![1, 2].contains(&first[19]) {
            return Err(Error::Unsupported("version"));
        }
        if u32_at(first, 56) != Some(1) {
            return Err(Error::Unsupported("encoding"));
        }
        Ok(all)
    }

    /// The bytes of the page of this number, counted from 1, which is asked for once.
    fn page(&mut self, number: u32) -> Result<&'a [u8]> {
        const WHAT: Error = Error::Damaged("tree of pages");
        let index = (number as usize).checked_sub(1).ok_or(WHAT)?;
        let visited = self.visited.get_mut(index).ok_or(WHAT)?;
        if std::mem::replace(visited, true) {
            return Err(WHAT);
        }
        let (file, at) = match self.newer.get(&number) {
            Some(at) => (self.log, *at),
            None => (self.database, index * self.size),
        };
        file.get(at..).and_then(|rest| rest.get(..self.size)).ok_or(WHAT)
    }

    /// Gives each row of the table at this page to `each`.
    fn table(&mut self, root: u32, each: &mut dyn FnMut(&[Value])) -> Result<()> {
        const WHAT: Error = Error::Damaged("tree of pages");
        // Pages to be read, the next one last, each with its depth.
        let mut todo = vec![(root, 0)];
        while let Some((number, depth)) = todo.pop() {
            let page = self.page(number)?;
            let start = if number == 1 { 100 } else { 0 };
            let cells = usize::from(u16_at(page, start + 3).ok_or(WHAT)?);
            let inner = page.get(start) == Some(&5);
            if depth > DEPTH || !(inner || page.get(start) == Some(&13)) {
                return Err(WHAT);
            }
            let list = start + if inner { 12 } else { 8 };
            let cell = |n: usize| u16_at(page, list + 2 * n).map(usize::from).ok_or(WHAT);
            if inner {
                todo.push((u32_at(page, start + 8).ok_or(WHAT)?, depth + 1));
                for n in (0..cells).rev() {
                    todo.push((u32_at(page, cell(n)?).ok_or(WHAT)?, depth + 1));
                }
                // More than there are pages: some would come twice.
                if todo.len() > self.visited.len() {
                    return Err(WHAT);
                }
            } else {
                for n in 0..cells {
                    self.row(page.get(cell(n)?..self.usable).ok_or(WHAT)?, each)?;
                }
            }
        }
        Ok(())
    }

    /// The row of a cell, with what of it lies in further pages.
    fn row(&mut self, cell: &'a [u8], each: &mut dyn FnMut(&[Value])) -> Result<()> {
        const WHAT: Error = Error::Damaged("row");
        let (length, rest) = number(cell).ok_or(WHAT)?;
        let (_, rest) = number(rest).ok_or(WHAT)?;
        let length = usize::try_from(length).map_err(|_| WHAT)?;
        // With its place in the list and its two numbers.
        self.left = self.left.checked_sub(length).and_then(|left| left.checked_sub(4)).ok_or(WHAT)?;
        let most = self.usable - 35;
        if length <= most {
            return record(rest.get(..length).ok_or(WHAT)?, each);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let local = least + (length - least) % (self.usable - 4);
        let local = if local > most { least } else { local };
        let mut whole = rest.get(..local).ok_or(WHAT)?.to_vec();
        let mut next = u32_at(rest, local).ok_or(WHAT)?;
        while whole.len() < length {
            let page = self.page(next)?;
            let end = self.usable.min(4 + length - whole.len());
            whole.extend_from_slice(&page[4..end]);
            next = u32_at(page, 0).ok_or(WHAT)?;
        }
        record(&whole, each)
    }
}

/// Gives the values of a row to `each`.
fn record(bytes: &[u8], each: &mut dyn FnMut(&[Value])) -> Result<()> {
    const WHAT: Error = Error::Damaged("row");
    let (length, types) = number(bytes).ok_or(WHAT)?;
    let length = usize::try_from(length).map_err(|_| WHAT)?;
    let mut types = types.get(..length.saturating_sub(bytes.len() - types.len())).ok_or(WHAT)?;
    let mut rest = bytes.get(length..).ok_or(WHAT)?;
    let mut values = Vec::with_capacity(COLUMNS);
    while !types.is_empty() && values.len() < COLUMNS {
        let (kind, more) = number(types).ok_or(WHAT)?;
        types = more;
        let size = match kind {
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            12.. => (kind - 12) / 2,
            _ => 0,
        };
        let size = usize::try_from(size).ok().filter(|size| *size <= rest.len()).ok_or(WHAT)?;
        let (value, more) = rest.split_at(size);
        rest = more;
        values.push(match kind {
            1..=6 => Value::Integer(integer(value)),
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            12.. => Value::Bytes(value),
            _ => Value::Other,
        });
    }
    each(&values);
    Ok(())
}

/// A number of one to eight bytes with its sign.
fn integer(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|b| b & 0x80 != 0) { -1 } else { 0 };
    bytes.iter().fold(sign, |sum, b| (sum << 8) | i64::from(*b))
}

/// A number of one to nine bytes, of seven bits each but for the ninth, and what is behind it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut sum = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        if at == 8 {
            return Some(((sum << 8) | u64::from(*byte), &bytes[9..]));
        }
        sum = (sum << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((sum, &bytes[at + 1..]));
        }
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// The pages of committed transactions in a write-ahead log, by where they lie, and how many pages the
/// database has then, where there are any. A log of nothing but zeroes and one that was begun anew are
/// without.
fn newer(log: &[u8], size: usize) -> Result<(HashMap<u32, usize>, Option<usize>)> {
    const WHAT: Error = Error::Damaged("write-ahead log");
    let (mut all, mut pages) = (HashMap::new(), None);
    let Some((header, mut rest)) = log.split_at_checked(32) else { return Ok((all, pages)) };
    let big = match u32_at(header, 0).ok_or(WHAT)? {
        0x377f_0682 => false,
        0x377f_0683 => true,
        0 => return Ok((all, pages)),
        _ => return Err(WHAT),
    };
    if u32_at(header, 4) != Some(3_007_000) {
        return Err(Error::Unsupported("version of the write-ahead log"));
    }
    let mut sum = checksum((0, 0), &header[..24], big);
    if u32_at(header, 8) != u32::try_from(size).ok() || !has_sum(&header[24..], sum) {
        return Err(WHAT);
    }
    let (mut at, mut open) = (32, Vec::new());
    while let Some((frame, more)) = rest.split_at_checked(24 + size) {
        let (head, page) = frame.split_at(24);
        sum = checksum(checksum(sum, &head[..8], big), page, big);
        if head[8..16] != header[16..24] || !has_sum(&head[16..], sum) {
            break;
        }
        open.push((u32_at(head, 0).ok_or(WHAT)?, at + 24));
        let commit = u32_at(head, 4).ok_or(WHAT)?;
        if commit != 0 {
            all.extend(open.drain(..));
            pages = Some(commit as usize);
        }
        (rest, at) = (more, at + 24 + size);
    }
    Ok((all, pages))
}

/// Whether the eight bytes are this checksum.
fn has_sum(bytes: &[u8], sum: (u32, u32)) -> bool {
    u32_at(bytes, 0) == Some(sum.0) && u32_at(bytes, 4) == Some(sum.1)
}

/// The checksum of a write-ahead log, carried on over `bytes`.
fn checksum(mut sum: (u32, u32), bytes: &[u8], big: bool) -> (u32, u32) {
    let word = |bytes: &[u8; 4]| if big { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) };
    for pair in bytes.as_chunks::<4>().0.as_chunks::<2>().0 {
        sum.0 = sum.0.wrapping_add(word(&pair[0])).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(word(&pair[1])).wrapping_add(sum.0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 512;

    fn varint(number: usize) -> Vec<u8> {
        assert!(number < 1 << 14);
        let [high, low] = [number >> 7, number & 0x7f].map(|n| u8::try_from(n).unwrap());
        if high == 0 { vec![low] } else { vec![high | 0x80, low] }
    }

    /// A page of these cells, of which an inner page has a page's number at the right.
    fn page(start: usize, right: Option<u32>, cells: &[Vec<u8>]) -> Vec<u8> {
        let mut page = vec![0; SIZE];
        let (mut end, head) = (SIZE, if right.is_some() { 12 } else { 8 });
        page[start] = if right.is_some() { 5 } else { 13 };
        page[start + 3..start + 5].copy_from_slice(&u16::try_from(cells.len()).unwrap().to_be_bytes());
        if let Some(right) = right {
            page[start + 8..start + 12].copy_from_slice(&right.to_be_bytes());
        }
        for (n, cell) in cells.iter().enumerate() {
            end -= cell.len();
            page[end..end + cell.len()].copy_from_slice(cell);
            let at = start + head + 2 * n;
            page[at..at + 2].copy_from_slice(&u16::try_from(end).unwrap().to_be_bytes());
        }
        page
    }

    fn row(number: usize, types: &[usize], values: &[&[u8]]) -> (usize, Vec<u8>) {
        let types: Vec<u8> = types.iter().flat_map(|t| varint(*t)).collect();
        (number, [&varint(types.len() + 1), &types, &values.concat()].map(Vec::as_slice).concat())
    }

    fn cell((number, record): (usize, Vec<u8>)) -> Vec<u8> {
        [varint(record.len()), varint(number), record].concat()
    }

    /// A table `t` with an inner page, two leaves, and a row that goes on in two further pages.
    fn database() -> Vec<u8> {
        let name = |t: &str, root: u8| {
            row(1, &[23, 15, 15, 1, 13], &[b"table", t.as_bytes(), t.as_bytes(), &[root]])
        };
        let mut first = page(100, None, &[cell(name("s", 9)), cell(name("t", 2))]);
        first[..16].copy_from_slice(MAGIC);
        first[16..18].copy_from_slice(&u16::try_from(SIZE).unwrap().to_be_bytes());
        first[18..20].copy_from_slice(&[1, 1]);
        first[56..60].copy_from_slice(&1_u32.to_be_bytes());
        let inner = page(0, Some(4), &[[&3_u32.to_be_bytes()[..], &varint(7)].concat()]);
        let small = |n, bytes: &[u8]| cell(row(n, &[0, 12 + 2 * bytes.len()], &[bytes]));
        let left = page(0, None, &[small(1, b"one"), small(7, b"")]);
        let long = row(9, &[0, 12 + 2 * 1300], &[&[7; 1300]]).1;
        // (SIZE - 12) * 32 / 255 - 23, and what does not fit into whole pages.
        let local = 39 + (long.len() - 39) % (SIZE - 4);
        let local = if local > SIZE - 35 { 39 } else { local };
        let rest: Vec<&[u8]> = long[local..].chunks(SIZE - 4).collect();
        let more = |n: usize| if n + 1 < rest.len() { 6 + u32::try_from(n).unwrap() } else { 0 };
        let begun =
            [varint(long.len()), varint(9), long[..local].to_vec(), 5_u32.to_be_bytes().to_vec()].concat();
        let mut pages = [first, inner, left, page(0, None, &[begun])].concat();
        for (n, part) in rest.iter().enumerate() {
            let mut page = [&more(n).to_be_bytes()[..], part].concat();
            page.resize(SIZE, 0);
            pages.extend(page);
        }
        pages
    }

    fn read(database: &[u8], log: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        rows(database, log, "t", &mut |row| {
            if let [_, Value::Bytes(bytes)] = row {
                all.push(bytes.to_vec());
            }
        })?;
        Ok(all)
    }

    /// A log with these pages, the last of which commits.
    fn log(pages: &[(u32, Vec<u8>)], count: u32) -> Vec<u8> {
        let mut log: Vec<u8> =
            [0x377f_0683, 3_007_000, 512, 1, 5, 6].iter().flat_map(|n: &u32| n.to_be_bytes()).collect();
        let bytes = |sum: (u32, u32)| [sum.0.to_be_bytes(), sum.1.to_be_bytes()].concat();
        let mut sum = checksum((0, 0), &log, true);
        log.extend(bytes(sum));
        for (n, (number, page)) in pages.iter().enumerate() {
            let commit = if n + 1 == pages.len() { count } else { 0 };
            let head = [number.to_be_bytes(), commit.to_be_bytes()].concat();
            sum = checksum(checksum(sum, &head, true), page, true);
            log.extend([&head, &[5_u32, 6].map(u32::to_be_bytes).concat()[..], &bytes(sum), page].concat());
        }
        log
    }

    #[test]
    fn tables() {
        let database = database();
        let long = vec![7; 1300];
        assert_eq!(read(&database, None).unwrap(), [b"one".to_vec(), Vec::new(), long.clone()]);
        let mut nothing = 0;
        assert_eq!(rows(&database, None, "u", &mut |_| nothing += 1), Err(Error::NoTable("u")));
        assert_eq!(nothing, 0);

        let newer = page(0, None, &[cell(row(1, &[0, 18], &[b"two"]))]);
        let (committed, open) = (log(&[(3, newer.clone())], 8), log(&[(3, newer.clone())], 0));
        assert_eq!(read(&database, Some(&committed)).unwrap(), [b"two".to_vec(), long.clone()]);
        // What was not committed, what is cut short, what another transaction has left, and an empty log.
        let mut other = committed.clone();
        other[40] ^= 1;
        for log in [&open[..], &committed[..committed.len() - 1], &other, &[], &[0; 32], &committed[..31]] {
            assert_eq!(read(&database, Some(log)).unwrap()[0], b"one");
        }
        let mut bad = committed;
        bad[25] ^= 1;
        assert_eq!(read(&database, Some(&bad)), Err(Error::Damaged("write-ahead log")));
        assert_eq!(read(&database, Some(&[7; 64])), Err(Error::Damaged("write-ahead log")));
    }

    #[test]
    fn hostile() {
        let sound = database();
        // Cut short, and with each byte another: an error or other rows, never a panic or a loop.
        for n in 0..sound.len() {
            let _ = read(&sound[..n], None);
            for change in [0xff, 1, 0x80] {
                let mut other = sound.clone();
                other[n] ^= change;
                let _ = read(&other, None);
            }
        }
        let changed = |at: usize, bytes: &[u8]| {
            let mut other = sound.clone();
            other[at..at + bytes.len()].copy_from_slice(bytes);
            read(&other, None).unwrap_err()
        };
        for (at, bytes, want) in [
            // Pages that lead to themselves, to one another, to nothing.
            (SIZE + 8, &2_u32.to_be_bytes()[..], Error::Damaged("tree of pages")),
            (SIZE + 8, &3_u32.to_be_bytes(), Error::Damaged("tree of pages")),
            (SIZE + 8, &0_u32.to_be_bytes(), Error::Damaged("tree of pages")),
            (SIZE + 8, &u32::MAX.to_be_bytes(), Error::Damaged("tree of pages")),
            (4 * SIZE, &5_u32.to_be_bytes(), Error::Damaged("tree of pages")),
            // More cells than there is room for, all in one place.
            (2 * SIZE + 3, &u16::MAX.to_be_bytes(), Error::Damaged("row")),
            (16, &3_u16.to_be_bytes(), Error::Damaged("size of pages")),
            (20, &[255], Error::Damaged("size of pages")),
            (19, &[3], Error::Unsupported("version")),
            (59, &[2], Error::Unsupported("encoding")),
            (0, b"x", Error::NoDatabase),
        ] {
            assert_eq!(changed(at, bytes), want, "{at} {bytes:?}");
        }
    }

    #[test]
    fn cells_that_lie_in_one_place_are_not_read_for_ever() {
        let big = cell(row(1, &[0, 12 + 2 * 400], &[&[1; 400]]));
        let mut database = database();
        let leaf = page(0, None, &vec![Vec::new(); 40]);
        database[2 * SIZE..3 * SIZE].copy_from_slice(&leaf);
        let at = 3 * SIZE - big.len();
        database[at..3 * SIZE].copy_from_slice(&big);
        for n in 0..40 {
            let pointer = u16::try_from(SIZE - big.len()).unwrap().to_be_bytes();
            database[2 * SIZE + 8 + 2 * n..][..2].copy_from_slice(&pointer);
        }
        assert_eq!(read(&database, None), Err(Error::Damaged("row")));
    }
}
