//! What the keeper of a container and those who look at it tell one another.
//!
//! The socket `attach` in the container's folder is of packets (`SOCK_SEQPACKET`), each a tag
//! and what belongs to it. The keeper says at the end how the container has ended, whatever a
//! client has asked for.

use super::lifecycle::Container;
use super::log::Stream;
use super::terminal::{is_readable, typed, write_out};
use super::{Error, Result, watch};
use crate::sys::Call;
use crate::sys::pty::{self, Raw};
use crate::sys::signal::{self, Signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recv, send, socket_with,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest packet, in bytes.
const LONGEST: usize = 16 << 10;
/// By which two keys after one another one leaves, as docker and podman have it: ^P ^Q.
const LEAVE: [u8; 2] = [0x10, 0x11];

/// How long is waited for at once.
const LONG: Duration = Duration::from_hours(1);

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// To the keeper: send what is printed.
    Look,
    /// To the keeper: what was typed.
    Input(Vec<u8>),
    /// To the keeper: the size of the terminal, columns and rows.
    Size(u16, u16),
    /// To the client, after [`Self::Look`]: whether the program has a terminal.
    Terminal(bool),
    /// To the client: what was printed.
    Output(Stream, Vec<u8>),
    /// To the client: the exit code, for the caller's shell.
    End(u8),
}

impl Packet {
    /// As it is sent.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let tagged = |tag: u8, data: &[u8]| [&[tag], data].concat();
        match self {
            Self::Look => tagged(b'l', &[]),
            Self::Input(data) => tagged(b'i', data),
            Self::Size(columns, rows) => tagged(b's', &[columns.to_ne_bytes(), rows.to_ne_bytes()].concat()),
            Self::Terminal(truth) => tagged(b't', &[u8::from(*truth)]),
            Self::Output(Stream::Stdout, data) => tagged(b'o', data),
            Self::Output(Stream::Stderr, data) => tagged(b'e', data),
            Self::End(code) => tagged(b'x', &[*code]),
        }
    }

    /// Reads one; none where it is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (tag, data) = bytes.split_first()?;
        Some(match (tag, data) {
            (b'l', []) => Self::Look,
            (b'i', data) => Self::Input(data.to_vec()),
            (b's', [a, b, c, d]) => Self::Size(u16::from_ne_bytes([*a, *b]), u16::from_ne_bytes([*c, *d])),
            (b't', [truth]) => Self::Terminal(*truth != 0),
            (b'o', data) => Self::Output(Stream::Stdout, data.to_vec()),
            (b'e', data) => Self::Output(Stream::Stderr, data.to_vec()),
            (b'x', [code]) => Self::End(*code),
            _ => return None,
        })
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl AsFd for Socket {
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Where clients come to, in the container's folder; it never waits.
    ///
    /// # Errors
    /// The failed call.
    pub fn listen(dir: &Path) -> Result<Self> {
        let (fd, address, _dir) = socket_in(dir, SocketFlags::NONBLOCK)?;
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = bind(&fd, &address);
        rustix::process::umask(before);
        bound.and_then(|()| listen(&fd, 16)).call(|| format!("bind({}/attach)", dir.display()))?;
        Ok(Self { fd })
    }

    /// The next client; none where none waits.
    #[must_use]
    pub fn accept(&self) -> Option<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        accept_with(&self.fd, flags).ok().map(|fd| Self { fd })
    }

    /// To the keeper of the container in `dir`; none where it has none, or not any more.
    ///
    /// # Errors
    /// The failed call.
    pub fn connect(dir: &Path) -> Result<Option<Self>> {
        let Ok((fd, address, _dir)) = socket_in(dir, SocketFlags::empty()) else { return Ok(None) };
        match connect(&fd, &address) {
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            other => {
                other.call(|| format!("connect({}/attach)", dir.display()))?;
                Ok(Some(Self { fd }))
            }
        }
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// `EAGAIN` where the other one does not read; `EPIPE` where it is gone.
    pub fn send(&self, packet: &[u8]) -> rustix::io::Result<()> {
        rustix::io::retry_on_intr(|| send(&self.fd, packet, SendFlags::NOSIGNAL)).map(drop)
    }

    /// The next packet; none at the end of the connection.
    ///
    /// # Errors
    /// `EAGAIN` where none is there.
    pub fn receive(&self) -> rustix::io::Result<Option<Packet>> {
        let mut buffer = vec![0u8; LONGEST];
        let (length, _) = rustix::io::retry_on_intr(|| recv(&self.fd, &mut buffer, RecvFlags::empty()))?;
        Ok(Packet::parse(&buffer[..length.min(LONGEST)]))
    }
}

/// The path of `name` in the folder `dir`, short enough for an address (unix(7)), as long as the
/// folder is open.
///
/// # Errors
/// The failed open(2) call.
pub fn short_path(dir: &Path, name: &str) -> Result<(PathBuf, OwnedFd)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(dir, flags, Mode::empty()).call(|| format!("open({})", dir.display()))?;
    Ok((format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into(), folder))
}

/// A socket and its address, which is valid as long as the folder is open.
fn socket_in(dir: &Path, flags: SocketFlags) -> Result<(OwnedFd, SocketAddrUnix, OwnedFd)> {
    let (path, folder) = short_path(dir, "attach")?;
    let address = SocketAddrUnix::new(path).call(|| format!("open({})", dir.display()))?;
    let flags = flags | SocketFlags::CLOEXEC;
    let fd =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).call(|| "socket".to_string())?;
    Ok((fd, address, folder))
}

/// How it ended for one who looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The container has ended, with this exit code.
    Ended(u8),
    /// The two keys were typed, or nobody reads what it prints.
    Detached,
}

impl Container {
    fn keeper(&self) -> Result<Socket> {
        Socket::connect(self.dir())?.ok_or_else(|| Error::State {
            what: "attach to a container that no `run --detach` keeps",
            id: self.id().to_string(),
        })
    }

    /// Joins the caller's standard streams to those of the container; `input` says whether what
    /// is typed goes there. Signals go to the container.
    ///
    /// # Errors
    /// [`Error::State`] where nothing keeps it; the failed call.
    pub fn attach(&self, input: bool) -> Result<Left> {
        let gone = || Error::NotRunning { id: self.id().to_string() };
        let pidfd = self.state()?.pidfd().ok_or_else(gone)?;
        let socket = self.keeper()?;
        let signals = Signals::take()?;
        socket.send(&Packet::Look.bytes()).call(|| "send".to_string())?;
        let mut client = Client { socket, open: input, raw: None, terminal: false, keys: Keys::default() };
        loop {
            let mut fds = vec![PollFd::new(&client.socket, PollFlags::IN)];
            fds.push(PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN));
            if client.open {
                fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
            }
            let _ = poll(&mut fds, None);
            if let Some(left) = client.receive(self.id())? {
                return Ok(left);
            }
            while let Some(number) = signals.next() {
                match number {
                    libc::SIGWINCH => client.fit(),
                    number if watch::is_own(number) => {}
                    _ => drop(signal::send(pidfd.as_fd(), number)),
                }
            }
            if client.open && is_readable(rustix::stdio::stdin()) && client.type_in() {
                return Ok(Left::Detached);
            }
        }
    }

    /// Waits for its end; gives its exit code.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where nobody is told how it ends: a container of `create`.
    pub fn wait(&self) -> Result<u8> {
        if let Some(socket) = Socket::connect(self.dir())?
            && let Ok(Some(Packet::End(code))) = socket.receive()
        {
            return Ok(code);
        }
        while !self.ends_within(LONG)? {}
        self.state()?.exit.ok_or_else(|| Error::Unsupported {
            what: format!("the exit code of {}, which no `run --detach` keeps,", self.id()),
        })
    }
}

struct Client {
    socket: Socket,
    open: bool,
    raw: Option<Raw>,
    terminal: bool,
    keys: Keys,
}

impl Client {
    /// Takes a packet; says how it ended where it is the last.
    fn receive(&mut self, id: &str) -> Result<Option<Left>> {
        if !is_readable(self.socket.as_fd()) {
            return Ok(None);
        }
        let output = match self.socket.receive() {
            Ok(Some(Packet::Terminal(true))) => {
                self.terminal = true;
                self.raw = if self.open { Raw::stdin() } else { None };
                self.fit();
                Ok(())
            }
            Ok(Some(Packet::Output(Stream::Stdout, data))) => write_out(rustix::stdio::stdout(), &data),
            Ok(Some(Packet::Output(Stream::Stderr, data))) => write_out(rustix::stdio::stderr(), &data),
            Ok(Some(Packet::End(code))) => return Ok(Some(Left::Ended(code))),
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => {
                let message = format!("the keeper of container {id} has ended");
                return Err(Error::Init { message, kind: crate::error::Kind::Internal });
            }
        };
        Ok(output.is_err().then_some(Left::Detached))
    }

    fn fit(&self) {
        if self.terminal
            && let Some((columns, rows)) = pty::size(rustix::stdio::stdin())
        {
            let _ = self.socket.send(&Packet::Size(columns, rows).bytes());
        }
    }

    /// Sends what was typed; says whether the keys to leave by were among it.
    fn type_in(&mut self) -> bool {
        let Some(mut bytes) = typed() else {
            self.open = false;
            return false;
        };
        let leaves = self.terminal && self.keys.pass(&mut bytes);
        if !bytes.is_empty() {
            let _ = self.socket.send(&Packet::Input(bytes).bytes());
        }
        leaves
    }
}

/// Looks for the two keys to leave by, which may come in two reads.
#[derive(Debug, Default)]
struct Keys {
    first: bool,
}

impl Keys {
    /// Cuts `bytes` before the keys, and holds the first one back until the next comes; says
    /// whether both were there.
    fn pass(&mut self, bytes: &mut Vec<u8>) -> bool {
        if std::mem::take(&mut self.first) && !bytes.is_empty() {
            bytes.insert(0, LEAVE[0]);
        }
        if let Some(at) = bytes.windows(2).position(|w| w == LEAVE) {
            bytes.truncate(at);
            return true;
        }
        if bytes.last() == Some(&LEAVE[0]) {
            bytes.pop();
            self.first = true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back() {
        for packet in [
            Packet::Look,
            Packet::Input(b"x\n".to_vec()),
            Packet::Size(80, 24),
            Packet::Terminal(true),
            Packet::Output(Stream::Stderr, vec![0, 255]),
            Packet::End(137),
        ] {
            assert_eq!(Packet::parse(&packet.bytes()), Some(packet));
        }
        for bad in [&b""[..], b"q", b"s12", b"x", b"lx"] {
            assert_eq!(Packet::parse(bad), None);
        }
    }

    #[test]
    fn keys_to_leave_by() {
        let mut keys = Keys::default();
        let mut pass = |text: &[u8]| {
            let mut bytes = text.to_vec();
            (keys.pass(&mut bytes), bytes)
        };
        assert_eq!(pass(b"abc"), (false, b"abc".to_vec()));
        assert_eq!(pass(b"a\x10"), (false, b"a".to_vec()));
        assert_eq!(pass(b"b"), (false, b"\x10b".to_vec()));
        assert_eq!(pass(b"\x10"), (false, vec![]));
        assert_eq!(pass(b"\x11"), (true, vec![]));
        assert_eq!(pass(b"ls\x10\x11rest"), (true, b"ls".to_vec()));
    }
}
