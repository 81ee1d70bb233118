//! `shipimg unpack`: an image of the store as a bundle: `rootfs/` and `config.json`.

use super::{Context, Result};
use crate::bundle;
use crate::layer::{self, Options};
use crate::oci::{Name, Platform};
use crate::sys::dir::Dir;
use crate::sys::workspace::Workspace;
use crate::sys::{self, Call, signal};
use rustix::fs::{CWD, Mode};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        // The workspace lies in a folder of the user's, where no later command may come to sweep.
        signal::put_off();
        let unpacked = self.unpack(context);
        if unpacked.is_err() {
            signal::give_in();
        }
        unpacked.map(|()| ExitCode::SUCCESS)
    }

    fn unpack(&self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let entry = store.find(&self.name)?;
        let lease = store.lease()?;
        lease.hold(&entry.descriptor.digest)?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let image = store.image(&entry.descriptor, &platform)?;
        let dir = target(&self.dir)?;
        let work = Workspace::beside(&dir)?;
        let folder = work.path().join("bundle");
        make_dir(&folder)?;
        layer::unpack(&store, &image, &folder.join("rootfs"), &Options::default())?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        bundle::write_config(&folder, &image, &name)?;
        // An empty folder is replaced; anything else that came meanwhile stays and is an error.
        let renamed = rustix::fs::rename(&folder, &dir);
        renamed.call(|| format!("rename({}, {})", folder.display(), dir.display()))?;
        Ok(())
    }
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
