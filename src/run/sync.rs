//! What `create` and the container's first process tell one another.
//!
//! Messages are single packets, a tag and what belongs to it; the end of the connection
//! means that the other process is gone. Errors travel as their kind, their exit code and
//! their text.

use super::{Error, Result};
use crate::error::Kind;
use crate::sys::Call;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use std::time::Duration;

/// The first byte of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// To the parent: the process id of init, made by a process that joined namespaces.
    Pid = b'P',
    /// To init: its user namespace has id maps.
    Mapped = b'm',
    /// To init: it is in its control groups, and has its link to the host; with what it is to know
    /// of that.
    Grouped = b'c',
    /// To the parent: everything is mounted, hooks may run.
    Mounted = b'M',
    /// To init: the hooks have run.
    Hooked = b'h',
    /// To the parent: only `start` is missing.
    Ready = b'R',
    /// To the parent: it cannot go on.
    Failed = b'E',
}

/// One end of the connection.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// The failed socketpair(2) call.
    pub fn pair() -> Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .call(|| "socketpair".to_string())?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Waits no longer than this for a message.
    ///
    /// # Errors
    /// The failed setsockopt(2) call.
    pub fn limit(&self, seconds: u64) -> Result<()> {
        let limit = Some(Duration::from_secs(seconds));
        Ok(set_socket_timeout(&self.fd, Timeout::Recv, limit)
            .call(|| "setsockopt(SO_RCVTIMEO)".to_string())?)
    }

    /// Sends a message; not an error where nobody is there any more, the receiver's end tells.
    ///
    /// # Errors
    /// The failed send(2) call.
    pub fn send(&self, tag: Tag, data: &[u8]) -> Result<()> {
        let mut packet = vec![tag as u8];
        packet.extend(data);
        match send(&self.fd, &packet, SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(e) => Ok(Err(e).call(|| "send to the container's process".to_string())?),
        }
    }

    /// Waits for the message `tag`; gives its data.
    ///
    /// # Errors
    /// The error that the other process reports instead; [`Error::Init`] where it is gone.
    pub fn expect(&self, tag: Tag) -> Result<Vec<u8>> {
        let mut buffer = self.receive()?;
        match buffer.first() {
            Some(&first) if first == tag as u8 => Ok(buffer.split_off(1)),
            Some(&first) if first == Tag::Failed as u8 => Err(decode(&buffer[1..])),
            _ => {
                let message = "the container's process ended before it was ready".to_string();
                Err(Error::Init { message, kind: Kind::Internal })
            }
        }
    }

    /// Whether nothing comes within `limit`, neither a message nor the end.
    #[must_use]
    pub fn is_silent_for(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).unwrap_or_default();
        matches!(poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&limit)), Ok(0) | Err(Errno::INTR))
    }

    /// Waits for the end of the connection, which an execve brings.
    ///
    /// # Errors
    /// The error that comes instead.
    pub fn ended(&self) -> Result<()> {
        match self.receive()?.get(1..) {
            Some(error) => Err(decode(error)),
            None => Ok(()),
        }
    }

    /// The next message; empty at the end of the connection.
    fn receive(&self) -> Result<Vec<u8>> {
        let mut buffer = vec![0u8; 16_384];
        loop {
            match recv(&self.fd, &mut buffer, RecvFlags::empty()) {
                // A reset is told once where the other has not read all that was sent to it;
                // what it has sent itself comes after that.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => {
                    let limit = socket_timeout(&self.fd, Timeout::Recv).ok().flatten().unwrap_or_default();
                    let what = "the process in the container was not ready".to_string();
                    return Err(Error::Timeout { what, seconds: limit.as_secs() });
                }
                other => {
                    buffer.truncate(other.call(|| "recv".to_string())?.0);
                    return Ok(buffer);
                }
            }
        }
    }

    /// Reports why this process cannot go on.
    pub fn fail(&self, error: &Error) {
        let _ = self.send(Tag::Failed, &encode(error));
    }

    /// The descriptor's number.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

const KINDS: [Kind; 9] = [
    Kind::Internal,
    Kind::Input,
    Kind::Checks,
    Kind::Stale,
    Kind::Network,
    Kind::Unsupported,
    Kind::Privilege,
    Kind::Integrity,
    Kind::Missing,
];

/// An error as bytes.
#[must_use]
pub fn encode(error: &Error) -> Vec<u8> {
    let kind = KINDS.iter().position(|k| *k == error.kind()).unwrap_or(0);
    let mut out = vec![u8::try_from(kind).unwrap_or(0), 0];
    if let Error::Exec { program, reason, code } = error {
        out[1] = *code;
        out.extend(format!("{program}\0{reason}").bytes());
    } else {
        out.extend(error.to_string().bytes());
    }
    out.truncate(8192);
    out
}

/// An error from bytes.
#[must_use]
pub fn decode(bytes: &[u8]) -> Error {
    let text = String::from_utf8_lossy(bytes.get(2..).unwrap_or(&[])).into_owned();
    match (bytes.get(1), text.split_once('\0')) {
        (Some(&code), Some((program, reason))) if code != 0 => {
            Error::Exec { program: program.into(), reason: reason.into(), code }
        }
        _ => {
            let kind = bytes.first().and_then(|k| KINDS.get(usize::from(*k)));
            Error::Init { message: text, kind: kind.copied().unwrap_or(Kind::Internal) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_travel() {
        let exec = Error::Exec { program: "x".into(), reason: "not there".into(), code: 127 };
        let back = decode(&encode(&exec));
        assert_eq!((back.launch_code(), back.to_string()), (127, exec.to_string()));
        let other = Error::Unsupported { what: "y".into() };
        let back = decode(&encode(&other));
        assert_eq!((back.kind(), back.to_string()), (Kind::Unsupported, other.to_string()));
    }

    #[test]
    fn waits_no_longer_than_told() {
        let (a, _b) = Channel::pair().unwrap();
        a.limit(1).unwrap();
        assert!(matches!(a.expect(Tag::Ready), Err(Error::Timeout { seconds: 1, .. })));
    }

    #[test]
    fn a_lost_process_is_an_error() {
        let (a, b) = Channel::pair().unwrap();
        b.send(Tag::Ready, b"x").unwrap();
        assert_eq!(a.expect(Tag::Ready).unwrap(), b"x");
        drop(b);
        assert!(a.expect(Tag::Ready).is_err());
        a.send(Tag::Mapped, b"").unwrap();
    }
}
