//! `linux.resources` of config.json as files of the control groups.
//!
//! Pure: [`files`] says which file of which controller gets which content, for version 1
//! or 2 (runtime-spec, `config-linux.md`, Control groups; kernel, `cgroup-v2.rst`).

use super::{Hierarchy, devices};
use crate::run::spec::{Resources, Throttle};
use crate::run::{Error, Result, io_error};
use crate::sys::userns;
use std::path::{Path, PathBuf};

/// The controllers that `linux.resources` has something for, devices apart.
const CONTROLLERS: [&str; 9] =
    ["memory", "cpu", "cpuset", "pids", "blkio", "hugetlb", "net_cls", "net_prio", "rdma"];

/// What to write: controller, file, content.
type File = (&'static str, String, String);

/// Writes the limits into the groups. What the kernel finds contrary to another limit is
/// written again after the others: memory beyond the old limit of memory and swap together, a
/// quota beyond the old period.
///
/// # Errors
/// [`Error::Io`]; [`Error::Unsupported`] where no hierarchy has the controller.
pub fn apply(groups: &[(Hierarchy, PathBuf)], resources: &Resources) -> Result<()> {
    let v1 = |controller: &str| {
        groups.iter().find(|(h, _)| h.controllers.iter().any(|c| c == controller)).map(|(_, p)| p)
    };
    let v2 = groups.iter().find(|(h, _)| h.is_v2()).map(|(_, p)| p);
    if let Some(group) = v2.filter(|_| resources.memory.check_before_update && v1("memory").is_none()) {
        check_memory(group, resources.memory.limit)?;
    }
    let mut again = Vec::new();
    for controller in CONTROLLERS {
        let (group, files) = match v1(controller) {
            Some(group) => (Some(group), files(resources, controller, 1)?),
            None => (v2, files(resources, controller, 2)?),
        };
        for (_, name, content) in files {
            // Weights are kept by the BFQ scheduler under a name of its own.
            let other = name.replace("blkio.", "blkio.bfq.").replace("io.weight", "io.bfq.weight");
            let there = group.into_iter().flat_map(|g| [g.join(&name), g.join(&other)]).find(|p| p.exists());
            let Some(path) = there else {
                if is_default_swap(&name, &content) || name.contains(".rsvd.") {
                    continue;
                }
                return Err(missing(&name));
            };
            match std::fs::write(&path, &content) {
                Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => again.push((path, content)),
                other => io_error("write", &path, other)?,
            }
        }
    }
    for (path, content) in again {
        io_error("write", &path, std::fs::write(&path, content))?;
    }
    for (name, content) in &resources.unified {
        let Some(group) = v2.filter(|_| !name.contains('/')) else {
            return Err(missing(name));
        };
        let path = group.join(name);
        for line in content.lines() {
            io_error("write", &path, std::fs::write(&path, line))?;
        }
    }
    if userns::ids() != userns::Ids::Host {
        // Devices are root's to give; an ordinary user's containers have no others than the user.
        return Ok(());
    }
    match (v1("devices"), v2) {
        (Some(group), _) => devices::apply_v1(group, &resources.devices),
        (None, Some(group)) => devices::apply_v2(group, &resources.devices),
        (None, None) => Ok(()),
    }
}

/// Why a limit cannot be set whose file is not there.
fn missing(name: &str) -> Error {
    if userns::ids() == userns::Ids::Host {
        return Error::Unsupported { what: format!("control group file {name}") };
    }
    Error::NotHandedDown { file: name.to_string() }
}

/// Refuses a limit of memory below what the group uses already, as version 1 does by itself.
fn check_memory(group: &Path, limit: Option<i64>) -> Result<()> {
    let path = group.join("memory.current");
    let used: i64 = std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
    match limit {
        Some(limit) if limit > 0 && limit < used => {
            let reason = format!("{limit} is less than the {used} bytes in use");
            Err(Error::Invalid { field: "linux.resources.memory.limit".into(), reason })
        }
        _ => Ok(()),
    }
}

/// The files of version 2 with their content, but for limits that contradict one another.
pub fn v2(resources: &Resources) -> Vec<(String, String)> {
    let of = |controller| files(resources, controller, 2).unwrap_or_default();
    CONTROLLERS.into_iter().flat_map(of).map(|(_, name, content)| (name, content)).collect()
}

/// Whether a limit for swap says no more than a kernel that does not count swap does anyway.
fn is_default_swap(name: &str, content: &str) -> bool {
    matches!((name, content), ("memory.memsw.limit_in_bytes", "-1") | ("memory.swap.max", "max" | "0"))
}

fn files(r: &Resources, controller: &'static str, version: u8) -> Result<Vec<File>> {
    let mut out = Files { controller, list: Vec::new() };
    match controller {
        "memory" => out.memory(r, version)?,
        "cpu" => out.cpu(r, version),
        "cpuset" => {
            out.put("cpuset.cpus", Some(&r.cpu.cpus).filter(|c| !c.is_empty()));
            out.put("cpuset.mems", Some(&r.cpu.mems).filter(|c| !c.is_empty()));
        }
        "pids" => {
            let max = if r.pids.limit > 0 { r.pids.limit.to_string() } else { "max".into() };
            out.put("pids.max", Some(max).filter(|_| r.pids.limit != 0));
        }
        "blkio" => out.disk(r, version),
        "net_cls" => out.put("net_cls.classid", r.network.class_id),
        "net_prio" => {
            for p in &r.network.priorities {
                out.put("net_prio.ifpriomap", Some(format!("{} {}", p.name, p.priority)));
            }
        }
        "rdma" => {
            let amount = |n: Option<u32>| n.map_or_else(|| "max".to_string(), |n| n.to_string());
            for (name, limit) in &r.rdma {
                let (handles, objects) = (amount(limit.hca_handles), amount(limit.hca_objects));
                out.put("rdma.max", Some(format!("{name} hca_handle={handles} hca_object={objects}")));
            }
        }
        _ => {
            for h in &r.hugepage_limits {
                let suffix = if version == 1 { "limit_in_bytes" } else { "max" };
                out.put(&format!("hugetlb.{}.{suffix}", h.page_size), Some(h.limit));
                // What is set aside counts as well, where the kernel has a limit for that.
                out.put(&format!("hugetlb.{}.rsvd.{suffix}", h.page_size), Some(h.limit));
            }
        }
    }
    Ok(out.list)
}

struct Files {
    controller: &'static str,
    list: Vec<File>,
}

impl Files {
    fn put(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.list.push((self.controller, name.to_string(), value.to_string()));
        }
    }

    fn memory(&mut self, r: &Resources, version: u8) -> Result<()> {
        let m = &r.memory;
        let amount = |n: Option<i64>| n.filter(|n| *n != 0);
        let limit = amount(m.limit);
        // Without a limit of memory there is none of both together, unless one is named.
        let swap = amount(m.swap).or(limit.filter(|l| *l < 0));
        if version == 1 {
            self.put("memory.limit_in_bytes", limit);
            self.put("memory.memsw.limit_in_bytes", swap);
            self.put("memory.soft_limit_in_bytes", amount(m.reservation));
            self.put("memory.kmem.tcp.limit_in_bytes", amount(m.kernel_tcp));
            self.put("memory.swappiness", m.swappiness);
            self.put("memory.oom_control", m.disable_oom_killer.then_some(1));
            return Ok(());
        }
        let text = |n: i64| if n < 0 { "max".to_string() } else { n.to_string() };
        self.put("memory.max", limit.map(text));
        self.put("memory.low", amount(m.reservation).map(text));
        // config.json counts memory and swap together, version 2 swap alone.
        let reason = match (swap, limit) {
            (Some(swap), Some(limit)) if swap >= 0 && limit >= 0 && swap < limit => {
                format!("{swap} is less than the memory limit {limit}")
            }
            (Some(swap), None) if swap >= 0 => format!("{swap} needs a memory limit"),
            (swap, limit) => {
                let own = swap.map(|s| if s < 0 { s } else { s - limit.unwrap_or(0).max(0) });
                self.put("memory.swap.max", own.map(text));
                return Ok(());
            }
        };
        Err(Error::Invalid { field: "linux.resources.memory.swap".into(), reason })
    }

    fn cpu(&mut self, r: &Resources, version: u8) {
        let c = &r.cpu;
        let shares = c.shares.filter(|s| *s > 0);
        self.put("cpu.idle", c.idle);
        // Version 2 has no such files, which makes these an error.
        self.put("cpu.rt_period_us", c.realtime_period.filter(|p| *p > 0));
        self.put("cpu.rt_runtime_us", c.realtime_runtime.filter(|r| *r != 0));
        if version == 1 {
            self.put("cpu.shares", shares);
            self.put("cpu.cfs_period_us", c.period.filter(|p| *p > 0));
            self.put("cpu.cfs_quota_us", c.quota.filter(|q| *q != 0));
            self.put("cpu.cfs_burst_us", c.burst);
            return;
        }
        self.put("cpu.weight", shares.map(weight));
        let quota = c.quota.filter(|q| *q > 0).map_or_else(|| "max".to_string(), |q| q.to_string());
        let limit = format!("{quota} {}", c.period.filter(|p| *p > 0).unwrap_or(100_000));
        self.put("cpu.max", Some(limit).filter(|_| c.quota.is_some() || c.period.is_some()));
        self.put("cpu.max.burst", c.burst);
    }

    fn disk(&mut self, r: &Resources, version: u8) {
        let b = &r.block_io;
        let weight = b.weight.filter(|w| *w > 0);
        let file = |name: &str| format!("{}{name}", if version == 1 { "blk" } else { "" });
        // 10..1000 to 1..10000.
        let wide = |w: u16| {
            if version == 1 { u64::from(w) } else { 1 + u64::from(w.saturating_sub(10)) * 9999 / 990 }
        };
        self.put(&file("io.weight"), weight.map(wide));
        // Version 2 has no such file, which makes it an error.
        self.put("blkio.leaf_weight", b.leaf_weight.filter(|w| *w > 0));
        for d in &b.weight_device {
            let line = |w: u64| format!("{}:{} {w}", d.major, d.minor);
            let name = if version == 1 { "blkio.weight_device" } else { "io.weight" };
            self.put(name, d.weight.filter(|w| *w > 0).map(|w| line(wide(w))));
            let leaf = d.leaf_weight.filter(|w| *w > 0);
            self.put("blkio.leaf_weight_device", leaf.map(|w| line(w.into())));
        }
        for (list, v1, v2) in [
            (&b.throttle_read_bps_device, "blkio.throttle.read_bps_device", "rbps"),
            (&b.throttle_write_bps_device, "blkio.throttle.write_bps_device", "wbps"),
            (&b.throttle_read_iops_device, "blkio.throttle.read_iops_device", "riops"),
            (&b.throttle_write_iops_device, "blkio.throttle.write_iops_device", "wiops"),
        ] {
            for Throttle { major, minor, rate } in list {
                if version == 1 {
                    self.put(v1, Some(format!("{major}:{minor} {rate}")));
                } else {
                    self.put("io.max", Some(format!("{major}:{minor} {v2}={rate}")));
                }
            }
        }
    }
}

/// Shares of version 1 (2 to 262144) as a weight of version 2 (1 to 10000).
fn weight(shares: u64) -> u64 {
    1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_as_files() {
        let r: Resources = serde_json::from_value(json!({
            "memory": {"limit": 4096, "swap": 8192, "reservation": -1}, "pids": {"limit": 8},
            "cpu": {"shares": 1024, "quota": 50_000, "cpus": "0", "idle": 1},
            "blockIO": {"weight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "network": {"classID": 7, "priorities": [{"name": "lo", "priority": 3}]},
            "rdma": {"mlx": {"hcaHandles": 3}}}))
        .unwrap();
        let list = |version| -> Vec<String> {
            let files = CONTROLLERS.iter().flat_map(|c| files(&r, c, version).unwrap());
            files.map(|(_, name, content)| format!("{name}={content}")).collect()
        };
        assert_eq!(
            list(1),
            [
                "memory.limit_in_bytes=4096",
                "memory.memsw.limit_in_bytes=8192",
                "memory.soft_limit_in_bytes=-1",
                "cpu.idle=1",
                "cpu.shares=1024",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0",
                "pids.max=8",
                "blkio.weight=10",
                "blkio.weight_device=8:0 1000",
                "hugetlb.2MB.limit_in_bytes=0",
                "hugetlb.2MB.rsvd.limit_in_bytes=0",
                "net_cls.classid=7",
                "net_prio.ifpriomap=lo 3",
                "rdma.max=mlx hca_handle=3 hca_object=max"
            ]
        );
        assert_eq!(
            list(2),
            [
                "memory.max=4096",
                "memory.low=max",
                "memory.swap.max=4096",
                "cpu.idle=1",
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "cpuset.cpus=0",
                "pids.max=8",
                "io.weight=1",
                "io.weight=8:0 10000",
                "hugetlb.2MB.max=0",
                "hugetlb.2MB.rsvd.max=0",
                "net_cls.classid=7",
                "net_prio.ifpriomap=lo 3",
                "rdma.max=mlx hca_handle=3 hca_object=max"
            ]
        );
    }

    #[test]
    fn memory_and_swap() {
        let written = |memory, version| {
            let r: Resources = serde_json::from_value(json!({"memory": memory})).unwrap();
            let files = files(&r, "memory", version).ok()?;
            Some(files.into_iter().map(|(_, name, content)| format!("{name}={content}")).collect::<Vec<_>>())
        };
        for (memory, v1, v2) in [
            (json!({"limit": 0, "swap": 0, "reservation": 0}), vec![], Some(vec![])),
            (
                json!({"limit": -1}),
                vec!["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"],
                Some(vec!["memory.max=max", "memory.swap.max=max"]),
            ),
            (
                json!({"limit": 9, "swap": 9}),
                vec!["memory.limit_in_bytes=9", "memory.memsw.limit_in_bytes=9"],
                Some(vec!["memory.max=9", "memory.swap.max=0"]),
            ),
            (json!({"swap": -1}), vec!["memory.memsw.limit_in_bytes=-1"], Some(vec!["memory.swap.max=max"])),
            (
                json!({"limit": 9, "swap": 3}),
                vec!["memory.limit_in_bytes=9", "memory.memsw.limit_in_bytes=3"],
                None,
            ),
            (json!({"swap": 3}), vec!["memory.memsw.limit_in_bytes=3"], None),
        ] {
            assert_eq!(written(memory.clone(), 1).unwrap(), v1, "{memory}");
            assert_eq!(
                written(memory.clone(), 2).as_deref(),
                v2.as_ref().map(|l| { l.iter().map(ToString::to_string).collect::<Vec<_>>() }).as_deref(),
                "{memory}"
            );
        }
    }
}
