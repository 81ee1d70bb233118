//! Capabilities of files: the attribute `security.capability` (capabilities(7), "File capabilities").

use crate::tree::Meta;

const ATTRIBUTE: &[u8] = b"security.capability";

/// Names by number, as `linux/capability.h` has them.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The name as it is compared: `CAP_NET_RAW` is `net_raw`.
pub(super) fn plain(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    lower.strip_prefix("cap_").unwrap_or(&lower).to_string()
}

/// The capabilities that the file permits, by name, sorted.
pub(super) fn permitted(meta: &Meta) -> Vec<String> {
    let Some((_, value)) = meta.xattrs.iter().find(|(name, _)| name == ATTRIBUTE) else { return Vec::new() };
    let word = |at: usize| {
        let bytes = value.get(at..at + 4).and_then(|b| b.try_into().ok());
        u64::from(bytes.map_or(0, u32::from_le_bytes))
    };
    // The magic, then the lower half of permitted and inheritable, then the upper.
    let mask = word(4) | word(12) << 32;
    let name = |i: usize| NAMES.get(i).map_or_else(|| i.to_string(), |n| (*n).to_string());
    let mut names: Vec<String> = (0..64).filter(|i| mask & (1 << i) != 0).map(name).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes() {
        let of = |value: &[u8]| {
            permitted(&Meta { xattrs: vec![(ATTRIBUTE.to_vec(), value.to_vec())], ..Meta::default() })
        };
        let raw = [1, 0, 0, 2, 0, 0x24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(of(&raw), ["net_bind_service", "net_raw"]);
        let bpf = [1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(of(&bpf), ["bpf"]);
        assert!(of(b"").is_empty() && of(b"\x01").is_empty());
        assert!(permitted(&Meta::default()).is_empty());
        assert_eq!(plain("CAP_NET_RAW"), "net_raw");
    }
}
