//! `shipimg login`: checks credentials for a registry and keeps them.

use super::{Result, printable};
use crate::error::Kind;
use crate::registry::{Credentials, Kept, Options, Scope};
use crate::sys::signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{self, LocalModes, OptionalActions};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The longest password, in bytes.
const LONGEST: u64 = 64 << 10;

/// Why nobody logs in or out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to forget or show.
    #[error("not logged in to {0}")]
    NotLoggedIn(String),
    /// Nobody can be asked.
    #[error("there is no terminal to ask on: give --username and --password-stdin")]
    NoTerminal,
}

impl Error {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotLoggedIn(_) => Kind::Missing,
            Self::NoTerminal => Kind::Input,
        }
    }
}

/// Arguments of `login`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Registry, or a namespace of it, as docker.io, localhost:5000 or quay.io/team
    #[arg(value_name = "REGISTRY[/NAMESPACE]", default_value = "docker.io")]
    scope: Scope,
    /// User name [default: asked on the terminal]
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Password; others see it in the list of processes [default: asked on the terminal]
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Print the user that is logged in, and do nothing else
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    get_login: bool,
    /// Keep the credentials in this file
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// With false: accept any certificate, and plain http from any host
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    tls_verify: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One line
    Text,
    /// An object, see docs/json.md
    Json,
}

impl Args {
    pub(super) fn run(self) -> Result<ExitCode> {
        if self.get_login {
            return self.show();
        }
        let user = match &self.username {
            Some(user) => user.clone(),
            None => ask("Username: ", true)?,
        };
        let password = match &self.password {
            Some(password) => password.clone(),
            None if self.password_stdin => {
                let mut text = String::new();
                std::io::stdin().take(LONGEST).read_to_string(&mut text)?;
                text.trim_end_matches(['\r', '\n']).to_string()
            }
            None => ask("Password: ", false)?,
        };
        let credentials: Credentials = format!("{user}:{password}").parse()?;
        let options =
            Options { credentials: Some(credentials), tls_verify: self.tls_verify, ..Options::default() };
        self.scope.check(&options)?;
        let kept = self.scope.keep(self.authfile.as_deref(), &user, &password)?;
        let mut out = std::io::stdout();
        if self.format == Format::Json {
            let (file, helper) = match &kept {
                Kept::File(file) => (Some(file), None),
                Kept::Helper(helper) => (None, Some(helper)),
            };
            let json =
                json!({ "registry": self.scope.to_string(), "user": user, "file": file, "helper": helper });
            writeln!(out, "{json:#}")?;
        } else {
            let place = match kept {
                Kept::File(file) => file.display().to_string(),
                Kept::Helper(helper) => format!("docker-credential-{helper}"),
            };
            writeln!(out, "logged in to {} as {}, kept in {place}", self.scope, printable(&user))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self) -> Result<ExitCode> {
        let user = match self.scope.kept(self.authfile.as_deref())? {
            Some(Credentials::Password { user, .. }) => user,
            Some(Credentials::IdentityToken(_)) => "<token>".to_string(),
            None => return Err(Error::NotLoggedIn(self.scope.to_string()).into()),
        };
        let mut out = std::io::stdout();
        match self.format {
            Format::Text => writeln!(out, "{}", printable(&user))?,
            Format::Json => {
                writeln!(out, "{:#}", json!({ "registry": self.scope.to_string(), "user": user }))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks on the terminal, whatever standard input is; a password without showing it.
fn ask(prompt: &str, echo: bool) -> Result<String> {
    let Ok(mut tty) = std::fs::File::options().read(true).write(true).open("/dev/tty") else {
        return Err(Error::NoTerminal.into());
    };
    tty.write_all(prompt.as_bytes())?;
    let before = termios::tcgetattr(&tty).map_err(std::io::Error::from)?;
    if !echo {
        // An interruption must not leave a terminal that shows nothing.
        signal::put_off();
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(&tty, OptionalActions::Flush, &silent).map_err(std::io::Error::from)?;
    }
    if !echo {
        // A signal may come just before the wait, so none is long.
        let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let typed = || poll(&mut [PollFd::new(&tty, PollFlags::IN)], Some(&pause));
        while matches!(typed(), Ok(0) | Err(Errno::INTR)) && signal::pending().is_none() {}
        if signal::pending().is_some() {
            termios::tcsetattr(&tty, OptionalActions::Now, &before).map_err(std::io::Error::from)?;
            signal::give_in();
        }
    }
    let mut line = String::new();
    let read = BufReader::new(&tty).take(LONGEST).read_line(&mut line);
    if !echo {
        termios::tcsetattr(&tty, OptionalActions::Flush, &before).map_err(std::io::Error::from)?;
        tty.write_all(b"\n")?;
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}
