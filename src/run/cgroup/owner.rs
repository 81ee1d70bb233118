//! Whose a container's control group is (`config-linux.md`, Cgroup ownership).

use super::Cgroup;
use crate::run::spec::{IdMapping, Mount, Spec};
use crate::run::{Result, io_error};
use crate::sys::userns;
use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;

/// Where the kernel does not say which files a user may have.
const FILES: &str = "cgroup.procs cgroup.subtree_control cgroup.threads";

impl Cgroup {
    /// Gives the group to the container's user `uid` where it is of version 2 alone, and where the
    /// container has it to itself and may write to it: the folder, and of its files those that let
    /// nobody beyond the limits (cgroups(7), `/sys/kernel/cgroup/delegate`).
    ///
    /// # Errors
    /// [`crate::run::Error::Io`].
    pub fn hand_over(&self, spec: &Spec, uid: u32) -> Result<()> {
        let ([(hierarchy, path)], Some(uid)) = (self.groups(), host_uid(spec, uid)) else { return Ok(()) };
        // An ordinary user's are the user's.
        if !hierarchy.is_v2() || !is_writable(spec) || userns::ids() != userns::Ids::Host {
            return Ok(());
        }
        let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| FILES.into());
        let files = listed.split_whitespace().map(|name| path.join(name)).filter(|file| file.exists());
        for file in files.chain([path.clone()]) {
            io_error("change owner of", &file, lchown(&file, Some(uid), None))?;
        }
        Ok(())
    }
}

/// Who the container's user `uid` is on the host, where config.json tells.
fn host_uid(spec: &Spec, uid: u32) -> Option<u32> {
    if !spec.has_namespace("user") {
        return Some(uid);
    }
    let offset = |m: &IdMapping| uid.checked_sub(m.container_id).filter(|n| *n < m.size);
    spec.linux.uid_mappings.iter().find_map(|m| m.host_id.checked_add(offset(m)?))
}

/// Whether the container has its groups to itself and may write to them.
fn is_writable(spec: &Spec) -> bool {
    let writes = |m: &Mount| {
        m.destination == Path::new("/sys/fs/cgroup")
            && matches!(m.kind.as_str(), "cgroup" | "cgroup2")
            && !m.options.iter().any(|o| o == "ro" || o == "rro")
    };
    spec.new_namespace("cgroup") && spec.mounts.iter().any(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_and_whether() {
        let spec = |text: &str| Spec::parse(text.as_bytes()).unwrap();
        let plain = spec(
            r#"{"linux":{"namespaces":[{"type":"cgroup"}]},
            "mounts":[{"destination":"/sys/fs/cgroup","type":"cgroup","options":["rw"]}]}"#,
        );
        assert_eq!((host_uid(&plain, 7), is_writable(&plain)), (Some(7), true));
        let mapped = spec(
            r#"{"linux":{"namespaces":[{"type":"user"}],"uidMappings":[
            {"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":5000,"size":9}]},
            "mounts":[{"destination":"/sys/fs/cgroup","type":"cgroup","options":["nosuid","ro"]}]}"#,
        );
        assert_eq!([0, 3, 10].map(|uid| host_uid(&mapped, uid)), [Some(1000), Some(5002), None]);
        assert!(!is_writable(&mapped));
    }
}
