//! Namespaces: which are new, which are joined, and the id maps of a new user namespace.

use super::sync::{Channel, Tag};
use super::{
    Result, io_error,
    spec::{IdMapping, Spec},
    watch,
};
use crate::sys::process::{CloneOptions, Fork, clone3, exit_now};
use crate::sys::{Call, process};
use rustix::fd::{AsFd, OwnedFd};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::fmt::Write;
use std::path::Path;

/// The flag of a namespace type of config.json.
#[must_use]
pub fn flag(kind: &str) -> Option<i32> {
    Some(match kind {
        "user" => libc::CLONE_NEWUSER,
        "pid" => libc::CLONE_NEWPID,
        "network" => libc::CLONE_NEWNET,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "mount" => libc::CLONE_NEWNS,
        "cgroup" => libc::CLONE_NEWCGROUP,
        "time" => 0x80,
        _ => return None,
    })
}

/// `CLONE_NEWTIME`.
const TIME: i32 = 0x80;

/// An existing namespace, open.
#[derive(Debug)]
pub struct Join {
    fd: OwnedFd,
    flag: i32,
    path: String,
}

/// What is to be done about namespaces.
#[derive(Debug)]
pub struct Plan {
    /// Flags for clone3: new namespaces that a process can begin in. A cgroup namespace
    /// is not among them (it is taken once the process is in its cgroup), nor is a time
    /// namespace (its clocks are set before anyone is in it).
    pub clone_flags: u64,
    /// Existing ones, the user namespace first.
    pub joins: Vec<Join>,
}

impl Plan {
    /// Reads the plan off config.json and opens the namespaces that are joined.
    ///
    /// # Errors
    /// [`super::Error::Io`] for a path that is not there.
    pub fn new(spec: &Spec) -> Result<Self> {
        let mut plan = Self { clone_flags: 0, joins: Vec::new() };
        for namespace in &spec.linux.namespaces {
            let Some(flag) = flag(&namespace.kind) else { continue };
            if !namespace.path.as_os_str().is_empty() {
                let file = io_error("open namespace", &namespace.path, std::fs::File::open(&namespace.path))?;
                plan.joins.push(Join { fd: file.into(), flag, path: namespace.path.display().to_string() });
            } else if flag != libc::CLONE_NEWCGROUP && flag != TIME {
                plan.clone_flags |= u64::from(flag.unsigned_abs());
            }
        }
        plan.joins.sort_by_key(|j| j.flag != libc::CLONE_NEWUSER);
        Ok(plan)
    }

    /// Joins the existing namespaces; a pid namespace is that of the children from now on.
    ///
    /// # Errors
    /// The failed setns(2) call.
    pub fn join(&self) -> Result<()> {
        for join in &self.joins {
            process::setns(&join.fd, join.flag, &join.path)?;
        }
        if self.joins.iter().any(|j| j.flag == libc::CLONE_NEWUSER) {
            become_root()?;
        }
        Ok(())
    }
}

/// Takes uid and gid 0 of the user namespace that this process has entered.
///
/// # Errors
/// The failed call: 0 is not mapped.
pub fn become_root() -> Result<()> {
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    // Denied where setgroups is; the groups are not mapped then and mean nothing.
    let _ = set_thread_groups(&[]);
    set_thread_res_gid(gid, gid, gid).call(|| "setresgid(0)".to_string())?;
    Ok(set_thread_res_uid(uid, uid, uid).call(|| "setresuid(0)".to_string())?)
}

/// Takes a new time namespace with the clocks of config.json.
///
/// # Errors
/// The failed call.
pub fn new_time(spec: &Spec) -> Result<()> {
    if !spec.new_namespace("time") {
        return Ok(());
    }
    process::unshare(TIME)?;
    let mut text = String::new();
    for (clock, offset) in &spec.linux.time_offsets {
        let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    if !text.is_empty() {
        // A change of user has closed this process's own procfs files to it.
        let open = rustix::process::DumpableBehavior::Dumpable;
        rustix::process::set_dumpable_behavior(open).call(|| "prctl(SET_DUMPABLE, 1)".to_string())?;
        let path = Path::new("/proc/self/timens_offsets");
        io_error("write", path, std::fs::write(path, text))?;
    }
    let path = Path::new("/proc/self/ns/time_for_children");
    let file = io_error("open", path, std::fs::File::open(path))?;
    Ok(process::setns(&file, TIME, "new time namespace")?)
}

/// A new user namespace with these id maps, which no process is in.
///
/// # Errors
/// The failed call; as [`write_maps`].
pub fn user_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    let (ours, theirs) = Channel::pair()?;
    let keep = [theirs.number()];
    let flags = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    let child = match clone3(CloneOptions { flags, keep: Some(&keep), ..CloneOptions::default() })? {
        Fork::Child => {
            // Until the maps are there, or the parent is gone.
            let _ = theirs.expect(Tag::Mapped);
            exit_now(0)
        }
        Fork::Parent(child) => child,
    };
    let path = format!("/proc/{}/ns/user", child.pid);
    let made = write_maps(child.pid, uids, gids)
        .and_then(|()| io_error("open", Path::new(&path), std::fs::File::open(&path)));
    drop((ours, theirs));
    watch::reap(child.pidfd.as_fd())?;
    Ok(made?.into())
}

/// Writes the id maps of the user namespace of `pid`.
///
/// # Errors
/// [`super::Error::Io`]: a range that this user may not map.
pub fn write_maps(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<()> {
    for (name, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{pid}/{name}");
        io_error("write", Path::new(&path), std::fs::write(&path, map(mappings)))?;
    }
    Ok(())
}

fn map(mappings: &[IdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, m| {
        let _ = writeln!(text, "{} {} {}", m.container_id, m.host_id, m.size);
        text
    })
}
