//! `run`: a container whose program begins at once, as a child of this process.

use super::create::{Gate, Launch, Manner, Prepared, Running, pipe, read_all};
use super::health::{self, Check};
use super::keeper::Streams;
use super::lifecycle::{Container, Held, Runtime, end};
use super::state::Status;
use super::sync::decode;
use super::terminal::{Exit, Relay, console};
use super::watch::{self, Duty, EndWith};
use super::{Error, Result, hooks, io_error};
use crate::oci::Health;
use crate::sys::signal::{self, Signals};
use crate::sys::{Call, pty};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A container whose program has begun.
pub struct Begun {
    running: Running,
    signals: Signals,
    /// The driving end of its terminal.
    pub master: Option<OwnedFd>,
    /// How its health is to be checked.
    pub health: Option<Health>,
    cgroups: Vec<PathBuf>,
    remove: bool,
}

impl Begun {
    /// The container.
    pub fn container(&self) -> &Container {
        self.running.held.container()
    }

    /// Waits for its end, for `limit` at most; then it is killed.
    ///
    /// # Errors
    /// As [`watch::wait`].
    pub fn wait(&self, limit: Option<Duration>, duties: &mut [&mut dyn Duty]) -> Result<Exit> {
        let end = limit.map(|limit| Instant::now() + limit);
        watch::wait(self.running.child.pidfd.as_fd(), &self.signals, end, duties)
    }

    /// Deletes it, or remembers how it ended; ends it where that could not be waited for.
    ///
    /// # Errors
    /// That of `result`; what could not be taken away.
    pub fn close(self, result: Result<Exit>) -> Result<Exit> {
        let exit = match result {
            Ok(exit) => exit,
            Err(e) => return Err(self.abandon(e)),
        };
        let held = self.running.held;
        if self.remove {
            held.destroy()?;
        } else {
            let remembered = held.container().ended(exit);
            held.keep();
            remembered?;
        }
        Ok(exit)
    }

    /// Ends and deletes it, for `reason`.
    pub fn abandon(self, reason: Error) -> Error {
        let Running { held, child } = self.running;
        let ended = end(held.container().id(), &child.pidfd, &self.cgroups);
        let _ = watch::reap(child.pidfd.as_fd());
        if let Err(e) = ended {
            tracing::warn!("{e}");
            held.keep();
        }
        reason
    }
}

impl Launch {
    /// Creates the container, starts it, waits for its end and deletes it, unless `keep`.
    /// Signals are passed on to it meanwhile.
    ///
    /// # Errors
    /// As [`Self::create`] and [`Container::start`].
    pub fn run(&self, runtime: &Runtime, held: Option<Held>, keep: bool) -> Result<Exit> {
        let held = self.hold(runtime, held)?;
        let prepared = self.prepare(runtime)?;
        let mut begun = self.begin(&prepared, held, None, !keep)?;
        let (master, health) = (begun.master.take(), begun.health.take());
        let result = (|| {
            let mut relay = master.map(Relay::new).transpose()?;
            let mut health = Check::of(begun.container(), health)?;
            let mut duties: Vec<&mut dyn Duty> = Vec::new();
            duties.extend(relay.as_mut().map(|d| d as &mut dyn Duty));
            duties.extend(health.as_mut().map(|d| d as &mut dyn Duty));
            begun.wait(self.timeout, &mut duties)
        })();
        begun.close(result)
    }

    /// The same for a new container with standard streams of its own: input, output, errors. Signals that ask this
    /// process to end end the container, and are put off ([`crate::sys::signal::pending`]).
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_with(&self, runtime: &Runtime, streams: [OwnedFd; 3]) -> Result<Exit> {
        let held = self.hold(runtime, None)?;
        let prepared = self.prepare(runtime)?;
        let begun = self.begin(&prepared, held, Some(streams), true)?;
        let mut end = EndWith(begun.running.child.pidfd.as_fd());
        let result = begun.wait(self.timeout, &mut [&mut end]);
        let exit = begun.close(result);
        signal::unblock();
        exit
    }

    /// The container to fill: the one that is there, or a new one.
    pub(super) fn hold(&self, runtime: &Runtime, held: Option<Held>) -> Result<Held> {
        held.map_or_else(|| runtime.reserve(&self.id), Ok)
    }

    /// Creates the container and lets its program begin, as a child of this process, with which
    /// it ends.
    pub(super) fn begin(
        &self,
        prepared: &Prepared,
        held: Held,
        streams: Option<Streams>,
        remove: bool,
    ) -> Result<Begun> {
        if prepared.spec.process.is_none() {
            return Err(Error::Invalid { field: "process".into(), reason: "missing".into() });
        }
        let health = health::of_spec(&prepared.spec)?;
        let signals = Signals::take()?;
        let (start_read, start_write) = pipe()?;
        let (report_read, report_write) = pipe()?;
        let (console, inbox) = console(self.console_socket.as_deref(), prepared.program.spec().terminal)?;
        let gate = Gate { start: start_read, report: report_write };
        let manner = Manner { tied: true, remove, streams, console };
        let running = self.launch(prepared, held, manner, Some(gate))?;
        let cgroups = prepared.cgroup.paths();
        let mut begun = Begun { running, signals, master: None, health, cgroups, remove };
        let result = (|| {
            begun.master = inbox.map(|i| pty::receive_fd(i.as_fd(), &mut [0; 64])).transpose()?;
            rustix::io::write(&start_write, b"s").call(|| "write(start)".to_string())?;
            drop(start_write);
            let report = read_all(&report_read)?;
            if !report.is_empty() {
                return Err(decode(&report));
            }
            let state = begun.container().state()?.document(Status::Running);
            hooks::run_all("poststart", &prepared.spec.hooks.poststart, &state);
            Ok(())
        })();
        match result {
            Ok(()) => Ok(begun),
            Err(e) => Err(begun.abandon(e)),
        }
    }

    /// Has another runtime run the bundle, in this process's place; signals are passed on to it.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be executed; [`Error::Invalid`] for what is to differ from
    /// the bundle's config.json, which is all that it looks at.
    pub fn hand_over(&self, runtime: &Path) -> Result<Exit> {
        if !self.args.is_empty() || self.terminal.is_some_and(|t| t != self.wants_terminal()) {
            let reason =
                "another runtime runs what the bundle says, no other program or terminal".to_string();
            return Err(Error::Invalid { field: "process".into(), reason });
        }
        let signals = Signals::take()?;
        let mut command = Command::new(runtime);
        command.arg("run").arg("--bundle").arg(&self.bundle).arg(&self.id);
        let child = io_error("execute", runtime, command.spawn())?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH);
        let pidfd = pid.and_then(|p| pidfd_open(p, PidfdFlags::empty())).call(|| "pidfd_open".to_string())?;
        watch::wait(pidfd.as_fd(), &signals, None, &mut [])
    }
}
