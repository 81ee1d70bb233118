//! Which devices a container may use: rules of the version 1 controller, or a program
//! attached to the version 2 group (`bpf(2)`, `BPF_PROG_TYPE_CGROUP_DEVICE`).

use crate::run::spec::DeviceRule;
use crate::run::{Result, io_error};
use crate::sys::device_filter::{self, Rule};
use std::path::Path;

/// What every container may use once there are rules at all: making nodes, and the
/// devices that the runtime-spec lists as default ones.
const DEFAULT: [(char, i64, i64, &str); 12] = [
    ('c', -1, -1, "m"),
    ('b', -1, -1, "m"),
    ('c', 1, 3, "rwm"),
    ('c', 1, 5, "rwm"),
    ('c', 1, 7, "rwm"),
    ('c', 1, 8, "rwm"),
    ('c', 1, 9, "rwm"),
    ('c', 5, 0, "rwm"),
    ('c', 5, 1, "rwm"),
    ('c', 5, 2, "rwm"),
    ('c', 136, -1, "rwm"),
    ('c', 10, 200, "rwm"),
];

/// The rules in order: those of config.json, then the default ones.
fn rules(wanted: &[DeviceRule]) -> Vec<Rule> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let own = wanted.iter().map(|r| Rule {
        allow: r.allow,
        kind: r.kind.chars().next().unwrap_or('a'),
        major: r.major.unwrap_or(-1),
        minor: r.minor.unwrap_or(-1),
        access: if r.access.is_empty() { "rwm".into() } else { r.access.clone() },
    });
    let default = DEFAULT.iter().map(|&(kind, major, minor, access)| Rule {
        allow: true,
        kind,
        major,
        minor,
        access: access.into(),
    });
    own.chain(default).collect()
}

/// The rules as a list of what is allowed, in the words of `DeviceAllow=`
/// (systemd.resource-control(5)), first names or numbers, then access. None where there are no
/// rules, or where all is allowed but for exceptions, which such a list cannot say.
#[must_use]
pub fn allowed(wanted: &[DeviceRule]) -> Option<Vec<(String, String)>> {
    let mut list: Option<Vec<(String, String)>> = None;
    for rule in rules(wanted) {
        if rule.kind == 'a' {
            list = (!rule.allow).then(Vec::new);
            continue;
        }
        let Some(list) = &mut list else { continue };
        let kind = if rule.kind == 'b' { "block" } else { "char" };
        let name = match (rule.major, rule.minor) {
            (..0, _) => format!("{kind}-*"),
            (major, ..0) => format!("{kind}-{major}"),
            (major, minor) => format!("/dev/{kind}/{major}:{minor}"),
        };
        if rule.allow {
            list.push((name, rule.access));
        } else {
            list.retain(|(other, access)| *other != name || access.chars().any(|c| !rule.access.contains(c)));
        }
    }
    list
}

fn line(rule: &Rule) -> String {
    let number = |n: i64| if n < 0 { "*".to_string() } else { n.to_string() };
    if rule.kind == 'a' {
        return "a".into();
    }
    format!("{} {}:{} {}", rule.kind, number(rule.major), number(rule.minor), rule.access)
}

/// Writes the rules into `group` of the devices controller.
///
/// # Errors
/// [`crate::run::Error::Io`].
pub fn apply_v1(group: &Path, wanted: &[DeviceRule]) -> Result<()> {
    for rule in rules(wanted) {
        let path = group.join(if rule.allow { "devices.allow" } else { "devices.deny" });
        io_error("write", &path, std::fs::write(&path, line(&rule)))?;
    }
    Ok(())
}

/// Attaches a program with the rules to `group`.
///
/// # Errors
/// [`crate::run::Error::Io`], [`crate::run::Error::Sys`].
pub fn apply_v2(group: &Path, wanted: &[DeviceRule]) -> Result<()> {
    let rules = rules(wanted);
    if rules.is_empty() {
        return Ok(());
    }
    let dir = io_error("open", group, std::fs::File::open(group))?;
    Ok(device_filter::attach(&dir, &rules)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert!(rules(&[]).is_empty());
        let deny: DeviceRule = serde_json::from_str(r#"{"allow":false,"access":"rwm"}"#).unwrap();
        let fuse: DeviceRule =
            serde_json::from_str(r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}"#)
                .unwrap();
        let lines: Vec<_> = rules(&[deny, fuse]).iter().map(line).collect();
        assert_eq!(lines[..4], ["a", "c 10:229 rw", "c *:* m", "b *:* m"]);
    }

    #[test]
    fn lists() {
        let allowed = |text: &str| allowed(&serde_json::from_str::<Vec<DeviceRule>>(text).unwrap());
        assert_eq!((allowed("[]"), allowed(r#"[{"allow":true}]"#)), (None, None));
        let list = allowed(
            r#"[{"allow":false,"access":"rwm"}, {"allow":true,"type":"b","major":7,"access":"r"},
            {"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},
            {"allow":true,"type":"c","major":10,"minor":230,"access":"rw"},
            {"allow":false,"type":"c","major":10,"minor":230,"access":"rwm"}]"#,
        );
        let list = list.unwrap();
        let words: Vec<_> = list.iter().map(|(name, access)| format!("{name} {access}")).collect();
        assert_eq!(words[..4], ["block-7 r", "/dev/char/10:229 rw", "char-* m", "block-* m"]);
        assert!(words.contains(&"char-136 rwm".to_string()) && words.len() == 14, "{words:?}");
    }
}
