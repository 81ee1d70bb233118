//! `shipimg export`: images of the store as archives and folders, and their files as a tar.

use super::choose::{Documents, choose, walk};
use super::import::source_date;
use super::{Context, Result};
use crate::archive::{self, Kind, Target, Writer};
use crate::layer::{self, WriteOptions};
use crate::oci::{Descriptor, Name, Platform};
use crate::store::{self, Store};
use crate::sys::signal;
use std::fs::File;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// What is wrong with the arguments of `export`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An archive on a terminal.
    #[error("an archive is not written to a terminal: give a file with -o, or redirect the output")]
    Terminal,
    /// Several images where one fits.
    #[error("a {0} is made of one image")]
    OneImage(Kind),
}

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images of the store: references, ends of them, or digests
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<Name>,
    /// What to write: oci-archive, docker-archive, oci, dir, or rootfs, the files of the image
    #[arg(long, default_value_t = Kind::OciArchive)]
    kind: Kind,
    /// The file or folder [default: standard output]
    #[arg(long, short, value_name = "FILE|DIR")]
    output: Option<PathBuf>,
    /// Of an index take this image only
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl Documents for Store {
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Ok(Self::document(self, descriptor)?)
    }

    fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(Self::has(self, descriptor)?)
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        if self.names.len() > 1 && matches!(self.kind, Kind::Dir | Kind::Rootfs) {
            return Err(Error::OneImage(self.kind).into());
        }
        let target = match &self.output {
            Some(path) if path.as_os_str() != "-" => Target::Path(path.clone()),
            _ if std::io::stdout().is_terminal() => return Err(Error::Terminal.into()),
            _ => Target::Stdout,
        };
        // The workspace lies in a folder of the user's, where no later command may come to sweep.
        signal::put_off();
        let store = context.store()?;
        let exported = match self.kind {
            Kind::Rootfs => self.rootfs(&store, &target),
            _ => self.images(&store, &target),
        };
        if exported.is_err() {
            signal::give_in();
        }
        exported.map(|()| ExitCode::SUCCESS)
    }

    fn images(&self, store: &Store, target: &Target) -> Result<()> {
        let scratch = store.scratch()?;
        let writer = Writer::create(self.kind, target, scratch.path(), source_date().unwrap_or(0))?;
        // A docker-archive has no room for an index.
        let host = (self.kind == Kind::DockerArchive).then(Platform::host);
        let platform = self.platform.as_ref().or(host.as_ref());
        for name in &self.names {
            let entry = store.find(name)?;
            let root = choose(store, &entry.descriptor, platform)?;
            copy(store, &writer, &root)?;
            let names: Vec<String> = entry.reference.iter().map(ToString::to_string).collect();
            writer.add(&root, &names)?;
        }
        Ok(writer.finish()?)
    }

    fn rootfs(&self, store: &Store, target: &Target) -> Result<()> {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        for name in &self.names {
            let image = store.image(&store.find(name)?.descriptor, &platform)?;
            let scratch = store.scratch()?;
            let tree = scratch.path().join("rootfs");
            layer::unpack(store, &image, &tree, &layer::Options::default())?;
            archive::write_rootfs(&tree, target, &WriteOptions { latest: source_date() })?;
        }
        Ok(())
    }
}

/// Copies all that `root` consists of out of the store.
fn copy(store: &Store, writer: &Writer, root: &Descriptor) -> Result<()> {
    walk(store, root, &mut |descriptor, bytes| {
        if writer.has(descriptor) {
            return Ok(());
        }
        if let Some(bytes) = bytes {
            return Ok(writer.put_document(descriptor, bytes)?);
        }
        // The writer verifies what it is given.
        if !store.has(descriptor)? {
            let (digest, root) = (descriptor.digest.clone(), store.root().to_path_buf());
            return Err(store::Error::NoBlob { digest, root }.into());
        }
        let path = store.blob_path(&descriptor.digest);
        let opened = File::open(&path).map_err(|source| store::Error::Io { action: "open", path, source });
        Ok(writer.put_blob(descriptor, &mut opened?)?)
    })
}
