//! `shipimg diff`: what is different between two trees of files, or what each layer of an image does.
//!
//! An image is unpacked into a scratch folder for it; a file with a filesystem is mounted, read-only
//! and where nobody else sees it. Content is compared, not guessed from times. Of two files whose trees
//! are equal the first byte is told that is not.

use super::back::{Error, Owned, against};
use super::commit::Files;
use super::table::Format;
use super::target::{self, Target};
use super::{Context, Result};
use crate::bundle::{Origin, Unpacked};
use crate::layer::{self, Options, Owners};
use crate::oci::{Digest, Image, Platform};
use crate::rootfs;
use crate::store::{Scratch, Store};
use crate::sys::mount::Mount;
use crate::sys::sandbox::private_mounts;
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
    /// An image, a folder, a bundle, a container, or a file with a filesystem (ext4, btrfs, squashfs, erofs)
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
        let (changes, old, new) = if files == (None, None) {
            against(new.owned(), old.owned(), self.times)?
        } else {
            by_content(&old, &new, self.times)?
        };
        let found = Found { changes, old, new };
        if let (true, Some(a), Some(b)) = (found.changes.is_empty(), &files.0, &files.1)
            && let Some(offset) = first_difference(a, b)?
        {
            say!("all files are equal, the bytes are not: from byte {offset} on");
        }
        match self.format {
            Format::Table => found.print(&mut out)?,
            Format::Json => writeln!(out, "{:#}", found.json())?,
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

/// The files of the filesystem in `file`.
fn of_file(store: &Store, word: &str, file: PathBuf) -> Result<Side> {
    let scratch = store.scratch_aside()?;
    let root = scratch.path().join("rootfs");
    std::fs::create_dir(&root)?;
    // Mounts made from here on are seen by no other process and end with this one.
    private_mounts()?;
    let mount = rootfs::mount_file(&file, &root).map_err(|e| match e {
        rootfs::Error::NotAnImage(_) => Error::NoTree(word.to_string()).into(),
        other => super::Error::from(other),
    })?;
    Ok(Side { root, file: Some(file), _mount: Some(mount), _scratch: Some(scratch), ..Side::default() })
}

/// As [`against`], where inodes tell nothing: in two images files of one number and time are others.
fn by_content(old: &Side, new: &Side, times: bool) -> Result<(BTreeMap<TreePath, Change>, Tree, Tree)> {
    let before = layer::scan(&old.root, None, old.owners.as_deref())?;
    let now = layer::scan(&new.root, None, new.owners.as_deref())?;
    let found = changes(&before, &now, times, &mut |path, _, _| {
        let [a, b] = [&old.root, &new.root].map(|root| root.join(path.as_path()));
        first_difference(&a, &b).map(|offset| offset.is_none())
    })?;
    Ok((found, before, now))
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
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
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

    fn json(&self) -> Value {
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
        rows.collect::<Vec<_>>().into()
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
