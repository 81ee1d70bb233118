//! Blobs that are read while they are written, so that a download and what is made of it are one pass.
//!
//! [`Store::awaiting`] gives another handle on the store. What is written through it by
//! [`Store::ingest`] can be read through it by [`Store::blob`] from the first byte on: the reader
//! follows the file as it grows, and gets to its end only after [`BlobWriter::commit`](super::BlobWriter::commit)
//! has agreed to the whole; where the writer gives up, so does the reader. A blob that is neither
//! there nor under way is waited for, until [`Store::nothing_more`].
//!
//! A blob that goes on from an earlier process's bytes, which may be damaged, or that another
//! process writes, is waited for until it is whole.

use super::{Error, Result, Store};
use crate::oci::{Descriptor, Digest};
use crate::sys::signal;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a waiting reader does not look whether it is to end, or another process has put the blob there.
const PAUSE: Duration = Duration::from_millis(50);

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    growing: HashMap<Digest, Arc<Growth>>,
    over: bool,
    broke_off: bool,
}

/// A blob that grows.
#[derive(Debug)]
struct Growth {
    file: File,
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// So many bytes are there.
    Growing(u64),
    /// All are there and verified.
    Whole,
    /// No more come.
    Broken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(changed: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    changed.wait_timeout(guard, PAUSE).unwrap_or_else(PoisonError::into_inner).0
}

impl Store {
    /// A handle on the same store that reads what it writes, as the module says.
    #[must_use]
    pub fn awaiting(&self) -> Self {
        Self { incoming: Some(Arc::default()), ..self.clone() }
    }

    /// Ends the waiting for blobs that do not come.
    pub fn nothing_more(&self) {
        if let Some(incoming) = &self.incoming {
            lock(&incoming.state).over = true;
            incoming.changed.notify_all();
        }
    }

    /// Whether the writer of a blob has given up.
    #[must_use]
    pub fn broke_off(&self) -> bool {
        self.incoming.as_ref().is_some_and(|i| lock(&i.state).broke_off)
    }

    /// The blob as it comes; none where it is in the store, or nothing more comes.
    pub(super) fn coming(&self, descriptor: &Descriptor) -> Result<Option<Following>> {
        let Some(incoming) = &self.incoming else { return Ok(None) };
        let mut state = lock(&incoming.state);
        loop {
            if let Some(growth) = state.growing.get(&descriptor.digest) {
                return Ok(Some(Following { growth: Arc::clone(growth), at: 0 }));
            }
            if state.over || self.has(descriptor)? {
                return Ok(None);
            }
            if signal::pending().is_some() {
                let source = io::ErrorKind::Interrupted.into();
                return Err(Error::Io {
                    action: "wait for",
                    path: self.blob_path(&descriptor.digest),
                    source,
                });
            }
            state = wait(&incoming.changed, state);
        }
    }
}

/// The writer's part.
#[derive(Debug)]
pub(super) struct Growing {
    incoming: Arc<Incoming>,
    digest: Digest,
    growth: Arc<Growth>,
}

impl Growing {
    /// Announces the blob that `file`, empty still, will hold.
    pub(super) fn begin(incoming: &Arc<Incoming>, digest: &Digest, file: &File) -> io::Result<Self> {
        let (stage, changed) = (Mutex::new(Stage::Growing(0)), Condvar::new());
        let growth = Arc::new(Growth { file: file.try_clone()?, stage, changed });
        lock(&incoming.state).growing.insert(digest.clone(), Arc::clone(&growth));
        incoming.changed.notify_all();
        Ok(Self { incoming: Arc::clone(incoming), digest: digest.clone(), growth })
    }

    /// So many bytes are there.
    pub(super) fn reached(&self, len: u64) {
        self.step(Stage::Growing(len));
    }

    /// The blob is verified and in its place.
    pub(super) fn whole(self) {
        self.step(Stage::Whole);
    }

    fn step(&self, to: Stage) {
        *lock(&self.growth.stage) = to;
        self.growth.changed.notify_all();
    }
}

/// Whoever follows a blob that did not become whole is told.
impl Drop for Growing {
    fn drop(&mut self) {
        let broke_off = matches!(*lock(&self.growth.stage), Stage::Growing(_));
        let mut state = lock(&self.incoming.state);
        state.growing.remove(&self.digest);
        state.broke_off |= broke_off;
        drop(state);
        if broke_off {
            self.step(Stage::Broken);
        }
        self.incoming.changed.notify_all();
    }
}

/// Reads a blob that grows.
#[derive(Debug)]
pub(super) struct Following {
    growth: Arc<Growth>,
    at: u64,
}

impl Read for Following {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut stage = lock(&self.growth.stage);
        let most = loop {
            match *stage {
                Stage::Growing(len) if len > self.at => {
                    break buf.len().min(usize::try_from(len - self.at).unwrap_or(usize::MAX));
                }
                Stage::Whole => break buf.len(),
                Stage::Broken => return Err(io::Error::other("it did not come whole")),
                Stage::Growing(_) if signal::pending().is_some() => {
                    return Err(io::Error::other("interrupted"));
                }
                Stage::Growing(_) => stage = wait(&self.growth.changed, stage),
            }
        };
        drop(stage);
        let n = self.growth.file.read_at(&mut buf[..most], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BlobWriter, Ingest};
    use super::*;

    fn begin(store: &Store, descriptor: &Descriptor) -> BlobWriter {
        match store.ingest(descriptor).unwrap() {
            Ingest::Missing(writer) => writer,
            Ingest::Present => panic!("{} is there", descriptor.digest),
        }
    }

    #[test]
    fn a_reader_follows_the_writer_and_ends_with_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().awaiting();
        let descriptor = Descriptor::of("x", b"hello world");
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut out = Vec::new();
                store.blob(&descriptor).unwrap().read_to_end(&mut out).map(|_| out)
            });
            let mut writer = begin(&store, &descriptor);
            writer.append(b"hello ").unwrap();
            std::thread::sleep(2 * PAUSE);
            assert!(!reader.is_finished());
            writer.append(b"world").unwrap();
            std::thread::sleep(2 * PAUSE);
            assert!(!reader.is_finished());
            writer.commit().unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), b"hello world");
        });
    }

    #[test]
    fn a_reader_fails_with_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().awaiting();
        let descriptor = Descriptor::of("x", b"hello");
        let ends: [fn(BlobWriter); 3] = [
            drop,
            |mut w| w.append(b"hell").unwrap(),
            |mut w| {
                w.append(b"jello").unwrap();
                w.commit().unwrap_err();
            },
        ];
        for end in ends {
            let _ = std::fs::remove_file(
                dir.path().join(format!("shipimg/ingest/sha256-{}", descriptor.digest.hex())),
            );
            let writer = begin(&store, &descriptor);
            let mut reader = store.blob(&descriptor).unwrap();
            std::thread::scope(|scope| {
                let reader = scope.spawn(move || reader.read_to_end(&mut Vec::new()));
                end(writer);
                assert_eq!(reader.join().unwrap().unwrap_err().to_string(), "it did not come whole");
            });
        }
        store.nothing_more();
        assert!(matches!(store.blob(&descriptor), Err(Error::NoBlob { .. })));
    }

    #[test]
    fn what_another_process_left_is_read_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().awaiting();
        let descriptor = Descriptor::of("x", b"hello");
        begin(&store, &descriptor).append(b"hel").unwrap();
        let mut writer = begin(&store, &descriptor);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| std::io::read_to_string(store.blob(&descriptor).unwrap()));
            writer.append(b"lo").unwrap();
            std::thread::sleep(2 * PAUSE);
            assert!(!reader.is_finished());
            writer.commit().unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), "hello");
        });
    }
}
