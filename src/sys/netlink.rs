//! Network interfaces: the loopback device up, a veth pair across two namespaces.
//!
//! One message over one rtnetlink(7) socket and two ioctls are all that a launch needs;
//! they are written out here, where a crate would bring a protocol's worth of types.
#![allow(unsafe_code)]

use super::{Call, Result};
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;

const RTM_NEWLINK: u16 = 16;
const VETH_INFO_PEER: u16 = 1;

fn last_error<T>() -> std::io::Result<T> {
    Err(std::io::Error::last_os_error())
}

fn socket(domain: i32, kind: i32, protocol: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the result is a fresh descriptor or -1.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return last_error();
    }
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the interface `name` of this network namespace up (netdevice(7)).
///
/// # Errors
/// The failed ioctl; `ENODEV` where there is no such interface.
pub fn set_up(name: &str) -> Result<()> {
    let call = || format!("ioctl(SIOCSIFFLAGS, {name:?}, IFF_UP)");
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0).call(call)?;
    // SAFETY: all zero is a valid ifreq; its name stays terminated; the ioctls read and
    // write within it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (slot, byte) in request.ifr_name.iter_mut().take(15).zip(name.bytes()) {
            *slot = byte.cast_signed();
        }
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) < 0 {
            return last_error().call(call);
        }
        request.ifr_ifru.ifru_flags |= i16::try_from(libc::IFF_UP).unwrap_or(1);
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) < 0 {
            return last_error().call(call);
        }
    }
    Ok(())
}

/// Makes a veth pair: `name` here, up, and `peer` in the network namespace `netns`, to be set
/// up there (the kernel refuses that for an end that has no other yet).
///
/// # Errors
/// What the kernel answers: `EEXIST` for a taken name, `EOPNOTSUPP` without veth.
pub fn veth(name: &str, peer: &str, netns: BorrowedFd) -> Result<()> {
    let call = || format!("rtnetlink(veth {name}, {peer})");
    let netns = u32::try_from(netns.as_raw_fd()).unwrap_or(0);
    let mut message = Message::default();
    message.link_header(libc::IFF_UP);
    message.string(libc::IFLA_IFNAME, name);
    message.nest(libc::IFLA_LINKINFO, |m| {
        m.string(libc::IFLA_INFO_KIND, "veth");
        m.nest(libc::IFLA_INFO_DATA, |m| {
            m.nest(VETH_INFO_PEER, |m| {
                m.link_header(0);
                m.string(libc::IFLA_IFNAME, peer);
                m.attribute(libc::IFLA_NET_NS_FD, &netns.to_ne_bytes());
            });
        });
    });
    message.request(RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL).call(call)
}

/// The body of a netlink message, written piece by piece (netlink(7), rtnetlink(7)).
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
    /// An attribute is longer than its length can say.
    too_long: bool,
}

impl Message {
    /// A `struct ifinfomsg` for an interface with these flags.
    fn link_header(&mut self, flags: i32) {
        let up = flags.to_ne_bytes();
        self.bytes.extend([0; 8]);
        self.bytes.extend(up);
        self.bytes.extend(up);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |m| m.bytes.extend(value));
    }

    fn string(&mut self, kind: u16, value: &str) {
        self.nest(kind, |m| {
            m.bytes.extend(value.bytes());
            m.bytes.push(0);
        });
    }

    /// An attribute whose value `fill` writes; its length is put in afterwards.
    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0, 0]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or_else(|_| {
            self.too_long = true;
            0
        });
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Sends the message and reads the kernel's acknowledgement.
    fn request(&self, kind: u16, flags: i32) -> std::io::Result<()> {
        if self.too_long {
            return Err(Errno::MSGSIZE.into());
        }
        let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        let mut packet = Vec::with_capacity(16 + self.bytes.len());
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or(0);
        packet.extend(u32::try_from(16 + self.bytes.len()).unwrap_or(0).to_ne_bytes());
        packet.extend(kind.to_ne_bytes());
        packet.extend(flags.to_ne_bytes());
        packet.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(&self.bytes);
        rustix::io::write(&socket, &packet)?;
        let mut answer = [0u8; 4096];
        let length = rustix::io::read(&socket, &mut answer)?;
        // struct nlmsghdr, then struct nlmsgerr with a negative errno, 0 for success.
        let code = answer[..length].get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
        match code {
            Some(0) => Ok(()),
            Some(code) => Err(Errno::from_raw_os_error(code.saturating_neg()).into()),
            None => Err(Errno::PROTO.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length that wrapped around would let the value of one attribute be read as others.
    #[test]
    fn attributes_that_are_too_long_are_not_sent() {
        let mut fits = Message::default();
        fits.attribute(1, &vec![0; 0xfffb]);
        assert!(!fits.too_long && fits.bytes[..2] == [0xff, 0xff]);
        for length in [0xfffc, 0x1_0000, 0x1_0010] {
            let mut message = Message::default();
            message.nest(2, |m| m.attribute(1, &vec![0; length]));
            assert!(message.too_long, "{length}");
            let refused = message.request(RTM_NEWLINK, 0).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
        }
    }
}
