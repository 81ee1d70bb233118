//! The network of a new network namespace: loopback, and on request one link to the host.
//!
//! The annotation `org.shipimg.network` = `private` asks for a veth pair: `eth0` inside,
//! `ve-…` on the host, both up, no addresses. Both ends vanish with the namespace.

use super::{Error, Result, io_error, spec::Spec};
use crate::sys::netlink;
use rustix::fd::AsFd;
use std::path::Path;

pub(super) const ANNOTATION: &str = "org.shipimg.network";
/// How much of the container's id the name of the host's end has, in characters.
const ID_ROOM: usize = 5;

/// Refuses an annotation that would not be honoured.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check(spec: &Spec) -> Result<()> {
    let reason = match spec.annotations.get(ANNOTATION).map(String::as_str) {
        None => return Ok(()),
        Some("private") if spec.new_namespace("network") => return Ok(()),
        Some("private") => "private needs a new network namespace".to_string(),
        Some(other) => format!("unknown value {other:?}"),
    };
    Err(Error::Invalid { field: format!("annotations.{ANNOTATION}"), reason })
}

/// From inside a new network namespace: loopback up.
///
/// # Errors
/// The failed ioctl.
pub fn inside(spec: &Spec) -> Result<()> {
    if spec.new_namespace("network") { Ok(netlink::set_up("lo")?) } else { Ok(()) }
}

/// From inside, once the link to the host is there: its end up.
///
/// # Errors
/// The failed ioctl.
pub fn linked(spec: &Spec) -> Result<()> {
    if spec.annotations.contains_key(ANNOTATION) { Ok(netlink::set_up("eth0")?) } else { Ok(()) }
}

/// From the host: the link to the namespace of `pid`, where the annotation asks for it.
///
/// # Errors
/// The failed call.
pub fn outside(spec: &Spec, id: &str, pid: i32) -> Result<()> {
    if !spec.annotations.contains_key(ANNOTATION) {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let netns = io_error("open", Path::new(&path), std::fs::File::open(&path))?;
    Ok(netlink::veth(&host_name(id, pid), "eth0", netns.as_fd())?)
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
