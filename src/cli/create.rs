//! `shipimg create`: a container that waits for `start`.

use super::{Context, Result};
use crate::run::Launch;
use crate::sys::selfexe;
use std::path::PathBuf;
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
    /// The bundle's folder
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub bundle: PathBuf,
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
    preserve_fds: u32,
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
    #[arg(long)]
    systemd_cgroup: bool,
}

/// What makes control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Manager {
    /// shipimg itself, in /sys/fs/cgroup
    Cgroupfs,
    /// systemd, over D-Bus
    Systemd,
    /// Nobody
    Disabled,
}

impl Options {
    /// What the library takes.
    ///
    /// # Errors
    /// A manager of control groups that is not there.
    pub fn launch(self, id: String) -> crate::run::Result<Launch> {
        let manager = if self.systemd_cgroup { Manager::Systemd } else { self.cgroup_manager };
        if manager != Manager::Cgroupfs {
            let what = format!("cgroup manager {manager:?}").to_lowercase();
            return Err(crate::run::Error::Unsupported { what });
        }
        Ok(Launch {
            id,
            bundle: self.bundle,
            args: Vec::new(),
            config: self.config,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            preserve_fds: self.preserve_fds,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
        })
    }
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        selfexe::protect()?;
        self.options.launch(self.id)?.create(&context.runtime()?)?;
        Ok(ExitCode::SUCCESS)
    }
}
