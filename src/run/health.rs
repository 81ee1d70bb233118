//! Health checks: a program that is executed in the container time and again by the process
//! that waits for it, and what it says in `state.json`.

use super::lifecycle::Container;
use super::state::{State, Status, now};
use super::terminal::Exit;
use super::watch::{self, Duty};
use super::{Error, Exec, Result, create::pipe, spec::Spec};
use crate::bundle::HEALTH_ANNOTATION;
use crate::oci::Health;
use crate::sys::Call;
use crate::sys::process::{self, Child, CloneOptions, Fork, clone3, exit_now};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many outcomes are remembered.
const MEMORY: usize = 5;
/// How much of what a check prints is remembered, in bytes.
const WORDS: usize = 4096;

/// Whether a container is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wellness {
    /// No check has succeeded yet.
    Starting,
    /// The last checks have succeeded.
    Healthy,
    /// As many checks as it takes have failed.
    Unhealthy,
}

impl std::fmt::Display for Wellness {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        })
    }
}

/// What is known of a container's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The outcome of all checks.
    pub status: Wellness,
    /// How many have failed since one has succeeded.
    pub failing_streak: u32,
    /// The last ones.
    pub log: VecDeque<Outcome>,
}

/// A check that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// When it began, RFC 3339, UTC.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// Its exit code; 0 is well.
    pub exit_code: u8,
    /// The begin of what it has printed.
    pub output: String,
}

impl Report {
    /// Takes an outcome in; `excused` is one in the time that the container may take to start.
    fn add(&mut self, outcome: Outcome, excused: bool, tries: u32) {
        if outcome.exit_code == 0 {
            (self.status, self.failing_streak) = (Wellness::Healthy, 0);
        } else if !(excused && self.status == Wellness::Starting) {
            self.failing_streak += 1;
            if self.failing_streak >= tries {
                self.status = Wellness::Unhealthy;
            }
        }
        self.log.push_back(outcome);
        if self.log.len() > MEMORY {
            self.log.pop_front();
        }
    }
}

/// The health check that an annotation of config.json asks for.
///
/// # Errors
/// [`Error::Invalid`].
pub fn of_spec(spec: &Spec) -> Result<Option<Health>> {
    let Some(text) = spec.annotations.get(HEALTH_ANNOTATION) else { return Ok(None) };
    let health: Health = serde_json::from_str(text).map_err(|e| Error::Invalid {
        field: format!("annotations.{HEALTH_ANNOTATION}"),
        reason: e.to_string(),
    })?;
    Ok(health.command().is_some().then_some(health))
}

/// The checks of a container.
pub struct Check {
    container: Container,
    health: Health,
    begun: Instant,
    next: Instant,
    report: Report,
    running: Option<Running>,
}

/// A check that runs.
struct Running {
    child: Child,
    output: OwnedFd,
    text: Vec<u8>,
    start: String,
}

impl Check {
    /// Begins to check `container`, where `health` says how.
    ///
    /// # Errors
    /// [`Error::Io`] where its state cannot be written.
    pub fn of(container: &Container, health: Option<Health>) -> Result<Option<Self>> {
        let Some(health) = health else { return Ok(None) };
        let begun = Instant::now();
        let next = begun + health.pause(!health.grace().is_zero());
        let report = Report { status: Wellness::Starting, failing_streak: 0, log: VecDeque::new() };
        let check = Self { container: container.clone(), health, begun, next, report, running: None };
        check.remember()?;
        Ok(Some(check))
    }

    fn remember(&self) -> Result<()> {
        let mut state = State::read(self.container.dir())?;
        state.health = Some(self.report.clone());
        state.write(self.container.dir())
    }

    fn starts(&self) -> bool {
        self.report.status == Wellness::Starting && self.begun.elapsed() < self.health.grace()
    }

    fn begin(&self) -> Result<Running> {
        let (read, write) = pipe()?;
        rustix::io::ioctl_fionbio(&read, true).call(|| "ioctl(FIONBIO)".to_string())?;
        let keep = [write.as_raw_fd()];
        let start = now();
        match clone3(CloneOptions { keep: Some(&keep), ..CloneOptions::default() })? {
            Fork::Parent(child) => Ok(Running { child, output: read, text: Vec::new(), start }),
            Fork::Child => {
                let code = self.execute(&write).unwrap_or_else(|e| {
                    let _ = rustix::io::write(&write, format!("{e}\n").as_bytes());
                    e.launch_code()
                });
                exit_now(code.into())
            }
        }
    }

    /// The process of a check: executes it in the container, as `exec` does.
    fn execute(&self, output: &OwnedFd) -> Result<u8> {
        let null = process::null()?;
        process::set_streams([null.as_fd(), output.as_fd(), output.as_fd()])?;
        let args = self.health.command().unwrap_or_default();
        let exec = Exec { args, timeout: Some(self.health.limit()), ..Exec::default() };
        Ok(exec.run(&self.container)?.map_or(0, Exit::code))
    }

    fn end(&mut self, running: &Running, code: u8) {
        let output = String::from_utf8_lossy(&running.text).into_owned();
        let outcome = Outcome { start: running.start.clone(), end: now(), exit_code: code, output };
        self.report.add(outcome, self.starts(), self.health.tries());
        self.next = Instant::now() + self.health.pause(self.starts());
        if let Err(e) = self.remember() {
            tracing::warn!("{e}");
        }
    }
}

impl Running {
    /// Reads what it has printed; keeps the begin of that.
    fn listen(&mut self) {
        let mut buffer = [0u8; WORDS];
        while let Ok(n @ 1..) = rustix::io::read(&self.output, &mut buffer) {
            let room = WORDS.saturating_sub(self.text.len()).min(n);
            self.text.extend(&buffer[..room]);
        }
    }
}

impl Duty for Check {
    fn wants(&self) -> Vec<PollFd<'_>> {
        let fds = self.running.as_ref().map(|r| [r.child.pidfd.as_fd(), r.output.as_fd()]);
        fds.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect()
    }

    fn due(&self) -> Option<Instant> {
        if self.running.is_some() { None } else { Some(self.next) }
    }

    fn attend(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.listen();
            if watch::ends_within(&running.child.pidfd, Duration::ZERO) {
                let exit = watch::reap(running.child.pidfd.as_fd())?;
                running.listen();
                self.end(&running, exit.code());
            } else {
                self.running = Some(running);
            }
        } else if Instant::now() >= self.next {
            if matches!(self.container.status(), Ok((_, Status::Running))) {
                self.running = Some(self.begin()?);
            } else {
                self.next = Instant::now() + Duration::from_secs(1);
            }
        }
        Ok(())
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        // What it has executed ends with the container.
        if let Some(running) = &self.running {
            let _ = crate::sys::signal::send(running.child.pidfd.as_fd(), libc::SIGKILL);
            let _ = watch::reap(running.child.pidfd.as_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_add_up() {
        let mut report = Report { status: Wellness::Starting, failing_streak: 0, log: VecDeque::new() };
        let mut add = |exit_code: u8, excused: bool| {
            let outcome = Outcome { start: now(), end: now(), exit_code, output: String::new() };
            report.add(outcome, excused, 2);
            (report.status, report.failing_streak, report.log.len())
        };
        assert_eq!(add(1, true), (Wellness::Starting, 0, 1));
        assert_eq!(add(1, false), (Wellness::Starting, 1, 2));
        assert_eq!(add(0, false), (Wellness::Healthy, 0, 3));
        assert_eq!(add(9, true), (Wellness::Healthy, 1, 4));
        assert_eq!(add(9, false), (Wellness::Unhealthy, 2, 5));
        assert_eq!(add(0, false), (Wellness::Healthy, 0, 5));
    }
}
