//! A copy of this process that does the steps of a part.

use super::Builder;
use crate::debian::Progress;
use crate::error::Kind;
use crate::recipe::build::How;
use crate::recipe::cache::Passed;
use crate::recipe::{Error, Result};
use crate::sys::process::{await_single, exit_now, fork, null, set_streams};
use crate::sys::sandbox::private_mounts;
use crate::sys::{Call, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::ioctl_fionbio;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal, setpgid, waitid,
};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// How long a copy that was asked to end may take.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// A line that is longer is shown in pieces, in bytes.
const LONGEST: usize = 8 << 10;
/// So much is read of one before another is looked at, in bytes.
const AT_ONCE: u64 = 64 << 10;

/// What a copy tells at its end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Told {
    /// Its steps, and how they came about.
    pub steps: Vec<(usize, How)>,
    /// What it has learned of caches.
    pub cache: Passed,
    /// Why it did not come to its end.
    pub failed: Option<Failure>,
}

/// An error of a copy.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    message: String,
    kind: Kind,
    output: String,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { message, kind, output } = failure;
        Self::Stage { message, kind, output }
    }
}

/// A copy at work.
pub(super) struct Worker {
    pub part: usize,
    stage: String,
    pidfd: OwnedFd,
    /// What it prints; none once it has closed that.
    said: Option<PipeReader>,
    line: Vec<u8>,
    told: UnixStream,
    text: Vec<u8>,
}

impl Worker {
    /// The name of its stage.
    pub fn stage(&self) -> &str {
        &self.stage
    }

    /// What to wait for.
    pub fn wants(&self) -> impl Iterator<Item = PollFd<'_>> {
        let said = self.said.as_ref().map(|said| PollFd::new(said, PollFlags::IN));
        said.into_iter().chain([PollFd::new(&self.told, PollFlags::IN)])
    }

    /// Reads what there is to read; whether it has told all.
    pub fn listen(&mut self) -> bool {
        // All that it prints comes before what it tells; while it does its work it may print without end.
        let ended = read(&mut self.told, &mut self.text, u64::MAX);
        let some = if ended { u64::MAX } else { AT_ONCE };
        if self.said.as_mut().is_some_and(|said| read(said, &mut self.line, some)) {
            self.said = None;
        }
        ended
    }

    /// The lines that it has printed since; with `all` the begin of one, too.
    pub fn lines(&mut self, all: bool) -> Vec<Vec<u8>> {
        let all = all || self.line.len() > LONGEST;
        let end = self.line.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let text: Vec<u8> = self.line.drain(..if all { self.line.len() } else { end }).collect();
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let lines = text.split(|b| *b == b'\n').map(<[u8]>::to_vec);
        if text.is_empty() && end == 0 { Vec::new() } else { lines.collect() }
    }

    /// What it has told.
    pub fn told(&self) -> Result<Told> {
        serde_json::from_slice(&self.text).map_err(|_| Error::Stage {
            message: format!("stage {}: its process ended too early", self.stage),
            kind: Kind::Internal,
            output: String::new(),
        })
    }

    /// Lets it end, whose results are held now.
    pub fn close(self) {
        let Self { pidfd, mut told, .. } = self;
        // By a word, for copies that began later have this end, too.
        let _ = told.write_all(b"\n");
        let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Adds what can be read now, so many bytes at most; whether that is the end.
fn read(from: &mut impl Read, to: &mut Vec<u8>, most: u64) -> bool {
    match from.take(most).read_to_end(to) {
        Ok(n) => u64::try_from(n).is_ok_and(|n| n < most),
        Err(e) => e.kind() != ErrorKind::WouldBlock,
    }
}

/// Ends copies, and waits until they have.
pub(super) fn end(workers: Vec<Worker>) {
    for worker in &workers {
        let _ = pidfd_send_signal(&worker.pidfd, Signal::TERM);
    }
    for worker in workers {
        // One that writes or waits for an answer goes on.
        let Worker { pidfd, said, told, .. } = worker;
        drop((said, told));
        if let Ok(0) = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&PATIENCE)) {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
        let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

impl Builder<'_> {
    /// Has a copy of this process do a part, whose last step is `last`.
    pub(super) fn copy(&self, part: usize, last: usize) -> Result<Worker> {
        let (said, say) = std::io::pipe().call(|| "pipe2".to_string())?;
        let (told, tell) = UnixStream::pair().call(|| "socketpair".to_string())?;
        let parent = getpid();
        await_single("fork")?;
        let Some(pid) = fork()? else {
            drop((said, told));
            // No panic may go on in what belongs to the process that this is a copy of.
            let _ = catch_unwind(AssertUnwindSafe(|| self.be_copy(last, say, &tell, parent)));
            exit_now(0)
        };
        for fd in [said.as_fd(), told.as_fd()] {
            ioctl_fionbio(fd, true).call(|| "ioctl(FIONBIO)".to_string())?;
        }
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).call(|| "pidfd_open".to_string())?;
        let stage = self.plan.steps[last].stage.name.clone();
        Ok(Worker { part, stage, pidfd, said: Some(said), line: Vec::new(), told, text: Vec::new() })
    }

    /// What a copy does.
    fn be_copy(&self, last: usize, say: PipeWriter, mut tell: &UnixStream, parent: Pid) -> Result<()> {
        settle_down(say, parent)?;
        let lease = self.store.lease()?;
        let before = self.options.cache.passed();
        let how = vec![How::Unneeded; self.how.len()];
        let known = self.known.clone();
        let mut builder =
            Builder { lease: &lease, progress: &Lines::default(), known, how, apart: true, ..*self };
        let failed = builder.whole(last).err();
        let failed = failed.map(|e| Failure {
            message: e.to_string(),
            kind: e.kind(),
            output: e.output().to_string(),
        });
        let steps = builder.how.into_iter().enumerate().filter(|(_, how)| *how != How::Unneeded).collect();
        let told = Told { steps, cache: self.options.cache.passed().since(&before), failed };
        let text = serde_json::to_vec(&told).unwrap_or_default();
        tell.write_all(&text).and_then(|()| tell.shutdown(Shutdown::Write)).call(|| "write".to_string())?;
        // What the lease holds is held by the other process before it goes.
        let _ = tell.read(&mut [0]);
        Ok(())
    }
}

/// Makes this copy a process of its own, whose output goes to `say`.
fn settle_down(say: PipeWriter, parent: Pid) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).call(|| "prctl(PDEATHSIG)".to_string())?;
    if getppid() != Some(parent) {
        exit_now(1);
    }
    setpgid(None, None).call(|| "setpgid".to_string())?;
    set_streams([null()?.as_fd(), say.as_fd(), say.as_fd()])?;
    drop(say);
    signal::unblock();
    Ok(private_mounts()?)
}

/// Progress as lines.
#[derive(Default)]
struct Lines {
    /// Whether what is said next is which step it is.
    step: AtomicBool,
}

impl Progress for Lines {
    fn phase(&self, name: &'static str, _: Option<u64>) {
        self.step.store(name == "step", Ordering::Relaxed);
        if name != "step" {
            let _ = writeln!(std::io::stderr(), "{name}");
        }
    }

    fn advance(&self, _: u64) {}

    fn detail(&self, text: &str) {
        if self.step.swap(false, Ordering::Relaxed) {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}
