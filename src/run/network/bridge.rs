//! The bridge `shipimg0`: made with the first container on it, gone with the last.
//!
//! The kernel is the record of who has which address: the free text (`IFLA_IFALIAS`) of a link is
//!
//! ```text
//! shipimg0     shipimg 10.129.0.0/16 [forward]     forward: ip_forward was 0 before
//! ve-web-1a    shipimg 10.129.0.2 02:73:0a:81:00:02 web
//! ```
//!
//! A link goes with the namespace of its container, and its address with it. The bridge's text
//! is written last: one without is half-made, and is made anew. Whoever looks or changes holds the
//! lock of [`Host`]. All that is changed on the host beside the bridge and its table of rules is
//! `net.ipv4.ip_forward`, which is set back.

use super::super::{Error, Result, io_error};
use super::neighbours::{Host, Neighbour};
use super::{firewall, ports};
use crate::bundle::network::{Mac, Network, Publish, Subnet};
use crate::sys;
use crate::sys::netlink::{Link, Veth};
use rustix::fd::BorrowedFd;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::Path;

/// The bridge's name.
pub const BRIDGE: &str = "shipimg0";
/// The first word of all free texts.
const MARK: &str = "shipimg";
/// Where the kernel says whether it passes packets on.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// The first bytes of the hardware addresses; the IPv4 address follows.
const MAC: [u8; 2] = [0x02, 0x73];
/// How many characters of a container's name the free text has; the kernel takes 255 in all.
const NAME: usize = 200;

/// What the container itself sets up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// Its address.
    pub address: Ipv4Addr,
    /// The subnet's prefix, in bits.
    pub length: u8,
    /// The host's address.
    pub gateway: Ipv4Addr,
}

/// A container's place on the bridge, as its state has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The host's network namespace, by its inode.
    pub host: u64,
    /// The link's name on the host.
    pub veth: String,
    /// The container's address.
    pub address: Ipv4Addr,
    /// The hardware address.
    pub mac: Mac,
    /// The subnet.
    pub subnet: Subnet,
    /// The ports of the host that lead to it.
    pub publish: Vec<Publish>,
}

impl Port {
    /// What the container itself sets up.
    #[must_use]
    pub fn inside(&self) -> Inside {
        Inside { address: self.address, length: self.subnet.length(), gateway: self.subnet.gateway() }
    }
}

/// Who comes onto the bridge.
#[derive(Debug, Clone)]
pub struct Guest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The name for its link on the host.
    pub veth: String,
    /// Its network namespace.
    pub netns: BorrowedFd<'a>,
    /// What others know it by, but for its address.
    pub neighbour: Neighbour,
}

/// A link of the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    veth: String,
    address: Option<Ipv4Addr>,
    mac: Option<Mac>,
    id: String,
}

/// The bridge as it is.
#[derive(Debug)]
struct Bridge {
    index: u32,
    /// None for one that is half-made.
    subnet: Option<Subnet>,
    forward: bool,
    is_new: bool,
    members: Vec<Member>,
}

/// Gives a container its link; `record` is called with what there will be before it is made.
///
/// # Errors
/// [`Error::Taken`], [`Error::Bridge`]; the failed call. A bridge without containers is gone then.
pub fn attach(network: &Network, guest: Guest, record: &mut dyn FnMut(&Port) -> Result<()>) -> Result<()> {
    let host = Host::lock()?;
    let attached = attach_to(&host, network, guest, record);
    if attached.is_err()
        && let Err(e) = tidy(&host, false)
    {
        tracing::warn!("{e}");
    }
    attached
}

fn attach_to(
    host: &Host,
    network: &Network,
    mut guest: Guest,
    record: &mut dyn FnMut(&Port) -> Result<()>,
) -> Result<()> {
    // First, since without nft nothing is to be made.
    let rules = firewall::rules()?;
    let (bridge, subnet) = ensure(host, network.subnet)?;
    let rules = match rules {
        _ if bridge.is_new => Vec::new(),
        Some(rules) => rules,
        None => firewall::make(subnet).map(|()| Vec::new())?,
    };
    let (live, stale): (Vec<_>, Vec<_>) = rules.into_iter().partition(|rule| bridge.has(&rule.veth));
    let address = bridge.choose(subnet, network.ip)?;
    let mac = network.mac.unwrap_or_else(|| mac_of(address));
    if let Some(other) = bridge.members.iter().find(|m| m.mac == Some(mac)) {
        return Err(Error::Taken { what: format!("hardware address {mac}"), by: other.to_string() });
    }
    let owner = |veth: &str| {
        bridge.members.iter().find(|m| m.veth == veth).map_or_else(String::new, ToString::to_string)
    };
    let taken: Vec<_> = live.iter().map(|rule| (rule.port, owner(&rule.veth))).collect();
    let held = ports::hold(&network.publish, &taken)?;
    let publish = held.iter().map(|(port, _)| *port).collect();
    let port = Port { host: host.inode(), veth: guest.veth.clone(), address, mac, subnet, publish };
    record(&port)?;
    let veth = Veth {
        name: &guest.veth,
        bridge: Some(bridge.index),
        peer: "eth0",
        mac: Some(mac.0),
        netns: guest.netns,
    };
    host.route().add_veth(&veth)?;
    let name: String = guest.id.chars().take(NAME).collect();
    host.route().set_alias(&guest.veth, &format!("{MARK} {address} {mac} {name}"))?;
    if !port.publish.is_empty() {
        // What it sends to its own published port is bridged where br_netfilter is on.
        host.route().set_hairpin(&guest.veth)?;
    }
    firewall::change(&guest.veth, address, &port.publish, &stale)?;
    guest.neighbour.address = address;
    host.add(&guest.veth, &guest.neighbour)?;
    let everyone: Vec<_> = bridge.members.iter().map(|m| m.veth.as_str()).chain([&*guest.veth]).collect();
    host.introduce(&everyone)
}

/// Takes a container's link away with all that belongs to it; and the bridge with the last one.
///
/// # Errors
/// The failed call.
pub fn detach(port: &Port) -> Result<()> {
    let host = Host::lock()?;
    if host.inode() != port.host {
        // It goes with its namespace, and the rules with the next command over there.
        return Ok(());
    }
    let own = format!("{MARK} {} ", port.address);
    if host.route().links()?.iter().any(|l| l.name == port.veth && l.alias.starts_with(&own)) {
        host.route().delete(&port.veth)?;
    }
    tidy(&host, !port.publish.is_empty())
}

/// Takes away what belongs to links that are gone: records, with `rules` the firewall's rules, and
/// without any link the bridge.
fn tidy(host: &Host, rules: bool) -> Result<()> {
    let Some(bridge) = find(host)? else { return host.clear() };
    if bridge.members.is_empty() {
        return take_down(host, &bridge);
    }
    if rules {
        let all = firewall::rules()?.unwrap_or_default();
        let stale: Vec<_> = all.into_iter().filter(|rule| !bridge.has(&rule.veth)).collect();
        firewall::change("", Ipv4Addr::UNSPECIFIED, &[], &stale)?;
    }
    host.introduce(&bridge.members.iter().map(|m| m.veth.as_str()).collect::<Vec<_>>())
}

/// The bridge, made where it is not there, and its subnet.
fn ensure(host: &Host, wanted: Option<Subnet>) -> Result<(Bridge, Subnet)> {
    match find(host)? {
        Some(Bridge { subnet: Some(subnet), .. }) if wanted.is_some_and(|wanted| wanted != subnet) => {
            Err(Error::Bridge {
                reason: format!("it has the subnet {subnet} as long as a container is on it"),
            })
        }
        Some(bridge @ Bridge { subnet: Some(subnet), .. }) => Ok((bridge, subnet)),
        Some(half) => {
            take_down(host, &half)?;
            make(host, wanted.unwrap_or_default())
        }
        None => make(host, wanted.unwrap_or_default()),
    }
}

fn make(host: &Host, subnet: Subnet) -> Result<(Bridge, Subnet)> {
    let route = host.route();
    let links = route.links()?;
    for (index, address, length) in route.addresses()? {
        let other = Subnet::around(address, length);
        if subnet.overlaps(&other) {
            let name = links.iter().find(|l| l.index == index).map_or("", |l| &l.name);
            let reason =
                format!("the subnet {subnet} meets {address}/{length} of {name}; --subnet takes another");
            return Err(Error::Bridge { reason });
        }
    }
    route.add_bridge(BRIDGE, mac_of(subnet.gateway()).0)?;
    let index = route.index(BRIDGE)?;
    route.add_address(index, subnet.gateway(), subnet.length())?;
    firewall::make(subnet)?;
    let forward = read_setting(FORWARD)? == "0";
    if forward {
        route.set_alias(BRIDGE, &format!("{MARK} - forward"))?;
        write_setting(FORWARD, "1")?;
    }
    write_setting(&format!("/proc/sys/net/ipv4/conf/{BRIDGE}/route_localnet"), "1")?;
    route.set_up(BRIDGE)?;
    let end = if forward { " forward" } else { "" };
    route.set_alias(BRIDGE, &format!("{MARK} {subnet}{end}"))?;
    Ok((Bridge { index, subnet: Some(subnet), forward, is_new: true, members: Vec::new() }, subnet))
}

fn take_down(host: &Host, bridge: &Bridge) -> Result<()> {
    match firewall::remove() {
        // There are no rules then.
        Err(Error::Sys(sys::Error::NoProgram { .. })) => {}
        other => other?,
    }
    if bridge.forward {
        write_setting(FORWARD, "0")?;
    }
    host.route().delete(BRIDGE)?;
    host.clear()
}

/// The bridge; none where it is not there.
fn find(host: &Host) -> Result<Option<Bridge>> {
    let links = host.route().links()?;
    let Some(link) = links.iter().find(|l| l.name == BRIDGE) else { return Ok(None) };
    let mut words = link.alias.split(' ');
    let marked = words.next() == Some(MARK) || (link.alias.is_empty() && link.mac.starts_with(&MAC));
    if !link.is_bridge || !marked {
        return Err(Error::Bridge { reason: "it is there and was not made by shipimg".to_string() });
    }
    let subnet = words.next().and_then(|word| word.parse().ok());
    let forward = words.next() == Some("forward");
    let members = links.iter().filter(|l| l.bridge == link.index).map(member).collect();
    Ok(Some(Bridge { index: link.index, subnet, forward, is_new: false, members }))
}

fn member(link: &Link) -> Member {
    let mut words = link.alias.strip_prefix(MARK).unwrap_or_default().split(' ').skip(1);
    Member {
        veth: link.name.clone(),
        address: words.next().and_then(|w| w.parse().ok()),
        mac: words.next().and_then(|w| w.parse().ok()),
        id: words.next().unwrap_or_default().to_string(),
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        if self.id.is_empty() { write!(f, "link {}", self.veth) } else { write!(f, "container {}", self.id) }
    }
}

impl Bridge {
    fn has(&self, veth: &str) -> bool {
        self.members.iter().any(|m| m.veth == veth)
    }

    /// The address that is asked for, or the next free one.
    fn choose(&self, subnet: Subnet, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
        let owner = |address| self.members.iter().find(|m| m.address == Some(address));
        match wanted {
            Some(address) if !subnet.has(address) => Err(Error::Bridge {
                reason: format!("{address} is none for a container in its subnet {subnet}"),
            }),
            Some(address) => match owner(address) {
                Some(other) => {
                    Err(Error::Taken { what: format!("address {address}"), by: other.to_string() })
                }
                None => Ok(address),
            },
            None => {
                let used: std::collections::HashSet<_> =
                    self.members.iter().filter_map(|m| m.address).collect();
                let full = || Error::Bridge { reason: format!("no address of {subnet} is free") };
                subnet.addresses().find(|a| !used.contains(a)).ok_or_else(full)
            }
        }
    }
}

/// The same address has the same hardware address always, so that no neighbour's table is stale.
fn mac_of(address: Ipv4Addr) -> Mac {
    let mut mac = [0; 6];
    mac[..2].copy_from_slice(&MAC);
    mac[2..].copy_from_slice(&address.octets());
    Mac(mac)
}

fn read_setting(path: &str) -> Result<String> {
    let path = Path::new(path);
    Ok(io_error("read", path, std::fs::read_to_string(path))?.trim().to_string())
}

fn write_setting(path: &str, value: &str) -> Result<()> {
    let path = Path::new(path);
    io_error("write", path, std::fs::write(path, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member_of(alias: &str) -> Member {
        member(&Link { name: "ve-x-1".into(), alias: alias.into(), ..Link::default() })
    }

    #[test]
    fn links_say_whose_they_are() {
        let full = member_of("shipimg 10.129.0.2 02:73:0a:81:00:02 web");
        assert_eq!((full.address, full.id.as_str()), (Some(Ipv4Addr::new(10, 129, 0, 2)), "web"));
        assert_eq!(full.mac, Some(mac_of(Ipv4Addr::new(10, 129, 0, 2))));
        for other in ["", "uplink", "shipimg", "shipimgX 10.0.0.1"] {
            let other = member_of(other);
            assert_eq!((other.to_string(), other.mac), ("link ve-x-1".to_string(), None));
        }
    }

    #[test]
    fn addresses_are_handed_out_once() {
        let subnet: Subnet = "10.9.0.0/29".parse().unwrap();
        let mut bridge =
            Bridge { index: 1, subnet: Some(subnet), forward: false, is_new: true, members: Vec::new() };
        for last in [2, 3, 4, 5, 6] {
            let address = bridge.choose(subnet, None).unwrap();
            assert_eq!(address.octets()[3], last);
            bridge.members.push(member_of(&format!("shipimg {address} {} box", mac_of(address))));
        }
        let full = bridge.choose(subnet, None).unwrap_err();
        assert!(full.to_string().contains("no address"), "{full}");
        let taken = bridge.choose(subnet, Some(Ipv4Addr::new(10, 9, 0, 4))).unwrap_err();
        assert!(taken.to_string().contains("container box"), "{taken}");
        assert!(bridge.choose(subnet, Some(Ipv4Addr::new(10, 9, 0, 1))).is_err());
        bridge.members.remove(1);
        assert_eq!(bridge.choose(subnet, None).unwrap().octets()[3], 3);
    }
}
