//! `linux.resources` of config.json as files of the control groups.
//!
//! Pure: [`files`] says which file of which controller gets which content, for version 1
//! or 2 (runtime-spec, `config-linux.md`, Control groups; kernel, `cgroup-v2.rst`).

use super::{Hierarchy, devices};
use crate::run::spec::{Resources, Throttle};
use crate::run::{Error, Result, io_error};
use std::path::PathBuf;

/// What to write: controller, file, content.
type File = (&'static str, String, String);

/// Writes the limits into the groups.
///
/// # Errors
/// [`Error::Io`]; [`Error::Unsupported`] where no hierarchy has the controller.
pub fn apply(groups: &[(Hierarchy, PathBuf)], resources: &Resources) -> Result<()> {
    let v1 = |controller: &str| {
        groups.iter().find(|(h, _)| h.controllers.iter().any(|c| c == controller)).map(|(_, p)| p)
    };
    let v2 = groups.iter().find(|(h, _)| h.is_v2()).map(|(_, p)| p);
    for controller in ["memory", "cpu", "cpuset", "pids", "blkio", "hugetlb"] {
        let (group, files) = match v1(controller) {
            Some(group) => (Some(group), files(resources, controller, 1)?),
            None => (v2, files(resources, controller, 2)?),
        };
        for (_, name, content) in files {
            let Some(path) = group.map(|g| g.join(&name)) else {
                return Err(Error::Unsupported { what: format!("control group file {name}") });
            };
            io_error("write", &path, std::fs::write(&path, content))?;
        }
    }
    for (name, content) in &resources.unified {
        let Some(group) = v2.filter(|_| !name.contains('/')) else {
            return Err(Error::Unsupported { what: format!("control group file {name}") });
        };
        let path = group.join(name);
        for line in content.lines() {
            io_error("write", &path, std::fs::write(&path, line))?;
        }
    }
    match (v1("devices"), v2) {
        (Some(group), _) => devices::apply_v1(group, &resources.devices),
        (None, Some(group)) => devices::apply_v2(group, &resources.devices),
        (None, None) => Ok(()),
    }
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
        _ => {
            for h in &r.hugepage_limits {
                let suffix = if version == 1 { "limit_in_bytes" } else { "max" };
                out.put(&format!("hugetlb.{}.{suffix}", h.page_size), Some(h.limit));
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
        if version == 1 {
            self.put("memory.limit_in_bytes", m.limit);
            self.put("memory.memsw.limit_in_bytes", m.swap);
            self.put("memory.soft_limit_in_bytes", m.reservation);
            self.put("memory.swappiness", m.swappiness);
            self.put("memory.oom_control", m.disable_oom_killer.then_some(1));
            return Ok(());
        }
        let amount = |n: i64| if n < 0 { "max".to_string() } else { n.to_string() };
        self.put("memory.max", m.limit.map(amount));
        self.put("memory.low", m.reservation.map(amount));
        // config.json counts memory and swap together, version 2 swap alone.
        let swap = match (m.swap, m.limit) {
            (Some(swap), Some(limit)) if swap >= 0 && swap < limit => {
                let reason = format!("{swap} is less than the memory limit {limit}");
                return Err(Error::Invalid { field: "linux.resources.memory.swap".into(), reason });
            }
            (Some(swap), Some(limit)) if swap >= 0 && limit >= 0 => Some(swap - limit),
            (Some(swap), _) if swap < 0 => Some(-1),
            _ => None,
        };
        self.put("memory.swap.max", swap.map(amount));
        Ok(())
    }

    fn cpu(&mut self, r: &Resources, version: u8) {
        let c = &r.cpu;
        let shares = c.shares.filter(|s| *s > 0);
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
        if version == 1 {
            self.put("blkio.weight", weight);
        } else {
            // 10..1000 to 1..10000.
            self.put("io.weight", weight.map(|w| 1 + (u64::from(w).saturating_sub(10)) * 9999 / 990));
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
            "cpu": {"shares": 1024, "quota": 50_000, "cpus": "0"}, "blockIO": {"weight": 10},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}))
        .unwrap();
        let list = |version| -> Vec<String> {
            let all = ["memory", "cpu", "cpuset", "pids", "blkio", "hugetlb"];
            let files = all.iter().flat_map(|c| files(&r, c, version).unwrap());
            files.map(|(_, name, content)| format!("{name}={content}")).collect()
        };
        assert_eq!(
            list(1),
            [
                "memory.limit_in_bytes=4096",
                "memory.memsw.limit_in_bytes=8192",
                "memory.soft_limit_in_bytes=-1",
                "cpu.shares=1024",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0",
                "pids.max=8",
                "blkio.weight=10",
                "hugetlb.2MB.limit_in_bytes=0"
            ]
        );
        assert_eq!(
            list(2),
            [
                "memory.max=4096",
                "memory.low=max",
                "memory.swap.max=4096",
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "cpuset.cpus=0",
                "pids.max=8",
                "io.weight=1",
                "hugetlb.2MB.max=0"
            ]
        );
        let r: Resources = serde_json::from_value(json!({"memory": {"limit": 9, "swap": 3}})).unwrap();
        assert!(files(&r, "memory", 2).is_err());
    }
}
