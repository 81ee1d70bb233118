//! What is remembered of a container between commands.

use super::health::Report;
use super::{Error, Result, io_error};
use crate::sys::{Call, process};
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The mode of a settled container's state beyond the owner's.
const READABLE: u32 = 0o044;
/// The version of the runtime-spec that state and lifecycle follow.
pub const OCI_VERSION: &str = "1.2.0";

/// Where a container is in its life (runtime-spec, `runtime.md`, State).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its program has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A process that is known again: ids are given out anew, start times and boots are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id on the host.
    pub pid: i32,
    /// Clock ticks since the boot (`proc_pid_stat(5)`, field 22).
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

impl ProcessId {
    /// Reads what is needed to know `pid` again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of(pid: i32) -> Result<Self> {
        let (start_time, _) = stat(pid)?;
        Ok(Self { pid, start_time, boot: boot_id()? })
    }

    /// The process, where it still runs; a zombie does not.
    #[must_use]
    pub fn open(&self) -> Option<OwnedFd> {
        let pid = rustix::process::Pid::from_raw(self.pid)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        let (start_time, state) = stat(self.pid).ok()?;
        let same = start_time == self.start_time && !matches!(state, b'Z' | b'X');
        (same && boot_id().is_ok_and(|b| b == self.boot)).then_some(pidfd)
    }
}

fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(io_error("read", path, std::fs::read_to_string(path))?.trim().to_string())
}

/// Start time and state letter of a process.
fn stat(pid: i32) -> Result<(u64, u8)> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = io_error("read", &path, std::fs::read(&path))?;
    // The name, in parentheses, may hold anything; the fields after it do not.
    let after = text.iter().rposition(|&b| b == b')').map_or(0, |i| i + 2);
    let fields = String::from_utf8_lossy(&text[after.min(text.len())..]).into_owned();
    let start = fields.split(' ').nth(19).and_then(|f| f.parse().ok()).unwrap_or(0);
    Ok((start, fields.bytes().next().unwrap_or(b'X')))
}

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The container's name.
    pub id: String,
    /// The bundle's folder, absolute.
    pub bundle: PathBuf,
    /// The root filesystem's folder, absolute.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339, UTC.
    pub created: String,
    /// Whether `create` has come to its end.
    pub complete: bool,
    /// Whether the process that waits for it takes it away at the end; it holds the lock until then.
    pub owned: bool,
    /// Its first process.
    pub process: Option<ProcessId>,
    /// Its control groups, below the hierarchies' mount points.
    pub cgroups: Vec<PathBuf>,
    /// Those of them that were made for it.
    pub own_cgroups: Vec<PathBuf>,
    /// The process that keeps it, where nobody waits for it.
    #[serde(default)]
    pub keeper: Option<ProcessId>,
    /// The exit code that its program has left, for a shell.
    #[serde(default)]
    pub exit: Option<u8>,
    /// When that was, RFC 3339, UTC.
    #[serde(default)]
    pub finished: Option<String>,
    /// What its health checks have found.
    #[serde(default)]
    pub health: Option<Report>,
    /// The scope of systemd that they belong to.
    #[serde(default)]
    pub unit: Option<String>,
    /// What there is of its network outside of it.
    #[serde(default)]
    pub network: Option<super::network::Attached>,
    /// Of config.json.
    pub annotations: BTreeMap<String, String>,
}

impl State {
    /// Reads the state of the container in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`].
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("state.json");
        let text = io_error("read", &path, std::fs::read(&path))?;
        serde_json::from_slice(&text).map_err(|source| Error::Config { path, source })
    }

    /// Replaces `state.json`. All may read that of a container that is nobody's to take away, so
    /// that a sweep knows it by its mode.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, dir: &Path) -> Result<()> {
        let (path, new) = (dir.join("state.json"), dir.join("state.new"));
        let text = serde_json::to_vec(self).map_err(|source| Error::Config { path: path.clone(), source })?;
        let mode = if self.complete && !self.owned { 0o600 | READABLE } else { 0o600 };
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(mode).open(&new);
        io_error("write", &new, file.and_then(|mut file| file.write_all(&text)))?;
        io_error("rename", &new, std::fs::rename(&new, &path))
    }

    /// Its first process, where it still runs.
    #[must_use]
    pub fn pidfd(&self) -> Option<OwnedFd> {
        self.process.as_ref()?.open()
    }

    /// Where it is in its life; `dir` is its folder.
    #[must_use]
    pub fn status(&self, dir: &Path) -> Status {
        match (self.complete, self.pidfd()) {
            (false, _) => Status::Creating,
            (true, None) => Status::Stopped,
            (true, Some(_)) if super::cgroup::is_frozen(&self.cgroups) => Status::Paused,
            (true, Some(_)) if dir.join("start").exists() => Status::Created,
            (true, Some(_)) => Status::Running,
        }
    }

    /// The document that `state` prints and hooks read.
    #[must_use]
    pub fn document(&self, status: Status) -> serde_json::Value {
        let pid = if status == Status::Stopped { 0 } else { self.process.as_ref().map_or(0, |p| p.pid) };
        let mut document = serde_json::json!({
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "annotations": self.annotations,
            "owner": "",
        });
        if let Some(code) = self.exit {
            document["exitCode"] = code.into();
            document["finished"] = self.finished.as_deref().into();
        }
        if let Some(health) = &self.health {
            document["health"] = serde_json::json!(health);
        }
        document
    }
}

/// Whether the container in `dir` is one that no sweep takes away, as far as that can be told
/// without reading.
#[must_use]
pub fn is_settled(dir: &Path) -> bool {
    std::fs::metadata(dir.join("state.json")).is_ok_and(|meta| meta.mode() & READABLE == READABLE)
}

/// Checks that `id` can be a folder's name and nothing else.
///
/// # Errors
/// [`Error::BadId`].
pub fn check_id(id: &str) -> Result<()> {
    let clean = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b));
    if clean && !id.is_empty() && id.len() <= 255 && id != "." && id != ".." {
        return Ok(());
    }
    Err(Error::BadId { id: id.to_string() })
}

/// The current time as RFC 3339, UTC, with nanoseconds.
#[must_use]
pub fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    crate::oci::rfc3339(now.as_secs(), now.subsec_nanos())
}

/// Makes this process unable to be looked into by others of the container while it waits.
///
/// # Errors
/// The failed prctl(2) call.
pub fn close_to_others() -> Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable).call(|| "prctl(SET_DUMPABLE, 0)".to_string())?)
}

/// Sees to it that no descriptor but the standard streams stays open across an execve,
/// apart from `preserved` ones after them, all of which must be open.
///
/// # Errors
/// [`Error::Invalid`] where one is not open.
pub fn check_preserved(preserved: u32) -> Result<()> {
    process::close_on_exec_from(3)?;
    for number in 3..3 + i32::try_from(preserved).unwrap_or(0) {
        if !process::is_open(number) {
            let reason = format!("descriptor {number} is not open");
            return Err(Error::Invalid { field: "--preserve-fds".into(), reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "web_1", "a.b", "x+y-z", &"n".repeat(255)] {
            check_id(good).unwrap();
        }
        for bad in ["", ".", "..", "../x", "a/b", "a b", "a\n", "ä", &"n".repeat(256)] {
            assert!(matches!(check_id(bad), Err(Error::BadId { .. })), "{bad}");
        }
    }

    #[test]
    fn knows_a_process_again() {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.open().is_some());
        assert!(ProcessId { start_time: own.start_time + 1, ..own.clone() }.open().is_none());
        assert!(ProcessId { boot: "another".into(), ..own }.open().is_none());
    }
}
