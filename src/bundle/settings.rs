//! What the caller asks of a container on top of what its image says.

use super::{Error, Result};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    RootBuilder, Spec,
};
use std::path::Path;
use std::str::FromStr;

/// Where `ip netns` keeps its namespaces.
const NETNS: &str = "/run/netns";
/// The annotation by which the runner is asked for a network of its own.
pub const NETWORK_ANNOTATION: &str = "org.shipimg.network";

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Net {
    /// A namespace of its own with the loopback interface only.
    #[default]
    None,
    /// The host's.
    Host,
    /// A namespace of its own with `eth0`, one end of a veth pair.
    Private,
    /// An existing namespace, by its name below `/run/netns`.
    Named(String),
}

impl FromStr for Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            "private" => Ok(Self::Private),
            _ => match text.strip_prefix("ns:") {
                Some(name) if !name.is_empty() && !name.contains('/') && name != "." && name != ".." => {
                    Ok(Self::Named(name.to_string()))
                }
                _ => Err(Error::Setting {
                    option: "--net",
                    value: text.to_string(),
                    reason: "wanted none, host, private or ns:NAME",
                }),
            },
        }
    }
}

/// What the caller asks for.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Program and arguments instead of the image's.
    pub args: Vec<String>,
    /// `NAME=VALUE` on top of the image's environment.
    pub env: Vec<String>,
    /// Host name; the container's name where none is given.
    pub hostname: Option<String>,
    /// Capabilities on top of the defaults, as `CAP_NET_RAW`.
    pub cap_add: Vec<Capability>,
    /// The network.
    pub net: Net,
    /// A read-only root filesystem.
    pub read_only: bool,
    /// A terminal, with a prompt that names the container.
    pub terminal: bool,
}

/// Parses `net_raw`, `NET_RAW` or `CAP_NET_RAW`.
///
/// # Errors
/// [`Error::Setting`].
pub fn capability(text: &str) -> Result<Capability> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    serde_json::from_value(format!("CAP_{name}").into()).map_err(|_| Error::Setting {
        option: "capability",
        value: text.to_string(),
        reason: "see capabilities(7) for their names",
    })
}

impl Settings {
    /// Puts the settings into `spec`, for a container called `name` with the root filesystem
    /// `root`, absolute or relative to the bundle.
    ///
    /// # Errors
    /// [`Error::NoNetns`].
    pub fn apply(&self, spec: &mut Spec, name: &str, root: &Path) -> Result<()> {
        spec.set_hostname(Some(self.hostname.clone().unwrap_or_else(|| name.to_string())));
        spec.set_root(RootBuilder::default().path(root).readonly(self.read_only).build().ok());
        if let Some(process) = spec.process_mut() {
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
            process.set_env(Some(env)).set_terminal(Some(self.terminal)).set_no_new_privileges(Some(false));
            let capabilities = process.capabilities().as_ref().map(|c| with_capabilities(c, &self.cap_add));
            process.set_capabilities(capabilities);
        }
        self.apply_net(spec)
    }

    fn apply_net(&self, spec: &mut Spec) -> Result<()> {
        let Some(linux) = spec.linux_mut() else { return Ok(()) };
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        namespaces.retain(|n| n.typ() != LinuxNamespaceType::Network);
        match &self.net {
            Net::Host => {}
            Net::None | Net::Private => namespaces.extend(network_namespace(None)),
            Net::Named(name) => {
                let path = Path::new(NETNS).join(name);
                if !path.exists() {
                    return Err(Error::NoNetns(name.clone()));
                }
                namespaces.extend(network_namespace(Some(&path)));
            }
        }
        linux.set_namespaces(Some(namespaces));
        if self.net == Net::Private {
            let mut annotations = spec.annotations().clone().unwrap_or_default();
            annotations.insert(NETWORK_ANNOTATION.to_string(), "private".to_string());
            spec.set_annotations(Some(annotations));
        }
        Ok(())
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

fn with_capabilities(have: &LinuxCapabilities, add: &[Capability]) -> LinuxCapabilities {
    let with = |set: &Option<Capabilities>| -> Option<Capabilities> {
        Some(set.iter().flatten().chain(add).copied().collect())
    };
    let mut all = have.clone();
    all.set_bounding(with(have.bounding()));
    all.set_effective(with(have.effective()));
    all.set_permitted(with(have.permitted()));
    all
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
            assert_eq!(capability(text).unwrap(), Capability::NetRaw);
        }
        assert!(capability("fly").is_err());
    }

    #[test]
    fn settings_go_over_what_is_there() {
        let mut spec = Spec::default();
        let settings = Settings {
            args: vec!["/x".into()],
            env: vec!["PATH=/p".into(), "A=b".into()],
            cap_add: vec![Capability::NetAdmin],
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
