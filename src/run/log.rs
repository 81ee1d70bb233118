//! What a container without a caller prints: log files of bounded size in its folder.
//!
//! The format is Docker's `json-file`: one line of JSON for each line that was printed, or for
//! each 16 KiB of a longer one. `log.json` is written to; when it is full it becomes
//! `log.json.1`, that one `log.json.2`, and the last of them goes.

use super::{Result, io_error};
use crate::sys::Call;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The longest piece of a line that is one entry, in bytes.
const LONGEST: usize = 16 << 10;
/// The largest number of files.
pub const MOST: u32 = 1000;
/// How long a reader waits before it looks whether the writer is still there.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Where something was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output; a terminal is that, too.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The text, with its line feed.
    pub log: String,
    /// Where it was printed.
    pub stream: Stream,
    /// When, RFC 3339, UTC.
    pub time: String,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The size of a file, in bytes.
    pub size: u64,
    /// How many files, 1 to 1000.
    pub files: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { size: 10 << 20, files: 3 }
    }
}

/// The log of a container, to write.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    bounds: Bounds,
    file: File,
    size: u64,
    /// What was printed since the last line feed, by stream.
    partial: [Vec<u8>; 2],
}

impl Log {
    /// Begins the log of the container in `dir`.
    ///
    /// # Errors
    /// [`super::Error::Io`].
    pub fn begin(dir: &Path, bounds: Bounds) -> Result<Self> {
        let file = create(&path(dir, 0))?;
        Ok(Self { dir: dir.to_path_buf(), bounds, file, size: 0, partial: [Vec::new(), Vec::new()] })
    }

    /// Adds what was printed. What cannot be written is lost: the container is not to stop for it.
    pub fn add(&mut self, stream: Stream, bytes: &[u8]) {
        let partial = &mut self.partial[stream as usize];
        partial.extend(bytes);
        let lines = take_lines(partial);
        self.write(stream, &lines);
    }

    /// Adds what was printed without a line feed at the end.
    pub fn finish(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.partial[stream as usize]);
            if !rest.is_empty() {
                self.write(stream, &[rest]);
            }
        }
    }

    fn write(&mut self, stream: Stream, lines: &[Vec<u8>]) {
        let time = super::state::now();
        for line in lines {
            let log = String::from_utf8_lossy(line).into_owned();
            let Ok(mut text) = serde_json::to_vec(&Entry { log, stream, time: time.clone() }) else {
                continue;
            };
            text.push(b'\n');
            let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
            if self.size > 0 && self.size.saturating_add(length) > self.bounds.size && !self.turn() {
                return;
            }
            if self.file.write_all(&text).is_ok() {
                self.size += length;
            }
        }
    }

    /// Goes on with a new file.
    fn turn(&mut self) -> bool {
        for number in (1..self.bounds.files).rev() {
            let _ = std::fs::rename(path(&self.dir, number - 1), path(&self.dir, number));
        }
        let Ok(file) = create(&path(&self.dir, 0)) else { return false };
        (self.file, self.size) = (file, 0);
        true
    }
}

fn create(path: &Path) -> Result<File> {
    // A new file each time: a reader keeps the old one.
    let _ = std::fs::remove_file(path);
    let mut options = OpenOptions::new();
    io_error("create", path, options.write(true).create_new(true).mode(0o600).open(path))
}

fn path(dir: &Path, number: u32) -> PathBuf {
    if number == 0 { dir.join("log.json") } else { dir.join(format!("log.json.{number}")) }
}

/// Those of the files that are there, the newest first.
fn numbers(dir: &Path) -> impl Iterator<Item = u32> {
    (0..MOST).take_while(|n| path(dir, *n).exists())
}

/// Takes whole lines, and pieces of [`LONGEST`] bytes of longer ones.
fn take_lines(text: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let (mut lines, mut begin) = (Vec::new(), 0);
    while begin < text.len() {
        let window = &text[begin..text.len().min(begin + LONGEST)];
        let length = match window.iter().position(|b| *b == b'\n') {
            Some(at) => at + 1,
            None if window.len() == LONGEST => LONGEST,
            None => break,
        };
        lines.push(window[..length].to_vec());
        begin += length;
    }
    text.drain(..begin);
    lines
}

/// Which entries are wanted.
#[derive(Debug, Default)]
pub struct Query {
    /// The last so many of those that are there.
    pub tail: Option<usize>,
    /// None before this time, RFC 3339, UTC.
    pub since: Option<String>,
    /// None from this time on, RFC 3339, UTC.
    pub until: Option<String>,
    /// Go on as long as the container does.
    pub follow: bool,
}

impl Query {
    fn wants(&self, entry: &Entry) -> bool {
        self.since.as_ref().is_none_or(|t| entry.time >= *t)
            && self.until.as_ref().is_none_or(|t| entry.time < *t)
    }
}

/// Reads the log of the container in `dir`; `goes_on` says whether it is still written to.
///
/// # Errors
/// [`super::Error::Io`]; those of `sink`.
pub fn read<E: From<super::Error>>(
    dir: &Path,
    query: &Query,
    goes_on: &dyn Fn() -> bool,
    sink: &mut dyn FnMut(&Entry) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    // Before the first look, so that nothing comes between.
    let changes = if query.follow { Some(watch(dir)?) } else { None };
    let mut reader = Reader::oldest(dir)?;
    let mut last = VecDeque::new();
    while let Some(entry) = reader.next()? {
        if !query.wants(&entry) {
            continue;
        }
        match query.tail {
            None => sink(&entry)?,
            Some(tail) => {
                last.push_back(entry);
                if last.len() > tail {
                    last.pop_front();
                }
            }
        }
    }
    last.iter().try_for_each(&mut *sink)?;
    let Some(changes) = changes else { return Ok(()) };
    loop {
        let more = goes_on();
        while let Some(entry) = reader.next()? {
            if query.wants(&entry) {
                sink(&entry)?;
            }
        }
        if !more {
            return Ok(());
        }
        let _ = poll(&mut [PollFd::new(&changes, PollFlags::IN)], Some(&LOOK));
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&changes, &mut space);
        while events.next().is_ok() {}
    }
}

fn watch(dir: &Path) -> Result<rustix::fd::OwnedFd> {
    let call = || format!("inotify({})", dir.display());
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let fd = inotify::init(flags).call(call)?;
    let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&fd, dir, events).call(call)?;
    Ok(fd)
}

/// Reads all files of a log, oldest first, and what comes to the newest.
struct Reader {
    dir: PathBuf,
    file: BufReader<File>,
    /// The part of a line that is there.
    line: Vec<u8>,
}

impl Reader {
    fn oldest(dir: &Path) -> Result<Self> {
        let number = numbers(dir).last().unwrap_or(0);
        let path = path(dir, number);
        let file = BufReader::new(io_error("open", &path, File::open(&path))?);
        Ok(Self { dir: dir.to_path_buf(), file, line: Vec::new() })
    }

    /// The next entry; none where there is none yet. Lines that are none are left out.
    fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            let read = self.file.read_until(b'\n', &mut self.line);
            io_error("read", &path(&self.dir, 0), read)?;
            if self.line.ends_with(b"\n") {
                let entry = serde_json::from_slice(&self.line);
                self.line.clear();
                if let Ok(entry) = entry {
                    return Ok(Some(entry));
                }
            } else if let Some(next) = self.following() {
                self.file = BufReader::new(next);
                self.line.clear();
            } else {
                return Ok(None);
            }
        }
    }

    /// The file that was begun after the one that is read.
    fn following(&self) -> Option<File> {
        let own = self.file.get_ref().metadata().ok()?.ino();
        let is_own = |n: &u32| std::fs::metadata(path(&self.dir, *n)).is_ok_and(|m| m.ino() == own);
        let number = numbers(&self.dir).find(is_own);
        match number {
            Some(0) => None,
            Some(number) => File::open(path(&self.dir, number - 1)).ok(),
            // It is gone, and thus the oldest that is there came after it.
            None => Self::oldest(&self.dir).ok().map(|r| r.file.into_inner()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(dir: &Path, query: &Query) -> Vec<String> {
        let mut out = Vec::new();
        let mut sink = |e: &Entry| {
            out.push(e.log.clone());
            Ok::<_, crate::run::Error>(())
        };
        read(dir, query, &|| false, &mut sink).unwrap();
        out
    }

    #[test]
    fn lines_and_pieces() {
        let mut text = b"a\nbc\nrest".to_vec();
        assert_eq!(take_lines(&mut text), [b"a\n".to_vec(), b"bc\n".to_vec()]);
        assert_eq!(text, b"rest");
        let mut long = vec![b'x'; LONGEST + 3];
        long.push(b'\n');
        let lines = take_lines(&mut long);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [LONGEST, 4]);
    }

    #[test]
    fn bounded_and_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::begin(dir.path(), Bounds { size: 400, files: 3 }).unwrap();
        for n in 0..20 {
            log.add(
                if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr },
                format!("line {n}\n").as_bytes(),
            );
        }
        log.add(Stream::Stdout, b"no line \xff feed");
        log.finish();
        let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(files.len(), 3);
        assert!(files.iter().all(|f| f.metadata().unwrap().len() <= 400));
        let lines = all(dir.path(), &Query::default());
        assert_eq!(lines.last().unwrap(), "no line \u{fffd} feed");
        assert!(lines.len() > 5 && lines.len() < 20, "{lines:?}");
        let begin = 21 - lines.len();
        for (at, line) in lines[..lines.len() - 1].iter().enumerate() {
            assert_eq!(*line, format!("line {}\n", begin + at));
        }
        assert_eq!(all(dir.path(), &Query { tail: Some(2), ..Query::default() }), lines[lines.len() - 2..]);
        let never = Query { since: Some("9999".into()), ..Query::default() };
        assert!(all(dir.path(), &never).is_empty());
    }

    #[test]
    fn follows_into_new_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::begin(dir.path(), Bounds { size: 200, files: 9 }).unwrap();
        log.add(Stream::Stdout, b"0\n");
        let mut seen = Vec::new();
        let mut next = 1;
        let mut sink = |e: &Entry| {
            seen.push(e.log.clone());
            // Written while it is read.
            if next < 10 {
                log.add(Stream::Stdout, format!("{next}\n").as_bytes());
                next += 1;
            }
            Ok::<_, crate::run::Error>(())
        };
        let query = Query { follow: true, ..Query::default() };
        read(dir.path(), &query, &|| false, &mut sink).unwrap();
        assert_eq!(seen, (0..10).map(|n| format!("{n}\n")).collect::<Vec<_>>());
    }
}
