//! What of a config.json is refused before anything is made: what cannot be honoured here,
//! and what makes no sense.

use super::spec::{Hook, Hooks, Process, Rdma, Resources, Spec};
use super::{Error, Result};

impl Spec {
    /// Refuses what cannot be honoured or makes no sense.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`].
    pub fn check(&self) -> Result<()> {
        let invalid = |field: &str, reason: &str| {
            Err(Error::Invalid { field: field.to_string(), reason: reason.to_string() })
        };
        if !is_version_1(&self.oci_version) {
            return invalid(
                "ociVersion",
                &format!("{:?} is no version 1 of the runtime-spec", self.oci_version),
            );
        }
        if self.annotations.contains_key("") {
            return invalid("annotations", "a key is empty");
        }
        self.process.as_ref().map_or(Ok(()), Process::check)?;
        if self.root.as_ref().is_none_or(|r| r.path.as_os_str().is_empty()) {
            return invalid("root.path", "missing");
        }
        let mut seen = std::collections::BTreeSet::new();
        for namespace in &self.linux.namespaces {
            if super::namespaces::flag(&namespace.kind).is_none() {
                return invalid("linux.namespaces", &format!("unknown type {:?}", namespace.kind));
            }
            let relative = !namespace.path.as_os_str().is_empty() && !namespace.path.is_absolute();
            if relative {
                let reason = format!("{} is not an absolute path", namespace.path.display());
                return invalid("linux.namespaces", &reason);
            }
            if !seen.insert(&namespace.kind) {
                return invalid("linux.namespaces", &format!("{} is there twice", namespace.kind));
            }
        }
        if !self.hostname.is_empty() && !self.has_namespace("uts") {
            return invalid("hostname", "needs a uts namespace");
        }
        if !self.domainname.is_empty() && !self.has_namespace("uts") {
            return invalid("domainname", "needs a uts namespace");
        }
        for (field, mappings) in
            [("uidMappings", &self.linux.uid_mappings), ("gidMappings", &self.linux.gid_mappings)]
        {
            if self.new_namespace("user") && mappings.is_empty() {
                return invalid(&format!("linux.{field}"), "a new user namespace needs mappings");
            }
            if !self.has_namespace("user") && !mappings.is_empty() {
                return invalid(&format!("linux.{field}"), "they need a user namespace");
            }
        }
        if !self.has_namespace("time") && !self.linux.time_offsets.is_empty() {
            return invalid("linux.timeOffsets", "they need a time namespace");
        }
        let hiding = self.linux.masked_paths.iter().chain(&self.linux.readonly_paths);
        if let Some(path) = hiding.into_iter().find(|p| !p.is_absolute()) {
            let reason = format!("{} is not an absolute path", path.display());
            return invalid("linux.maskedPaths or readonlyPaths", &reason);
        }
        let hidden = !self.linux.masked_paths.is_empty() || !self.linux.readonly_paths.is_empty();
        if !self.has_namespace("mount") && (hidden || !self.mounts.is_empty()) {
            return invalid("mounts", "they need a mount namespace");
        }
        for hook in self.hooks.all() {
            let clean = hook.path.components().all(|c| c != std::path::Component::ParentDir);
            if !hook.path.is_absolute() || !clean {
                return invalid(
                    "hooks",
                    &format!("{} is not an absolute path without ..", hook.path.display()),
                );
            }
            if hook.timeout == Some(0) {
                return invalid("hooks", &format!("{} has a timeout of 0", hook.path.display()));
            }
        }
        self.linux.resources.check()?;
        super::sysctl::check(self)?;
        if !self.linux.mount_label.is_empty() && !super::process::has_selinux() {
            let what = format!("linux.mountLabel {:?} without SELinux in the kernel", self.linux.mount_label);
            return Err(Error::Unsupported { what });
        }
        if self.linux.intel_rdt.is_some() {
            let what = "linux.intelRdt (shares of cache and memory bandwidth; only without that key it runs)";
            return Err(Error::Unsupported { what: what.into() });
        }
        self.mounts.iter().try_for_each(|mount| super::idmap::check(self, mount))
    }
}

/// Whether it is 1.x.y, with or without more behind it ([SemVer](https://semver.org) 2.0.0).
fn is_version_1(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numeric = |part: &str| {
        part.chars().all(|c| c.is_ascii_digit())
            && (part == "0" || !part.starts_with('0') && !part.is_empty())
    };
    let parts: Vec<_> = core.split('.').collect();
    let rest = &version[core.len()..];
    let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    parts.len() == 3
        && parts[0] == "1"
        && parts.into_iter().all(numeric)
        && rest.len() != 1
        && rest.chars().all(clean)
}

impl Resources {
    /// Refuses entries that say nothing.
    fn check(&self) -> Result<()> {
        let invalid = |field: &str, reason: String| {
            Err(Error::Invalid { field: format!("linux.resources.{field}"), reason })
        };
        let devices = &self.block_io.weight_device;
        if let Some(d) = devices.iter().find(|d| d.weight.is_none() && d.leaf_weight.is_none()) {
            let reason = format!("{}:{} has neither weight nor leafWeight", d.major, d.minor);
            return invalid("blockIO.weightDevice", reason);
        }
        let limits = |limit: &Rdma| limit.hca_handles.is_some() || limit.hca_objects.is_some();
        if let Some((name, _)) = self.rdma.iter().find(|(_, limit)| !limits(limit)) {
            return invalid("rdma", format!("{name} has neither hcaHandles nor hcaObjects"));
        }
        Ok(())
    }
}

impl Process {
    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`].
    pub fn check(&self) -> Result<()> {
        let invalid = |field: &str, reason: &str| {
            Err(Error::Invalid { field: format!("process.{field}"), reason: reason.to_string() })
        };
        if self.args.is_empty() || self.args[0].is_empty() {
            return invalid("args", "must not be empty");
        }
        if !self.cwd.is_absolute() {
            return invalid("cwd", &format!("{} is not an absolute path", self.cwd.display()));
        }
        if self.args.iter().chain(&self.env).any(|s| s.contains('\0')) {
            return invalid("args", "NUL byte in an argument or a variable");
        }
        let ids = [self.user.uid, self.user.gid].into_iter().chain(self.user.additional_gids.iter().copied());
        if ids.into_iter().any(|id| id == u32::MAX) {
            // To the kernel it means that nothing is to change.
            return invalid("user", &format!("{} is no id", u32::MAX));
        }
        let kinds: std::collections::BTreeSet<_> = self.rlimits.iter().map(|r| &r.kind).collect();
        if kinds.len() < self.rlimits.len() {
            return invalid("rlimits", "a type is there twice");
        }
        if let Some(p) = &self.io_priority
            && (super::priority::io_class(&p.class).is_none() || p.priority > 7)
        {
            return invalid("ioPriority", &format!("{:?} {}", p.class, p.priority));
        }
        self.scheduler.as_ref().map(super::priority::scheduler).transpose()?;
        for list in self.exec_cpu_affinity.iter().flat_map(|a| [&a.initial, &a.r#final]) {
            super::priority::processors(list)?;
        }
        Ok(())
    }
}

impl Hooks {
    fn all(&self) -> impl Iterator<Item = &Hook> {
        let early = self.prestart.iter().chain(&self.create_runtime).chain(&self.create_container);
        early.chain(&self.start_container).chain(&self.poststart).chain(&self.poststop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refuses_what_it_would_not_honour() {
        let base = r#""ociVersion":"1.2.0","root":{"path":"r"},"process":{"cwd":"/","args":["sh"]}"#;
        for (extra, word) in [
            (r#""hostname":"x""#, "hostname"),
            (r#""linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#, "twice"),
            (r#""linux":{"namespaces":[{"type":"disk"}]}"#, "disk"),
            (r#""linux":{"namespaces":[{"type":"user"}]}"#, "mappings"),
            (r#""linux":{"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#, "uidMappings"),
            (
                r#""linux":{"namespaces":[{"type":"user"}],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "gidMappings",
            ),
            (r#""linux":{"timeOffsets":{"boottime":{"secs":1}}}"#, "timeOffsets"),
            (r#""linux":{"namespaces":[{"type":"mount"}],"maskedPaths":["a"]}"#, "a is not an absolute path"),
            (r#""linux":{"namespaces":[{"type":"mount"}],"readonlyPaths":["../a"]}"#, "../a is not"),
            (r#""linux":{"mountLabel":"a:b:c"}"#, "a:b:c"),
            (r#""linux":{"intelRdt":{}}"#, "intelRdt"),
            (r#""linux":{"sysctl":{"net.ipv4.ip_forward":"1"}}"#, "net.ipv4.ip_forward"),
            (r#""linux":{"sysctl":{"kernel.panic":"1"}}"#, "kernel.panic"),
            (r#""hooks":{"prestart":[{"path":"../x"}]}"#, "../x"),
            (r#""hooks":{"poststop":[{"path":"/x","timeout":0}]}"#, "timeout of 0"),
            (r#""annotations":{"":"x"}"#, "annotations"),
            (r#""linux":{"namespaces":[{"type":"pid","path":"ns/pid"}]}"#, "ns/pid is not an absolute path"),
            (r#""linux":{"resources":{"rdma":{"mlx":{}}}}"#, "mlx has neither"),
            (
                r#""linux":{"resources":{"blockIO":{"weightDevice":[{"major":8,"minor":1}]}}}"#,
                "8:1 has neither",
            ),
            (r#""hooks":{"prestart":[{"path":"/a/../x"}]}"#, "/a/../x"),
        ] {
            let error = Spec::parse(format!("{{{base},{extra}}}").as_bytes()).unwrap().check().unwrap_err();
            assert!(error.to_string().contains(word), "{extra}: {error}");
        }
        Spec::parse(format!("{{{base}}}").as_bytes()).unwrap().check().unwrap();
        for good in ["1.0.0", "1.0.2-dev", "1.2.0-rc.1+abc", "1.10.3"] {
            assert!(is_version_1(good), "{good}");
        }
        for bad in
            ["", "1", "1.0", "1.x.0", "1.0.0.0", "2.0.0", "0.5.0-dev", "01.0.0", "1.02.0", "1.0.0-", "v1.0.0"]
        {
            assert!(!is_version_1(bad), "{bad}");
        }
        for (field, value, word) in [
            ("cwd", json!("a"), "cwd"),
            ("user", json!({"uid": u32::MAX}), "4294967295"),
            ("user", json!({"gid": u32::MAX}), "4294967295"),
            ("user", json!({"additionalGids": [u32::MAX]}), "4294967295"),
            ("args", json!([]), "args"),
            (
                "rlimits",
                json!([{"type": "RLIMIT_CORE"}, {"type": "RLIMIT_CPU"}, {"type": "RLIMIT_CORE"}]),
                "twice",
            ),
            ("ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "ioPriority"),
            ("scheduler", json!({"policy": "x"}), "scheduler"),
            ("execCPUAffinity", json!({"initial": "0-"}), "execCPUAffinity"),
            ("execCPUAffinity", json!({"final": "3-1"}), "execCPUAffinity"),
        ] {
            let mut process = json!({"cwd": "/", "args": ["sh"]});
            process[field] = value;
            let error = serde_json::from_value::<Process>(process).unwrap().check().unwrap_err();
            assert!(error.to_string().contains(word), "{field}: {error}");
        }
    }
}
