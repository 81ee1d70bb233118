//! `shipimg exec`: another program in a running container.

use super::{Context, Error, Result};
use crate::run::{Exec, Sockets};
use crate::sys::selfexe;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "options on a command line")]
pub struct Args {
    /// The container's name
    id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, required_unless_present = "process", value_name = "CMD")]
    command: Vec<String>,
    /// File with the whole process as JSON
    #[arg(short, long, value_name = "FILE", conflicts_with = "command")]
    process: Option<PathBuf>,
    /// Pass on standard input, which is the default
    #[arg(short, long)]
    interactive: bool,
    /// With a terminal
    #[arg(short, long)]
    tty: bool,
    /// Do not wait for its end
    #[arg(short, long)]
    detach: bool,
    /// User and group, numbers as they are or names that the container knows
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Supplementary groups
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Added to the environment
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = super::settings::variable)]
    env: Vec<String>,
    /// Added capabilities
    #[arg(short, long)]
    cap: Vec<String>,
    /// No execve may raise privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Profile of `AppArmor`
    #[arg(long, value_name = "NAME")]
    apparmor: Option<String>,
    /// Label of `SELinux`
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Unix socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// File that takes the process id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Pass on this many descriptors after the standard streams
    #[arg(long, default_value_t = 0, value_name = "N")]
    preserve_fds: u32,
    /// Existing control group below the container's own
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    cgroup: Vec<String>,
    /// In a paused container too; the program begins when that is resumed
    #[arg(long)]
    ignore_paused: bool,
}

impl Args {
    /// The container's name.
    pub(super) fn container(&self) -> &str {
        &self.id
    }

    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        self.launch(context).map_err(|e| Error::Launch(Box::new(e)))
    }

    fn launch(self, context: &Context) -> Result<ExitCode> {
        selfexe::protect()?;
        let id = self.id;
        let exec = Exec {
            process: self.process,
            args: self.command,
            env: self.env,
            cwd: self.cwd,
            user: self.user,
            additional_gids: self.additional_gids,
            caps: self.cap,
            terminal: self.tty,
            no_new_privs: self.no_new_privs,
            apparmor: self.apparmor,
            label: self.process_label,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            preserve_fds: self.preserve_fds,
            sockets: Sockets::inherited(),
            groups: self.cgroup,
            ignore_paused: self.ignore_paused,
            detach: self.detach,
            timeout: None,
        };
        let container = context.runtime()?.get(&id)?;
        let exit = exec.run(&container)?;
        Ok(exit.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit.code())))
    }
}
