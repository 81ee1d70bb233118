//! Addresses and names: of interfaces, subnets, hosts, domains, namespaces.

use super::is_component;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// What stands for the host's address in `--add-host`.
const GATEWAY: &str = "host-gateway";

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
