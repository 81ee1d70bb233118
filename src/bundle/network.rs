//! The network that a container asks of the runner, and the words for it on the command line.
//!
//! What `config.json` has no field for goes as JSON into the annotation `org.shipimg.network`:
//!
//! ```json
//! {"mode": "bridge", "publish": [{"ip": "127.0.0.1", "host": 8080, "container": 80, "protocol": "tcp"}],
//!  "ip": "10.129.0.7", "mac": "02:42:00:00:00:07", "subnet": "10.129.0.0/16", "dns": ["9.9.9.9"],
//!  "dns_search": ["example.org"], "add_host": ["db:10.129.0.9"], "netns_name": "web"}
//! ```
//!
//! All but `mode` may be absent. The plain word `private` stands for that mode alone.

use super::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// The annotation by which the runner is asked for a network of its own.
pub const NETWORK_ANNOTATION: &str = "org.shipimg.network";
/// How many ports one `--publish` names at most.
const MAX_RANGE: usize = 1000;
/// What stands for the host's address in `--add-host`.
const GATEWAY: &str = "host-gateway";

/// The network of a container, as `--net` has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Net {
    /// A namespace of its own with the loopback interface only.
    #[default]
    None,
    /// The host's.
    Host,
    /// A namespace of its own with `eth0`, one end of a veth pair.
    Private,
    /// A namespace of its own, on the bridge `shipimg0`.
    Bridge,
    /// A namespace of its own behind pasta(1), for ordinary users.
    Pasta,
    /// An existing namespace, by its name below `/run/netns`.
    Named(String),
    /// That of another container.
    Container(String),
}

impl FromStr for Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (word, name) = text.split_once(':').map_or((text, None), |(word, name)| (word, Some(name)));
        match (word, name) {
            ("none", None) => Ok(Self::None),
            ("host", None) => Ok(Self::Host),
            ("private", None) => Ok(Self::Private),
            ("bridge", None) => Ok(Self::Bridge),
            ("pasta", None) => Ok(Self::Pasta),
            ("ns", Some(name)) if is_component(name) => Ok(Self::Named(name.to_string())),
            ("container", Some(name)) if is_component(name) => Ok(Self::Container(name.to_string())),
            _ => Err(Error::Setting {
                option: "--net",
                value: text.to_string(),
                reason: "wanted none, host, private, bridge, pasta, ns:NAME or container:NAME",
            }),
        }
    }
}

/// What the runner does for a container's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// No interface of its own; the namespace is what `config.json` says.
    #[default]
    None,
    /// A veth pair to the host, without addresses.
    Private,
    /// An address on the bridge.
    Bridge,
    /// pasta(1).
    Pasta,
    /// It joins the namespace of [`Network::container`].
    Container,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Private => "private",
            Self::Bridge => "bridge",
            Self::Pasta => "pasta",
            Self::Container => "container",
        })
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(if *self == Self::Tcp { "tcp" } else { "udp" })
    }
}

/// A port of the host that leads into the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The host's address; any of its addresses where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// The host's port; one that is free where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<u16>,
    /// The container's port.
    pub container: u16,
    /// Of which protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(ip) = self.ip {
            write!(f, "{ip}:")?;
        }
        if let Some(host) = self.host {
            write!(f, "{host}")?;
        }
        write!(f, ":{}/{}", self.container, self.protocol)
    }
}

/// Declares that a type's JSON is the text of its `Display` and `FromStr`.
macro_rules! as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

/// An address of an Ethernet interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);
as_text!(Mac);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?}: wanted six bytes as 02:42:ac:11:00:02");
        let byte = |part: &str| {
            let hex = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            hex.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
        let bytes: [u8; 6] = bytes.and_then(|b| b.try_into().ok()).ok_or_else(wanted)?;
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(format!("{text:?} is no address of a single interface"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

/// The addresses of a bridge; the first belongs to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: u32,
    length: u8,
}
as_text!(Subnet);

impl Default for Subnet {
    /// Not those of docker (172.17.0.0/16) or podman (10.88.0.0/16).
    fn default() -> Self {
        Self { base: Ipv4Addr::new(10, 129, 0, 0).to_bits(), length: 16 }
    }
}

impl Subnet {
    /// The subnet that `address` is in, with a prefix of `length` bits.
    #[must_use]
    pub fn around(address: Ipv4Addr, length: u8) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
        Self { base: address.to_bits() & mask, length }
    }

    /// The network's own address.
    #[must_use]
    pub fn base(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base)
    }

    /// The prefix, in bits.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The host's address.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 1)
    }

    /// What containers may have: neither the network's, the host's nor the broadcast address.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let last = self.base | (u32::MAX >> self.length);
        (self.base + 2..last).map(Ipv4Addr::from_bits)
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let shorter = self.length.min(other.length);
        Self::around(self.base(), shorter).base == Self::around(other.base(), shorter).base
    }

    /// Whether a container may have `address`.
    #[must_use]
    pub fn has(&self, address: Ipv4Addr) -> bool {
        let last = self.base | (u32::MAX >> self.length);
        (self.base + 2..last).contains(&address.to_bits())
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?}: wanted ADDRESS/LENGTH as 10.129.0.0/16");
        let (address, length) = text.split_once('/').ok_or_else(wanted)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wanted())?;
        let length: u8 = length.parse().map_err(|_| wanted())?;
        if !(8..=29).contains(&length) {
            return Err(format!("{text:?}: wanted a length from 8 to 29"));
        }
        let subnet = Self::around(address, length);
        if subnet.base() != address {
            return Err(format!("{text:?} begins at {}", subnet.base()));
        }
        if address.is_loopback() || address.is_multicast() || address.octets()[0] == 0 {
            return Err(format!("{text:?} is no subnet for hosts"));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.length)
    }
}

/// A line for the container's hosts file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddHost {
    /// The name.
    pub name: String,
    /// Its address; the host's as the container reaches it where absent.
    pub address: Option<IpAddr>,
}
as_text!(AddHost);

impl FromStr for AddHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?}: wanted NAME:ADDRESS or NAME:{GATEWAY}");
        let (name, address) = text.split_once(':').ok_or_else(wanted)?;
        let name = host_name(name)?;
        let address = match address {
            GATEWAY => None,
            other => Some(other.parse().map_err(|_| wanted())?),
        };
        Ok(Self { name, address })
    }
}

impl fmt::Display for AddHost {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}:{address}", self.name),
            None => write!(f, "{}:{GATEWAY}", self.name),
        }
    }
}

/// What the runner is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Which kind of network.
    #[serde(default)]
    pub mode: Mode,
    /// The container whose namespace it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Ports of the host that lead into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
    /// Its address; the next free one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// Its interface's address; one made of the other where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The bridge's addresses; those it has, or the default ones, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
    /// Name servers; the host's where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Domains that names are looked up in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// More names in the hosts file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_host: Vec<AddHost>,
    /// A name of its namespace below `/run/netns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_name: Option<String>,
}

impl Network {
    /// Reads the annotation.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let network = match text {
            "private" => Self { mode: Mode::Private, ..Self::default() },
            _ => serde_json::from_str(text).map_err(|e| format!("{text:?}: {e}"))?,
        };
        network.check()?;
        Ok(network)
    }

    /// The annotation's text; none where nothing is asked for.
    #[must_use]
    pub fn annotation(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        if *self == (Self { mode: Mode::Private, ..Self::default() }) {
            return Some("private".to_string());
        }
        serde_json::to_string(self).ok()
    }

    /// Refuses what the mode has no use for, and names that are none.
    ///
    /// # Errors
    /// Which option, and why.
    pub fn check(&self) -> Result<(), String> {
        use Mode::{Bridge, Container, None, Pasta, Private};
        let names = !self.dns.is_empty() || !self.dns_search.is_empty() || !self.add_host.is_empty();
        for (given, option, fits) in [
            (!self.publish.is_empty(), "--publish", &[Bridge, Pasta][..]),
            (self.ip.is_some(), "--ip", &[Bridge, Pasta]),
            (self.mac.is_some(), "--mac", &[Bridge, Pasta]),
            (self.subnet.is_some(), "--subnet", &[Bridge]),
            (names, "--dns, --dns-search and --add-host", &[None, Private, Bridge, Pasta]),
            (self.netns_name.is_some(), "--netns-name", &[None, Private, Bridge]),
            (self.container.is_some(), "container", &[Container]),
        ] {
            if given && !fits.contains(&self.mode) {
                return Err(format!("{option}: the network {} has no use for it", self.mode));
            }
        }
        if let Some(host) = self.add_host.iter().find(|h| h.address.is_none())
            && !matches!(self.mode, Bridge | Pasta)
        {
            return Err(format!("--add-host {host}: the network {} has no gateway", self.mode));
        }
        if self.mode == Container && !self.container.as_deref().is_some_and(is_component) {
            return Err("the network container needs the name of one".to_string());
        }
        if let Some(name) = &self.netns_name {
            netns_name(name)?;
        }
        self.dns_search.iter().try_for_each(|name| domain(name).map(drop))?;
        if let (Some(subnet), Some(ip)) = (self.subnet, self.ip)
            && !subnet.has(ip)
        {
            return Err(format!("--ip: {ip} is none for a container in {subnet}"));
        }
        for (at, new) in self.publish.iter().enumerate() {
            if new.container == 0 || new.host == Some(0) {
                return Err(format!("--publish: {new} has a port 0"));
            }
            if let Some(old) = self.publish[..at].iter().find(|old| same_port(old, new)) {
                return Err(format!("--publish: {old} and {new} are the same port of the host"));
            }
        }
        Ok(())
    }
}

/// Whether two published ports are one on the host.
#[must_use]
pub fn same_port(a: &Publish, b: &Publish) -> bool {
    let meet = a.ip == b.ip || [a.ip, b.ip].iter().any(|ip| ip.is_none_or(|ip| ip.is_unspecified()));
    meet && a.host.is_some() && a.host == b.host && a.protocol == b.protocol
}

/// What `--publish` says: `[[IP:]HOST:]CONT[/tcp|udp]`, numbers or ranges of the same length.
///
/// # Errors
/// What is wrong with the text.
pub fn publish(text: &str) -> Result<Vec<Publish>, String> {
    let wanted = || "wanted [[IP:]HOST:]PORT[/tcp|udp], ports or ranges as 8000-8010".to_string();
    let (ports, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => return Err(format!("protocol {other:?} is neither tcp nor udp")),
    };
    let words: Vec<&str> = ports.split(':').collect();
    let (ip, host, container) = match words[..] {
        [container] => ("", "", container),
        [host, container] => ("", host, container),
        [ip, host, container] => (ip, host, container),
        _ => return Err(wanted()),
    };
    let ip = if ip.is_empty() { None } else { Some(ip.parse().map_err(|_| wanted())?) };
    let container = range(container).ok_or_else(wanted)?;
    let mut host = if host.is_empty() { None } else { Some(range(host).ok_or_else(wanted)?) };
    if host.as_ref().is_some_and(|host| host.len() != container.len()) {
        return Err("the two ranges differ in length".to_string());
    }
    if container.len() > MAX_RANGE {
        return Err(format!("more than {MAX_RANGE} ports"));
    }
    Ok(container
        .map(|container| Publish { ip, host: host.as_mut().and_then(Iterator::next), container, protocol })
        .collect())
}

/// `80` or `8000-8010`; ports from 1 on.
fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let port = |text: &str| text.parse().ok().filter(|p| *p > 0 && !text.starts_with('+'));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = port(first)?..=port(last)?;
    (!range.is_empty()).then_some(range)
}

/// A name of a host, as the kernel and DNS take it.
///
/// # Errors
/// What is wrong with the text.
pub fn host_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || text.len() > 64 || !text.chars().all(fits) {
        return Err("wanted letters, digits, `-`, `.` and `_`, at most 64".to_string());
    }
    Ok(text.to_string())
}

/// A domain that names are looked up in.
///
/// # Errors
/// What is wrong with the text.
pub fn domain(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
        return Err(format!("{text:?}: wanted letters, digits, `-`, `.` and `_`, at most 253"));
    }
    Ok(text.to_string())
}

/// A name for a network namespace, as `ip netns` takes it.
///
/// # Errors
/// What is wrong with the text.
pub fn netns_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '+');
    if !is_component(text) || text.starts_with('-') || text.len() > 255 || !text.chars().all(fits) {
        return Err(format!("{text:?}: wanted letters, digits and `_ . + -`, at most 255"));
    }
    Ok(text.to_string())
}

/// Whether `name` is a path's component and nothing else.
fn is_component(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (text, net) in [
            ("none", Net::None),
            ("bridge", Net::Bridge),
            ("pasta", Net::Pasta),
            ("ns:lab", Net::Named("lab".into())),
            ("container:web", Net::Container("web".into())),
        ] {
            assert_eq!(text.parse::<Net>().unwrap(), net);
        }
        for bad in ["", "fast", "ns:", "ns:..", "ns:a/b", "container:", "container:../x", "bridge:x"] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }

    #[test]
    fn published_ports() {
        for (text, wanted) in [
            ("80", ":80/tcp"),
            (":80", ":80/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("53:53/udp", "53:53/udp"),
            ("127.0.0.1:8080:80/tcp", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1::80/tcp"),
            ("8000-8002:80-82/udp", "8000:80/udp 8001:81/udp 8002:82/udp"),
        ] {
            let got: Vec<_> = publish(text).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(got.join(" "), wanted, "{text}");
        }
        for bad in [
            "",
            ":",
            "0:80",
            "80:0",
            "65536:80",
            "+80:80",
            "80:80/sctp",
            "x:80:80",
            "1:2:3:4",
            "[::1]:80:80",
            "8000-8001:80",
            "8001-8000:81-80",
            "1-2000:1-2000",
            "80:80/",
            "8080:80-",
            "a:b",
        ] {
            assert!(publish(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn subnets() {
        let subnet: Subnet = "192.168.7.0/29".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(192, 168, 7, 1));
        let all: Vec<_> = subnet.addresses().map(|a| a.octets()[3]).collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        for (last, has) in [(0, false), (1, false), (2, true), (6, true), (7, false), (8, false)] {
            assert_eq!(subnet.has(Ipv4Addr::new(192, 168, 7, last)), has, "{last}");
        }
        assert_eq!(Subnet::around(Ipv4Addr::new(10, 129, 3, 4), 16), Subnet::default());
        for (other, meet) in [("10.129.9.0/24", true), ("10.0.0.0/8", true), ("10.130.0.0/16", false)] {
            let other: Subnet = other.parse().unwrap();
            assert_eq!(
                (Subnet::default().overlaps(&other), other.overlaps(&Subnet::default())),
                (meet, meet)
            );
        }
        for bad in [
            "10.0.0.0",
            "10.0.0.1/24",
            "10.0.0.0/30",
            "10.0.0.0/7",
            "127.0.0.0/8",
            "224.0.0.0/8",
            "0.0.0.0/8",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_and_names() {
        assert_eq!("02-42-AC-11-00-02".parse::<Mac>().unwrap().to_string(), "02:42:ac:11:00:02");
        for bad in [
            "",
            "02:42:ac:11:00",
            "01:00:00:00:00:00",
            "00:00:00:00:00:00",
            "2:42:ac:11:00:02",
            "+2:42:ac:11:00:02",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        for good in ["db:10.0.0.1", "db:::1", "me:host-gateway"] {
            assert_eq!(good.parse::<AddHost>().unwrap().to_string(), good);
        }
        for bad in ["db", "db:", ":1.2.3.4", "a b:1.2.3.4", "db:1.2.3.4\nx", "d\n:1.2.3.4"] {
            assert!(bad.parse::<AddHost>().is_err(), "{bad}");
        }
        for bad in ["", ".", "..", "a/b", "-a", "a b", "a\n"] {
            assert!(netns_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn annotations_come_back() {
        assert_eq!(Network::default().annotation(), None);
        let private = Network { mode: Mode::Private, ..Network::default() };
        assert_eq!(private.annotation().unwrap(), "private");
        assert_eq!(Network::parse("private").unwrap(), private);
        let full = Network {
            mode: Mode::Bridge,
            publish: publish("127.0.0.1:8080:80").unwrap(),
            ip: Some(Ipv4Addr::new(10, 129, 0, 7)),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            subnet: Some(Subnet::default()),
            dns: vec!["9.9.9.9".parse().unwrap()],
            dns_search: vec!["example.org".into()],
            add_host: vec!["db:::1".parse().unwrap()],
            netns_name: Some("web".into()),
            container: None,
        };
        assert_eq!(Network::parse(&full.annotation().unwrap()).unwrap(), full);
        for (bad, word) in [
            ("fast", "fast"),
            (r#"{"mode":"fast"}"#, "fast"),
            (r#"{"mode":"bridge","more":1}"#, "more"),
            (r#"{"mode":"none","publish":[{"container":80}]}"#, "--publish"),
            (r#"{"mode":"private","ip":"10.0.0.2"}"#, "--ip"),
            (r#"{"mode":"pasta","netns_name":"x"}"#, "--netns-name"),
            (r#"{"mode":"container"}"#, "needs the name"),
            (r#"{"mode":"container","container":"../x"}"#, "needs the name"),
            (r#"{"mode":"container","container":"x","dns":["1.1.1.1"]}"#, "--dns"),
            (r#"{"mode":"none","add_host":["x:host-gateway"]}"#, "no gateway"),
            (r#"{"mode":"bridge","netns_name":"../x"}"#, "../x"),
            (r#"{"mode":"bridge","dns_search":["a\nb"]}"#, "wanted letters"),
            (r#"{"mode":"bridge","publish":[{"container":0}]}"#, "port 0"),
            (
                r#"{"mode":"bridge","publish":[{"host":1,"container":1},{"host":1,"container":2}]}"#,
                "same port",
            ),
            (r#"{"mode":"bridge","subnet":"10.1.0.0/24","ip":"10.1.1.2"}"#, "10.1.1.2"),
        ] {
            let said = Network::parse(bad).unwrap_err();
            assert!(said.contains(word), "{bad}: {said}");
        }
    }
}
