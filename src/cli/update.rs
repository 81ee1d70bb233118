//! `shipimg update`: other limits for a container that runs.

use super::{Context, Error, Result, mkimg};
use crate::run;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `update`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    id: String,
    /// File with `linux.resources` as in config.json, `-` for standard input; what it does not name stays
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
}

/// Single limits; not with `--resources`.
#[derive(Debug, clap::Args)]
#[group(conflicts_with = "resources")]
struct Limits {
    /// Disk, relative weight, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    /// Processor time: length of the period, microseconds
    #[arg(long, value_name = "N")]
    cpu_period: Option<u64>,
    /// Processor time in each period, microseconds; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Processor time beyond the quota, microseconds
    #[arg(long, value_name = "N")]
    cpu_burst: Option<u64>,
    /// Processor time, relative weight
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,
    /// Processor time for real-time tasks: length of the period, microseconds
    #[arg(long, value_name = "N")]
    cpu_rt_period: Option<u64>,
    /// Processor time for real-time tasks in each period, microseconds
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// 1 where its tasks are to run when nothing else does
    #[arg(long, value_name = "N")]
    cpu_idle: Option<i64>,
    /// Processors, as `0-3,7`
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory, as `64M`; -1 for no limit
    #[arg(long, value_name = "SIZE", value_parser = bytes, allow_negative_numbers = true)]
    memory: Option<i64>,
    /// Memory that is taken last
    #[arg(long, value_name = "SIZE", value_parser = bytes, allow_negative_numbers = true)]
    memory_reservation: Option<i64>,
    /// Memory and swap together; -1 for no limit
    #[arg(long, value_name = "SIZE", value_parser = bytes, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Number of tasks; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
}

fn bytes(text: &str) -> std::result::Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    mkimg::size(text).and_then(|n| i64::try_from(n).map_err(|e| e.to_string()))
}

impl Limits {
    /// As `linux.resources` of config.json has them.
    fn document(&self) -> Value {
        let group = |fields: &[(&str, Value)]| -> Value {
            let given = fields.iter().filter(|(_, v)| !v.is_null());
            given.map(|(k, v)| ((*k).to_string(), v.clone())).collect::<Map<_, _>>().into()
        };
        json!({
            "memory": group(&[
                ("limit", json!(self.memory)),
                ("reservation", json!(self.memory_reservation)),
                ("swap", json!(self.memory_swap)),
            ]),
            "cpu": group(&[
                ("shares", json!(self.cpu_share)),
                ("quota", json!(self.cpu_quota)),
                ("period", json!(self.cpu_period)),
                ("burst", json!(self.cpu_burst)),
                ("realtimeRuntime", json!(self.cpu_rt_runtime)),
                ("realtimePeriod", json!(self.cpu_rt_period)),
                ("idle", json!(self.cpu_idle)),
                ("cpus", json!(self.cpuset_cpus)),
                ("mems", json!(self.cpuset_mems)),
            ]),
            "pids": group(&[("limit", json!(self.pids_limit))]),
            "blockIO": group(&[("weight", json!(self.blkio_weight))]),
        })
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let container = context.runtime()?.get(&self.id)?;
        let (path, document) = match &self.resources {
            None => (PathBuf::new(), self.limits.document().to_string().into_bytes()),
            Some(path) => (path.clone(), read(path)?),
        };
        let resources = serde_json::from_slice(&document)
            .map_err(|source| Error::Run(run::Error::Config { path, source }))?;
        container.update(&resources)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let result = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    result.map_err(|source| Error::Run(run::Error::Io { action: "read", path: path.to_path_buf(), source }))
}
