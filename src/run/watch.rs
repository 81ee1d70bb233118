//! Waiting for a process, and what is looked after meanwhile.
//!
//! One loop around poll(2). Signals that come are sent on to the process. Everything else is a
//! [`Duty`]: the caller's terminal, the log of a container that nobody waits for, a health check.

use super::Result;
use super::terminal::Exit;
use crate::sys::Call;
use crate::sys::signal::{self, Signals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::time::{Duration, Instant};

/// Something that is looked after until the process ends.
pub trait Duty {
    /// The descriptors to wait for.
    fn wants(&self) -> Vec<PollFd<'_>>;

    /// When it has something to do at the latest.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Does what there is to do, without waiting for anything; called whenever anything happens.
    ///
    /// # Errors
    /// What makes going on useless.
    fn attend(&mut self) -> Result<()>;

    /// Whether it takes the signal `number`, which is not sent on then.
    fn takes(&mut self, _number: i32) -> bool {
        false
    }

    /// The process has ended.
    ///
    /// # Errors
    /// What is lost by that.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What asks this process to end ends the process of `pidfd` at once, which as the first of its namespace may
/// heed no signal; it is put off for this one, see [`signal::pending`].
pub struct EndWith<'a>(pub BorrowedFd<'a>);

impl Duty for EndWith<'_> {
    fn wants(&self) -> Vec<PollFd<'_>> {
        Vec::new()
    }

    fn attend(&mut self) -> Result<()> {
        Ok(())
    }

    fn takes(&mut self, number: i32) -> bool {
        let ends = signal::put_off_one(number);
        if ends {
            let _ = signal::send(self.0, libc::SIGKILL);
        }
        ends
    }
}

/// Waits for the child of `pidfd` and collects it. At `end` it is killed.
///
/// # Errors
/// The failed poll(2) or waitid(2) call; those of the duties.
pub fn wait(
    pidfd: BorrowedFd,
    signals: &Signals,
    mut end: Option<Instant>,
    duties: &mut [&mut dyn Duty],
) -> Result<Exit> {
    loop {
        let due = duties.iter().filter_map(|d| d.due()).chain(end).min();
        let mut fds = vec![
            PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        fds.extend(duties.iter().flat_map(|d| d.wants()));
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        match poll(&mut fds, left.and_then(|left| Timespec::try_from(left).ok()).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => Err(e).call(|| "poll".to_string())?,
        }
        let ended = !fds[0].revents().is_empty();
        if end.is_some_and(|end| Instant::now() >= end) && !ended {
            end = None;
            tracing::warn!("the time is up, the program is killed");
            signal::send(pidfd, libc::SIGKILL)?;
        }
        while let Some(number) = signals.next() {
            pass_on(pidfd, number, duties);
        }
        duties.iter_mut().try_for_each(|d| d.attend())?;
        if ended {
            duties.iter_mut().try_for_each(|d| d.finish())?;
            return reap(pidfd);
        }
    }
}

/// Whether a signal is about this process alone, and not to be sent on.
#[must_use]
pub fn is_own(number: i32) -> bool {
    [libc::SIGCHLD, libc::SIGPIPE, libc::SIGTTIN, libc::SIGTTOU, libc::SIGURG].contains(&number)
}

/// Whether the process of `pidfd` ends within `limit`; one that cannot be waited for has.
#[must_use]
pub fn ends_within(pidfd: impl AsFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    !matches!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)), Ok(0))
}

fn pass_on(pidfd: BorrowedFd, number: i32, duties: &mut [&mut dyn Duty]) {
    if !is_own(number) && !duties.iter_mut().any(|d| d.takes(number)) {
        let _ = signal::send(pidfd, number);
    }
}

/// Waits for a child's end and collects it.
///
/// # Errors
/// The failed waitid(2) call.
pub fn reap(pidfd: BorrowedFd) -> Result<Exit> {
    loop {
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => {
                let status = other.call(|| "waitid".to_string())?;
                let code = status.as_ref().and_then(rustix::process::WaitIdStatus::exit_status);
                let signal = status.as_ref().and_then(rustix::process::WaitIdStatus::terminating_signal);
                return Ok(signal.map_or(Exit::Code(code.unwrap_or(0)), Exit::Signal));
            }
        }
    }
}
