//! `shipimg unpack`: an image of the store, or with --pull of a registry, as a bundle: `rootfs/`
//! and `config.json`.
//!
//! The folder also gets `shipimg.json`, by which `repack` knows the image, and `shipimg.names`, by
//! which it knows what has not changed since; or where it is asked for `sha256_HEX.mtree`, a manifest
//! of the files, named after the image's digest.

use super::pulling::{Found, Pulling};
use super::{Context, Error, Result, tidily};
use crate::bundle::{self, RECORD, Unpacked};
use crate::layer::{self, Contents, Options, Owners};
use crate::oci::{Image, Name, Platform};
use crate::store::{self, Store};
use crate::sys::dir::Dir;
use crate::sys::workspace::Workspace;
use crate::sys::{self, Call, userns};
use crate::transfer::Platforms;
use crate::tree::mtree::Manifest;
use rustix::fs::{CWD, Mode};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// A folder that should be new has something in it.
#[derive(Debug, thiserror::Error)]
#[error("{} is not empty", .0.display())]
pub struct NotEmpty(PathBuf);

/// Arguments of `unpack`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a reference, the end of one, or a digest
    name: Name,
    /// The folder to make; it may exist if it is empty
    dir: PathBuf,
    /// For which platform, as os/arch[/variant] [default: the host's]
    #[arg(long)]
    platform: Option<Platform>,
    /// The folder is the root filesystem itself
    #[arg(long)]
    rootfs_only: bool,
    /// A directory of a layer keeps the link to a directory that a layer below has in its place
    #[arg(long)]
    keep_dirlinks: bool,
    /// Write a manifest of the files, into FILE or `sha256_HEX.mtree` in the folder; beside it
    /// with --rootfs-only
    #[arg(long, value_name = "mtree[:FILE]", value_parser = manifest_file)]
    manifest: Option<ManifestFile>,
    #[command(flatten)]
    pulling: Pulling,
}

/// Where a manifest goes; none for the usual name.
#[derive(Debug, Clone)]
struct ManifestFile(Option<PathBuf>);

fn manifest_file(text: &str) -> std::result::Result<ManifestFile, String> {
    match text.split_once(':') {
        None if text == "mtree" => Ok(ManifestFile(None)),
        Some(("mtree", file)) if !file.is_empty() => Ok(ManifestFile(Some(file.into()))),
        _ => Err("wanted mtree or mtree:FILE".to_string()),
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        // The workspace lies in a folder of the user's, where no later command may come to sweep.
        tidily(|| self.unpack(context))
    }

    fn unpack(&self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let dir = target(&self.dir)?;
        let found = store.find(&self.name).map_err(Error::from);
        let known = match &found {
            Ok(entry) => Found::Image(entry.reference.as_ref()),
            Err(e) => Found::failed(e),
        };
        let (_work, made) = if let Some(name) = self.pulling.wanted(self.name.as_str(), known) {
            let platforms = self.platform.clone().map_or(Platforms::Host, Platforms::One);
            self.pulling.fetch(&store, &name, platforms, |store, _, image| self.make(store, &image, &dir))?
        } else {
            let entry = found?;
            let lease = store.lease()?;
            lease.hold(&entry.descriptor.digest)?;
            let platform = self.platform.clone().unwrap_or_else(Platform::host);
            self.make(&store, &store.image(&entry.descriptor, &platform)?, &dir)?
        };
        // An empty folder is replaced; anything else that came meanwhile stays and is an error.
        let renamed = rustix::fs::rename(&made, &dir);
        renamed.call(|| format!("rename({}, {})", made.display(), dir.display()))?;
        Ok(())
    }

    /// Makes the folder beside `dir`, where it is to be moved when all is well.
    fn make(&self, store: &Store, image: &Image, dir: &Path) -> Result<(Workspace, PathBuf)> {
        let work = Workspace::beside(dir)?;
        let folder = work.path().join("bundle");
        make_dir(&folder)?;
        let root = folder.join("rootfs");
        let contents = self.manifest.as_ref().map(|_| Arc::new(Contents::default()));
        let owners = self.manifest.as_ref().map(|_| Arc::new(Owners::default()));
        let options = Options { keep_dirlinks: self.keep_dirlinks, contents, owners, ..Options::default() };
        layer::unpack(store, image, &root, &options)?;
        let digest = &image.descriptor.digest;
        let mtree = PathBuf::from(format!("{}.mtree", digest.to_string().replacen(':', "_", 1)));
        let own = self.manifest.as_ref().and_then(|m| m.0.as_deref()).map(std::path::absolute);
        let own = own.transpose().call(|| "getcwd".to_string())?;
        if options.contents.is_some() {
            let manifest = layer::manifest(&root, None, &options)?;
            let beside = || if self.rootfs_only { dir.with_file_name(&mtree) } else { folder.join(&mtree) };
            write_manifest(&manifest, &own.clone().unwrap_or_else(beside))?;
        }
        let made = if self.rootfs_only {
            root
        } else {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            bundle::write_config(&folder, image, &name)?;
            let mtree = self.manifest.is_some().then(|| own.unwrap_or(mtree));
            if mtree.is_none() && !userns::ids().is_single() {
                layer::write_record(&root, &folder.join(RECORD))?;
            }
            Unpacked::of(&image.descriptor, mtree).write(&folder)?;
            folder
        };
        Ok((work, made))
    }
}

fn write_manifest(manifest: &Manifest, path: &Path) -> Result<()> {
    let write = || {
        let mut out = BufWriter::new(File::create(path)?);
        manifest.write(&mut out)?;
        out.flush()
    };
    let io = |source| store::Error::Io { action: "write", path: path.to_path_buf(), source };
    Ok(write().map_err(io)?)
}

/// The absolute path of a folder that does not exist or is empty.
fn target(dir: &Path) -> Result<PathBuf> {
    match Dir::open(dir) {
        Ok(open) if !open.list()?.is_empty() => Err(NotEmpty(dir.to_path_buf()).into()),
        Ok(open) => Ok(open.real_path()?),
        Err(e) if e.errno() == Some(rustix::io::Errno::NOENT) => {
            Ok(std::path::absolute(dir).call(|| format!("getcwd for {}", dir.display()))?)
        }
        Err(e) => Err(e.into()),
    }
}

fn make_dir(path: &Path) -> sys::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(CWD, path, mode).call(|| format!("mkdir({})", path.display()))
}
