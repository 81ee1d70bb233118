//! What this runner can do, for callers that ask before they use it (runtime-spec, `features.md`).

use super::state::OCI_VERSION;
use super::{caps, reaper};
use crate::bundle::HEALTH_ANNOTATION;
use crate::bundle::network::NETWORK_ANNOTATION;
use serde_json::{Value, json};

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// Options of mounts, with their recursive forms.
const OPTIONS: [&str; 61] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "unbindable",
];

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

const ARCHITECTURES: [&str; 4] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// The document that `features` prints. It is about the program, not about this machine.
#[must_use]
pub fn features() -> Value {
    let capabilities: Vec<String> = caps::NAMES.iter().map(|name| format!("CAP_{name}")).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": HOOKS,
        "mountOptions": OPTIONS.iter().chain(&["tmpcopyup"]).collect::<Vec<_>>(),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true, "actions": ACTIONS, "operators": OPERATORS, "archs": ARCHITECTURES,
                "knownFlags": FLAGS, "supportedFlags": FLAGS
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}}
        },
        "annotations": {"org.shipimg.version": env!("CARGO_PKG_VERSION")},
        "potentiallyUnsafeConfigAnnotations": [reaper::ANNOTATION, NETWORK_ANNOTATION, HEALTH_ANNOTATION]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{namespaces, options::Options, options::SUPERBLOCK, seccomp::Filter, spec};

    #[test]
    fn says_what_is_so() {
        assert!(NAMESPACES.iter().all(|n| namespaces::flag(n).is_some()));
        for name in OPTIONS {
            let mount = spec::Mount { options: vec![name.into()], ..spec::Mount::default() };
            let own = Options::parse(&mount).unwrap().data.is_empty();
            assert!(own || SUPERBLOCK.contains(&name), "{name} would go to the filesystem");
        }
        let compile = |profile: Value| {
            Filter::compile(&serde_json::from_value(profile.clone()).unwrap())
                .map(drop)
                .map_err(|e| format!("{profile}: {e}"))
        };
        for action in ACTIONS {
            compile(json!({"defaultAction": action, "listenerPath": "/x"})).unwrap();
        }
        for op in OPERATORS {
            let args = [json!({"index": 0, "value": 1, "op": op})];
            let rule = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args});
            compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})).unwrap();
        }
        compile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": FLAGS, "architectures": ARCHITECTURES}))
            .unwrap();
        let features = features();
        for name in features["linux"]["capabilities"].as_array().unwrap() {
            assert!(caps::parse(name.as_str().unwrap()).is_some(), "{name}");
        }
        for name in HOOKS {
            let hooks = format!(r#"{{"{name}":[{{"path":"/x"}}]}}"#);
            let hooks: spec::Hooks = serde_json::from_str(&hooks).unwrap();
            let all = [&hooks.prestart, &hooks.create_runtime, &hooks.create_container];
            let late = [&hooks.start_container, &hooks.poststart, &hooks.poststop];
            assert_eq!(all.iter().chain(&late).map(|list| list.len()).sum::<usize>(), 1, "{name}");
        }
        for version in ["ociVersionMin", "ociVersionMax"] {
            let text = json!({"ociVersion": features[version], "root": {"path": "r"}}).to_string();
            spec::Spec::parse(text.as_bytes()).unwrap().check().unwrap();
        }
        assert!(features["ociVersionMin"].as_str() <= features["ociVersionMax"].as_str());
        let names: Vec<_> = features.as_object().unwrap().keys().map(String::as_str).collect();
        let known = ["ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux", "annotations"];
        assert_eq!(names, [&known[..], &["potentiallyUnsafeConfigAnnotations"]].concat());
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    }
}
