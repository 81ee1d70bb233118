//! The terminal of a program and that of its caller, joined.

use super::watch::Duty;
use super::{Result, io_error};
use crate::sys::Call;
use crate::sys::pty::{self, Raw};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::unix::net::UnixStream;
use std::path::Path;

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

/// Where a terminal's driving end goes: to whoever listens at `socket`, or to this process by the
/// second end, where there is to be a terminal at all.
///
/// # Errors
/// The failed call.
pub fn console(socket: Option<&Path>, terminal: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    if let Some(path) = socket {
        return Ok((Some(io_error("connect to", path, UnixStream::connect(path))?.into()), None));
    }
    if !terminal {
        return Ok((None, None));
    }
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (a, b) = pair.call(|| "socketpair".to_string())?;
    Ok((Some(a), Some(b)))
}

/// How much is read at once.
pub const CHUNK: usize = 8192;
/// End of file, as typed (termios(3), VEOF).
pub const END_OF_FILE: u8 = 4;

/// Joins the caller's standard input and output to the terminal that `master` drives.
pub struct Relay {
    /// None once all of the program's ends are closed; it may run on.
    master: Option<OwnedFd>,
    /// What still waits to be written to the program's terminal.
    pending: Vec<u8>,
    input_open: bool,
    _raw: Option<Raw>,
}

impl Relay {
    /// Joins them until the value is dropped.
    ///
    /// # Errors
    /// The failed ioctl.
    pub fn new(master: OwnedFd) -> Result<Self> {
        let raw = Raw::stdin();
        rustix::io::ioctl_fionbio(&master, true).call(|| "ioctl(FIONBIO)".to_string())?;
        fit(&master);
        Ok(Self { master: Some(master), pending: Vec::new(), input_open: true, _raw: raw })
    }

    /// Writes out what the program has printed; false where there is nothing (more) for now.
    fn output(&mut self) -> Result<bool> {
        let Some(master) = &self.master else { return Ok(false) };
        let mut buffer = [0u8; CHUNK];
        match rustix::io::read(master, &mut buffer) {
            Ok(0) | Err(Errno::IO) => {
                self.master = None;
                Ok(false)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(e) => Ok(Err(e).call(|| "read(terminal)".to_string())?),
            Ok(n) => {
                // Where nobody reads any more, the program is not to wait for that.
                let _ = write_out(rustix::stdio::stdout(), &buffer[..n]);
                Ok(true)
            }
        }
    }

    fn wants_input(&self) -> bool {
        self.input_open && self.pending.is_empty()
    }

    fn input(&mut self) {
        match typed() {
            None => {
                self.input_open = false;
                self.pending.push(END_OF_FILE);
            }
            Some(bytes) => self.pending.extend(bytes),
        }
    }
}

impl Duty for Relay {
    fn wants(&self) -> Vec<PollFd<'_>> {
        let Some(master) = &self.master else { return Vec::new() };
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, !self.pending.is_empty());
        let mut fds = vec![PollFd::from_borrowed_fd(master.as_fd(), events)];
        if self.wants_input() {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        fds
    }

    fn attend(&mut self) -> Result<()> {
        self.output()?;
        if self.wants_input() && is_readable(rustix::stdio::stdin()) {
            self.input();
        }
        if let Some(master) = &self.master
            && let Ok(n) = rustix::io::write(master, &self.pending)
        {
            self.pending.drain(..n);
        }
        Ok(())
    }

    fn takes(&mut self, number: i32) -> bool {
        if number == libc::SIGWINCH
            && let Some(master) = &self.master
        {
            fit(master);
            return true;
        }
        false
    }

    fn finish(&mut self) -> Result<()> {
        while self.output()? {}
        Ok(())
    }
}

/// Gives a terminal the size of the caller's.
fn fit(master: &OwnedFd) {
    if let Some((columns, rows)) = pty::size(rustix::stdio::stdin()) {
        let _ = pty::resize(master, columns, rows);
    }
}

/// Whether a read would not wait.
pub fn is_readable(fd: BorrowedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).is_ok_and(|n| n > 0)
}

/// What stands on standard input; none at its end.
pub fn typed() -> Option<Vec<u8>> {
    let mut buffer = vec![0u8; CHUNK];
    match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
        Ok(n) if n > 0 => {
            buffer.truncate(n);
            Some(buffer)
        }
        Err(Errno::INTR | Errno::AGAIN) => Some(Vec::new()),
        _ => None,
    }
}

/// Writes all of it.
///
/// # Errors
/// `EPIPE` where nobody reads any more.
pub fn write_out(fd: BorrowedFd, mut rest: &[u8]) -> rustix::io::Result<()> {
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(fd, rest))?;
        rest = &rest[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn codes() {
        assert_eq!([Exit::Code(0), Exit::Code(3), Exit::Signal(9)].map(Exit::code), [0, 3, 137]);
    }
}
