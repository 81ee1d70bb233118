//! `shipimg diff`: what is different between two trees of files, or what each layer of an image does.
//!
//! An image is unpacked into a scratch folder for it, and so is a tar; a file with a filesystem is
//! mounted, read-only and where nobody else sees it. Content is compared, not guessed from times. Of two
//! files whose trees are equal the first byte is told that is not, and what lies there.

use super::back::{Error, Owned, against};
use super::commit::Files;
use super::table::Format;
use super::target::{self, Target};
use super::{Context, Result};
use crate::bundle::{Origin, Unpacked};
use crate::disk::explain::{self, Spot};
use crate::layer::{self, Options, Owner, Owners, Placing};
use crate::oci::{Digest, Image, Platform};
use crate::rootfs;
use crate::store::{Scratch, Store};
use crate::sys::dir::Dir;
use crate::sys::mount::Mount;
use crate::sys::sandbox::private_mounts;
use crate::sys::userns::UserIds;
use crate::tree::diff::{Change, changes};
use crate::tree::mtree::Manifest;
use crate::tree::{Kind, Node, Tree, TreePath};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An image, a folder, a bundle, a container, a tar, or a file with a filesystem (ext4, btrfs,
    /// squashfs, erofs)
    #[arg(value_name = "A")]
    old: String,
    /// Another [default: A is compared with the image that it was made from]
    #[arg(value_name = "B", conflicts_with = "layers")]
    new: Option<String>,
    /// Show for each layer of the image A what it adds, changes and deletes
    #[arg(long)]
    layers: bool,
    /// Show files of which only the time of modification is different, too
    #[arg(long)]
    times: bool,
    /// Of an index take this image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// One tree to compare.
#[derive(Default)]
struct Side {
    root: PathBuf,
    /// The image that it was made from.
    image: Option<Digest>,
    /// What its files cannot tell, where it was unpacked for this.
    owners: Option<Arc<Owners>>,
    /// The file that it was mounted from.
    file: Option<PathBuf>,
    _mount: Option<Mount>,
    _scratch: Option<Scratch>,
}

impl Side {
    fn owned(&self) -> Owned<'_> {
        (&self.root, self.owners.as_deref())
    }
}

/// Changes from one tree to another.
struct Found {
    changes: BTreeMap<TreePath, Change>,
    old: Tree,
    new: Tree,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let mut out = std::io::stdout().lock();
        if self.layers {
            let rows = self.by_layer(&store)?;
            match self.format {
                Format::Table => {
                    for (layer, found) in &rows {
                        writeln!(out, "layer {layer}: {}", found.summary())?;
                        found.print(&mut out)?;
                    }
                }
                Format::Json => {
                    let rows = rows.iter().map(|(l, f)| json!({"layer": l, "changes": f.json()}));
                    writeln!(out, "{:#}", Value::from(rows.collect::<Vec<_>>()))?;
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        let a = self.side(context, &store, &self.old)?;
        let (old, new) = if let Some(b) = &self.new {
            (a, self.side(context, &store, b)?)
        } else {
            let image = a.image.as_ref().ok_or_else(|| Error::NoImage(self.old.clone()))?;
            (unpacked(&store, &store.image(&store.by_digest(image)?, &self.platform())?)?, a)
        };
        let files = (old.file.clone(), new.file.clone());
        let (mut changes, old, new) = against(new.owned(), old.owned(), self.times)?;
        if files != (None, None) {
            changes.retain(|path, _| !is_of_ext(path, &old, &new));
        }
        let found = Found { changes, old, new };
        let first = match &files {
            (Some(a), Some(b)) if found.changes.is_empty() => first_difference(a, b)?.map(|at| (a, at)),
            _ => None,
        };
        let bytes =
            first.map(|(a, at)| File::open(a).map(|file| (at, explain::at(&file, at)))).transpose()?;
        match self.format {
            Format::Table => {
                found.print(&mut out)?;
                if let Some((at, spot)) = bytes {
                    let spot = spot.map_or_else(String::new, |spot| format!(": {spot}"));
                    say!("all files are equal, the bytes are not: from byte {at} on{spot}");
                }
            }
            Format::Json => writeln!(out, "{:#}", Value::from([found.json(), bytes_json(bytes)].concat()))?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn platform(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }

    /// The tree that `word` means.
    fn side(&self, context: &Context, store: &Store, word: &str) -> Result<Side> {
        if !word.contains('/')
            && let Some(files) = Files::named(context, store, word)?
        {
            return Ok(files.into());
        }
        match target::find(store, word)? {
            Target::Named(bundle) => Ok(Files::of(&bundle)?.into()),
            Target::Folder(folder) => {
                let image = Unpacked::read(&folder)?.map(|u| u.image);
                Ok(Side { root: folder.join("rootfs"), image, ..Side::default() })
            }
            Target::Origin(Origin::Directory(root)) => Ok(Side { root, ..Side::default() }),
            Target::Origin(Origin::File(file)) => of_file(store, word, file),
            Target::Origin(Origin::Image(..)) => unpacked(store, &self.image(store, word)?),
        }
    }

    fn image(&self, store: &Store, word: &str) -> Result<Image> {
        Ok(store.image(&store.find(&word.parse()?)?.descriptor, &self.platform())?)
    }

    /// What each layer of the image does, the lowest first.
    fn by_layer(&self, store: &Store) -> Result<Vec<(Digest, Found)>> {
        let image = self.image(store, &self.old)?;
        let lease = store.lease()?;
        lease.hold(&image.descriptor.digest)?;
        let scratch = store.scratch_aside()?;
        let root = scratch.path().join("rootfs");
        std::fs::create_dir(&root)?;
        let mut before = Manifest::default();
        let mut rows = Vec::new();
        for (i, layer) in image.layers.iter().enumerate() {
            layer::apply_layer(store, layer, &root, i == 0, &Options::default())?;
            let after = layer::manifest(&root, Some(&before), &Options::default())?;
            if i == 0 {
                // Every image has a root.
                before.tree.extend(after.tree.first_key_value().map(|(p, n)| (p.clone(), n.clone())));
            }
            // Without digests are only files of mostly holes.
            let changes = changes(&before.tree, &after.tree, self.times, &mut |_, a, b| {
                Ok::<_, layer::Error>(a.inode == b.inode)
            })?;
            let found = Found { changes, old: before.tree, new: after.tree.clone() };
            rows.push((layer.descriptor.digest.clone(), found));
            before = after;
        }
        Ok(rows)
    }
}

/// The image's files, unpacked into a scratch folder.
fn unpacked(store: &Store, image: &Image) -> Result<Side> {
    let lease = store.lease()?;
    lease.hold(&image.descriptor.digest)?;
    let scratch = store.scratch_aside()?;
    let root = scratch.path().join("rootfs");
    let owners = Some(layer::unpack_owned(store, image, &root)?);
    Ok(Side { root, owners, _scratch: Some(scratch), ..Side::default() })
}

/// The files of the filesystem in `file`, or of the tar that it is.
fn of_file(store: &Store, word: &str, file: PathBuf) -> Result<Side> {
    let scratch = store.scratch_aside()?;
    let root = scratch.path().join("rootfs");
    std::fs::create_dir(&root)?;
    // Mounts made from here on are seen by no other process and end with this one.
    private_mounts()?;
    let mount = match rootfs::mount_file(&file, &root) {
        Ok(mount) => Some(mount),
        Err(rootfs::Error::NotAnImage(_)) => {
            unpack_tar(store, word, &file, &root)?;
            None
        }
        Err(e) => return Err(e.into()),
    };
    Ok(Side { root, file: Some(file), _mount: mount, _scratch: Some(scratch), ..Side::default() })
}

/// Unpacks a tar, compressed or not.
fn unpack_tar(store: &Store, word: &str, file: &Path, root: &Path) -> Result<()> {
    let limits = *store.limits();
    let mut start = [0; 512];
    let n = fill(&mut File::open(file)?, &mut start)?;
    let compression = layer::compression_of(&start[..n]);
    let mut decoder = layer::Decoder::new(File::open(file)?, compression, limits.zstd_window_log)?;
    let read = fill(&mut decoder, &mut start).unwrap_or(0);
    if start[..read].get(257..262) != Some(b"ustar") {
        return Err(Error::NoTree(word.to_string()).into());
    }
    let placing = Placing { owner: Owner::Kept(UserIds::default()), limits };
    layer::place(File::open(file)?, compression, &Dir::open(root)?, &placing)?;
    Ok(())
}

/// Whether a difference is what ext2 to ext4 have for themselves.
fn is_of_ext(path: &TreePath, old: &Tree, new: &Tree) -> bool {
    let is_dir = |tree: &Tree| tree.get(path).is_none_or(|node| node.kind == Kind::Directory);
    path.as_bytes() == b"lost+found" && is_dir(old) && is_dir(new)
}

/// What is different where all files are equal.
fn bytes_json(bytes: Option<(u64, Option<Spot>)>) -> Vec<Value> {
    let row = |(offset, spot): (u64, Option<Spot>)| {
        let spot = spot.unwrap_or_default();
        let partition = spot.partition.map(|(number, name)| json!({"number": number, "name": name}));
        let what = Some(spot.what).filter(|what| !what.is_empty());
        json!({"change": "bytes", "offset": offset, "partition": partition, "what": what,
            "inode": spot.inode, "path": spot.path})
    };
    bytes.map(row).into_iter().collect()
}

/// Where two files begin to differ: at the end of the shorter one at the latest.
fn first_difference(a: &Path, b: &Path) -> Result<Option<u64>> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut one, mut two) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    let mut at = 0;
    loop {
        let (n, m) = (fill(&mut a, &mut one)?, fill(&mut b, &mut two)?);
        let common = n.min(m);
        let differs = one[..common].iter().zip(&two[..common]).position(|(x, y)| x != y);
        if let Some(place) = differs.or_else(|| (n != m).then_some(common)) {
            return Ok(Some(at + place as u64));
        }
        if n == 0 {
            return Ok(None);
        }
        at += n as u64;
    }
}

/// Reads until `buffer` is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

impl From<Files> for Side {
    fn from(files: Files) -> Self {
        Self { root: files.root, image: files.image, ..Self::default() }
    }
}

impl Found {
    fn summary(&self) -> String {
        let count = |f: &dyn Fn(&Change) -> bool| self.changes.values().filter(|c| f(c)).count();
        format!(
            "{} added, {} changed, {} deleted",
            count(&|c| *c == Change::Added),
            count(&|c| matches!(c, Change::Changed(_))),
            count(&|c| *c == Change::Deleted)
        )
    }

    fn print(&self, out: &mut impl Write) -> Result<()> {
        for (path, change) in &self.changes {
            let size = |tree: &Tree| tree.get(path).map_or(0, |n| n.size);
            match change {
                Change::Added => writeln!(out, "A {path} {}", size(&self.new))?,
                Change::Deleted => writeln!(out, "D {path} {}", size(&self.old))?,
                Change::Changed(what) => {
                    let what: Vec<_> = what.iter().map(|a| a.name()).collect();
                    let (old, new) = (size(&self.old), size(&self.new));
                    writeln!(out, "C {path} {old} -> {new} {}", what.join(","))?;
                }
            }
        }
        Ok(())
    }

    fn json(&self) -> Vec<Value> {
        let rows = self.changes.iter().map(|(path, change)| {
            let (old, new) = (self.old.get(path), self.new.get(path));
            let (word, what) = match change {
                Change::Added => ("added", Vec::new()),
                Change::Deleted => ("deleted", Vec::new()),
                Change::Changed(what) => ("changed", what.iter().map(|a| a.name()).collect()),
            };
            let size = |n: Option<&Node>| n.map(|n| n.size);
            json!({"path": path.to_string(), "change": word, "what": what,
                "type": new.or(old).map(|n| type_name(&n.kind)), "oldSize": size(old), "size": size(new)})
        });
        rows.collect()
    }
}

const fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::File | Kind::Link(_) => "file",
        Kind::Directory => "dir",
        Kind::Symlink(_) => "link",
        Kind::Char(..) => "char",
        Kind::Block(..) => "block",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}
