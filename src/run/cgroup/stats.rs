//! What a container uses, as `events` of runc prints it: amounts in bytes, times in nanoseconds.
//! What the kernel does not count is 0 or absent.

use super::Hierarchy;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// How often the kernel counts processor time a second in `cpuacct.stat` (`USER_HZ`).
const TICKS: u64 = 100;

/// The groups of a container, by controller.
struct Groups<'a>(&'a [(Hierarchy, PathBuf)]);

impl Groups<'_> {
    /// The group with a version 1 controller.
    fn v1(&self, controller: &str) -> Option<&Path> {
        let has = |h: &Hierarchy| h.controllers.iter().any(|c| c == controller);
        self.0.iter().find(|(h, _)| has(h)).map(|(_, path)| path.as_path())
    }

    fn v2(&self) -> &Path {
        self.0.iter().find(|(h, _)| h.is_v2()).map_or(Path::new(""), |(_, path)| path)
    }
}

fn text(group: &Path, name: &str) -> String {
    fs::read_to_string(group.join(name)).unwrap_or_default()
}

/// A file with one number; `max` is the greatest one.
fn number(group: &Path, name: &str) -> u64 {
    let text = text(group, name);
    if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or(0) }
}

/// A file of lines `name number`.
fn table(group: &Path, name: &str) -> Map<String, Value> {
    let line = |l: &str| {
        let (key, value) = l.split_once(' ')?;
        Some((key.to_string(), value.trim().parse::<u64>().ok()?.into()))
    };
    text(group, name).lines().filter_map(line).collect()
}

fn entry(table: &Map<String, Value>, key: &str) -> u64 {
    table.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// The figures of all controllers.
#[must_use]
pub fn read(groups: &[(Hierarchy, PathBuf)]) -> Value {
    let groups = Groups(groups);
    json!({
        "cpu": cpu(&groups),
        "memory": memory(&groups),
        "pids": pids(&groups),
        "blkio": disk(&groups),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn cpu(groups: &Groups) -> Value {
    let throttling = |t: &Map<String, Value>, time| json!({"periods": entry(t, "nr_periods"), "throttledPeriods": entry(t, "nr_throttled"), "throttledTime": time});
    let Some(group) = groups.v1("cpuacct") else {
        let stat = table(groups.v2(), "cpu.stat");
        let nanoseconds = |key| entry(&stat, key).saturating_mul(1000);
        return json!({
            "usage": {"total": nanoseconds("usage_usec"), "kernel": nanoseconds("system_usec"), "user": nanoseconds("user_usec")},
            "throttling": throttling(&stat, nanoseconds("throttled_usec")),
        });
    };
    let own = table(group, "cpuacct.stat");
    let time = |key| entry(&own, key).saturating_mul(1_000_000_000 / TICKS);
    let each: Vec<u64> =
        text(group, "cpuacct.usage_percpu").split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let stat = groups.v1("cpu").map(|g| table(g, "cpu.stat")).unwrap_or_default();
    json!({
        "usage": {"total": number(group, "cpuacct.usage"), "percpu": each, "kernel": time("system"), "user": time("user")},
        "throttling": throttling(&stat, entry(&stat, "throttled_time")),
    })
}

fn memory(groups: &Groups) -> Value {
    let Some(group) = groups.v1("memory") else {
        let group = groups.v2();
        let raw = table(group, "memory.stat");
        let kills = table(group, "memory.events");
        let amount = |name: &str| json!({"usage": number(group, &format!("{name}.current")), "limit": number(group, &format!("{name}.max")), "max": number(group, &format!("{name}.peak")), "failcnt": entry(&kills, "max")});
        return json!({"cache": entry(&raw, "file"), "usage": amount("memory"), "swap": amount("memory.swap"), "raw": raw});
    };
    let raw = table(group, "memory.stat");
    let amount = |name: &str| json!({"usage": number(group, &format!("{name}.usage_in_bytes")), "limit": number(group, &format!("{name}.limit_in_bytes")), "max": number(group, &format!("{name}.max_usage_in_bytes")), "failcnt": number(group, &format!("{name}.failcnt"))});
    json!({
        "cache": entry(&raw, "cache"),
        "usage": amount("memory"),
        "swap": amount("memory.memsw"),
        "kernel": amount("memory.kmem"),
        "kernelTCP": amount("memory.kmem.tcp"),
        "raw": raw,
    })
}

fn pids(groups: &Groups) -> Value {
    let group = groups.v1("pids").unwrap_or(groups.v2());
    let limit = number(group, "pids.max");
    json!({"current": number(group, "pids.current"), "limit": if limit == u64::MAX { 0 } else { limit }})
}

/// Lines `8:0 Read 4096` of version 1, `8:0 rbytes=4096 wbytes=0 …` of version 2.
fn disk(groups: &Groups) -> Value {
    let mut lists = [("ioServiceBytesRecursive", Vec::new()), ("ioServicedRecursive", Vec::new())];
    let mut put = |list: usize, device: &str, op: &str, value: &str| {
        if let (Some((major, minor)), Ok(value)) = (device.split_once(':'), value.parse::<u64>()) {
            let number = |n: &str| n.parse::<u64>().unwrap_or(0);
            lists[list]
                .1
                .push(json!({"major": number(major), "minor": number(minor), "op": op, "value": value}));
        }
    };
    if let Some(group) = groups.v1("blkio") {
        for (list, name) in ["io_service_bytes_recursive", "io_serviced_recursive"].iter().enumerate() {
            for line in text(group, &format!("blkio.throttle.{name}")).lines() {
                if let [device, op, value] = line.split(' ').collect::<Vec<_>>()[..] {
                    put(list, device, op, value);
                }
            }
        }
    } else {
        for line in text(groups.v2(), "io.stat").lines() {
            let (device, rest) = line.split_once(' ').unwrap_or((line, ""));
            for (key, value) in rest.split(' ').filter_map(|f| f.split_once('=')) {
                match key {
                    "rbytes" => put(0, device, "Read", value),
                    "wbytes" => put(0, device, "Write", value),
                    "rios" => put(1, device, "Read", value),
                    "wios" => put(1, device, "Write", value),
                    _ => {}
                }
            }
        }
    }
    lists.into_iter().map(|(name, list)| (name.to_string(), Value::from(list))).collect::<Map<_, _>>().into()
}

/// How many processes the kernel has killed for want of memory.
#[must_use]
pub fn oom_kills(groups: &[(Hierarchy, PathBuf)]) -> u64 {
    let groups = Groups(groups);
    let table = match groups.v1("memory") {
        Some(group) => table(group, "memory.oom_control"),
        None => table(groups.v2(), "memory.events"),
    };
    entry(&table, "oom_kill")
}
