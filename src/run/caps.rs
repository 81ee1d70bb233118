//! Capabilities by name, and the five sets of a process (capabilities(7)).

use super::{Result, spec};
use crate::sys::{Call, process};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::collections::BTreeSet;

/// Names without `CAP_`, by number.
pub(super) const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The bit of a capability by its name, with or without `CAP_`, in any case.
#[must_use]
pub fn parse(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == short).map(|number| 1 << number)
}

/// The five sets as bits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sets {
    bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

impl Sets {
    /// The sets that config.json asks for, less what this process does not have itself;
    /// a warning tells of what is left out.
    ///
    /// # Errors
    /// The failed capget(2) call.
    pub fn resolve(wanted: &spec::Capabilities) -> Result<Self> {
        let own = capabilities(None).call(|| "capget".to_string())?.permitted.bits();
        let bits = |names: &Vec<String>| -> u64 {
            names.iter().map(|n| available(n, own)).fold(0, std::ops::BitOr::bitor)
        };
        let sets =
            [&wanted.bounding, &wanted.effective, &wanted.inheritable, &wanted.permitted, &wanted.ambient];
        let names: BTreeSet<&String> = sets.into_iter().flatten().collect();
        for name in names.into_iter().filter(|name| available(name, own) == 0) {
            tracing::warn!("capability {name} is not known or not available here; left out");
        }
        let permitted = bits(&wanted.permitted);
        let inheritable = bits(&wanted.inheritable);
        Ok(Self {
            bounding: bits(&wanted.bounding),
            effective: bits(&wanted.effective) & permitted,
            inheritable,
            permitted,
            ambient: bits(&wanted.ambient) & permitted & inheritable,
        })
    }

    /// Adds the capability `name` to all sets but the inheritable and the ambient one.
    ///
    /// # Errors
    /// The failed capget(2) call.
    pub fn add(&mut self, name: &str) -> Result<()> {
        let own = capabilities(None).call(|| "capget".to_string())?.permitted.bits();
        let bit = available(name, own);
        if bit == 0 {
            tracing::warn!("capability {name} is not known or not available here; left out");
        }
        self.bounding |= bit;
        self.effective |= bit;
        self.permitted |= bit;
        Ok(())
    }

    /// Cuts the bounding set; before the user changes, while `CAP_SETPCAP` is there.
    ///
    /// # Errors
    /// The failed prctl(2) call.
    pub fn cut_bounding(&self) -> Result<()> {
        for number in 0..64 {
            if self.bounding & (1 << number) != 0 {
                continue;
            }
            match process::drop_bounding(number) {
                Err(e) if e.errno() == Some(rustix::io::Errno::INVAL) => break,
                other => other?,
            }
        }
        Ok(())
    }

    /// Sets the four other sets; after the user has changed.
    ///
    /// # Errors
    /// The failed capset(2) or prctl(2) call.
    pub fn apply(&self) -> Result<()> {
        let set = CapabilitySet::from_bits_retain;
        let sets = CapabilitySets {
            effective: set(self.effective),
            permitted: set(self.permitted),
            inheritable: set(self.inheritable),
        };
        set_capabilities(None, sets).call(|| format!("capset({:#x})", self.permitted))?;
        for number in (0..64).filter(|n| self.ambient & (1 << n) != 0) {
            process::raise_ambient(number)?;
        }
        Ok(())
    }
}

fn available(name: &str, own: u64) -> u64 {
    parse(name).unwrap_or(0) & own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse("CAP_CHOWN"), Some(1));
        assert_eq!(parse("net_raw"), Some(1 << 13));
        assert_eq!(parse("CAP_CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(parse("CAP_FROM_THE_FUTURE"), None);
    }

    #[test]
    fn ambient_needs_permitted_and_inheritable() {
        let names = |n: &[&str]| n.iter().map(ToString::to_string).collect::<Vec<_>>();
        let wanted = spec::Capabilities {
            permitted: names(&["CAP_KILL"]),
            ambient: names(&["CAP_KILL", "CAP_NOPE"]),
            ..spec::Capabilities::default()
        };
        let sets = Sets::resolve(&wanted).unwrap();
        assert_eq!((sets.ambient, sets.effective), (0, 0));
    }
}
