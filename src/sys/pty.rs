//! Pseudo-terminals and handing descriptors to another process.

use super::{Call, Result, process};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::pty::OpenptFlags;
use rustix::termios::{self, OptionalActions, Termios, Winsize};
use std::io::{IoSlice, IoSliceMut};

/// A pseudo-terminal: the end that a program reads and writes, and the end that drives it.
#[derive(Debug)]
pub struct Pty {
    /// The driving end.
    pub master: OwnedFd,
    /// The program's end.
    pub slave: OwnedFd,
}

impl Pty {
    /// The pair behind an open `ptmx` device; the program's end is got without a path.
    ///
    /// # Errors
    /// The failed ioctl.
    pub fn new(ptmx: OwnedFd) -> Result<Self> {
        rustix::pty::unlockpt(&ptmx).call(|| "ioctl(TIOCSPTLCK)".to_string())?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&ptmx, flags).call(|| "ioctl(TIOCGPTPEER)".to_string())?;
        Ok(Self { master: ptmx, slave })
    }
}

/// Makes `slave` the controlling terminal of this session and its standard streams.
///
/// # Errors
/// The failed call.
pub fn become_terminal(slave: &OwnedFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(slave).call(|| "ioctl(TIOCSCTTY)".to_string())?;
    process::set_streams([slave.as_fd(); 3])
}

/// Sets the size of a terminal in characters.
///
/// # Errors
/// The failed ioctl.
pub fn resize(terminal: impl AsFd, columns: u16, rows: u16) -> Result<()> {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    termios::tcsetwinsize(terminal, size).call(|| "ioctl(TIOCSWINSZ)".to_string())
}

/// The size of a terminal in characters, columns first; none for what is no terminal.
#[must_use]
pub fn size(terminal: impl AsFd) -> Option<(u16, u16)> {
    termios::tcgetwinsize(terminal).ok().map(|s| (s.ws_col, s.ws_row))
}

/// Standard input in raw mode until the value is dropped.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Puts standard input into raw mode; none where it is no terminal.
    #[must_use]
    pub fn stdin() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let before = termios::tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Sends `fd` with `text` over a unix socket (`SCM_RIGHTS`).
///
/// # Errors
/// The failed sendmsg(2) call.
pub fn send_fd(socket: BorrowedFd, fd: BorrowedFd, text: &[u8]) -> Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .call(|| "sendmsg(SCM_RIGHTS)".to_string())
}

/// Receives a descriptor and up to `text.len()` bytes from a unix socket.
///
/// # Errors
/// The failed recvmsg(2) call; `ENODATA` where no descriptor came.
pub fn receive_fd(socket: BorrowedFd, text: &mut [u8]) -> Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(text)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .call(|| "recvmsg(SCM_RIGHTS)".to_string())?;
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.ok_or(Errno::NODATA).call(|| "recvmsg(SCM_RIGHTS)".to_string())
}
