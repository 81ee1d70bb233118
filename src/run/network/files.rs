//! The container's `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.
//!
//! They lie in `etc/` of the container's folder and are mounted over what the root filesystem
//! has in their places, a link too: nothing is ever written through it.

use super::super::{Result, io_error, spec::Spec};
use super::pasta;
use crate::bundle::network::{Mode, Network, host_name};
use crate::sys::inroot::Root;
use crate::sys::mountfd::Tree;
use crate::sys::{Call, Error};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode as Bits, OFlags};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the host's name servers are; the second where the first leads to a local one (`systemd-resolved`).
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// How much of a resolv.conf is read, in bytes.
const LONGEST: usize = 1 << 16;

/// Files to mount.
#[derive(Debug, Default)]
pub struct Files {
    list: Vec<(&'static str, Tree)>,
}

/// The hosts file of the container with this folder.
#[must_use]
pub fn hosts(dir: &Path) -> PathBuf {
    dir.join("etc/hosts")
}

impl Files {
    /// Makes them in the folder of the container `id`, or takes those of the folder `shared`.
    ///
    /// # Errors
    /// [`super::super::Error::Io`].
    pub fn make(network: &Network, spec: &Spec, id: &str, dir: &Path, shared: Option<&Path>) -> Result<Self> {
        let on_a_network = matches!(network.mode, Mode::Bridge | Mode::Pasta);
        let names = names(id, &spec.hostname);
        let mut files = Self::default();
        if let Some(other) = shared {
            for place in ["/etc/hosts", "/etc/resolv.conf"] {
                let path = other.join(&place[1..]);
                if path.exists() {
                    files.open(place, &path)?;
                }
            }
        } else {
            if on_a_network || !network.add_host.is_empty() {
                let host = pasta::addresses(network).filter(|_| network.mode == Mode::Pasta);
                files.write(dir, "/etc/hosts", &hosts_text(network, &names, host))?;
            }
            if on_a_network || !network.dns.is_empty() || !network.dns_search.is_empty() {
                files.write(dir, "/etc/resolv.conf", &resolv_conf(network, spec))?;
            }
        }
        if on_a_network || shared.is_some() {
            files.write(dir, "/etc/hostname", &hostname(&names))?;
        }
        Ok(files)
    }

    /// The numbers of their descriptors.
    pub fn numbers(&self) -> impl Iterator<Item = i32> {
        self.list.iter().map(|(_, tree)| tree.as_fd().as_raw_fd())
    }

    fn write(&mut self, dir: &Path, place: &'static str, text: &str) -> Result<()> {
        let path = dir.join(&place[1..]);
        let etc = dir.join("etc");
        io_error("create", &etc, fs::create_dir_all(&etc))?;
        io_error("write", &path, fs::write(&path, text))?;
        // For all users of the container, whatever the caller's umask.
        for (path, mode) in [(&etc, 0o755), (&path, 0o644)] {
            io_error("chmod", path, fs::set_permissions(path, fs::Permissions::from_mode(mode)))?;
        }
        self.open(place, &path)
    }

    /// Detached from all mount namespaces: the container's own has no part in the host's.
    fn open(&mut self, place: &'static str, path: &Path) -> Result<()> {
        self.list.push((place, Tree::copy(CWD, path, false)?));
        Ok(())
    }

    /// Mounts them; a mount of config.json in a place wins, and a read-only root without
    /// the place stays without the file.
    ///
    /// # Errors
    /// The failed call.
    pub fn mount(&self, spec: &Spec, root: &Root) -> Result<()> {
        for (place, tree) in &self.list {
            let place = Path::new(place);
            if spec.mounts.iter().any(|m| m.destination == place) {
                continue;
            }
            match target(root, place) {
                Ok(target) => tree.attach(target, place)?,
                Err(e) if e.errno() == Some(Errno::ROFS) => {
                    tracing::warn!("{} is not there, and the root filesystem is read-only", place.display());
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// Opens the place itself, a link too, making an empty file where nothing is.
fn target(root: &Root, place: &Path) -> Result<OwnedFd, Error> {
    let (dir, name) = root.parent(place)?;
    let call = || format!("openat({})", place.display());
    let itself = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match rustix::fs::openat(&dir, name, itself, Bits::empty()) {
        Err(Errno::NOENT) => {
            let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            rustix::fs::openat(&dir, name, new, Bits::from_raw_mode(0o644)).call(call)?;
            rustix::fs::openat(&dir, name, itself, Bits::empty())
        }
        other => other,
    };
    let found = found.call(call)?;
    let stat = rustix::fs::fstat(&found).call(call)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR).call(call);
    }
    Ok(found)
}

/// The names that others know a container by; the host name first.
#[must_use]
pub fn names(id: &str, hostname: &str) -> Vec<String> {
    let mut names = Vec::new();
    for name in [hostname, id] {
        // What is no name could be lines of a hosts file.
        if host_name(name).is_ok() && name != "localhost" && !names.iter().any(|n| n == name) {
            names.push(name.to_string());
        }
    }
    names
}

fn hostname(names: &[String]) -> String {
    names.first().map_or_else(String::new, |name| format!("{name}\n"))
}

/// The hosts file, where they are known with the addresses of the container and of the host.
#[must_use]
pub fn hosts_text(network: &Network, names: &[String], at: Option<(Ipv4Addr, Ipv4Addr)>) -> String {
    let mut text = "127.0.0.1\tlocalhost\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\n\
                    ff02::1\tip6-allnodes\n\
                    ff02::2\tip6-allrouters\n"
        .to_string();
    for host in &network.add_host {
        let address = host.address.or(at.map(|(_, gateway)| IpAddr::V4(gateway)));
        if let Some(address) = address {
            let _ = writeln!(text, "{address}\t{}", host.name);
        }
    }
    if !names.is_empty() {
        let own = at.map_or(Ipv4Addr::new(127, 0, 1, 1), |(address, _)| address);
        let _ = writeln!(text, "{own}\t{}", names.join(" "));
    }
    text
}

/// What is asked for, else what the host has.
fn resolv_conf(network: &Network, spec: &Spec) -> String {
    let hosts = RESOLV_CONF.map(|path| {
        let mut text = fs::read_to_string(path).unwrap_or_default();
        text.truncate(text.floor_char_boundary(LONGEST));
        text
    });
    // In the host's namespace its local name server is there, too.
    let local = !spec.has_namespace("network");
    let (mut text, mut found) = resolv_conf_of(network, &hosts, local);
    if !found && network.mode == Mode::Pasta && resolv_conf_of(network, &hosts, true).1 {
        let dns = vec![pasta::NAME_SERVER.into()];
        (text, found) = resolv_conf_of(&Network { dns, ..network.clone() }, &hosts, local);
    }
    if !found {
        tracing::warn!("the host has no name server that a container reaches; --dns names one");
    }
    text
}

/// The text, and whether it names a server; `hosts` are the host's files, the one that counts first.
fn resolv_conf_of(network: &Network, hosts: &[String], local: bool) -> (String, bool) {
    let words = |text: &str, key: &str| -> Vec<String> {
        let line = |line: &str| {
            line.trim().strip_prefix(key).filter(|rest| rest.starts_with([' ', '\t'])).map(str::to_string)
        };
        text.lines()
            .filter_map(line)
            .flat_map(|l| l.split_whitespace().map(str::to_string).collect::<Vec<_>>())
            .collect()
    };
    let reachable = |text: &String| -> Vec<IpAddr> {
        let all = words(text, "nameserver").into_iter().filter_map(|word| word.parse::<IpAddr>().ok());
        all.filter(|ip| local || !ip.is_loopback()).collect()
    };
    let (mut servers, mut file) = (network.dns.clone(), hosts.first());
    if servers.is_empty() {
        file = hosts.iter().find(|text| !reachable(text).is_empty()).or(file);
        servers = file.map(reachable).unwrap_or_default();
    }
    let search = match file {
        _ if network.dns_search == ["."] => Vec::new(),
        Some(text) if network.dns_search.is_empty() => {
            words(text, "search").into_iter().filter(|d| d == "." || host_name(d).is_ok()).collect()
        }
        _ => network.dns_search.clone(),
    };
    let mut text = String::new();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in &servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if let Some(options) = file.map(|text| words(text, "options")).filter(|o| !o.is_empty()) {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    (text, !servers.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers() {
        let host = "# c\nnameserver 127.0.0.53\nsearch lan example.org\noptions edns0 trust-ad\n".to_string();
        let behind = "nameserver 192.0.2.53\nnameserver fd00::1\nsearch lan\n".to_string();
        let plain = Network::default();
        let dns = Network { dns: vec!["9.9.9.9".parse().unwrap()], ..Network::default() };
        let none = Network { dns_search: vec![".".into()], ..dns.clone() };
        let own = Network { dns_search: vec!["a.org".into(), "b.org".into()], ..Network::default() };
        for (network, hosts, local, wanted) in [
            (
                &plain,
                vec![host.clone(), behind.clone()],
                false,
                "search lan\nnameserver 192.0.2.53\nnameserver fd00::1\n",
            ),
            (
                &plain,
                vec![host.clone(), String::new()],
                false,
                "search lan example.org\noptions edns0 trust-ad\n",
            ),
            (
                &plain,
                vec![host.clone()],
                true,
                "search lan example.org\nnameserver 127.0.0.53\noptions edns0 trust-ad\n",
            ),
            (
                &dns,
                vec![host.clone()],
                false,
                "search lan example.org\nnameserver 9.9.9.9\noptions edns0 trust-ad\n",
            ),
            (&none, vec![host.clone()], false, "nameserver 9.9.9.9\noptions edns0 trust-ad\n"),
            (
                &own,
                vec![behind.clone()],
                false,
                "search a.org b.org\nnameserver 192.0.2.53\nnameserver fd00::1\n",
            ),
        ] {
            let (text, found) = resolv_conf_of(network, &hosts, local);
            assert_eq!((text.as_str(), found), (wanted, wanted.contains("nameserver")));
        }
    }

    #[test]
    fn hosts_files() {
        assert_eq!(names("web", "www.example.org"), ["www.example.org", "web"]);
        assert_eq!(names("web", "web"), ["web"]);
        assert_eq!(names("web", "a\n10.0.0.1 bank"), ["web"]);
        assert!(names("localhost", "").is_empty());
        let network = Network {
            add_host: vec!["db:10.0.0.9".parse().unwrap(), "up:host-gateway".parse().unwrap()],
            ..Network::default()
        };
        let at = (Ipv4Addr::new(10, 129, 0, 2), Ipv4Addr::new(10, 129, 0, 1));
        let text = hosts_text(&network, &names("web", "w"), Some(at));
        let end = "10.0.0.9\tdb\n10.129.0.1\tup\n10.129.0.2\tw web\n";
        assert!(text.starts_with("127.0.0.1\tlocalhost\n") && text.ends_with(end), "{text}");
        assert!(hosts_text(&network, &names("web", ""), None).ends_with("10.0.0.9\tdb\n127.0.1.1\tweb\n"));
    }
}
