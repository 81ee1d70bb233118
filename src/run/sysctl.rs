//! Kernel parameters of the container's own namespaces, written through a private procfs.
//!
//! Only parameters that a namespace of its own keeps apart from the host may be set. The
//! procfs that they are written through is mounted nowhere, so that nothing in the
//! container's root can stand in its way.

use super::{Error, Result, spec::Spec};
use crate::sys::{Call, mountfd::Tree};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// Refuses keys that would change the host or lead out of `/proc/sys`.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check(spec: &Spec) -> Result<()> {
    for key in spec.linux.sysctl.keys() {
        let path = path(key);
        let clean = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !clean || namespace_of(&path).is_none_or(|kind| !spec.has_namespace(kind)) {
            let reason = format!("{key} is not in a separate kernel namespace");
            return Err(Error::Invalid { field: "linux.sysctl".into(), reason });
        }
    }
    Ok(())
}

/// Writes all of them; from inside the container's namespaces.
///
/// # Errors
/// The failed call with the path.
pub fn write(spec: &Spec) -> Result<()> {
    if spec.linux.sysctl.is_empty() {
        return Ok(());
    }
    let proc = Tree::new("proc", None, &[], 0)?;
    for (key, value) in &spec.linux.sysctl {
        let name = format!("sys/{}", path(key));
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = openat2(&proc, &name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
            .call(|| format!("open(/proc/{name})"))?;
        rustix::io::write(&file, value.as_bytes()).call(|| format!("write(/proc/{name}, {value:?})"))?;
    }
    Ok(())
}

/// `net.ipv4.ip_forward` and `net/ipv4/ip_forward` are the same; an interface's name may hold
/// dots in the second form.
fn path(key: &str) -> String {
    let slash = key.find('/').unwrap_or(usize::MAX);
    if slash < key.find('.').unwrap_or(usize::MAX) { key.to_string() } else { key.replace('.', "/") }
}

fn namespace_of(path: &str) -> Option<&'static str> {
    const IPC: [&str; 7] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni"];
    if path.starts_with("net/") {
        return Some("network");
    }
    if path.starts_with("fs/mqueue/") {
        return Some("ipc");
    }
    match path.strip_prefix("kernel/")? {
        "shm_rmid_forced" | "msg_next_id" | "sem_next_id" | "shm_next_id" => Some("ipc"),
        "domainname" => Some("uts"),
        name if IPC.contains(&name) => Some("ipc"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (key, kind) in [
            ("net.ipv4.ip_forward", Some("network")),
            ("net/ipv4/conf/eth0.100/forwarding", Some("network")),
            ("kernel.shmmax", Some("ipc")),
            ("fs.mqueue.msg_max", Some("ipc")),
            ("kernel.core_pattern", None),
            ("vm.swappiness", None),
        ] {
            assert_eq!(namespace_of(&path(key)), kind, "{key}");
        }
        assert_eq!(path("net/ipv4/conf/eth0.100/forwarding"), "net/ipv4/conf/eth0.100/forwarding");
    }
}
