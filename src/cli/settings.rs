//! The options of a container, the same for `bundle create` and `run`.

use super::events::interval;
use super::{Error, Result};
use crate::bundle::{self, Caps, HealthChange, HostDevice, Limits, Seccomp, Settings, network};
use crate::sys::signal;
use oci_spec::runtime::{Mount, PosixRlimit};
use std::path::PathBuf;
use std::time::Duration;

/// Options that change what the image says.
#[derive(Debug, Default, PartialEq, clap::Args)]
pub struct Overrides {
    /// Set an environment variable; of a NAME alone the value is this process's, if it has one
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = own_or_variable)]
    env: Vec<Variable>,
    /// Set the variables of a file, one NAME[=VALUE] a line
    #[arg(long, value_name = "FILE", value_parser = env_file)]
    env_file: Vec<EnvFile>,
    /// Run as another user, by name or number as the root filesystem has it
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory inside
    #[arg(long, short, value_name = "DIR", value_parser = directory)]
    workdir: Option<PathBuf>,
    /// Host name inside [default: the container's name]
    #[arg(long, value_name = "NAME", value_parser = network::host_name)]
    hostname: Option<String>,
    /// Mount a path of the host
    #[arg(long, short, value_name = "SRC:DST[:OPTIONS]", value_parser = bundle::volume)]
    volume: Vec<Mount>,
    /// Mount something: type=bind|tmpfs|devpts|mqueue,src=PATH,dst=DIR,ro,…
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = bundle::mount)]
    mount: Vec<Mount>,
    /// Mount a tmpfs
    #[arg(long, value_name = "DST[:OPTIONS]", value_parser = bundle::tmpfs)]
    tmpfs: Vec<Mount>,
    /// Give a device of the host
    #[arg(long, value_name = "HOST[:INSIDE][:rwm]", value_parser = bundle::device)]
    device: Vec<HostDevice>,
    /// Make the root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// Make the root filesystem writable, which is the default
    #[arg(long, overrides_with = "read_only")]
    rw: bool,
    #[command(flatten)]
    net: super::net::Networking,
    /// Add capabilities, as `NET_RAW,NET_ADMIN`, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    cap_add: Vec<Caps>,
    /// Take capabilities away, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    cap_drop: Vec<Caps>,
    /// A profile of system calls, or unconfined
    #[arg(long, value_name = "FILE|unconfined", value_parser = bundle::seccomp)]
    seccomp: Option<Seccomp>,
    /// no-new-privileges, seccomp=FILE|unconfined or apparmor=PROFILE
    #[arg(long, value_name = "OPTION", value_parser = security)]
    security_opt: Vec<Security>,
    /// Limit a resource of the process (setrlimit(2)), as nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = bundle::ulimit)]
    ulimit: Vec<PosixRlimit>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    sysctl: Vec<(String, String)>,
    /// Limit memory, as 512m
    #[arg(long, short, value_name = "SIZE", value_parser = bundle::size)]
    memory: Option<i64>,
    /// Limit memory and swap together; -1 is no limit
    #[arg(long, value_name = "SIZE", value_parser = bundle::size_or_none, requires = "memory")]
    #[arg(allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Limit processor time to that of so many processors, as 1.5
    #[arg(long, value_name = "N", value_parser = bundle::cpus)]
    cpus: Option<i64>,
    /// Run on these processors only, as 0-3,7
    #[arg(long, value_name = "LIST", value_parser = bundle::cpuset)]
    cpuset_cpus: Option<String>,
    /// Limit the number of tasks; -1 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(-1..=i64::from(i32::MAX)))]
    pids_limit: Option<i64>,
    /// Weight for the disk, 10 to 1000
    #[arg(long, alias = "blkio-weight", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(10..=1000))]
    io_weight: Option<u16>,
    /// How soon the kernel kills it for want of memory, -1000 to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    oom_score_adj: Option<i32>,
    /// Annotate the container
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    /// Run an init process that reaps zombies and passes signals on
    #[arg(long)]
    init: bool,
    /// The signal by which `stop` asks the program to end
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    stop_signal: Option<String>,
    #[command(flatten)]
    checks: Checks,
}

/// Options of health checks.
#[derive(Debug, Default, PartialEq, clap::Args)]
struct Checks {
    /// Check the container's health by this line for its /bin/sh
    #[arg(long, value_name = "LINE", conflicts_with = "no_healthcheck")]
    health_cmd: Option<String>,
    /// Time from one check to the next, as 30s
    #[arg(long, value_name = "TIME", value_parser = interval)]
    health_interval: Option<Duration>,
    /// After which a check has failed
    #[arg(long, value_name = "TIME", value_parser = interval)]
    health_timeout: Option<Duration>,
    /// In which failures do not count
    #[arg(long, value_name = "TIME", value_parser = interval)]
    health_start_period: Option<Duration>,
    /// Time from one check to the next in the start period
    #[arg(long, value_name = "TIME", value_parser = interval)]
    health_start_interval: Option<Duration>,
    /// How many failures in a row make it unhealthy
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    health_retries: Option<u32>,
    /// Check nothing, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
}

impl Checks {
    fn change(&self) -> HealthChange {
        let line = self.health_cmd.as_ref().map(|line| vec!["CMD-SHELL".to_string(), line.clone()]);
        HealthChange {
            test: if self.no_healthcheck { Some(vec!["NONE".to_string()]) } else { line },
            interval: self.health_interval,
            timeout: self.health_timeout,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
            retries: self.health_retries,
        }
    }
}

fn signal(text: &str) -> std::result::Result<String, String> {
    signal::parse(text)
        .filter(|n| *n > 0)
        .map(|_| text.to_string())
        .ok_or_else(|| "unknown signal".to_string())
}

/// An environment variable as a process has it; none where it is the caller's and not set.
#[derive(Debug, Clone, PartialEq)]
struct Variable(Option<String>);

/// The variables of a file.
#[derive(Debug, Clone, PartialEq)]
struct EnvFile(Vec<Variable>);

/// An option of `--security-opt`.
#[derive(Debug, Clone, PartialEq)]
enum Security {
    NoNewPrivileges(bool),
    Seccomp(Seccomp),
    AppArmor(String),
}

/// An environment variable as a process has it.
///
/// # Errors
/// A text without a name or without `=`.
pub fn variable(text: &str) -> std::result::Result<String, String> {
    if text.find('=').is_some_and(|at| at > 0) {
        Ok(text.to_string())
    } else {
        Err("wanted NAME=VALUE".to_string())
    }
}

fn own_or_variable(text: &str) -> std::result::Result<Variable, String> {
    if text.contains('=') {
        return variable(text).map(|v| Variable(Some(v)));
    }
    if text.is_empty() {
        return Err("wanted NAME or NAME=VALUE".to_string());
    }
    Ok(Variable(std::env::var(text).ok().map(|value| format!("{text}={value}"))))
}

/// A file as docker has it: values are taken as they are, quotes and all; `#` begins a comment
/// at the start of a line only.
fn env_file(path: &str) -> std::result::Result<EnvFile, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim_start).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let parse = |(at, line): (usize, &str)| {
        let name = line.split('=').next().unwrap_or_default();
        if name.contains(char::is_whitespace) {
            return Err(format!("line {}: the name {name:?} has a space", at + 1));
        }
        own_or_variable(line).map_err(|e| format!("line {}: {e}", at + 1))
    };
    lines.map(parse).collect::<std::result::Result<_, _>>().map(EnvFile)
}

fn directory(text: &str) -> std::result::Result<PathBuf, String> {
    if text == "/" { Ok("/".into()) } else { bundle::clean(text) }
}

fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err("wanted KEY=VALUE".to_string()),
    }
}

fn security(text: &str) -> std::result::Result<Security, String> {
    let (key, value) = text.split_once(['=', ':']).map_or((text, None), |(k, v)| (k, Some(v)));
    match (key, value) {
        ("no-new-privileges", None | Some("true")) => Ok(Security::NoNewPrivileges(true)),
        ("no-new-privileges", Some("false")) => Ok(Security::NoNewPrivileges(false)),
        ("seccomp", Some(value)) => bundle::seccomp(value).map(Security::Seccomp),
        ("apparmor", Some(value)) if !value.is_empty() => Ok(Security::AppArmor(value.to_string())),
        _ => Err("wanted no-new-privileges, seccomp=FILE|unconfined or apparmor=PROFILE".to_string()),
    }
}

impl Overrides {
    /// Whether any option is given.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// The network that is asked for, where it is one that the runner alone makes.
    pub fn own_network(&self) -> Option<&'static str> {
        self.net.own()
    }

    /// The settings, with the program and its arguments.
    ///
    /// # Errors
    /// [`bundle::Error::Setting`].
    pub fn settings(&self, args: &[String], terminal: bool) -> Result<Settings> {
        if let (Some(memory), Some(swap)) = (self.memory, self.memory_swap)
            && (0..memory).contains(&swap)
        {
            let reason = "it counts memory and swap together, thus is no less than --memory";
            let value = swap.to_string();
            return Err(Error::Bundle(bundle::Error::Setting { option: "--memory-swap", value, reason }));
        }
        let variables = self.env_file.iter().flat_map(|f| &f.0).chain(&self.env);
        let mut settings = Settings {
            args: args.to_vec(),
            env: variables.filter_map(|v| v.0.clone()).collect(),
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            hostname: self.hostname.clone(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            seccomp: self.seccomp.clone().unwrap_or_default(),
            no_new_privileges: false,
            apparmor: None,
            net: self.net.net()?,
            network: self.net.network()?,
            read_only: self.read_only && !self.rw,
            mounts: [&self.volume[..], &self.mount, &self.tmpfs].concat(),
            devices: self.device.clone(),
            rlimits: self.ulimit.clone(),
            sysctl: self.sysctl.clone(),
            limits: Limits {
                memory: self.memory,
                memory_swap: self.memory_swap,
                cpu_quota: self.cpus,
                cpuset: self.cpuset_cpus.clone(),
                pids: self.pids_limit,
                io_weight: self.io_weight,
            },
            oom_score_adj: self.oom_score_adj,
            annotations: self.annotation.clone(),
            init: self.init,
            health: self.checks.change(),
            stop_signal: self.stop_signal.clone(),
            terminal,
        };
        for option in &self.security_opt {
            match option {
                Security::NoNewPrivileges(truth) => settings.no_new_privileges = *truth,
                Security::Seccomp(profile) => settings.seccomp = profile.clone(),
                Security::AppArmor(profile) => settings.apparmor = Some(profile.clone()),
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            env_file(file.path().to_str().unwrap())
        };
        let EnvFile(list) =
            read("\u{feff}A=b c\n# no\n\n  B=\"q\" # yes\nPATH\nNO_SUCH_VARIABLE\nC=\r\n").unwrap();
        let list: Vec<_> = list.into_iter().filter_map(|v| v.0).collect();
        assert_eq!(list[..2], ["A=b c", "B=\"q\" # yes"]);
        assert!(list[2].starts_with("PATH=/") && list[3] == "C=" && list.len() == 4, "{list:?}");
        assert_eq!(read("A=b\nB C=d").unwrap_err(), "line 2: the name \"B C\" has a space");
        assert_eq!(read("=x").unwrap_err(), "line 1: wanted NAME=VALUE");
        assert!(env_file("/no/such/file").is_err());
    }
}
