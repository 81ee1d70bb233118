//! Network interfaces, their addresses and routes, by rtnetlink(7); loopback up by an ioctl.
//!
//! Messages and answers are the types of `netlink-packet-route`, which checks all lengths;
//! what goes over the socket is one request and its answer at a time. An answer is no longer than
//! the kernel makes them, a list no longer than any machine's, and one that changed while it was
//! read is read again.
#![allow(unsafe_code)]

use super::{Call, Error, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily as Family, RouteNetlinkMessage};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};
use std::net::{IpAddr, Ipv4Addr};

/// How long an answer of the kernel's is at most, in bytes (`netlink_dump` makes 32 KiB at most).
const ANSWER: usize = 64 << 10;
/// How many entries a list has at most.
const ENTRIES: usize = 1 << 18;
/// How often a list is read again that changed meanwhile.
const ATTEMPTS: usize = 100;

/// Sets the interface `name` of this network namespace up (netdevice(7)).
///
/// # Errors
/// The failed ioctl; `ENODEV` where there is no such interface.
pub fn set_up(name: &str) -> Result<()> {
    let call = || format!("ioctl(SIOCSIFFLAGS, {name:?}, IFF_UP)");
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None).call(call)?;
    // SAFETY: all zero is a valid ifreq; its name stays terminated; the ioctls read and
    // write within it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (slot, byte) in request.ifr_name.iter_mut().take(15).zip(name.bytes()) {
            *slot = byte.cast_signed();
        }
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) < 0 {
            return Err(std::io::Error::last_os_error()).call(call);
        }
        request.ifr_ifru.ifru_flags |= i16::try_from(libc::IFF_UP).unwrap_or(1);
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) < 0 {
            return Err(std::io::Error::last_os_error()).call(call);
        }
    }
    Ok(())
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is a bridge.
    pub is_bridge: bool,
    /// Free text (`IFLA_IFALIAS`).
    pub alias: String,
    /// The number of the bridge that it is a port of; 0 for none.
    pub bridge: u32,
    /// Its hardware address.
    pub mac: Vec<u8>,
}

/// A veth pair to make.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// The end here, which is set up.
    pub name: &'a str,
    /// The number of a bridge that it becomes a port of.
    pub bridge: Option<u32>,
    /// The other end, to be set up there (the kernel refuses that for an end that has no other yet).
    pub peer: &'a str,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// The network namespace that it is in.
    pub netns: BorrowedFd<'a>,
}

/// A conversation with the kernel about one network namespace.
#[derive(Debug)]
pub struct Route {
    fd: OwnedFd,
}

impl Route {
    /// About the network namespace of this process.
    ///
    /// # Errors
    /// The failed socket(2) call.
    pub fn open() -> Result<Self> {
        // No protocol is protocol 0, NETLINK_ROUTE.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        Ok(Self { fd: fd.call(|| "socket(AF_NETLINK)".to_string())? })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn links(&self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self.list("links", &RouteNetlinkMessage::GetLink(message))?;
        let link = |answer| if let RouteNetlinkMessage::NewLink(m) = answer { Some(link(&m)) } else { None };
        Ok(answers.into_iter().filter_map(link).collect())
    }

    /// The IPv4 addresses of all interfaces: the interface's number, address, prefix in bits.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn addresses(&self) -> Result<Vec<(u32, Ipv4Addr, u8)>> {
        let mut message = AddressMessage::default();
        message.header.family = Family::Inet;
        let answers = self.list("addresses", &RouteNetlinkMessage::GetAddress(message))?;
        let address = |answer| {
            let RouteNetlinkMessage::NewAddress(m) = answer else { return None };
            let local = m.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                _ => None,
            });
            Some((m.header.index, local?, m.header.prefix_len))
        };
        Ok(answers.into_iter().filter_map(address).collect())
    }

    /// Makes a bridge, down, that keeps the hardware address `mac`.
    ///
    /// # Errors
    /// What the kernel answers: `EEXIST` for a taken name.
    pub fn add_bridge(&self, name: &str, mac: [u8; 6]) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.extend([
            LinkAttribute::IfName(name.to_string()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ]);
        self.make(&format!("bridge {name}"), RouteNetlinkMessage::NewLink(message))
    }

    /// Makes a veth pair.
    ///
    /// # Errors
    /// What the kernel answers: `EEXIST` for a taken name, `EOPNOTSUPP` without veth.
    pub fn add_veth(&self, veth: &Veth) -> Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(veth.peer.to_string()));
        peer.attributes.push(LinkAttribute::NetNsFd(veth.netns.as_raw_fd()));
        peer.attributes.extend(veth.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        let mut message = LinkMessage::default();
        up(&mut message);
        message.attributes.push(LinkAttribute::IfName(veth.name.to_string()));
        message.attributes.extend(veth.bridge.map(LinkAttribute::Controller));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.make(&format!("veth {}, {}", veth.name, veth.peer), RouteNetlinkMessage::NewLink(message))
    }

    /// Sets an interface's free text.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set_alias(&self, name: &str, alias: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        message.attributes.push(LinkAttribute::IfAlias(alias.to_string()));
        self.ask(&format!("alias of {name}"), RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Lets a bridge send a frame back by the port that it came from.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set_hairpin(&self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]));
        self.ask(&format!("hairpin of {name}"), RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set_up(&self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        up(&mut message);
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        self.ask(&format!("{name} up"), RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Deletes an interface; not an error where it is gone.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn delete(&self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        match self.ask(&format!("delete {name}"), RouteNetlinkMessage::DelLink(message), 0) {
            Err(e) if e.errno() == Some(Errno::NODEV) => Ok(()),
            other => other,
        }
    }

    /// The number of the interface `name`.
    ///
    /// # Errors
    /// `ENODEV` where there is none.
    pub fn index(&self, name: &str) -> Result<u32> {
        rustix::net::netdevice::name_to_index(&self.fd, name)
            .call(|| format!("ioctl(SIOCGIFINDEX, {name:?})"))
    }

    /// Gives the interface with this number an address.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn add_address(&self, index: u32, address: Ipv4Addr, length: u8) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = Family::Inet;
        message.header.prefix_len = length;
        message.header.index = index;
        let broadcast = address.to_bits() | u32::MAX.checked_shr(length.into()).unwrap_or(0);
        message.attributes.extend([
            AddressAttribute::Local(address.into()),
            AddressAttribute::Address(address.into()),
            AddressAttribute::Broadcast(Ipv4Addr::from_bits(broadcast)),
        ]);
        self.make(&format!("address {address}/{length}"), RouteNetlinkMessage::NewAddress(message))
    }

    /// Sends everything by default to `gateway`.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn add_default_route(&self, gateway: Ipv4Addr) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        self.make(&format!("default route by {gateway}"), RouteNetlinkMessage::NewRoute(message))
    }

    fn make(&self, what: &str, message: RouteNetlinkMessage) -> Result<()> {
        self.ask(what, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sends a request and reads the kernel's acknowledgement.
    fn ask(&self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        let call = || format!("rtnetlink({what})");
        self.send(message, flags | NLM_F_ACK).call(call)?;
        for answer in self.receive().call(call)? {
            if let NetlinkPayload::Error(e) = answer.payload {
                return e.code.map_or(Ok(()), |_| Err(Errno::from_raw_os_error(-e.raw_code()))).call(call);
            }
        }
        Err(Errno::PROTO).call(call)
    }

    fn list(&self, what: &str, message: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        let call = || format!("rtnetlink({what})");
        for _ in 0..ATTEMPTS {
            self.send(message.clone(), NLM_F_DUMP).call(call)?;
            if let Some(all) = self.read_list().call(call)? {
                return Ok(all);
            }
        }
        Err(Errno::AGAIN).call(call)
    }

    /// The entries up to the end of the list; none where it changed meanwhile.
    fn read_list(&self) -> rustix::io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let (mut all, mut whole) = (Vec::new(), true);
        while all.len() < ENTRIES {
            for answer in self.receive()? {
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => all.push(message),
                    NetlinkPayload::Error(e) => return Err(Errno::from_raw_os_error(-e.raw_code())),
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(all)),
                    _ => return Err(Errno::PROTO),
                }
            }
        }
        Err(Errno::TOOBIG)
    }

    fn send(&self, message: RouteNetlinkMessage, flags: u16) -> rustix::io::Result<()> {
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = flags | NLM_F_REQUEST;
        packet.finalize();
        // The length of an attribute has 16 bits: one that wrapped around would let a value be read as
        // others.
        if packet.buffer_len() > usize::from(u16::MAX) {
            return Err(Errno::MSGSIZE);
        }
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        rustix::net::send(&self.fd, &bytes, SendFlags::empty()).map(drop)
    }

    /// The messages of one packet.
    fn receive(&self) -> rustix::io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let mut buffer = vec![0u8; ANSWER];
        let receive = || rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC);
        let (_, length) = rustix::io::retry_on_intr(receive)?;
        messages(buffer.get(..length).ok_or(Errno::MSGSIZE)?)
    }
}

/// Takes a packet apart; a length that leads out of it is an error.
fn messages(mut packet: &[u8]) -> rustix::io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut all = Vec::new();
    while !packet.is_empty() {
        let message = NetlinkMessage::deserialize(packet).map_err(|e| {
            tracing::debug!("netlink: {e}");
            Errno::PROTO
        })?;
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).max(16);
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
        all.push(message);
    }
    Ok(all)
}

/// Asks for `IFF_UP`.
fn up(message: &mut LinkMessage) {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, ..Link::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Controller(index) => link.bridge = *index,
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::LinkInfo(info) => {
                link.is_bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    link
}

/// Whether the kernel says that the name is taken.
#[must_use]
pub fn is_taken(error: &Error) -> bool {
    error.errno() == Some(Errno::EXIST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_are_too_long_are_not_sent() {
        let route = Route::open().unwrap();
        for length in [0xfffc, 0x1_0000, 0x1_0010] {
            let refused = route.set_alias("no-such-link", &"x".repeat(length)).unwrap_err();
            assert_eq!(refused.errno(), Some(Errno::MSGSIZE), "{length}");
        }
        assert_ne!(
            route.set_alias("no-such-link", &"x".repeat(60_000)).unwrap_err().errno(),
            Some(Errno::MSGSIZE)
        );
    }

    #[test]
    fn loopback_is_listed() {
        let route = Route::open().unwrap();
        let links = route.links().unwrap();
        let lo = links.iter().find(|l| l.name == "lo").unwrap();
        assert_eq!((lo.index, lo.is_bridge, lo.bridge), (route.index("lo").unwrap(), false, 0));
        assert_eq!(route.index("no-such-link").unwrap_err().errno(), Some(Errno::NODEV));
        assert!(route.set_up("no-such-link").is_err());
        route.delete("no-such-link").unwrap();
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName("eth0".into()));
        let mut packet = NetlinkMessage::from(RouteNetlinkMessage::NewLink(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        assert_eq!(messages(&[&bytes[..], &bytes].concat()).unwrap().len(), 2);
        // The message's own length, then its attribute's: too long, too short.
        for (at, value) in [(0, 255), (0, 15), (0, 0), (32, 255), (32, 3)] {
            let mut bad = bytes.clone();
            bad[at] = value;
            assert_eq!(messages(&bad), Err(Errno::PROTO), "{at} {value}");
        }
        for cut in 1..bytes.len() {
            assert!(messages(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
