//! The options of a container's network, for `bundle create` and `run`.

use super::Result;
use crate::bundle::network::{self, AddHost, Mac, Net, Network, Publish, Subnet};
use std::net::{IpAddr, Ipv4Addr};

/// The variable that says which addresses the bridge has, where no option does.
const SUBNET: &str = "SHIPIMG_SUBNET";

/// Which network, and what goes with it.
#[derive(Debug, Default, PartialEq, clap::Args)]
pub struct Networking {
    /// Network: none, host, private (a veth pair), bridge (an address on shipimg0), pasta (for
    /// ordinary users), ns:NAME (join `/run/netns/NAME`) or container:NAME (join a container's)
    #[arg(long, value_name = "NET", alias = "network")]
    net: Option<String>,
    /// Lead a port of the host into the container; without HOST a free one
    #[arg(long, short, value_name = "[[IP:]HOST:]PORT[/udp]", value_parser = published)]
    publish: Vec<Published>,
    /// Address on the bridge [default: the next free one]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Hardware address, as 02:42:ac:11:00:02
    #[arg(long, value_name = "MAC", alias = "mac-address")]
    mac: Option<Mac>,
    /// Addresses of the bridge [default: `SHIPIMG_SUBNET`, else those it has, else 10.129.0.0/16]
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    subnet: Option<Subnet>,
    /// Name server for resolv.conf [default: the host's]
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Domain to look names up in, for resolv.conf
    #[arg(long, value_name = "DOMAIN", value_parser = network::domain)]
    dns_search: Vec<String>,
    /// Name for the hosts file
    #[arg(long, value_name = "NAME:ADDRESS|NAME:host-gateway")]
    add_host: Vec<AddHost>,
    /// Name the network namespace, for `ip netns`
    #[arg(long, value_name = "NAME", value_parser = network::netns_name)]
    netns_name: Option<String>,
}

/// The ports of one `--publish`.
#[derive(Debug, Clone, PartialEq)]
struct Published(Vec<Publish>);

fn published(text: &str) -> std::result::Result<Published, String> {
    network::publish(text).map(Published)
}

impl Networking {
    /// Which network.
    ///
    /// # Errors
    /// A text that says none.
    pub fn net(&self) -> Result<Net> {
        Ok(self.net.as_deref().map_or(Ok(Net::None), str::parse)?)
    }

    /// What goes with it.
    ///
    /// # Errors
    /// A variable that says no subnet.
    pub fn network(&self) -> Result<Network> {
        let mut subnet = self.subnet;
        if subnet.is_none() && self.net()? == Net::Bridge {
            subnet = subnet_of_environment()?;
        }
        Ok(Network {
            publish: self.publish.iter().flat_map(|p| p.0.iter().copied()).collect(),
            ip: self.ip,
            mac: self.mac,
            subnet,
            dns: self.dns.clone(),
            dns_search: self.dns_search.clone(),
            add_host: self.add_host.clone(),
            netns_name: self.netns_name.clone(),
            ..Network::default()
        })
    }

    /// What is asked for that the runner alone does, on what an annotation says.
    pub fn own(&self) -> Option<&'static str> {
        let names = !self.dns.is_empty() || !self.dns_search.is_empty() || !self.add_host.is_empty();
        match self.net.as_deref() {
            Some("private") => Some("--net private"),
            Some("bridge") => Some("--net bridge"),
            Some("pasta") => Some("--net pasta"),
            Some(other) if other.starts_with("container:") => Some("--net container"),
            _ if names => Some("a hosts file or resolv.conf of the container's own"),
            _ => self.netns_name.as_ref().map(|_| "--netns-name"),
        }
    }
}

/// The subnet of the environment; none where it says nothing.
fn subnet_of_environment() -> Result<Option<Subnet>> {
    match std::env::var(SUBNET) {
        Ok(text) if !text.is_empty() => {
            let parsed = text.parse().map_err(|e| crate::bundle::Error::Network(format!("{SUBNET}: {e}")))?;
            Ok(Some(parsed))
        }
        _ => Ok(None),
    }
}
