//! The network of a container: what the annotation `org.shipimg.network` asks for.
//!
//! | mode | what is made |
//! |---|---|
//! | `none` | nothing; loopback is up in a new namespace |
//! | `private` | a veth pair: `eth0` inside, `ve-…` on the host, both up, no addresses |
//! | `bridge` | the same with the host's end on the bridge `shipimg0`, see [`bridge`] |
//! | `pasta` | `eth0` inside, by a process of the user's on the host, see [`pasta`] |
//! | `container` | the namespace of another container is joined |
//!
//! The host's end of a pair goes with the namespace. What else there is stands in the container's
//! state before it is made, and goes with the container. The container itself gives `eth0` its
//! address, before the hooks run.

mod bridge;
mod files;
mod firewall;
mod names;
mod neighbours;
mod pasta;
mod ports;

pub use files::Files;

use super::state::State;
use super::watch::ends_within;
use super::{Error, Result, Runtime, Status, io_error, spec::Spec};
use crate::bundle::network::{Mode, NETWORK_ANNOTATION, Network};
use crate::sys::netlink::{self, Route, Veth};
use crate::sys::userns;
use bridge::{Guest, Inside, Port};
use neighbours::Neighbour;
use pasta::Pasta;
use rustix::fd::{AsFd, OwnedFd};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much of the container's id the name of the host's end has, in characters.
const ID_ROOM: usize = 5;
/// Which groups may ping without `CAP_NET_RAW` (icmp(7)).
const PING_GROUPS: &str = "/proc/sys/net/ipv4/ping_group_range";

/// What there is of a container's network outside of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its place on the bridge.
    #[serde(default)]
    port: Option<Port>,
    /// The name of its namespace below `/run/netns`.
    #[serde(default)]
    name: Option<String>,
    /// The process that passes its packets on.
    #[serde(default)]
    pasta: Option<Pasta>,
}

/// What a launch knows of the network before anything is made.
#[derive(Debug, Default)]
pub struct Plan {
    /// What is asked for.
    network: Network,
    /// The folder of the container whose namespace is joined, and its first process.
    joined: Option<(PathBuf, OwnedFd)>,
}

impl Plan {
    /// Reads what the annotation asks for; refused where it would not be honoured. The namespace
    /// of another container goes into `spec`.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`]; another container that does not run.
    pub fn new(spec: &mut Spec, runtime: &Runtime) -> Result<Self> {
        let Some(text) = spec.annotations.get(NETWORK_ANNOTATION) else { return Ok(Self::default()) };
        let invalid = |reason| Error::Invalid { field: format!("annotations.{NETWORK_ANNOTATION}"), reason };
        let network = Network::parse(text).map_err(invalid)?;
        let needs_own = network.mode != Mode::None || network.netns_name.is_some();
        if needs_own && !spec.new_namespace("network") {
            return Err(invalid(format!("{} needs a new network namespace", network.mode)));
        }
        if network.mode == Mode::Bridge && userns::ids() != userns::Ids::Host {
            return Err(Error::Bridge { reason: "it needs root".to_string() });
        }
        let joined = network.container.as_deref().map(|id| join(spec, runtime, id)).transpose()?;
        Ok(Self { network, joined })
    }

    /// Once the joined namespace is open: whether it was the other container's still.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn joined(&self) -> Result<()> {
        match &self.joined {
            Some((_, pidfd)) if ends_within(pidfd, Duration::ZERO) => {
                Err(Error::NotRunning { id: self.network.container.clone().unwrap_or_default() })
            }
            _ => Ok(()),
        }
    }

    /// The files that the container is to have in `/etc`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn files(&self, spec: &Spec, id: &str, dir: &Path) -> Result<Files> {
        Files::make(&self.network, spec, id, dir, self.joined.as_ref().map(|(dir, _)| dir.as_path()))
    }

    /// From inside a new network namespace: loopback up, and on a network ping(8) for all groups.
    ///
    /// # Errors
    /// The failed call.
    pub fn begin(&self, spec: &Spec) -> Result<()> {
        if !spec.new_namespace("network") {
            return Ok(());
        }
        netlink::set_up("lo")?;
        if matches!(self.network.mode, Mode::Bridge | Mode::Pasta) {
            let path = Path::new(PING_GROUPS);
            // In a user namespace the last group must be mapped.
            let written = std::fs::write(path, "0 2147483647").or_else(|_| std::fs::write(path, "0 0"));
            io_error("write", path, written)?;
        }
        Ok(())
    }

    /// From the host, while the container's first process waits: its link and its names. What will
    /// be there stands in `state`, written to `dir`, before it is. Gives what is to be told to [`Self::inside`].
    ///
    /// # Errors
    /// The failed call.
    pub fn attach(&self, spec: &Spec, state: &mut State, dir: &Path, pid: i32) -> Result<Vec<u8>> {
        if let Some(name) = &self.network.netns_name {
            names::take(name)?;
            state.network.get_or_insert_default().name = Some(name.clone());
            state.write(dir)?;
            names::bind(name, pid)?;
        }
        match self.network.mode {
            Mode::None | Mode::Container => Ok(Vec::new()),
            Mode::Private | Mode::Bridge => self.link(spec, state, dir, pid),
            Mode::Pasta => self.start_pasta(spec, state, dir, pid).map(|()| Vec::new()),
        }
    }

    /// Starts pasta for the namespace of `pid`.
    fn start_pasta(&self, spec: &Spec, state: &mut State, dir: &Path, pid: i32) -> Result<()> {
        let held = ports::hold(&self.network.publish, &[])?;
        let publish: Vec<_> = held.iter().map(|(port, _)| *port).collect();
        state.annotations.extend(annotation(&Network { publish: publish.clone(), ..self.network.clone() }));
        let mut pasta = Pasta::new(dir);
        state.network.get_or_insert_default().pasta = Some(pasta.clone());
        state.write(dir)?;
        // pasta takes them itself.
        drop(held);
        pasta.start(&self.network, spec, &publish, pid)?;
        state.network.get_or_insert_default().pasta = Some(pasta);
        state.write(dir)
    }

    /// Makes the pair to the namespace of `pid`.
    fn link(&self, spec: &Spec, state: &mut State, dir: &Path, pid: i32) -> Result<Vec<u8>> {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let netns = io_error("open", &path, std::fs::File::open(&path))?;
        let veth = host_name(&state.id, pid);
        if self.network.mode == Mode::Private {
            let pair = Veth { name: &veth, bridge: None, peer: "eth0", mac: None, netns: netns.as_fd() };
            Route::open()?.add_veth(&pair)?;
            return Ok(Vec::new());
        }
        let id = state.id.clone();
        let (names, hosts) = (files::names(&id, &spec.hostname), files::hosts(dir));
        let neighbour = Neighbour {
            address: Ipv4Addr::UNSPECIFIED,
            names: names.clone(),
            hosts: hosts.clone(),
            publish: Vec::new(),
        };
        let guest = Guest { id: &id, veth, netns: netns.as_fd(), neighbour };
        let mut told = Vec::new();
        bridge::attach(&self.network, guest, &mut |port| {
            let inside = port.inside();
            let own = files::hosts_text(&self.network, &names, Some((inside.address, inside.gateway)));
            let own = own + neighbours::OTHERS;
            io_error("write", &hosts, std::fs::write(&hosts, own))?;
            told = json(&hosts, &inside)?;
            state.network.get_or_insert_default().port = Some(port.clone());
            state.annotations.extend(self.made(port));
            state.write(dir)
        })?;
        Ok(told)
    }

    /// The annotation with what was given: address, hardware address, ports.
    fn made(&self, port: &Port) -> Option<(String, String)> {
        let made = Network {
            ip: Some(port.address),
            mac: Some(port.mac),
            subnet: Some(port.subnet),
            publish: port.publish.clone(),
            ..self.network.clone()
        };
        annotation(&made)
    }

    /// From inside, once the link to the host is there: its end up, with what the host has `told`.
    ///
    /// # Errors
    /// The failed call.
    pub fn inside(&self, told: &[u8]) -> Result<()> {
        match self.network.mode {
            Mode::Private => Ok(netlink::set_up("eth0")?),
            Mode::Bridge => {
                let path = || "the host's answer".into();
                let inside: Inside =
                    serde_json::from_slice(told).map_err(|source| Error::Config { path: path(), source })?;
                let route = Route::open()?;
                route.add_address(route.index("eth0")?, inside.address, inside.length)?;
                route.set_up("eth0")?;
                Ok(route.add_default_route(inside.gateway)?)
            }
            Mode::None | Mode::Pasta | Mode::Container => Ok(()),
        }
    }
}

/// Once a container has ended: its namespace is to go, in which nobody is any more.
///
/// # Errors
/// [`Error::Timeout`].
pub fn ended(attached: &Attached) -> Result<()> {
    attached.pasta.as_ref().map_or(Ok(()), Pasta::end)
}

/// Takes away what there is of a container's network outside of it.
///
/// # Errors
/// The failed call.
pub fn detach(attached: &Attached) -> Result<()> {
    ended(attached)?;
    attached.name.as_deref().map_or(Ok(()), names::remove)?;
    attached.port.as_ref().map_or(Ok(()), bridge::detach)
}

/// Puts the network namespace of the container `id` into `spec`; gives its folder and its first process.
fn join(spec: &mut Spec, runtime: &Runtime, id: &str) -> Result<(PathBuf, OwnedFd)> {
    let other = runtime.get(id)?;
    let (state, status) = other.status()?;
    let not_running = || Error::NotRunning { id: id.to_string() };
    if !matches!(status, Status::Created | Status::Running | Status::Paused) {
        return Err(not_running());
    }
    let (process, pidfd) = state.process.as_ref().zip(state.pidfd()).ok_or_else(not_running)?;
    for namespace in spec.linux.namespaces.iter_mut().filter(|n| n.kind == "network") {
        namespace.path = format!("/proc/{}/ns/net", process.pid).into();
    }
    Ok((other.dir().to_path_buf(), pidfd))
}

/// The annotation, with its name.
fn annotation(network: &Network) -> Option<(String, String)> {
    Some((NETWORK_ANNOTATION.to_string(), network.annotation()?))
}

fn json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|source| Error::Config { path: path.to_path_buf(), source })
}

/// `ve-`, the start of the id and the process id in hex: at most the kernel's 15 bytes, and no
/// clash with the link of an earlier container of this name, which goes a little after it.
fn host_name(id: &str, pid: i32) -> String {
    let start: String = id.chars().take(ID_ROOM).collect();
    format!("ve-{start}-{pid:x}")
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(host_name("lab", 26), "ve-lab-1a");
        let largest = 1 << 22;
        let (a, b) = (host_name("a-long-name", largest), host_name("a-long-name", largest - 1));
        assert!(a.len() <= 15 && b.len() <= 15 && a != b, "{a} {b}");
    }
}
