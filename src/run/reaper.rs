//! An init process of the container's own: its first process, whose child is the program.
//!
//! It is this program again, executed anew from a file that cannot be written to, so that
//! nothing of the host's process is in its memory or its environment. It passes signals on to
//! the program, which has the terminal's foreground, collects every process that ends, and
//! ends with the program: with its exit code, or 128 and the signal.
//!
//! Its arguments are [`NAME`], the number of the descriptor that takes what keeps the program
//! from being executed, the program's path, and the program's arguments.

use super::sync::encode;
use super::{Error, Exit, Result, process::refused, sockets, spec::Spec};
use crate::sys::process::{execve, exit_now, fexecve, fork, inherited, keep_on_exec};
use crate::sys::signal::{self, Signals};
use crate::sys::{Call, selfexe};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

/// By this name it is called.
const NAME: &str = "shipimg-init";
/// The annotation that asks for it.
pub(super) const ANNOTATION: &str = "org.shipimg.init";

/// Whether a container is to have one.
///
/// # Errors
/// [`Error::Invalid`] where the annotation is neither `true` nor `false`.
pub fn is_wanted(spec: &Spec) -> Result<bool> {
    match spec.annotations.get(ANNOTATION).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            let reason = format!("unknown value {other:?}");
            Err(Error::Invalid { field: format!("annotations.{ANNOTATION}"), reason })
        }
    }
}

/// What it is executed from, and where it reports.
#[derive(Debug)]
pub struct Reaper<'a> {
    /// This program's own file.
    pub file: OwnedFd,
    /// Takes what keeps the program from being executed.
    pub report: &'a OwnedFd,
}

impl<'a> Reaper<'a> {
    /// Opens the file, while it is in sight.
    ///
    /// # Errors
    /// The failed open(2) call.
    pub fn open(report: &'a OwnedFd) -> Result<Self> {
        Ok(Self { file: selfexe::open()?, report })
    }

    /// Becomes it, for the program at `path`; returns only to say why it did not.
    #[must_use]
    pub fn execute(&self, path: &CString, args: &[CString], env: &[CString]) -> Errno {
        let report = self.report.as_raw_fd();
        let c_string = |text: String| CString::new(text).unwrap_or_default();
        let mut all = vec![c_string(NAME.to_string()), c_string(report.to_string()), path.clone()];
        all.extend(args.iter().cloned());
        if !keep_on_exec(report) {
            return Errno::BADF;
        }
        fexecve(self.file.as_fd(), &all, env)
    }
}

/// Does the work of an init process where this one was executed as such; returns otherwise.
pub fn reap_if_asked() {
    let mut args = std::env::args_os();
    if args.next().is_none_or(|name| name != NAME) {
        return;
    }
    let number = args.next().and_then(|n| n.to_str()?.parse().ok()).filter(|n| *n > 2);
    let Some(report) = number.and_then(inherited) else { exit_now(125) };
    let c_string = |s: OsString| CString::new(s.into_vec()).unwrap_or_default();
    let words: Vec<CString> = args.map(c_string).collect();
    let code = match serve(report, &words) {
        Ok(exit) => exit.code(),
        Err((error, report)) => {
            let _ = rustix::io::write(report, &encode(&error));
            error.launch_code()
        }
    };
    exit_now(code.into())
}

fn serve(report: OwnedFd, words: &[CString]) -> Result<Exit, (Error, OwnedFd)> {
    let begun = Signals::take().map_err(Error::from).and_then(|signals| {
        // Without a pid namespace of the container's own, orphans come here too.
        let reaps = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        reaps.call(|| "prctl(SET_CHILD_SUBREAPER)".to_string())?;
        Ok((signals, fork()?))
    });
    let (signals, child) = match begun {
        Ok((signals, Some(child))) => (signals, child),
        Ok((_, None)) => return Err((become_program(words), report)),
        Err(e) => return Err((e, report)),
    };
    drop(report);
    loop {
        let _ = poll(&mut [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)], None);
        while let Some(number) = signals.next() {
            if number != libc::SIGCHLD {
                let _ = signal::send_to(child, number);
            }
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == child {
                let by = status.terminating_signal();
                return Ok(by.map_or(Exit::Code(status.exit_status().unwrap_or(0)), Exit::Signal));
            }
        }
    }
}

/// The child: takes the terminal and becomes the program, or says why not.
fn become_program(words: &[CString]) -> Error {
    let [path, args @ ..] = words else { return refused("", &CString::default(), Errno::INVAL) };
    // All signals are blocked, thus the terminal does not stop it for being in the background.
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
    signal::reset();
    let before = rustix::process::getppid().map(|p| format!("{}{}", sockets::PID, p.as_raw_nonzero()));
    let env = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        if before.as_ref().is_some_and(|before| name == before.as_str()) {
            name = sockets::own_pid().into();
        }
        CString::new(name.into_vec()).unwrap_or_default()
    });
    let errno = execve(path, args, &env.collect::<Vec<_>>());
    refused(&args.first().map(|a| a.to_string_lossy()).unwrap_or_default(), path, errno)
}
