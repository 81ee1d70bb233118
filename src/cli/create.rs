//! `shipimg create`: a container that waits for `start`.
//!
//! The bundle is the folder of --bundle, else the current folder where that is one, else
//! the store's bundle with the container's name.

use super::{Context, Result};
use crate::bundle::Bundle;
use crate::rootfs::Access;
use crate::run::{Launch, Notify, Sockets};
use crate::sys::selfexe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `create`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    id: String,
    #[command(flatten)]
    options: Options,
}

/// Options that `create` and `run` share.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The bundle's folder [default: the current one]
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Another file than the bundle's config.json
    #[arg(short = 'f', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Unix socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// File that takes the process id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Pass on this many descriptors after the standard streams
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub preserve_fds: u32,
    /// Move the root instead of pivoting it (for a root on a ramdisk)
    #[arg(long)]
    no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// What makes control groups
    #[arg(long, value_enum, default_value = "cgroupfs")]
    cgroup_manager: Manager,
    /// The same as --cgroup-manager systemd
    #[arg(long, hide = true)]
    systemd_cgroup: bool,
}

/// What makes control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Manager {
    /// shipimg itself, in /sys/fs/cgroup
    Cgroupfs,
    /// systemd, a scope for each container
    Systemd,
    /// Known to callers of other runtimes, and refused.
    #[value(hide = true)]
    Disabled,
}

impl Options {
    /// The same, for the bundle in `dir`.
    pub fn of(self, dir: &Path) -> Self {
        Self { bundle: Some(dir.to_path_buf()), ..self }
    }

    /// What the library takes.
    ///
    /// # Errors
    /// A manager of control groups that is not there.
    pub fn launch(self, id: String) -> crate::run::Result<Launch> {
        if self.cgroup_manager == Manager::Disabled {
            return Err(crate::run::Error::Unsupported { what: "cgroup manager disabled".into() });
        }
        Ok(Launch {
            id,
            bundle: self.bundle.unwrap_or_else(|| ".".into()),
            args: Vec::new(),
            terminal: None,
            config: self.config,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            preserve_fds: self.preserve_fds,
            sockets: Sockets::inherited(),
            notify: None,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            timeout: None,
            systemd_cgroup: self.systemd_cgroup || self.cgroup_manager == Manager::Systemd,
        })
    }
}

/// Mounts what the bundle in `folder` needs, where shipimg has made it.
pub(super) fn mount(folder: &Path) -> Result<()> {
    // A folder that cannot be opened is the runtime's to complain of.
    let bundle = folder.canonicalize().ok().map(|path| Bundle::in_folder(&path)).transpose()?.flatten();
    Ok(bundle.map_or(Ok(()), |b| b.mount(Access::Write))?)
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        selfexe::protect()?;
        let mut options = self.options;
        if options.bundle.is_none()
            && !Path::new("config.json").exists()
            && let Some(bundle) = Bundle::find(&context.store()?, &self.id)?
        {
            options.bundle = Some(bundle.path().to_path_buf());
        }
        let launch = Launch { notify: Notify::inherited(), ..options.launch(self.id)? };
        mount(&launch.bundle)?;
        launch.create(&context.runtime()?)?;
        Ok(ExitCode::SUCCESS)
    }
}
