//! Blobs on their way in: one file each in the server's scratch folder, by an unguessable id.

use super::answer::{Code, Refusal};
use super::body;
use crate::oci::{Algorithm, Digest, Hasher};
use crate::store::{Scratch, Store};
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, mpsc};
use tokio::task::spawn_blocking;

/// How many uploads may be open at once.
const MAX_OPEN: usize = 1024;

/// How long an upload that nobody writes to is kept.
const KEEP: Duration = Duration::from_hours(1);

/// How long a request waits for its turn: more than another one takes to look at an upload.
const TURN: Duration = Duration::from_secs(1);

/// How many pieces of a body may wait for the disk.
const AHEAD: usize = 16;

/// The largest blob, in bytes.
const MAX_BLOB: u64 = 1 << 40;

/// All open uploads. The files are gone with the value.
#[derive(Debug)]
pub struct Uploads {
    scratch: Scratch,
    open: Mutex<HashMap<String, Session>>,
}

#[derive(Debug)]
struct Session {
    repository: String,
    upload: Arc<Turn<Upload>>,
}

/// An upload that this request alone writes to.
pub type Writing = OwnedMutexGuard<Upload>;

/// One blob on its way in.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    len: u64,
    touched: Instant,
}

impl Uploads {
    /// None open; their folder is made.
    pub fn new(store: &Store) -> crate::store::Result<Self> {
        Ok(Self { scratch: store.scratch()?, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts an upload to `repository`; gives its id.
    pub fn start(&self, repository: &str) -> Result<String, Refusal> {
        let id = random_id()?;
        let mut open = self.open();
        open.retain(|_, session| match session.upload.try_lock() {
            Ok(upload) if upload.touched.elapsed() > KEEP => {
                let _ = std::fs::remove_file(&upload.path);
                false
            }
            _ => true,
        });
        if open.len() >= MAX_OPEN {
            return Err(Refusal::new(Code::TooManyRequests, format!("{MAX_OPEN} uploads are open")));
        }
        let path = self.scratch.path().join(&id);
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let hasher = Hasher::new(Algorithm::Sha256);
        let upload = Upload { path, file, hasher, len: 0, touched: Instant::now() };
        let session = Session { repository: repository.to_string(), upload: Arc::new(Turn::new(upload)) };
        open.insert(id.clone(), session);
        Ok(id)
    }

    /// Takes the upload for one request. A second writer is refused; who only looks at it is
    /// waited for.
    pub async fn take(&self, repository: &str, id: &str) -> Result<Writing, Refusal> {
        let upload = {
            let open = self.open();
            let session = open.get(id).filter(|s| s.repository == repository);
            Arc::clone(&session.ok_or_else(unknown)?.upload)
        };
        tokio::time::timeout(TURN, upload.lock_owned()).await.map_err(|_| {
            Refusal::new(Code::BlobUploadInvalid, "another request is writing to this upload")
                .status(StatusCode::CONFLICT)
        })
    }

    /// Ends the upload; what it brought is removed, unless it has been published.
    pub fn end(&self, repository: &str, id: &str) -> Result<(), Refusal> {
        let mut open = self.open();
        if open.get(id).is_none_or(|s| s.repository != repository) {
            return Err(unknown());
        }
        open.remove(id);
        let _ = std::fs::remove_file(self.scratch.path().join(id));
        Ok(())
    }
}

fn unknown() -> Refusal {
    Refusal::new(Code::BlobUploadUnknown, "no such upload")
}

impl Upload {
    /// How many bytes are there.
    pub const fn len(&self) -> u64 {
        self.len
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Whatever a failed write left beyond `len` is overwritten by the next.
        self.file.write_all_at(bytes, self.len)?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        self.touched = Instant::now();
        Ok(())
    }

    /// Checks the digest, brings the bytes to disk and moves them to their place.
    pub fn publish(&self, store: &Store, digest: &Digest) -> Result<(), Refusal> {
        let got = self.digest(digest.algorithm())?;
        if got != *digest {
            return Err(Refusal::new(Code::DigestInvalid, format!("the content has digest {got}")));
        }
        self.file.set_len(self.len)?;
        // A blob is never sent twice: a crash must not leave one that is there but empty.
        self.file.sync_data()?;
        Ok(store.publish(&self.path, digest)?)
    }

    fn digest(&self, algorithm: Algorithm) -> io::Result<Digest> {
        if algorithm == Algorithm::Sha256 {
            return Ok(self.hasher.clone().finish());
        }
        let mut hasher = Hasher::new(algorithm);
        let mut piece = vec![0; 256 << 10];
        let mut at = 0;
        while at < self.len {
            let n = self.file.read_at(&mut piece, at)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hasher.update(&piece[..n]);
            at += n as u64;
        }
        Ok(hasher.finish())
    }
}

/// Adds what a client sends, at most `limit` bytes where it said how many. What came before the
/// body broke off stays.
pub async fn receive(mut upload: Writing, body: Body, limit: Option<u64>) -> Result<Writing, Refusal> {
    let end = upload.len.saturating_add(limit.unwrap_or(MAX_BLOB)).min(MAX_BLOB);
    let (pieces, mut queue) = mpsc::channel::<Bytes>(AHEAD);
    let writer = spawn_blocking(move || {
        while let Some(piece) = queue.blocking_recv() {
            if upload.len + piece.len() as u64 > end {
                let e = format!("more than {} bytes", end - upload.len);
                return Err(Refusal::new(Code::SizeInvalid, e).status(StatusCode::PAYLOAD_TOO_LARGE));
            }
            upload.append(&piece)?;
        }
        Ok(upload)
    });
    let sent = send(body, pieces).await;
    let upload = writer.await.map_err(|e| Refusal::internal(&e))??;
    sent.map(|()| upload)
}

async fn send(mut body: Body, pieces: mpsc::Sender<Bytes>) -> Result<(), Refusal> {
    while let Some(data) = body::next(&mut body).await? {
        if pieces.send(data).await.is_err() {
            // The writer has failed and says why; the client should come to read it.
            drop(pieces);
            body::drain(body).await;
            return Ok(());
        }
    }
    Ok(())
}

/// A UUID of version 4 (RFC 9562, 5.4) from the kernel's random numbers.
fn random_id() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    let n = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if n != bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}
