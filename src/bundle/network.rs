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

mod address;
mod port;

pub use address::{AddHost, Mac, Subnet, domain, host_name, netns_name};
pub use port::{Protocol, Publish, publish, same_port};

use super::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// The annotation by which the runner is asked for a network of its own.
pub const NETWORK_ANNOTATION: &str = "org.shipimg.network";
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
