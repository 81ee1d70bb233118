//! Ports of the host: who has them, and which are free.

use super::super::{Error, Result};
use crate::bundle::network::{Protocol, Publish, same_port};
use crate::sys::Call;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// How many ports that the kernel proposes are tried.
const ATTEMPTS: usize = 100;

/// A port, and the socket that keeps it from others while the rules for it are made.
pub type Held = (Publish, OwnedFd);

/// Holds the ports that are asked for, and free ones where none is named. `taken` are those of
/// containers, with their owners.
///
/// # Errors
/// [`Error::Taken`]: by a container, or a process of the host; [`Error::Sys`] for an address that
/// is none of the host's.
pub fn hold(wanted: &[Publish], taken: &[(Publish, String)]) -> Result<Vec<Held>> {
    let mut held: Vec<Held> = Vec::new();
    for port in wanted {
        let port = if port.host.is_some() { named(port, taken)? } else { free(port, taken, &held)? };
        held.push(port);
    }
    Ok(held)
}

fn named(port: &Publish, taken: &[(Publish, String)]) -> Result<Held> {
    let error = |by: &str| Error::Taken { what: format!("port {}", host_part(port)), by: by.to_string() };
    if let Some((_, owner)) = taken.iter().find(|(other, _)| same_port(other, port)) {
        return Err(error(owner));
    }
    match listen(port) {
        Err(Errno::ADDRINUSE) => Err(error("a process of the host")),
        other => Ok((*port, other.call(|| format!("bind({})", host_part(port)))?)),
    }
}

/// One that neither a process nor a container has, nor one that was asked for before.
fn free(port: &Publish, taken: &[(Publish, String)], held: &[Held]) -> Result<Held> {
    let call = || format!("bind({})", host_part(port));
    let mut refused = Vec::new();
    for _ in 0..ATTEMPTS {
        let socket = listen(port).call(call)?;
        let address = getsockname(&socket).call(|| "getsockname".to_string())?;
        let host = SocketAddr::try_from(address).map_or(0, |a| a.port());
        let port = Publish { host: Some(host), ..*port };
        let others = taken.iter().map(|(port, _)| port).chain(held.iter().map(|(port, _)| port));
        if !others.into_iter().any(|other| same_port(other, &port)) {
            return Ok((port, socket));
        }
        refused.push(socket);
    }
    Ok(Err(Errno::ADDRINUSE).call(call)?)
}

/// A socket at the port, which fails where another listens. It listens to nothing itself.
fn listen(port: &Publish) -> rustix::io::Result<OwnedFd> {
    let kind = if port.protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    if kind == SocketType::STREAM {
        // Connections that have ended do not count.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    let address = port.ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
    bind(&socket, &SocketAddrV4::new(address, port.host.unwrap_or(0)))?;
    Ok(socket)
}

fn host_part(port: &Publish) -> String {
    let ip = port.ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
    format!("{ip}:{}/{}", port.host.unwrap_or(0), port.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::network::publish;

    #[test]
    fn ports_have_one_owner() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let port = |text: &str| publish(text).unwrap();
        let busy = hold(&port(&format!("127.0.0.1:{number}:80")), &[]).unwrap_err();
        assert!(busy.to_string().contains("a process of the host"), "{busy}");
        hold(&port(&format!("127.0.0.1:{number}:80/udp")), &[]).unwrap();
        drop(listener);
        let taken = [(port(&format!("{number}:1"))[0], "container web".to_string())];
        let busy = hold(&port(&format!("127.0.0.1:{number}:80")), &taken).unwrap_err();
        assert!(busy.to_string().ends_with("container web"), "{busy}");
        let held = hold(&port("127.0.0.1::80-90"), &taken).unwrap();
        let numbers: std::collections::BTreeSet<_> = held.iter().map(|(p, _)| p.host.unwrap()).collect();
        assert_eq!(numbers.len(), 11);
        assert!(hold(&port("192.0.2.1:8080:80"), &[]).is_err());
    }
}
