//! Ports of the host that lead into a container.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;

/// How many ports one `--publish` names at most.
const MAX_RANGE: usize = 1000;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
