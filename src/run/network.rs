//! The network of a new network namespace: loopback, and on request one link to the host.
//!
//! The annotation `org.shipimg.network` = `private` asks for a veth pair: `eth0` inside,
//! `ve-…` on the host, both up, no addresses. Both ends vanish with the namespace.

use super::{Error, Result, io_error, spec::Spec};
use crate::sys::netlink;
use rustix::fd::AsFd;
use std::path::Path;

const ANNOTATION: &str = "org.shipimg.network";
/// The kernel's limit on an interface's name is 15 bytes; this much is left of it.
const NAME_ROOM: usize = 12;

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
    Ok(netlink::veth(&host_name(id), "eth0", netns.as_fd())?)
}

/// `ve-` and the id, shortened with a checksum (FNV-1a) where it is too long.
fn host_name(id: &str) -> String {
    if id.len() <= NAME_ROOM {
        return format!("ve-{id}");
    }
    let hash = id.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    format!("ve-{}{:06x}", &id[..NAME_ROOM - 6], hash & 0x00ff_ffff)
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(host_name("web"), "ve-web");
        let (a, b) = (host_name("a-rather-long-name-1"), host_name("a-rather-long-name-2"));
        assert!(a.len() == 15 && b.len() == 15 && a != b, "{a} {b}");
    }
}
