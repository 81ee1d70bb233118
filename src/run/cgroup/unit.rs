//! Control groups that systemd makes: a transient scope around the container's first process.
//!
//! The scope is the group of version 2, or of `name=systemd`; the other hierarchies get groups at
//! the same path from us. It is delegated: systemd leaves what is below it alone. Limits and
//! devices are properties of the scope as well, so that they outlive a reload of systemd.

use super::{devices, limits};
use crate::run::watch::ends_within;
use crate::run::{Error, Result, io_error, spec::Resources};
use crate::sys::process::Child;
use crate::sys::systemd::{self, Property, Value};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long systemd may take, in seconds.
const LIMIT: u64 = 10;

/// A scope, named but not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// With `.scope`.
    pub name: String,
    slice: String,
}

impl Unit {
    /// Reads `cgroups_path` as `slice:prefix:name`; where it is empty, `name` in `system.slice`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another form.
    pub fn parse(cgroups_path: &str, name: &str) -> Result<Self> {
        // The only character of a container's name that a unit's may not have.
        let own = format!(":shipimg:{}", name.replace('+', "\\x2b"));
        let text = if cgroups_path.is_empty() { &own } else { cgroups_path };
        let invalid = || {
            let reason = format!("{text:?} is not slice:prefix:name, as for systemd");
            Error::Invalid { field: "linux.cgroupsPath".into(), reason }
        };
        let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..] else { return Err(invalid()) };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let clean = |c: char| c.is_ascii_alphanumeric() || "_-.@\\".contains(c);
        let stem = slice.strip_suffix(".slice").ok_or_else(invalid)?;
        let good = stem == "-" || stem.split('-').all(|part| !part.is_empty());
        if !good || name.is_empty() || [slice, prefix, name].iter().any(|t| !t.chars().all(clean)) {
            return Err(invalid());
        }
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        Ok(Self { name, slice: slice.into() })
    }

    /// Where systemd makes it, from the hierarchy's root: `a-b.slice` lies in `a.slice`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let stem = self.slice.strip_suffix(".slice").unwrap_or_default();
        let mut path = PathBuf::from("/");
        if stem != "-" {
            let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
            path.extend(ends.map(|end| format!("{}.slice", &stem[..end])));
        }
        path.join(&self.name)
    }

    /// Starts the scope around the process `child`, and waits until that is in it.
    ///
    /// # Errors
    /// What systemd answers; [`Error::Io`] with `ESRCH` where the process has ended;
    /// [`Error::Timeout`].
    pub fn start(&self, id: &str, child: &Child, resources: &Resources) -> Result<()> {
        let pid = child.pid;
        let mut properties = vec![
            ("Description", Value::Text(format!("shipimg container {id}"))),
            ("Slice", Value::Text(self.slice.clone())),
            ("Delegate", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
            ("CollectMode", Value::Text("inactive-or-failed".into())),
            ("PIDs", Value::Numbers(vec![pid.unsigned_abs()])),
        ];
        properties.extend(limits_of(resources));
        properties.extend(devices_of(resources));
        systemd::start_scope(&self.name, &properties)?;
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let end = Instant::now() + Duration::from_secs(LIMIT);
        loop {
            let text = io_error("read", &path, std::fs::read_to_string(&path))?;
            if text.lines().any(|l| l.ends_with(&format!("/{}", self.name))) {
                // systemd answers one after another: this one once it is done with all hierarchies,
                // so that it moves the process no more after us.
                return Ok(systemd::set_properties(&self.name, &[])?);
            }
            if ends_within(&child.pidfd, Duration::ZERO) {
                return io_error("read", &path, Err(std::io::Error::from_raw_os_error(libc::ESRCH)));
            }
            if Instant::now() > end {
                let what = format!("systemd did not start {}", self.name);
                return Err(Error::Timeout { what, seconds: LIMIT });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The devices as properties of a unit. systemd writes its own idea of them each time that it
/// looks at its units anew.
fn devices_of(resources: &Resources) -> Vec<Property> {
    let Some(list) = devices::allowed(&resources.devices) else { return Vec::new() };
    vec![("DevicePolicy", Value::Text("strict".into())), ("DeviceAllow", Value::Pairs(list))]
}

/// Whether a `cgroupsPath` is in systemd's form.
#[must_use]
pub fn is_unit(cgroups_path: &str) -> bool {
    !cgroups_path.starts_with('/') && cgroups_path.matches(':').count() == 2
}

/// Gives a scope other limits.
///
/// # Errors
/// What systemd answers.
pub fn update(name: &str, resources: &Resources) -> Result<()> {
    let properties = limits_of(resources);
    if properties.is_empty() { Ok(()) } else { Ok(systemd::set_properties(name, &properties)?) }
}

/// Stops a scope; nothing where systemd does not know it any more.
pub fn stop(name: &str) {
    if let Err(e) = systemd::stop(name) {
        tracing::debug!("{e}");
    }
}

/// Limits as properties of a unit (systemd.resource-control(5)). What is wrong with them is told
/// where the files are written.
fn limits_of(resources: &Resources) -> Vec<Property> {
    let number = |text: &str| if text == "max" { u64::MAX } else { text.parse().unwrap_or(u64::MAX) };
    let mut out = Vec::new();
    for (name, content) in limits::v2(resources) {
        match name.as_str() {
            "memory.max" => out.push(("MemoryMax", Value::Number(number(&content)))),
            "memory.low" => out.push(("MemoryLow", Value::Number(number(&content)))),
            "memory.swap.max" => out.push(("MemorySwapMax", Value::Number(number(&content)))),
            "pids.max" => out.push(("TasksMax", Value::Number(number(&content)))),
            "cpu.weight" => out.push(("CPUWeight", Value::Number(number(&content)))),
            "io.weight" if !content.contains(':') => out.push(("IOWeight", Value::Number(number(&content)))),
            "cpu.max" => {
                let (quota, period) = content.split_once(' ').unwrap_or((&content, "100000"));
                let period = number(period);
                // Processor time in a second.
                let share = match quota {
                    "max" => u64::MAX,
                    quota => number(quota).saturating_mul(1_000_000) / period.max(1),
                };
                out.push(("CPUQuotaPerSecUSec", Value::Number(share)));
                out.push(("CPUQuotaPeriodUSec", Value::Number(period)));
            }
            "cpuset.cpus" => out.push(("AllowedCPUs", Value::Bytes(bits(&content)))),
            "cpuset.mems" => out.push(("AllowedMemoryNodes", Value::Bytes(bits(&content)))),
            _ => {}
        }
    }
    out
}

/// `0-2,9` as bits, the lowest first.
fn bits(ranges: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for range in ranges.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (Ok(from), Ok(to)) = (from.trim().parse::<u16>(), to.trim().parse::<u16>()) else {
            continue;
        };
        for n in from..=to {
            let at = usize::from(n / 8);
            if out.len() <= at {
                out.resize(at + 1, 0);
            }
            out[at] |= 1 << (n % 8);
        }
    }
    out
}

/// The group's place below the mount point of a hierarchy.
#[must_use]
pub fn below(mount: &Path, path: &Path) -> PathBuf {
    mount.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_places() {
        for (text, name, path) in [
            ("machine.slice:libpod:abc", "libpod-abc.scope", "/machine.slice/libpod-abc.scope"),
            ("", "shipimg-i\\x2bd.scope", "/system.slice/shipimg-i\\x2bd.scope"),
            (":cri:x", "cri-x.scope", "/system.slice/cri-x.scope"),
            ("-.slice::x", "x.scope", "/x.scope"),
            ("a-b-c.slice:p:x", "p-x.scope", "/a.slice/a-b.slice/a-b-c.slice/p-x.scope"),
        ] {
            let unit = Unit::parse(text, "i+d").unwrap();
            assert_eq!((unit.name.as_str(), unit.path().as_path()), (name, Path::new(path)));
        }
        for bad in
            ["/a/b", "a:b:c", "a.slice:b", "a.slice:b:", "a--b.slice:p:x", "a/b.slice:p:x", "a.slice:p:../x"]
        {
            assert!(Unit::parse(bad, "id").is_err(), "{bad}");
        }
        assert!(is_unit("machine.slice:libpod:abc") && !is_unit("/a:b:c") && !is_unit("a"));
    }

    #[test]
    fn limits_as_properties() {
        let resources: Resources = serde_json::from_value(serde_json::json!({
            "memory": {"limit": 4096, "swap": 4096}, "pids": {"limit": -1},
            "cpu": {"quota": 50_000, "period": 100_000, "cpus": "0-2,9"}}))
        .unwrap();
        assert_eq!(
            limits_of(&resources),
            [
                ("MemoryMax", Value::Number(4096)),
                ("MemorySwapMax", Value::Number(0)),
                ("CPUQuotaPerSecUSec", Value::Number(500_000)),
                ("CPUQuotaPeriodUSec", Value::Number(100_000)),
                ("AllowedCPUs", Value::Bytes(vec![7, 2])),
                ("TasksMax", Value::Number(u64::MAX)),
            ]
        );
    }
}
