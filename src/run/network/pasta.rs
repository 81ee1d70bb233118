//! The network of an ordinary user's container: pasta(1) between its namespace and the host's.
//!
//! pasta makes `eth0` inside, with the addresses and routes of the host, and turns what comes out
//! of it into sockets of its own on the host. It needs no privileges there. It goes into the
//! background when all is up; its process is ended with the container.
//!
//! What there is of it stands in the container's state before it begins. One whose process is not
//! known yet when its runner is killed is found by its name, a path in the container's folder.
//!
//! Its sandbox keeps it from the host: no files, few system calls. Options are those of version
//! 2023-03-09 (Debian 12), which later ones have, too.

use super::super::state::ProcessId;
use super::super::{Result, io_error, lifecycle, spec::Spec};
use crate::bundle::network::{Network, Protocol, Publish, Subnet};
use crate::sys::program::Background;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The program, of Debian's package passt.
pub const PROGRAM: &str = "pasta";
/// Where a container finds the host's local name server (as podman has it).
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The container's address where it must not be the host's (as slirp4netns has it).
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// The hardware address; nobody else is on the link.
const HARDWARE: &str = "02:73:0a:00:02:64";
/// The prefix of an address that is asked for, in bits.
const LENGTH: u8 = 24;

/// The pasta of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pasta {
    /// The first word of its command line, in the container's folder.
    name: String,
    /// Its process; none while it begins.
    process: Option<ProcessId>,
}

impl Pasta {
    /// That of the container with the folder `dir`; nothing is started.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { name: dir.join(PROGRAM).to_string_lossy().into_owned(), process: None }
    }

    /// Starts it for the namespaces of the process `pid`, and waits until the network is there.
    ///
    /// # Errors
    /// pasta is not installed or fails.
    pub fn start(&mut self, network: &Network, spec: &Spec, publish: &[Publish], pid: i32) -> Result<()> {
        // It may not look into the process: it gets what is open.
        let open = |kind: &str| -> Result<File> {
            let path = PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
            io_error("open", &path, File::open(&path))
        };
        let mut args = arguments(network, publish);
        let mut files = [Some(open("net")?), None];
        if spec.has_namespace("user") {
            files[1] = Some(open("user")?);
            args.extend(["--userns", "/proc/self/fd/1"].map(String::from));
        }
        // By this path it would not see that the namespace goes.
        args.extend(["--netns", "/proc/self/fd/0", "--no-netns-quit"].map(String::from));
        args.extend(["--pid", Background::PID_FILE].map(String::from));
        let started = Background { program: PROGRAM, name: &self.name, args: &args, files }.start()?;
        self.process = Some(ProcessId::of(started)?);
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// [`super::super::Error::Timeout`] where it sits in the kernel and does not end.
    pub fn end(&self) -> Result<()> {
        let processes = self.process.clone().map_or_else(|| self.find(), |process| vec![process]);
        let pidfds = processes.iter().filter_map(ProcessId::open);
        pidfds.into_iter().try_for_each(|pidfd| lifecycle::end(PROGRAM, &pidfd, &[]))
    }

    /// The processes with its name.
    fn find(&self) -> Vec<ProcessId> {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_it = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).next() == Some(self.name.as_bytes())
        };
        pids.filter(is_it).filter_map(|pid| ProcessId::of(pid).ok()).collect()
    }
}

/// The address inside, the host's as seen from there; none where both are as on the host.
#[must_use]
pub fn addresses(network: &Network) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let to_host = network.add_host.iter().any(|host| host.address.is_none());
    let address = network.ip.or(to_host.then_some(ADDRESS))?;
    let gateway = Subnet::around(address, LENGTH).gateway();
    // The first address of the subnet, or where that is the container's the second.
    Some((address, if gateway == address { Ipv4Addr::from_bits(gateway.to_bits() + 1) } else { gateway }))
}

/// What pasta is told but for the namespaces.
fn arguments(network: &Network, publish: &[Publish]) -> Vec<String> {
    // As root it would become nobody, who may not enter the namespace.
    let mut args: Vec<String> =
        ["--quiet", "--config-net", "--ns-ifname", "eth0", "--runas", "0:0"].map(String::from).into();
    let mut add = |option: &str, value: String| args.extend([option.to_string(), value]);
    for (protocol, option) in [(Protocol::Tcp, "--tcp-ports"), (Protocol::Udp, "--udp-ports")] {
        let mut ports = publish.iter().filter(|port| port.protocol == protocol).peekable();
        if ports.peek().is_none() {
            add(option, "none".to_string());
        }
        ports.for_each(|port| add(option, specification(port)));
    }
    add("--tcp-ns", "none".to_string());
    add("--udp-ns", "none".to_string());
    if let Some((address, gateway)) = addresses(network) {
        add("--address", address.to_string());
        add("--netmask", LENGTH.to_string());
        add("--gateway", gateway.to_string());
    }
    // Without one it is not known to this pasta, and not reached, before the container sends something.
    add("--ns-mac-addr", network.mac.map_or_else(|| HARDWARE.to_string(), |mac| mac.to_string()));
    if network.dns.is_empty() {
        add("--dns-forward", NAME_SERVER.to_string());
    }
    if network.add_host.iter().all(|host| host.address.is_some()) {
        // What listens on the host's loopback interface alone is not meant for containers.
        args.push("--no-map-gw".to_string());
    }
    args
}

/// A published port as pasta has it.
fn specification(port: &Publish) -> String {
    let ip = port.ip.map_or_else(String::new, |ip| format!("{ip}/"));
    format!("{ip}{}:{}", port.host.unwrap_or(port.container), port.container)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::network::publish;

    #[test]
    fn what_pasta_is_told() {
        let common = "--quiet --config-net --ns-ifname eth0 --runas 0:0 --tcp-ports";
        let ports =
            |text: &[&str]| -> Vec<Publish> { text.iter().flat_map(|t| publish(t).unwrap()).collect() };
        let plain = Network::default();
        let host = Network { add_host: vec!["up:host-gateway".parse().unwrap()], ..Network::default() };
        let own = Network {
            ip: Some(Ipv4Addr::new(10, 7, 0, 1)),
            mac: Some("02:00:00:00:00:07".parse().unwrap()),
            dns: vec!["9.9.9.9".parse().unwrap()],
            ..Network::default()
        };
        for (network, publish, wanted) in [
            (
                &plain,
                ports(&[]),
                "none --udp-ports none --tcp-ns none --udp-ns none --ns-mac-addr 02:73:0a:00:02:64 \
                 --dns-forward 169.254.1.1 --no-map-gw",
            ),
            (
                &host,
                ports(&["127.0.0.1:8080:80", "53:53/udp", "81:82"]),
                "127.0.0.1/8080:80 --tcp-ports 81:82 --udp-ports 53:53 --tcp-ns none --udp-ns none \
                 --address 10.0.2.100 --netmask 24 --gateway 10.0.2.1 \
                 --ns-mac-addr 02:73:0a:00:02:64 --dns-forward 169.254.1.1",
            ),
            (
                &own,
                ports(&[]),
                "none --udp-ports none --tcp-ns none --udp-ns none --address 10.7.0.1 --netmask 24 \
                 --gateway 10.7.0.2 --ns-mac-addr 02:00:00:00:00:07 --no-map-gw",
            ),
        ] {
            assert_eq!(arguments(network, &publish).join(" "), format!("{common} {wanted}"));
        }
    }
}
