//! What the caller asks of a container on top of what its image says.

use super::health::HealthChange;
use super::limits::{HostDevice, Limits};
use super::network::{Mode, NETWORK_ANNOTATION, Net, Network};
use super::seccomp::Seccomp;
use super::{Error, Result, mount, spec};
use crate::sys::{Call, userns};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    Mount, PosixRlimit, Process, RootBuilder, Spec,
};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where `ip netns` keeps its namespaces.
const NETNS: &str = "/run/netns";
/// The annotation by which the runner is asked for an init process of its own.
pub const INIT_ANNOTATION: &str = "org.shipimg.init";
/// The annotation by which the runner is asked for health checks: a [`crate::oci::Health`] as JSON.
pub const HEALTH_ANNOTATION: &str = "org.shipimg.healthcheck";
/// The annotation that says by which signal a container is asked to end (image-spec, conversion.md).
pub const STOP_SIGNAL_ANNOTATION: &str = "org.opencontainers.image.stopSignal";

/// Capabilities as they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caps {
    /// All that this process has itself.
    All,
    /// One.
    One(Capability),
}

impl FromStr for Caps {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text.eq_ignore_ascii_case("all") {
            return Ok(Self::All);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        serde_json::from_value(format!("CAP_{name}").into())
            .map(Self::One)
            .map_err(|_| format!("{text:?} is no capability, see capabilities(7) for their names"))
    }
}

/// What the caller asks for.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "questions with yes or no")]
pub struct Settings {
    /// Program and arguments instead of the image's.
    pub args: Vec<String>,
    /// `NAME=VALUE` on top of the image's environment.
    pub env: Vec<String>,
    /// `USER[:GROUP]` instead of the image's, names by the files of the root filesystem.
    pub user: Option<String>,
    /// Working directory instead of the image's.
    pub workdir: Option<PathBuf>,
    /// Host name; the container's name where none is given.
    pub hostname: Option<String>,
    /// Capabilities on top of the defaults.
    pub cap_add: Vec<Caps>,
    /// Capabilities taken from the defaults.
    pub cap_drop: Vec<Caps>,
    /// System calls that are allowed.
    pub seccomp: Seccomp,
    /// Whether execve may not raise privileges.
    pub no_new_privileges: bool,
    /// `AppArmor` profile.
    pub apparmor: Option<String>,
    /// The network.
    pub net: Net,
    /// What goes with it; the mode and the container are those of `net`.
    pub network: Network,
    /// A read-only root filesystem.
    pub read_only: bool,
    /// Mounts on top of the defaults, or in their place.
    pub mounts: Vec<Mount>,
    /// Devices of the host.
    pub devices: Vec<HostDevice>,
    /// Resource limits on top of the defaults.
    pub rlimits: Vec<PosixRlimit>,
    /// Kernel parameters and their values.
    pub sysctl: Vec<(String, String)>,
    /// Limits of the control groups.
    pub limits: Limits,
    /// For the out-of-memory killer, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Annotations on top of the image's.
    pub annotations: Vec<(String, String)>,
    /// An init process that reaps and passes signals on.
    pub init: bool,
    /// Other health checks than the image's.
    pub health: HealthChange,
    /// The signal by which it is asked to end, instead of the image's.
    pub stop_signal: Option<String>,
    /// A terminal, with a prompt that names the container.
    pub terminal: bool,
}

impl Settings {
    /// Puts the settings into `spec`, for a container called `name` with the root filesystem
    /// `root`, absolute or relative to the bundle. The user is there already.
    ///
    /// # Errors
    /// [`Error::NoNetns`], [`Error::Setting`] for what contradicts itself.
    pub fn apply(&self, spec: &mut Spec, name: &str, root: &Path) -> Result<()> {
        spec.set_hostname(Some(self.hostname.clone().unwrap_or_else(|| name.to_string())));
        spec.set_root(RootBuilder::default().path(root).readonly(self.read_only).build().ok());
        let mut capabilities = None;
        if let Some(process) = spec.process_mut() {
            self.apply_process(process, name)?;
            capabilities.clone_from(process.capabilities());
        }
        self.apply_mounts(spec)?;
        self.apply_linux(spec, capabilities.as_ref())?;
        let mut annotations = spec.annotations().clone().unwrap_or_default();
        annotations.extend(self.annotations.iter().cloned());
        if self.init {
            annotations.insert(INIT_ANNOTATION.to_string(), "true".to_string());
        }
        self.health.apply(&mut annotations)?;
        if let Some(signal) = &self.stop_signal {
            annotations.insert(STOP_SIGNAL_ANNOTATION.to_string(), signal.clone());
        }
        if !annotations.is_empty() {
            spec.set_annotations(Some(annotations));
        }
        self.apply_net(spec)
    }

    fn apply_process(&self, process: &mut Process, name: &str) -> Result<()> {
        if !self.args.is_empty() {
            process.set_args(Some(self.args.clone()));
        }
        let mut env = process.env().clone().unwrap_or_default();
        if self.terminal {
            let prompt = format!("PS1={name}:$PWD{} ", if process.user().uid() == 0 { '#' } else { '$' });
            let missing = [prompt, "TERM=xterm".to_string()].into_iter().filter(|new| !has(&env, new));
            env.extend(missing.collect::<Vec<_>>());
        }
        for new in &self.env {
            env.retain(|old| key(old) != key(new));
            env.push(new.clone());
        }
        if let Some(workdir) = &self.workdir {
            process.set_cwd(workdir.clone());
        }
        process.set_env(Some(env)).set_terminal(Some(self.terminal));
        process.set_no_new_privileges(Some(self.no_new_privileges));
        if self.apparmor.is_some() {
            process.set_apparmor_profile(self.apparmor.clone());
        }
        if self.oom_score_adj.is_some() {
            process.set_oom_score_adj(self.oom_score_adj);
        }
        let mut rlimits = process.rlimits().clone().unwrap_or_default();
        for new in &self.rlimits {
            rlimits.retain(|old| old.typ() != new.typ());
            rlimits.push(*new);
        }
        process.set_rlimits(Some(rlimits));
        let root = process.user().uid() == 0;
        if let Some(capabilities) = process.capabilities() {
            let changed = self.capabilities(capabilities, root)?;
            process.set_capabilities(Some(changed));
        }
        Ok(())
    }

    /// The sets, with what is added and without what is dropped; what is asked for by name
    /// counts more than `ALL`. A user other than root has what was added as ambient ones.
    fn capabilities(&self, have: &LinuxCapabilities, root: bool) -> Result<LinuxCapabilities> {
        let named = |list: &[Caps]| -> Capabilities {
            let one = |c: &Caps| if let Caps::One(c) = c { Some(*c) } else { None };
            list.iter().filter_map(one).collect()
        };
        let (added, dropped) = (named(&self.cap_add), named(&self.cap_drop));
        if let Some(both) = added.intersection(&dropped).next() {
            let (option, reason) = ("--cap-add", "it is in --cap-drop too");
            return Err(Error::Setting { option, value: format!("CAP_{both}"), reason });
        }
        let (all_added, all_dropped) =
            (self.cap_add.contains(&Caps::All), self.cap_drop.contains(&Caps::All));
        if all_added && all_dropped {
            let (option, reason) = ("--cap-add", "it is in --cap-drop too");
            return Err(Error::Setting { option, value: "ALL".to_string(), reason });
        }
        let own = if all_added { own_capabilities()? } else { Capabilities::new() };
        let asked: Capabilities = own.union(&added).copied().collect();
        let with = |set: &Option<Capabilities>| -> Option<Capabilities> {
            let kept = set.iter().flatten().filter(|_| !all_dropped).chain(&asked);
            Some(kept.filter(|c| !dropped.contains(c)).copied().collect())
        };
        let mut sets = have.clone();
        sets.set_bounding(with(have.bounding()));
        sets.set_effective(with(have.effective()));
        sets.set_permitted(with(have.permitted()));
        if !root && !asked.is_empty() {
            let ambient: Capabilities = asked.difference(&dropped).copied().collect();
            sets.set_inheritable(Some(ambient.clone()));
            sets.set_ambient(Some(ambient));
        }
        Ok(sets)
    }

    fn apply_mounts(&self, spec: &mut Spec) -> Result<()> {
        let mut own = self.mounts.clone();
        own.sort_by_key(|m| m.destination().components().count());
        for (at, mount) in own.iter().enumerate() {
            if own[..at].iter().any(|m| m.destination() == mount.destination()) {
                let value = mount.destination().display().to_string();
                return Err(Error::Setting { option: "--volume", value, reason: "it is mounted on twice" });
            }
        }
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.retain(|m| own.iter().all(|new| new.destination() != m.destination()));
        mounts.extend(own.iter().map(mount::plain));
        spec.set_mounts(Some(mounts));
        Ok(())
    }

    fn apply_linux(&self, spec: &mut Spec, capabilities: Option<&LinuxCapabilities>) -> Result<()> {
        let Some(linux) = spec.linux_mut() else { return Ok(()) };
        let json = |e: serde_json::Error| Error::Spec(e.into());
        let mut resources = serde_json::to_value(linux.resources()).map_err(json)?;
        if let Value::Object(limits) = self.limits.resources() {
            for (group, limit) in limits {
                resources[group] = limit;
            }
        }
        if !self.devices.is_empty() {
            let rules = resources["devices"].as_array().cloned().unwrap_or_default();
            let new = self.devices.iter().map(|d| serde_json::to_value(&d.rule).map_err(json));
            resources["devices"] = rules.into_iter().map(Ok).chain(new).collect::<Result<Vec<_>>>()?.into();
            let nodes = linux.devices().iter().flatten().chain(self.devices.iter().map(|d| &d.node));
            let nodes = nodes.cloned().collect();
            linux.set_devices(Some(nodes));
        }
        linux.set_resources(serde_json::from_value(resources).map_err(json)?);
        if !self.sysctl.is_empty() {
            let mut all: HashMap<_, _> = linux.sysctl().clone().unwrap_or_default();
            all.extend(self.sysctl.iter().cloned());
            linux.set_sysctl(Some(all));
        }
        let bounding = capabilities.and_then(|c| c.bounding().as_ref());
        let names: Vec<String> = bounding.into_iter().flatten().map(|c| format!("CAP_{c}")).collect();
        linux.set_seccomp(self.seccomp.section(&names)?);
        Ok(())
    }

    fn apply_net(&self, spec: &mut Spec) -> Result<()> {
        if self.net == Net::Host && !userns::ids().is_host() {
            spec::host_sys(spec);
        }
        let Some(linux) = spec.linux_mut() else { return Ok(()) };
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        namespaces.retain(|n| n.typ() != LinuxNamespaceType::Network);
        match &self.net {
            Net::Host => {}
            // Another container's is known at the launch.
            Net::None | Net::Private | Net::Bridge | Net::Pasta | Net::Container(_) => {
                namespaces.extend(network_namespace(None));
            }
            Net::Named(name) => {
                let path = Path::new(NETNS).join(name);
                if !path.exists() {
                    return Err(Error::NoNetns(name.clone()));
                }
                namespaces.extend(network_namespace(Some(&path)));
            }
        }
        linux.set_namespaces(Some(namespaces));
        if let Some(text) = self.runner_network()?.annotation() {
            let mut annotations = spec.annotations().clone().unwrap_or_default();
            annotations.insert(NETWORK_ANNOTATION.to_string(), text);
            spec.set_annotations(Some(annotations));
        }
        Ok(())
    }

    /// What the runner is asked for.
    ///
    /// # Errors
    /// [`Error::Network`]: an option that the network has no use for.
    pub fn runner_network(&self) -> Result<Network> {
        let (mode, container) = match &self.net {
            Net::None | Net::Host | Net::Named(_) => (Mode::None, None),
            Net::Private => (Mode::Private, None),
            Net::Bridge => (Mode::Bridge, None),
            Net::Pasta => (Mode::Pasta, None),
            Net::Container(name) => (Mode::Container, Some(name.clone())),
        };
        let network = Network { mode, container, ..self.network.clone() };
        if network.netns_name.is_some() && matches!(self.net, Net::Host | Net::Named(_)) {
            return Err(Error::Network("--netns-name: the namespace is none of the container's own".into()));
        }
        network.check().map_err(Error::Network)?;
        Ok(network)
    }
}

/// The name of an environment variable.
fn key(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

fn has(env: &[String], variable: &str) -> bool {
    env.iter().any(|e| key(e) == key(variable))
}

fn network_namespace(path: Option<&Path>) -> Option<LinuxNamespace> {
    let mut builder = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network);
    if let Some(path) = path {
        builder = builder.path(path);
    }
    builder.build().ok()
}

/// The capabilities that this process has and can give on.
fn own_capabilities() -> Result<Capabilities> {
    let own = rustix::thread::capabilities(None).call(|| "capget".to_string())?.permitted;
    let known = own.iter_names().filter_map(|(name, _)| match name.parse() {
        Ok(Caps::One(capability)) => Some(capability),
        _ => None,
    });
    Ok(known.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_words() {
        assert_eq!("ns:red".parse::<Net>().unwrap(), Net::Named("red".into()));
        for bad in ["ns:", "ns:../x", "bridge0", ""] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
        for text in ["net_raw", "NET_RAW", "CAP_NET_RAW"] {
            assert_eq!(text.parse(), Ok(Caps::One(Capability::NetRaw)));
        }
        assert_eq!("all".parse(), Ok(Caps::All));
        assert!("fly".parse::<Caps>().is_err());
    }

    #[test]
    fn capabilities_come_and_go() {
        let sets = |add: &str, drop: &str, root: bool| -> Result<(Vec<String>, usize)> {
            let parse = |text: &str| text.split_whitespace().map(|c| c.parse().unwrap()).collect();
            let settings = Settings { cap_add: parse(add), cap_drop: parse(drop), ..Settings::default() };
            let sets = settings.capabilities(&LinuxCapabilities::default(), root)?;
            let mut names: Vec<_> = sets.bounding().iter().flatten().map(ToString::to_string).collect();
            names.sort();
            Ok((names, sets.ambient().as_ref().map_or(0, std::collections::HashSet::len)))
        };
        let usual = ["AUDIT_WRITE", "KILL", "NET_BIND_SERVICE"].map(String::from).to_vec();
        for (add, drop, root, wanted, ambient) in [
            ("", "", true, usual.clone(), 0),
            ("chown", "kill", true, vec!["AUDIT_WRITE".into(), "CHOWN".into(), "NET_BIND_SERVICE".into()], 0),
            ("chown", "ALL", true, vec!["CHOWN".into()], 0),
            ("chown", "ALL", false, vec!["CHOWN".into()], 1),
            ("", "all", true, vec![], 0),
        ] {
            let (names, in_ambient) = sets(add, drop, root).unwrap();
            let before =
                LinuxCapabilities::default().ambient().as_ref().map_or(0, std::collections::HashSet::len);
            let expected = if root || add.is_empty() { before } else { ambient };
            assert_eq!((names, in_ambient), (wanted, expected), "+{add} -{drop}");
        }
        let (all, _) = sets("ALL", "mknod", true).unwrap();
        assert!(all.contains(&"CHOWN".to_string()) && !all.contains(&"MKNOD".to_string()), "{all:?}");
        assert!(sets("kill", "kill", true).is_err() && sets("all", "all", true).is_err());
    }

    #[test]
    fn settings_go_over_what_is_there() {
        let mut spec = Spec::default();
        let settings = Settings {
            args: vec!["/x".into()],
            env: vec!["PATH=/p".into(), "A=b".into()],
            cap_add: vec![Caps::One(Capability::NetAdmin)],
            net: Net::Private,
            read_only: true,
            ..Settings::default()
        };
        settings.apply(&mut spec, "box", Path::new("rootfs")).unwrap();
        assert_eq!(spec.hostname().as_deref(), Some("box"));
        let process = spec.process().clone().unwrap();
        let env = process.env().clone().unwrap();
        assert_eq!(env.iter().filter(|e| e.starts_with("PATH=")).collect::<Vec<_>>(), ["PATH=/p"]);
        assert!(
            process
                .capabilities()
                .clone()
                .unwrap()
                .bounding()
                .clone()
                .unwrap()
                .contains(&Capability::NetAdmin)
        );
        assert_eq!(spec.annotations().clone().unwrap()[NETWORK_ANNOTATION], "private");
        assert!(spec.root().clone().unwrap().readonly().unwrap());
        let mut named = Settings { net: Net::Named("no-such-namespace".into()), ..Settings::default() };
        assert!(matches!(named.apply(&mut spec, "box", Path::new("rootfs")), Err(Error::NoNetns(_))));
        named.net = Net::Host;
        named.apply(&mut spec, "box", Path::new("rootfs")).unwrap();
        let namespaces = spec.linux().clone().unwrap().namespaces().clone().unwrap();
        assert!(namespaces.iter().all(|n| n.typ() != LinuxNamespaceType::Network));
    }
}
