//! Limits and devices as people write them: sizes, `--ulimit`, `--cpus`, `--device`.

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
};
use rustix::fs::{FileType, major, minor};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The period that `--cpus` is a share of, in microseconds, the kernel's own.
const PERIOD: u32 = 100_000;

/// Limits of a container's control groups; none where absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<i64>,
    /// Memory and swap together in bytes; -1 is no limit.
    pub memory_swap: Option<i64>,
    /// Processors' time, in microseconds of each 100 ms.
    pub cpu_quota: Option<i64>,
    /// Processors, `0-3,7`.
    pub cpuset: Option<String>,
    /// How many tasks; -1 is no limit.
    pub pids: Option<i64>,
    /// Weight for the disk, 10 to 1000.
    pub io_weight: Option<u16>,
}

impl Limits {
    /// `linux.resources`, without devices.
    #[must_use]
    pub fn resources(&self) -> Value {
        let mut out = json!({});
        let mut put = |group: &str, key: &str, value: Option<Value>| {
            if let Some(value) = value {
                out[group][key] = value;
            }
        };
        put("memory", "limit", self.memory.map(Value::from));
        put("memory", "swap", self.memory_swap.map(Value::from));
        put("cpu", "quota", self.cpu_quota.map(Value::from));
        put("cpu", "period", self.cpu_quota.map(|_| PERIOD.into()));
        put("cpu", "cpus", self.cpuset.clone().map(Value::from));
        put("pids", "limit", self.pids.map(Value::from));
        put("blockIO", "weight", self.io_weight.map(Value::from));
        out
    }
}

/// A size in bytes: a number and `b`, `k`, `m`, `g` or `t`, powers of 1024.
///
/// # Errors
/// What is wrong with the text.
pub fn size(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        other => return Err(format!("unit {other:?} is not one of b, k, m, g, t")),
    };
    let number = digits.parse::<i64>().ok().filter(|n| *n > 0 && digits.starts_with(|c: char| c != '+'));
    let bytes = number.and_then(|n| n.checked_mul(1 << shift));
    bytes.ok_or_else(|| "wanted a size as 512m or 2g".to_string())
}

/// A size, or -1 for no limit.
///
/// # Errors
/// As [`size`].
pub fn size_or_none(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { size(text) }
}

/// A number of processors as `1.5`, as microseconds of each 100 ms.
///
/// # Errors
/// What is wrong with the text.
pub fn cpus(text: &str) -> Result<i64, String> {
    let fail = || "wanted a number of processors as 2 or 1.5, at least 0.01".to_string();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if part.is_empty() || part.len() > 5 || !(whole.to_string() + part).bytes().all(|b| b.is_ascii_digit()) {
        return Err(fail());
    }
    let quota = whole.parse::<i64>().ok().and_then(|n| n.checked_mul(PERIOD.into()));
    let part = format!("{part:0<5}").parse::<i64>().ok();
    let quota = quota.zip(part).and_then(|(a, b)| a.checked_add(b));
    // The kernel's smallest share is 1 ms.
    quota.filter(|q| *q >= 1000).ok_or_else(fail)
}

/// A list of processors as `0-3,7`.
///
/// # Errors
/// What is wrong with the text.
pub fn cpuset(text: &str) -> Result<String, String> {
    let number = |n: &str| n.parse::<u16>().ok().filter(|_| n.bytes().all(|b| b.is_ascii_digit()));
    let fits = |part: &str| match part.split_once('-') {
        Some((a, b)) => number(a).zip(number(b)).is_some_and(|(a, b)| a <= b),
        None => number(part).is_some(),
    };
    if text.split(',').all(fits) { Ok(text.to_string()) } else { Err("wanted a list as 0-3,7".to_string()) }
}

/// `NAME=SOFT[:HARD]`, each a number, or `-1` or `unlimited`.
///
/// # Errors
/// What is wrong with the text.
pub fn ulimit(text: &str) -> Result<PosixRlimit, String> {
    let (name, values) = text.split_once('=').ok_or("wanted NAME=SOFT[:HARD]")?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => text.parse().map_err(|_| format!("{text:?} is no number and not unlimited")),
    };
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err("the soft limit is above the hard one".to_string());
    }
    let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
    let kind: PosixRlimitType =
        serde_json::from_value(kind.into()).map_err(|_| format!("{name:?} is none of setrlimit(2)"))?;
    PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build().map_err(|e| e.to_string())
}

/// A device of the host, with what may be done with it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostDevice {
    /// The node inside.
    pub node: LinuxDevice,
    /// The rule of the control group.
    pub rule: LinuxDeviceCgroup,
}

/// `HOST[:INSIDE][:rwm]`.
///
/// # Errors
/// What is wrong with the text, or with the device on the host.
pub fn device(text: &str) -> Result<HostDevice, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, access) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, other] if other.starts_with('/') => (host, other, "rwm"),
        [host, access] => (host, host, access),
        [host, inside, access] => (host, inside, access),
        _ => return Err("wanted HOST[:INSIDE][:rwm]".to_string()),
    };
    if access.is_empty() || !access.chars().all(|c| "rwm".contains(c)) {
        return Err(format!("{access:?} is not of r, w and m"));
    }
    let path: PathBuf = super::mount::clean(inside)?;
    let stat =
        rustix::fs::stat(Path::new(host)).map_err(|e| format!("{host}: {}", std::io::Error::from(e)))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => LinuxDeviceType::C,
        FileType::BlockDevice => LinuxDeviceType::B,
        _ => return Err(format!("{host} is not a device")),
    };
    let (major, minor) = (i64::from(major(stat.st_rdev)), i64::from(minor(stat.st_rdev)));
    let node = LinuxDeviceBuilder::default().path(path).typ(kind).major(major).minor(minor);
    let node = node.file_mode(stat.st_mode & 0o777).uid(stat.st_uid).gid(stat.st_gid);
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(major).minor(minor);
    Ok(HostDevice {
        node: node.build().map_err(|e| e.to_string())?,
        rule: rule.access(access).build().map_err(|e| e.to_string())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512m", Some(512 << 20)),
            ("1G", Some(1 << 30)),
            ("7", Some(7)),
            ("3KiB", Some(3072)),
            ("2tb", Some(2 << 40)),
            ("", None),
            ("0", None),
            ("-1", None),
            ("+1k", None),
            ("1.5g", None),
            ("9999999999t", None),
            ("5x", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
        assert_eq!(size_or_none("-1"), Ok(-1));
    }

    #[test]
    fn processors() {
        for (text, quota) in [
            ("1.5", Some(150_000)),
            ("2", Some(200_000)),
            ("0.01", Some(1000)),
            ("0.005", None),
            ("0", None),
            ("1.", None),
            ("-1", None),
            ("+1", None),
            ("", None),
            ("1e3", None),
        ] {
            assert_eq!(cpus(text).ok(), quota, "{text}");
        }
        for (text, fits) in
            [("0-3,7", true), ("0", true), ("3-1", false), ("", false), ("a", false), ("0,", false)]
        {
            assert_eq!(cpuset(text).is_ok(), fits, "{text}");
        }
    }

    #[test]
    fn resource_limits() {
        let limit = ulimit("nofile=10:20").unwrap();
        assert_eq!((limit.soft(), limit.hard()), (10, 20));
        let limit = ulimit("core=unlimited").unwrap();
        assert_eq!((limit.soft(), limit.hard()), (u64::MAX, u64::MAX));
        for bad in ["nofile", "nofile=", "nofile=20:10", "files=1", "core=-2"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices() {
        let d = device("/dev/null:/dev/nothing:r").unwrap();
        assert_eq!((d.node.path(), d.node.major(), d.node.minor()), (&"/dev/nothing".into(), 1, 3));
        assert_eq!(d.rule.access().as_deref(), Some("r"));
        assert_eq!(device("/dev/zero:rw").unwrap().node.path(), Path::new("/dev/zero"));
        for bad in ["/dev/no-such", "/etc/passwd", "/dev/null:/x:q", "/dev/null:/dev/../x", "/dev/null:a:b:c"]
        {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
