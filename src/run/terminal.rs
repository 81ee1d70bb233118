//! Waiting for a process: signals are passed on to it, its terminal to the caller's.

use super::Result;
use crate::sys::Call;
use crate::sys::pty::{self, Raw};
use crate::sys::signal::{self, Signals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::time::Instant;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The exit code for the caller's shell: the code, or 128 and the signal's number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => u8::try_from(code & 0xff).unwrap_or(255),
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(255),
        }
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

/// What still waits to be written to the program's terminal.
const CHUNK: usize = 8192;
/// End of file, as typed (termios(3), VEOF).
const END_OF_FILE: u8 = 4;

/// Waits for the child of `pidfd`. Signals that come are sent on to it. With `master`, standard
/// input and output are joined to the terminal that it drives. At `end` it is killed.
///
/// # Errors
/// The failed poll(2), read(2) or write(2) call.
pub fn wait(
    pidfd: BorrowedFd,
    signals: &Signals,
    master: Option<OwnedFd>,
    mut end: Option<Instant>,
) -> Result<Exit> {
    let Some(master) = master else {
        loop {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN), polled(signals.as_fd(), true)];
            wait_any(&mut fds, pidfd, &mut end)?;
            pass_on(pidfd, signals, None);
            if !fds[0].revents().is_empty() {
                return reap(pidfd);
            }
        }
    };
    let _raw = Raw::stdin();
    rustix::io::ioctl_fionbio(&master, true).call(|| "ioctl(FIONBIO)".to_string())?;
    if let Some((columns, rows)) = pty::size(rustix::stdio::stdin()) {
        let _ = pty::resize(&master, columns, rows);
    }
    let mut relay = Relay { master, pending: Vec::new(), input_open: true };
    loop {
        let (want_input, want_output) =
            (relay.input_open && relay.pending.is_empty(), !relay.pending.is_empty());
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, want_output);
        let mut fds = [
            PollFd::new(&pidfd, PollFlags::IN),
            polled(signals.as_fd(), true),
            PollFd::from_borrowed_fd(relay.master.as_fd(), events),
            polled(rustix::stdio::stdin(), want_input),
        ];
        wait_any(&mut fds, pidfd, &mut end)?;
        let ready = [0, 1, 2, 3].map(|i| !fds[i].revents().is_empty());
        pass_on(pidfd, signals, Some(relay.master.as_fd()));
        let hung_up = ready[2] && !relay.output()?;
        if ready[3] && want_input {
            relay.input();
        }
        relay.flush();
        if ready[0] {
            while relay.output()? {}
            return reap(pidfd);
        }
        if hung_up {
            // All of the program's ends are closed, but it runs on.
            return wait(pidfd, signals, None, end);
        }
    }
}

fn polled(fd: BorrowedFd<'_>, wanted: bool) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, if wanted { PollFlags::IN } else { PollFlags::empty() })
}

/// Waits until one of `fds` is ready; at `end` the process is killed, once.
fn wait_any(fds: &mut [PollFd], pidfd: BorrowedFd, end: &mut Option<Instant>) -> Result<()> {
    let left = end.map(|end| end.saturating_duration_since(Instant::now()));
    let limit = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(fds, limit.as_ref()) {
        Ok(0) if end.take().is_some() => {
            tracing::warn!("the time is up, the container is killed");
            Ok(signal::send(pidfd, libc::SIGKILL)?)
        }
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Ok(Err(e).call(|| "poll".to_string())?),
    }
}

fn pass_on(pidfd: BorrowedFd, signals: &Signals, master: Option<BorrowedFd>) {
    while let Some(number) = signals.next() {
        match (number, master) {
            (libc::SIGCHLD | libc::SIGPIPE | libc::SIGTTIN | libc::SIGTTOU | libc::SIGURG, _) => {}
            (libc::SIGWINCH, Some(master)) => {
                if let Some((columns, rows)) = pty::size(rustix::stdio::stdin()) {
                    let _ = pty::resize(master, columns, rows);
                }
            }
            _ => {
                let _ = signal::send(pidfd, number);
            }
        }
    }
}

struct Relay {
    master: OwnedFd,
    pending: Vec<u8>,
    input_open: bool,
}

impl Relay {
    /// Writes out what the program printed; false where there is nothing (more) for now.
    fn output(&self) -> Result<bool> {
        let mut buffer = [0u8; CHUNK];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(0) | Err(Errno::IO | Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(e) => Ok(Err(e).call(|| "read(terminal)".to_string())?),
            Ok(n) => {
                let mut rest = &buffer[..n];
                while !rest.is_empty() {
                    match rustix::io::write(rustix::stdio::stdout(), rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(Errno::INTR) => {}
                        // Nobody reads any more; the program is not to wait for that.
                        Err(_) => break,
                    }
                }
                Ok(true)
            }
        }
    }

    fn input(&mut self) {
        let mut buffer = [0u8; CHUNK];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(n) if n > 0 => self.pending.extend(&buffer[..n]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            _ => {
                self.input_open = false;
                self.pending.push(END_OF_FILE);
            }
        }
    }

    fn flush(&mut self) {
        if let Ok(n) = rustix::io::write(&self.master, &self.pending) {
            self.pending.drain(..n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn codes() {
        assert_eq!([Exit::Code(0), Exit::Code(3), Exit::Signal(9)].map(Exit::code), [0, 3, 137]);
    }
}
