//! The container's view of the control groups.
//!
//! With a cgroup namespace each hierarchy is mounted anew and shows the container's group
//! as its root; without one, that group is bound. On version 1 and on the hybrid kind the
//! hierarchies are folders of a tmpfs, under the host's names, version 2 as `unified`.

use super::{Mounts, Options, Result, set_attributes};
use crate::run::cgroup::Hierarchy;
use crate::run::spec::Mount;
use crate::sys::Call;
use crate::sys::mountfd::{Attributes, Tree};
use rustix::fs::{CWD, Mode, OFlags};
use std::path::Path;

impl Mounts<'_> {
    pub(super) fn control_groups(&self, mount: &Mount, parsed: &Options) -> Result<()> {
        let place = mount.destination.as_path();
        let target = self.root.make_dir(place)?;
        let groups = self.cgroup.groups();
        let v1 = groups.iter().any(|(h, _)| !h.is_v2());
        if mount.kind == "cgroup2" || !v1 {
            if let Some((hierarchy, group)) = groups.iter().find(|(h, _)| h.is_v2()) {
                let tree = self.hierarchy(hierarchy, group, parsed.own.set)?;
                tree.attach(target, place)?;
                Self::finish(&tree, parsed, place)?;
            }
            return Ok(());
        }
        let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        let folder = Tree::new("tmpfs", Some("tmpfs"), &[("mode", Some("755"))], attributes)?;
        folder.attach(target, place)?;
        for (hierarchy, group) in groups {
            let name = hierarchy.mount.file_name().map_or(Path::new("cgroup"), Path::new);
            let call = || format!("mkdirat({}, {})", place.display(), name.display());
            rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755)).call(call)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = rustix::fs::openat(&folder, name, flags, Mode::empty()).call(call)?;
            self.hierarchy(hierarchy, group, parsed.own.set)?.attach(inner, &place.join(name))?;
            for controller in hierarchy.controllers.iter().filter(|_| hierarchy.controllers.len() > 1) {
                let _ = rustix::fs::symlinkat(name, &folder, controller);
            }
        }
        if parsed.own.set & libc::MOUNT_ATTR_RDONLY != 0 {
            let name = place.display().to_string();
            set_attributes(&folder, Attributes::set(libc::MOUNT_ATTR_RDONLY), false, &name)?;
        }
        Self::finish(&folder, parsed, place)
    }

    fn hierarchy(&self, hierarchy: &Hierarchy, group: &Path, attributes: u64) -> Result<Tree> {
        if !self.spec.has_namespace("cgroup") {
            let tree = Tree::copy(CWD, group, false)?;
            set_attributes(&tree, Attributes::set(attributes), false, &group.display().to_string())?;
            return Ok(tree);
        }
        if hierarchy.is_v2() {
            return Ok(Tree::new("cgroup2", Some("cgroup"), &[], attributes)?);
        }
        let mut options = Vec::new();
        for controller in &hierarchy.controllers {
            match controller.strip_prefix("name=") {
                Some(name) => options.extend([("none", None), ("name", Some(name))]),
                None => options.push((controller.as_str(), None)),
            }
        }
        Ok(Tree::new("cgroup", Some("cgroup"), &options, attributes)?)
    }
}
