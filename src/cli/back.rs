//! What the commands share that make a new image of an old one.
//!
//! All of them read the image for one platform, edit its documents, put new blobs into the store
//! under a lease, and give the result its name at the end.

use super::import::source_date;
use super::{Context, Result};
use crate::layer::{self, Coding, Decoder, Owners, Record, TarWriter, WriteOptions};
use crate::oci::{Compression, Descriptor, Edit, Image, Name, Platform, Reference, Step, rfc3339};
use crate::rootfs::parent;
use crate::store::{Exceeded, Lease, Store};
use crate::tree::diff::{Change, Delta, changes};
use crate::tree::mtree::{Malformed, Manifest};
use crate::tree::{Refusal, Tree, TreePath};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why no image can be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder that `unpack` has not made.
    #[error("{} was not made by unpack: no shipimg.json in it", .0.display())]
    NotUnpacked(PathBuf),
    /// A bundle of something else than an image.
    #[error("{0} was not made from an image of the store")]
    NoImage(String),
    /// A manifest of files that cannot be read.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Malformed,
    },
    /// A path in the image that cannot be.
    #[error("path {path:?}: {source}")]
    Path {
        /// As typed.
        path: PathBuf,
        /// What is wrong.
        source: Refusal,
    },
    /// An image without a name keeps none.
    #[error("{0} has no name: give one with --tag")]
    NoName(String),
    /// Something that has no tree of files.
    #[error("{0} is a file: wanted an image, a folder, a bundle or a container")]
    NoTree(String),
}

/// Options of the commands that write a layer.
#[derive(Debug, Clone, clap::Args)]
pub struct Layering {
    /// How to compress the layer: none, gzip[:1-9] or zstd[:1-22] [default: gzip; a tar that is
    /// compressed stays as it is]
    #[arg(long, value_name = "FORMAT")]
    compression: Option<Coding>,
    #[command(flatten)]
    pub stepping: Stepping,
}

/// Options for the history.
#[derive(Debug, Clone, clap::Args)]
pub struct Stepping {
    /// Who made the change, for the history
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
    /// A comment for the history
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Of an index take this image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

/// The name that a result gets.
#[derive(Debug, Clone, clap::Args)]
pub struct Tagging {
    /// The new image's name, or only its tag [default: the old image's name]
    #[arg(long, value_name = "NAME|TAG")]
    tag: Option<String>,
}

impl Tagging {
    /// The new name, in the repository of `old` where only a tag was given.
    fn name(&self, old: Option<&Reference>, what: &Name) -> Result<Reference> {
        match (&self.tag, old) {
            (None, Some(old)) => Ok(old.clone()),
            (None, None) => Err(Error::NoName(what.as_str().to_string()).into()),
            (Some(tag), Some(old)) if !tag.contains(['/', ':']) => Ok(old.tagged(tag)?),
            (Some(name), _) => Ok(name.parse()?),
        }
    }
}

/// When it is: `SOURCE_DATE_EPOCH`, or now.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = source_date().and_then(|s| u64::try_from(s).ok()).map_or(since, Duration::from_secs);
    rfc3339(time.as_secs(), time.subsec_nanos())
}

/// How trees are written.
pub fn write_options(owners: Option<Arc<Owners>>) -> WriteOptions {
    WriteOptions { latest: source_date(), owners, ..WriteOptions::default() }
}

/// What is known of a directory as it was.
pub enum Known {
    /// All, with digests.
    Manifest(Manifest),
    /// Which names there were, and when.
    Record(Record),
    /// Nothing.
    Nothing,
}

/// An image being changed.
pub struct Work {
    /// Its store.
    pub store: Store,
    lease: Lease,
    /// The image as it was.
    pub image: Image,
    /// Its documents.
    pub edit: Edit,
}

impl Work {
    /// Begins with the image `name`; gives the name of the result.
    pub fn named(
        context: &Context,
        name: &Name,
        tagging: &Tagging,
        stepping: &Stepping,
    ) -> Result<(Self, Reference)> {
        let store = context.store()?;
        let entry = store.find(name)?;
        let new = tagging.name(entry.reference.as_ref(), name)?;
        Ok((Self::of(store, &entry.descriptor, stepping)?, new))
    }

    /// Begins with the image that `descriptor` leads to.
    pub fn of(store: Store, descriptor: &Descriptor, stepping: &Stepping) -> Result<Self> {
        let lease = store.lease()?;
        lease.hold(&descriptor.digest)?;
        let platform = stepping.platform.clone().unwrap_or_else(Platform::host);
        let image = store.image(descriptor, &platform)?;
        let edit = store.edit(&image)?;
        Ok(Self { store, lease, image, edit })
    }

    /// The step that `command` is in the history.
    pub fn step(command: &str, stepping: &Stepping) -> Step {
        Step {
            created: now(),
            created_by: format!("shipimg {command}"),
            author: stepping.author.clone(),
            comment: stepping.comment.clone(),
        }
    }

    /// Puts the layer that `write` writes on top.
    pub fn add_layer(
        &mut self,
        command: &str,
        options: &Layering,
        write: impl FnOnce(&mut TarWriter<&mut dyn Write>) -> layer::Result<()>,
    ) -> Result<()> {
        let (blob, diff_id) =
            layer::store_layer(&self.lease, options.compression.unwrap_or_default(), |out| {
                let mut tar = TarWriter::new(out);
                write(&mut tar)?;
                tar.finish().map(drop).map_err(layer::Error::Output)
            })?;
        let step = Self::step(command, &options.stepping);
        self.edit.add_layer(&blob, &diff_id, &step);
        Ok(())
    }

    /// The same for a tar that there is already, compressed or not, which is checked. Where no
    /// compression is asked for, a compressed one is taken byte for byte.
    pub fn add_tar(&mut self, command: &str, options: &Layering, path: &Path) -> Result<()> {
        let read = |source| crate::store::Error::Io { action: "read", path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(read)?;
        let compression = sniff(&mut file).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        let (limits, lease) = (*self.store.limits(), &self.lease);
        let (blob, diff_id) = match options.compression {
            None if compression != Compression::None => {
                layer::keep_layer(&self.store, lease, &mut file, path, compression)?
            }
            coding => {
                let tar = Decoder::new(file, compression, limits.zstd_window_log).map_err(read)?;
                layer::store_layer(lease, coding.unwrap_or_default(), |out| {
                    let copied = io::copy(&mut limits.guard(tar, size), out).map(drop);
                    copied.map_err(|e| match e.downcast::<Exceeded>() {
                        Ok(source) => layer::Error::File { path: path.to_path_buf(), source },
                        Err(e) => layer::Error::Output(e),
                    })
                })?
            }
        };
        let chain_id = diff_id.clone();
        let layer = crate::oci::Layer { descriptor: blob, diff_id, chain_id };
        layer::check_layer(&self.store, &layer)?;
        let step = Self::step(command, &options.stepping);
        self.edit.add_layer(&layer.descriptor, &layer.diff_id, &step);
        Ok(())
    }

    /// Unpacks the image as it was into the new folder `dir`; gives the owners that its files
    /// could not get.
    pub fn unpack(&self, dir: &Path) -> Result<Arc<Owners>> {
        Ok(layer::unpack_owned(&self.store, &self.image, dir)?)
    }

    /// Puts what is different in the directory `root` on top, against what is `known` or, without
    /// that, the image's own files. Where nothing is different there is no layer.
    pub fn add_difference(
        &mut self,
        command: &str,
        options: &Layering,
        root: &Path,
        known: &Known,
    ) -> Result<()> {
        let found = match known {
            Known::Manifest(known) => Some(against_manifest(root, known)?),
            Known::Record(record) => {
                record.changes(root)?.map(|(f, n)| (Delta::of(&f, &n), Owners::default()))
            }
            Known::Nothing => None,
        };
        let (delta, owners) = if let Some(found) = found {
            found
        } else if let Some(base) = parent(&self.store, &self.image)? {
            let (found, old, new) = against((root, None), (&base, None), true)?;
            (Delta::of(&found, &new), Owners::of(&old))
        } else {
            let scratch = self.store.scratch()?;
            let base = scratch.path().join("rootfs");
            let owners = self.unpack(&base)?;
            let (found, old, new) = against((root, None), (&base, Some(&owners)), true)?;
            (Delta::of(&found, &new), Owners::of(&old))
        };
        if delta.is_empty() {
            say!("nothing is different: no layer was added");
            return Ok(());
        }
        self.add_layer(command, options, |tar| {
            layer::write_delta(root, &delta, tar, &write_options(Some(Arc::new(owners)))).map(drop)
        })
    }

    /// Puts the new image into the store, names it and says so.
    pub fn publish(self, name: &Reference) -> Result<()> {
        let descriptor = self.lease.put_image(self.edit)?;
        self.store.tag(name, &descriptor)?;
        writeln!(std::io::stdout(), "{name} {}", descriptor.digest)?;
        Ok(())
    }
}

/// What is different in `root` from what `known` says was there; whose files those are that
/// cannot tell.
fn against_manifest(root: &Path, known: &Manifest) -> Result<(Delta, Owners)> {
    let owners = Owners::of(&known.tree);
    let new = layer::scan(root, Some(known), Some(&owners))?;
    let found = changes(&known.tree, &new, true, &mut |path, before, now| {
        // Not changed since, whatever is in it.
        if before.inode.is_some() && before.inode == now.inode && before.sha256.is_none() {
            return Ok(true);
        }
        Ok::<_, layer::Error>(before.sha256.is_some() && layer::hash_file(root, path)? == before.sha256)
    })?;
    Ok((Delta::of(&found, &new), owners))
}

/// A directory and the owners that its files could not get, where those are known.
pub type Owned<'a> = (&'a Path, Option<&'a Owners>);

/// What is different in `root` from the tree in `base`, and both trees; see [`changes`]. Files that
/// cannot tell their owner have that which the other side knows.
pub fn against(
    (root, owners): Owned,
    (base, base_owners): Owned,
    times: bool,
) -> Result<(BTreeMap<TreePath, Change>, Tree, Tree)> {
    let (old, new) = if base_owners.is_none() && owners.is_some() {
        let new = layer::scan(root, None, owners)?;
        (layer::scan(base, None, Some(&Owners::of(&new)))?, new)
    } else {
        let old = layer::scan(base, None, base_owners)?;
        let new = layer::scan(root, None, owners.or(Some(&Owners::of(&old))))?;
        (old, new)
    };
    let found = changes(&old, &new, times, &mut |path, _, _| layer::same_content(base, root, path))?;
    Ok((found, old, new))
}

/// Reads a manifest of files.
pub fn read_manifest(path: &Path) -> Result<Manifest> {
    let read = std::fs::read(path).map_err(|source| crate::store::Error::Io {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    let malformed = |source| Error::Manifest { path: path.to_path_buf(), source };
    Ok(Manifest::parse(&read).map_err(malformed)?)
}

/// The path in an image that was typed as `path`; a slash at its begin is the root.
pub fn image_path(path: &Path) -> Result<TreePath> {
    use std::os::unix::ffi::OsStrExt;
    let parsed = TreePath::parse_link(path.as_os_str().as_bytes());
    Ok(parsed.map_err(|source| Error::Path { path: path.to_path_buf(), source })?)
}

/// The compression by which a file begins.
pub fn sniff(file: &mut (impl std::io::Read + std::io::Seek)) -> std::io::Result<Compression> {
    let mut start = [0; 4];
    let mut filled = 0;
    while filled < start.len() {
        match file.read(&mut start[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    file.rewind()?;
    Ok(layer::compression_of(&start[..filled]))
}
