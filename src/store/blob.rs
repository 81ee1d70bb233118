//! Blobs: verified reading, and writing that publishes whole blobs only.

use super::hashed::HashedFile;
use super::incoming::{Following, Growing};
use super::{Error, Result, Store, io_error};
use crate::oci::{Descriptor, Digest, Hasher, document_type};
use crate::sys::Call;
use rustix::fs::FlockOperation;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How much is read at once where a file is only hashed, in bytes.
const CHUNK: usize = 256 << 10;

/// Bytes that are not what their descriptor promises.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// More bytes than promised.
    #[error("{digest} is longer than its {size} bytes")]
    Long {
        /// The promised digest.
        digest: Digest,
        /// The promised size in bytes.
        size: u64,
    },
    /// Fewer bytes than promised.
    #[error("{digest} ended after {got} of {size} bytes")]
    Short {
        /// The promised digest.
        digest: Digest,
        /// The promised size in bytes.
        size: u64,
        /// How many came.
        got: u64,
    },
    /// The right number of other bytes.
    #[error("content has digest {got}, wanted {digest}")]
    Digest {
        /// The promised digest.
        digest: Digest,
        /// The digest of what came.
        got: Digest,
    },
}

impl From<VerifyError> for io::Error {
    fn from(e: VerifyError) -> Self {
        Self::new(io::ErrorKind::InvalidData, e)
    }
}

/// The store's error for an I/O error that may carry a [`VerifyError`].
pub(super) fn unwrap_verify(action: &'static str, path: &Path, e: io::Error) -> Error {
    match e.downcast::<VerifyError>() {
        Ok(v) => Error::Verify(v),
        Err(source) => Error::Io { action, path: path.to_path_buf(), source },
    }
}

/// A reader that fails with its last bytes when size or digest are not those of the descriptor,
/// so that no caller can forget to check. It never gives more than the promised bytes.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    hasher: Option<Hasher>,
    want: Digest,
    size: u64,
    seen: u64,
}

impl<R: Read> Verified<R> {
    /// Reads `inner`, which must hold exactly what `descriptor` says.
    pub fn new(inner: R, descriptor: &Descriptor) -> Self {
        Self {
            inner,
            hasher: Some(Hasher::new(descriptor.digest.algorithm())),
            want: descriptor.digest.clone(),
            size: descriptor.size,
            seen: 0,
        }
    }

    fn check_end(&mut self) -> io::Result<()> {
        if self.seen < self.size {
            return Err(
                VerifyError::Short { digest: self.want.clone(), size: self.size, got: self.seen }.into()
            );
        }
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let got = hasher.finish();
        if got == self.want {
            return Ok(());
        }
        Err(VerifyError::Digest { digest: self.want.clone(), got }.into())
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(buf)?;
        if n == 0 {
            self.check_end()?;
            return Ok(0);
        }
        self.seen += n as u64;
        if self.seen > self.size {
            return Err(VerifyError::Long { digest: self.want.clone(), size: self.size }.into());
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..n]);
        }
        // Already here, for readers that know the length and never ask for the end.
        if self.seen == self.size && self.hasher.is_some() {
            if self.inner.read(&mut [0])? > 0 {
                return Err(VerifyError::Long { digest: self.want.clone(), size: self.size }.into());
            }
            self.check_end()?;
        }
        Ok(n)
    }
}

/// A blob of the store, verified while it is read.
#[derive(Debug)]
pub struct BlobReader(Source);

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one lives per blob that is read")]
enum Source {
    There(Verified<File>),
    /// Its writer verifies it.
    Coming(Following),
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::There(file) => file.read(buf),
            Source::Coming(blob) => blob.read(buf),
        }
    }
}

/// What [`Store::ingest`] found.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one lives per download")]
pub enum Ingest {
    /// The blob is in the store already.
    Present,
    /// It has to be written.
    Missing(BlobWriter),
}

/// Writes a blob under `ingest/`; [`BlobWriter::commit`] verifies and publishes it.
///
/// It holds the blob's lock: other processes that want the same blob wait for it. When
/// dropped without a commit the bytes stay, and the next writer goes on from them.
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    path: PathBuf,
    target: PathBuf,
    descriptor: Descriptor,
    hasher: Hasher,
    len: u64,
    /// Where it is read as it comes.
    growing: Option<Growing>,
}

impl BlobWriter {
    /// How many bytes are there already, for a Range request.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has been written yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Throws away what is there and starts again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn restart(&mut self) -> Result<()> {
        let truncated = self.file.set_len(0).and_then(|()| self.file.rewind());
        io_error("truncate", &self.path, truncated)?;
        if self.len > 0 {
            self.growing = None;
        }
        self.hasher = Hasher::new(self.descriptor.digest.algorithm());
        self.len = 0;
        Ok(())
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Error::Verify`] where they are more than the descriptor says, [`Error::Io`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(|e| unwrap_verify("write", &self.path, e))
    }

    /// Verifies size and digest and moves the blob to its place; what is wrong is removed.
    ///
    /// # Errors
    /// [`Error::Verify`], [`Error::Io`].
    pub fn commit(self) -> Result<()> {
        let Self { file, path, target, descriptor, hasher, len, growing } = self;
        let digest = descriptor.digest;
        let fail = |e: VerifyError| {
            let _ = fs::remove_file(&path);
            Err(Error::Verify(e))
        };
        if len < descriptor.size {
            return fail(VerifyError::Short { digest, size: descriptor.size, got: len });
        }
        let got = hasher.finish();
        if got != digest {
            return fail(VerifyError::Digest { digest, got });
        }
        io_error("chmod", &path, file.set_permissions(fs::Permissions::from_mode(0o444)))?;
        io_error("publish", &target, fs::rename(&path, &target))?;
        if let Some(growing) = growing {
            growing.whole();
        }
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.len + buf.len() as u64 > self.descriptor.size {
            let e = VerifyError::Long { digest: self.descriptor.digest.clone(), size: self.descriptor.size };
            return Err(e.into());
        }
        let n = self.file.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.len += n as u64;
        if let Some(growing) = &self.growing {
            growing.reached(self.len);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// Where the blob lies.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Whether the blob is there with its size.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.size(&descriptor.digest)? == Some(descriptor.size))
    }

    /// Opens a blob; the reader fails where it is not what `descriptor` says. A handle of
    /// [`Store::awaiting`] waits for one that is not there yet.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::Io`].
    pub fn blob(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        if let Some(blob) = self.coming(descriptor)? {
            return Ok(BlobReader(Source::Coming(blob)));
        }
        let path = self.blob_path(&descriptor.digest);
        match File::open(&path) {
            Ok(f) => Ok(BlobReader(Source::There(Verified::new(f, descriptor)))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoBlob { digest: descriptor.digest.clone(), root: self.root().to_path_buf() })
            }
            Err(e) => io_error("open", &path, Err(e)),
        }
    }

    /// Starts to write the blob of `descriptor`, or finds that it is there. Waits while
    /// another process writes it.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Sys`].
    pub fn ingest(&self, descriptor: &Descriptor) -> Result<Ingest> {
        let digest = &descriptor.digest;
        let path = self.root().join("shipimg/ingest").join(format!(
            "{}-{}",
            digest.algorithm().as_str(),
            digest.hex()
        ));
        let target = self.blob_path(digest);
        if let Some(dir) = target.parent() {
            io_error("create", dir, fs::create_dir_all(dir))?;
        }
        loop {
            if self.has(descriptor)? {
                return Ok(Ingest::Present);
            }
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = io_error("open", &path, open)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)
                .call(|| format!("flock({})", path.display()))?;
            // The file that was locked may have been published or removed while this waited.
            if !same_file(&file, &path) {
                continue;
            }
            let mut writer = BlobWriter {
                file,
                path,
                target,
                descriptor: descriptor.clone(),
                hasher: Hasher::new(digest.algorithm()),
                len: 0,
                growing: None,
            };
            writer.rehash()?;
            if let (true, Some(incoming)) = (writer.is_empty(), &self.incoming) {
                let growing = Growing::begin(incoming, digest, &writer.file);
                writer.growing = Some(io_error("duplicate", &writer.path, growing)?);
            }
            return Ok(Ingest::Missing(writer));
        }
    }

    /// Puts a small blob into the store.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Sys`].
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, bytes);
        self.put_as(&descriptor, bytes)?;
        Ok(descriptor)
    }

    /// Puts the small blob that `descriptor` describes into the store.
    ///
    /// # Errors
    /// [`Error::Verify`] where `bytes` are others, [`Error::Io`], [`Error::Sys`].
    pub fn put_as(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        let Ingest::Missing(mut writer) = self.ingest(descriptor)? else { return Ok(()) };
        writer.restart()?;
        writer.append(bytes)?;
        writer.commit()
    }
}

impl Store {
    /// Puts what `write` writes, of whatever size and digest, into the store.
    ///
    /// # Errors
    /// [`Error::Io`], also for what `write` fails with; [`Error::Verify`], [`Error::Sys`].
    pub fn put_with(
        &self,
        media_type: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Descriptor> {
        self.put_known(media_type, write, |_| Ok(()))
    }

    /// The same; `known` is called with the digest before the blob is published.
    pub(super) fn put_known(
        &self,
        media_type: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
        known: impl FnOnce(&Digest) -> Result<()>,
    ) -> Result<Descriptor> {
        let scratch = self.scratch()?;
        let path = scratch.path().join("blob");
        let file = io_error("create", &path, File::create(&path))?;
        let mut out = HashedFile::new(file);
        let written = write(&mut out).and_then(|()| out.finish());
        let (digest, size) = written.map_err(|e| unwrap_verify("write", &path, e))?;
        let descriptor = Descriptor::new(media_type, digest, size);
        known(&descriptor.digest)?;
        self.publish(&path, &descriptor.digest)?;
        Ok(descriptor)
    }

    /// Moves the file `path` of a scratch folder, whose content has this digest, to its place.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn publish(&self, path: &Path, digest: &Digest) -> Result<()> {
        let target = self.blob_path(digest);
        if let Some(dir) = target.parent() {
            io_error("create", dir, fs::create_dir_all(dir))?;
        }
        io_error("chmod", path, fs::set_permissions(path, fs::Permissions::from_mode(0o444)))?;
        io_error("publish", &target, fs::rename(path, &target))
    }

    /// The descriptor of the manifest or index `digest`, which has to be there.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::Io`], those of [`Store::document`].
    pub fn by_digest(&self, digest: &Digest) -> Result<Descriptor> {
        let missing = || Error::NoBlob { digest: digest.clone(), root: self.root().to_path_buf() };
        let size = self.size(digest)?.ok_or_else(missing)?;
        let bytes = self.document(&Descriptor::new("", digest.clone(), size))?;
        Ok(Descriptor::new(document_type("", &bytes), digest.clone(), size))
    }

    /// The size in bytes of the blob of this digest; none where it is not there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.blob_path(digest);
        match fs::symlink_metadata(&path) {
            Ok(m) => Ok(m.is_file().then_some(m.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => io_error("stat", &path, Err(e)),
        }
    }
}

impl BlobWriter {
    /// Takes over what an earlier writer left.
    fn rehash(&mut self) -> Result<()> {
        let mut buf = vec![0; CHUNK];
        loop {
            let n = io_error("read", &self.path, self.file.read(&mut buf))?;
            if n == 0 {
                return Ok(());
            }
            self.hasher.update(&buf[..n]);
            self.len += n as u64;
            if self.len > self.descriptor.size {
                return self.restart();
            }
        }
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |m: fs::Metadata| (m.dev(), m.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => id(a) == id(b),
        _ => false,
    }
}

/// Replaces `path` by a file with `bytes`, whole or not at all.
pub(super) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file =
        io_error("create a file in", dir, tempfile::Builder::new().prefix(".new-").tempfile_in(dir))?;
    io_error("write", path, file.write_all(bytes))?;
    io_error("chmod", path, file.as_file().set_permissions(fs::Permissions::from_mode(0o644)))?;
    io_error("replace", path, file.persist(path).map(drop).map_err(|e| e.error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn verified_reader_fails_at_its_end() {
        let d = Descriptor::of("x", b"hello");
        let read = |bytes: &[u8]| {
            let mut out = Vec::new();
            Verified::new(bytes, &d).read_to_end(&mut out).map(|_| out).map_err(|e| e.to_string())
        };
        assert_eq!(read(b"hello").unwrap(), b"hello");
        assert!(read(b"hell").unwrap_err().ends_with("ended after 4 of 5 bytes"));
        assert!(read(b"hello!").unwrap_err().ends_with("is longer than its 5 bytes"));
        assert!(read(b"hallo").unwrap_err().starts_with("content has digest"));
    }

    #[test]
    fn writer_resumes_and_refuses() {
        let (_dir, store) = store();
        let d = Descriptor::of("x", b"hello");
        let Ingest::Missing(mut w) = store.ingest(&d).unwrap() else { panic!() };
        w.write_all(b"hel").unwrap();
        drop(w);
        let Ingest::Missing(mut w) = store.ingest(&d).unwrap() else { panic!() };
        assert_eq!(w.len(), 3);
        assert!(w.write_all(b"lo and more").is_err());
        w.write_all(b"lo").unwrap();
        w.commit().unwrap();
        assert!(matches!(store.ingest(&d).unwrap(), Ingest::Present));
        assert_eq!(store.document(&d).unwrap(), b"hello");

        let d = Descriptor::of("x", b"other");
        let Ingest::Missing(mut w) = store.ingest(&d).unwrap() else { panic!() };
        w.write_all(b"wrong").unwrap();
        assert!(matches!(w.commit(), Err(Error::Verify(VerifyError::Digest { .. }))));
        assert!(!store.has(&d).unwrap());
        let Ingest::Missing(w) = store.ingest(&d).unwrap() else { panic!() };
        assert!(w.is_empty(), "nothing wrong is kept");
    }

    #[test]
    fn damaged_blob_is_noticed() {
        let (_dir, store) = store();
        let d = store.put("x", b"hello").unwrap();
        let path = store.blob_path(&d.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"hallo").unwrap();
        assert!(matches!(store.document(&d), Err(Error::Verify(_))));
    }
}
