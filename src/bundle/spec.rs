//! The default `config.json`: what a container gets when nobody asks for anything else.
//!
//! Close to what other tools give: podman's set of capabilities, the runtime-spec's usual
//! mounts, every namespace but those of users and clocks, the kernel's own knobs hidden.
//! It says version 1.0.2, which has all that is used here: older runtimes refuse newer ones.

use oci_spec::OciSpecError;
use oci_spec::runtime::Spec;
use serde_json::json;

/// What a program may do as root: podman's default set.
const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The default configuration: a shell in `rootfs`, with a terminal.
///
/// # Errors
/// None in practice: the types of `oci-spec` take it, which a test holds.
pub fn default_spec() -> Result<Spec, OciSpecError> {
    Ok(serde_json::from_value(document())?)
}

/// The default configuration for a user without privileges, who is root inside: a user namespace
/// with this one id, the host's network and `/sys`, no limits.
///
/// # Errors
/// As [`default_spec`].
pub fn rootless_spec(uid: u32, gid: u32) -> Result<Spec, OciSpecError> {
    let mut spec = document();
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let linux = &mut spec["linux"];
    linux["uidMappings"] = map(uid);
    linux["gidMappings"] = map(gid);
    linux["resources"] = json!({});
    let kinds = ["pid", "ipc", "uts", "mount", "cgroup", "user"];
    linux["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|o| o != "gid=5");
        }
    }
    let mut spec = serde_json::from_value(spec)?;
    host_sys(&mut spec);
    Ok(spec)
}

/// Puts the host's `/sys` in the place of a sysfs of the container's own: in a user namespace that needs a network
/// namespace of its own, too (`sysfs_init_fs_context` of the kernel). The control groups mounted there are read-only
/// as well (CVE-2023-25809).
pub(super) fn host_sys(spec: &mut Spec) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in mounts.iter_mut().filter(|m| m.typ().as_deref() == Some("sysfs")) {
        let options = ["rbind", "nosuid", "noexec", "nodev", "ro", "rro"].map(String::from).to_vec();
        mount.set_typ(Some("none".to_string())).set_source(Some("/sys".into())).set_options(Some(options));
    }
    spec.set_mounts(Some(mounts));
}

fn document() -> serde_json::Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "shipimg",
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"}
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY
        }
    })
}

fn mounts() -> serde_json::Value {
    let safe = ["nosuid", "noexec", "nodev"];
    let with = |more: &[&'static str]| [&safe[..], more].concat();
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": with(&["mode=1777", "size=65536k"])},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": with(&["ro"])},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": with(&["relatime", "ro"])}
    ])
}

/// The text of a `config.json`, the same for the same configuration: keys and capabilities sorted.
///
/// # Errors
/// None in practice: all keys are strings.
pub fn text(spec: &Spec) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(spec)?;
    value.sort_all_objects();
    let sets = value.pointer_mut("/process/capabilities").and_then(serde_json::Value::as_object_mut);
    for set in sets.into_iter().flat_map(|s| s.values_mut()).filter_map(serde_json::Value::as_array_mut) {
        set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    Ok(format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_text_is_the_same_every_time() {
        let text = || {
            let mut spec = super::default_spec().unwrap();
            spec.set_annotations(Some((0..20).map(|i| (i.to_string(), String::new())).collect()));
            super::text(&spec).unwrap()
        };
        assert_eq!(text(), text());
    }

    #[test]
    fn one_id_for_who_has_no_privileges() {
        let spec = serde_json::to_value(super::rootless_spec(1000, 100).unwrap()).unwrap();
        assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], 1000);
        assert_eq!(spec["linux"]["gidMappings"][0]["hostID"], 100);
        let text = spec.to_string();
        assert!(text.contains(r#"{"type":"user"}"#) && !text.contains(r#"{"type":"network"}"#), "{text}");
        assert!(!text.contains("gid=5") && text.contains(r#""source":"/sys""#), "{text}");
    }

    #[test]
    fn is_what_the_types_take() {
        let spec = super::default_spec().unwrap();
        let back = serde_json::to_value(&spec).unwrap();
        assert_eq!(back["linux"]["namespaces"].as_array().unwrap().len(), 6);
        assert_eq!(back["mounts"].as_array().unwrap().len(), 7);
        assert_eq!(back["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 11);
    }
}
