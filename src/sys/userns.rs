//! The user namespace in which an ordinary user's commands work (`user_namespaces(7)`).
//!
//! There this process is root: 0 is the user, and 1 and up are all subordinate ids that
//! /etc/subuid and /etc/subgid give to the user, in the order of their lines. The mounts of the
//! command are its own too. Nothing is executed again: a child that stays outside runs newuidmap(1)
//! and newgidmap(1), which alone may write such maps, while this process waits.
//!
//! With a single id nothing is needed but the kernel: 0 is the user, and there is no other id.
#![allow(unsafe_code)]

use super::process::{Child, CloneOptions, Fork, clone3, exit_now, setns};
use super::{Call, Error, Result, program};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, getegid, geteuid, getpid, waitpid};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The inode number of the first user namespace (`PROC_USER_INIT_INO` of linux/nsfs.h).
const FIRST: u64 = 0xEFFF_FFFD;

/// A range of ids: the first and how many.
pub type Range = (u32, u32);

/// Which ids this process sees and can give to files. What was written with one set of ids means
/// something else with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// The host's: this is the first user namespace.
    #[default]
    Host,
    /// Those that a user namespace maps.
    Mapped,
    /// One, by which all files are owned.
    Single,
}

impl Ids {
    /// Whether these are the host's.
    #[must_use]
    pub fn is_host(&self) -> bool {
        *self == Self::Host
    }

    /// Whether there is only one, so that files do not tell whose they are.
    #[must_use]
    pub fn is_single(&self) -> bool {
        *self == Self::Single
    }

    /// By whom what has these ids was made.
    #[must_use]
    pub fn made(&self) -> &'static str {
        match self {
            Self::Host => "by root",
            Self::Mapped => "in a user namespace, with subordinate ids",
            Self::Single => "in a user namespace, with a single id",
        }
    }
}

/// What forbids user namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forbids {
    /// `user.max_user_namespaces`.
    #[error("the sysctl user.max_user_namespaces allows no more")]
    Limit,
    /// `kernel.unprivileged_userns_clone`.
    #[error("the sysctl kernel.unprivileged_userns_clone forbids them")]
    Clone,
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    #[error("AppArmor restricts them, sysctl kernel.apparmor_restrict_unprivileged_userns")]
    AppArmor,
    /// Something that left no trace: a seccomp filter, a chroot.
    #[error("a seccomp filter or a chroot may forbid them")]
    Unknown,
}

/// The ids of this process.
#[must_use]
pub fn ids() -> Ids {
    let inode = |path: &str| rustix::fs::stat(path).map(|s| s.st_ino);
    if inode("/proc/self/ns/user").is_ok_and(|i| i == FIRST) {
        return Ids::Host;
    }
    let count: u64 = map("/proc/self/uid_map").iter().map(|(.., count)| u64::from(*count)).sum();
    if count == 1 { Ids::Single } else { Ids::Mapped }
}

/// The user id outside of this user namespace that is 0 inside; of a process that is not root its own.
#[must_use]
pub fn outer_uid() -> u32 {
    let uid = geteuid().as_raw();
    let outer = map("/proc/self/uid_map")
        .into_iter()
        .find(|(inner, _, count)| uid.checked_sub(*inner).is_some_and(|n| n < *count));
    outer.map_or(uid, |(inner, outer, _)| outer + (uid - inner))
}

/// A map of ids (`user_namespaces(7)`): id inside, id outside, count.
pub type IdMap = Vec<(u32, u32, u32)>;

/// The ids of another user namespace as this one has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserIds {
    /// Of users and of groups; none where the namespace is this one.
    maps: Option<(IdMap, IdMap)>,
}

impl UserIds {
    /// What is not mapped (`/proc/sys/kernel/overflowuid`).
    const OVERFLOW: u32 = 65534;

    /// With these maps of users and groups.
    #[must_use]
    pub const fn new(uids: IdMap, gids: IdMap) -> Self {
        Self { maps: Some((uids, gids)) }
    }

    /// Of the user namespace in which the process `pid` is.
    #[must_use]
    pub fn of(pid: i32) -> Self {
        if is_shared_with(pid) {
            return Self::default();
        }
        Self::new(map(&format!("/proc/{pid}/uid_map")), map(&format!("/proc/{pid}/gid_map")))
    }

    /// Whether ids are the same there.
    #[must_use]
    pub const fn is_same(&self) -> bool {
        self.maps.is_none()
    }

    /// What a user and a group of here are there.
    #[must_use]
    pub fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let Some((uids, gids)) = &self.maps else { return (uid, gid) };
        let find = |map: &IdMap, id: u32| {
            let mut all = map.iter().filter_map(|(inner, outer, count)| {
                id.checked_sub(*outer).filter(|n| n < count).map(|n| inner + n)
            });
            all.next().unwrap_or(Self::OVERFLOW)
        };
        (find(uids, uid), find(gids, gid))
    }

    /// What a user and a group of there are here.
    ///
    /// # Errors
    /// The id that is not mapped.
    pub fn outside(&self, uid: u32, gid: u32) -> std::result::Result<(u32, u32), u32> {
        let Some((uids, gids)) = &self.maps else { return Ok((uid, gid)) };
        let find = |map: &IdMap, id: u32| {
            let mut all = map.iter().filter_map(|(inner, outer, count)| {
                id.checked_sub(*inner).filter(|n| n < count).map(|n| outer + n)
            });
            all.next().ok_or(id)
        };
        Ok((find(uids, uid)?, find(gids, gid)?))
    }
}

/// The map in a file of procfs.
fn map(file: &str) -> IdMap {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Enters a user namespace and a mount namespace with the user's subordinate ids, or with
/// `single` with the own id alone; root stays where it is. To be called while this process has
/// one thread. Gives whether it has entered one.
///
/// # Errors
/// [`Error::NoSubIds`], [`Error::NoUserNamespace`]; [`Error::NoProgram`] and [`Error::Program`] for
/// newuidmap and newgidmap; the failed call.
pub fn enter(single: bool) -> Result<bool> {
    if geteuid().is_root() {
        return Ok(false);
    }
    if single {
        enter_single()?;
    } else {
        enter_mapped()?;
    }
    Ok(true)
}

/// Tries [`enter`] in a child, for a user with subordinate ids; gives how many there are.
///
/// # Errors
/// Those of [`enter`].
pub fn try_enter() -> Result<u64> {
    let ranges = sub_ids("/etc/subuid")?;
    sub_ids("/etc/subgid")?;
    let (answer, report) = pipe()?;
    match clone3(CloneOptions::default())? {
        Fork::Child => {
            let _ = fs::File::from(report).write_all(&encode(enter(false).map(drop)));
            exit_now(0)
        }
        Fork::Parent(child) => {
            drop(report);
            decode(&read_to_end(answer, &child)?)?;
            Ok(ranges.iter().map(|(_, count)| u64::from(*count)).sum())
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2".to_string())
}

/// What `child` writes until it ends.
fn read_to_end(pipe: OwnedFd, child: &Child) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::from(pipe).read_to_end(&mut text).call(|| "read(pipe)".to_string())?;
    let _ = Pid::from_raw(child.pid).map(|pid| waitpid(Some(pid), WaitOptions::empty()));
    Ok(text)
}

/// Enters the user namespace of the process that `pidfd` is open on, which an ordinary user has
/// made, with mounts of its own; root stays where it is. Gives whether it has entered one.
///
/// # Errors
/// The failed call.
pub fn join(pidfd: impl AsFd) -> Result<bool> {
    if geteuid().is_root() {
        return Ok(false);
    }
    setns(pidfd, libc::CLONE_NEWUSER, "the container's user namespace")?;
    // SAFETY: as in `unshare`.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.call(|| "unshare(CLONE_NEWNS)".to_string())?;
    Ok(true)
}

/// Whether the process `pid` is in this process's user namespace.
#[must_use]
pub fn is_shared_with(pid: i32) -> bool {
    let inode = |path: String| rustix::fs::stat(path).map(|s| s.st_ino);
    let (own, other) = (inode("/proc/self/ns/user".into()), inode(format!("/proc/{pid}/ns/user")));
    own.is_ok() && own == other
}

fn enter_single() -> Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare()?;
    for (file, text) in
        [("setgroups", "deny".into()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        let path = format!("/proc/self/{file}");
        fs::write(&path, text).call(|| format!("write({path})")).map_err(|e| forbidden(&e))?;
    }
    Ok(())
}

fn enter_mapped() -> Result<()> {
    let maps = [
        ("newuidmap", geteuid().as_raw(), sub_ids("/etc/subuid")?),
        ("newgidmap", getegid().as_raw(), sub_ids("/etc/subgid")?),
    ];
    let parent = getpid();
    let ((go, begin), (answer, report)) = (pipe()?, pipe()?);
    match clone3(CloneOptions::default())? {
        Fork::Child => {
            drop((begin, answer));
            outside(go, report, parent, &maps)
        }
        Fork::Parent(child) => {
            drop((go, report));
            let entered = unshare();
            if entered.is_ok() {
                rustix::io::write(&begin, b"1").call(|| "write(pipe)".to_string())?;
            }
            drop(begin);
            let text = read_to_end(answer, &child)?;
            entered.and_then(|()| decode(&text))
        }
    }
}

/// The child's part: maps the ids of `parent` once that is in its namespace, tells what failed.
fn outside(go: OwnedFd, report: OwnedFd, parent: Pid, maps: &[(&str, u32, Vec<Range>)]) -> ! {
    let mut begin = [0];
    if fs::File::from(go).read_exact(&mut begin).is_ok() {
        let mapped = maps.iter().try_for_each(|(program, id, ranges)| {
            program::output(program, &map_arguments(parent, *id, ranges)).map(drop)
        });
        let _ = fs::File::from(report).write_all(&encode(mapped));
    }
    exit_now(0)
}

/// `PID INSIDE OUTSIDE COUNT…` of newuidmap(1).
fn map_arguments(pid: Pid, id: u32, ranges: &[Range]) -> Vec<String> {
    let mut next = 1;
    let mut arguments = vec![pid.as_raw_nonzero().to_string(), "0".into(), id.to_string(), "1".into()];
    for (first, count) in ranges {
        arguments.extend([next, *first, *count].map(|n| n.to_string()));
        next = next.saturating_add(*count);
    }
    arguments
}

/// A result for the pipe to the parent; nothing where all went well.
fn encode(result: Result<()>) -> Vec<u8> {
    match result {
        Ok(()) => String::new(),
        Err(Error::NoProgram { program }) => format!("missing\0{program}"),
        Err(Error::Program { command, status, stderr }) => {
            format!("failed\0{}\0{command}\0{stderr}", status.into_raw())
        }
        Err(Error::Syscall { call, errno }) => format!("call\0{}\0{call}", errno.raw_os_error()),
        Err(e) => format!("call\0{}\0{e}", e.errno().unwrap_or(Errno::PERM).raw_os_error()),
    }
    .into_bytes()
}

fn decode(text: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(text);
    let mut fields = text.split('\0').map(str::to_string);
    let mut next = || fields.next().unwrap_or_default();
    match next().as_str() {
        "" => Ok(()),
        "missing" => Err(Error::NoProgram { program: next() }),
        "failed" => {
            let status = ExitStatus::from_raw(next().parse().unwrap_or(-1));
            Err(Error::Program { command: next(), status, stderr: next() })
        }
        _ => {
            let errno = Errno::from_raw_os_error(next().parse().unwrap_or(libc::EIO));
            Err(Error::Syscall { call: next(), errno })
        }
    }
}

fn unshare() -> Result<()> {
    // SAFETY: this process has one thread; no memory or descriptor is shared differently.
    let entered = unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) };
    entered.call(|| "unshare(CLONE_NEWUSER|CLONE_NEWNS)".to_string()).map_err(|e| forbidden(&e))
}

/// The failure of a call that every user may make, with what forbids it.
fn forbidden(e: &Error) -> Error {
    let sysctl = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let reason = match e.errno() {
        Some(Errno::NOSPC | Errno::USERS) => Forbids::Limit,
        _ if sysctl("kernel/unprivileged_userns_clone") == Some(0) => Forbids::Clone,
        _ if sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1) => Forbids::AppArmor,
        _ => Forbids::Unknown,
    };
    Error::NoUserNamespace { call: e.to_string(), reason }
}

/// The ranges that `file`, /etc/subuid or /etc/subgid, gives to this user, by name or by number.
///
/// # Errors
/// [`Error::NoSubIds`] where there are none.
pub fn sub_ids(file: &'static str) -> Result<Vec<Range>> {
    let uid = geteuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = name_of(&passwd, uid).or_else(|| std::env::var("USER").ok());
    let text = fs::read_to_string(file).unwrap_or_default();
    match ranges(&text, uid, name.as_deref()) {
        found if found.is_empty() => {
            Err(Error::NoSubIds { user: name.unwrap_or_else(|| uid.to_string()), file })
        }
        found => Ok(found),
    }
}

/// The name of a user of this machine, by /etc/passwd.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    name_of(&fs::read_to_string("/etc/passwd").ok()?, uid)
}

/// The name of a user in the text of /etc/passwd (passwd(5)).
fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let number = uid.to_string();
    let mut lines = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>());
    lines.find(|f| f.get(2) == Some(&number.as_str())).map(|f| f[0].to_string())
}

/// The ranges of a user in the text of /etc/subuid (subuid(5)).
fn ranges(text: &str, uid: u32, name: Option<&str>) -> Vec<Range> {
    let number = uid.to_string();
    let mut found: Vec<Range> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let mut next = || fields.next().map(str::trim);
        let (Some(whose), Some(first), Some(count)) = (next(), next(), next()) else { continue };
        let (Ok(first), Ok(count)) = (first.parse(), count.parse()) else { continue };
        let is_own = whose == number || name.is_some_and(|name| whose == name);
        if is_own && count > 0 && !found.contains(&(first, count)) {
            found.push((first, count));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_name_and_number() {
        let text =
            "ann:100000:65536\n# x\n1000:300000:10\nbob:1:2\nann:x:1\nann:5\nann:9:0\nann:100000:65536\n";
        assert_eq!(ranges(text, 1000, Some("ann")), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(ranges(text, 1000, None), [(300_000, 10)]);
        assert_eq!(ranges(text, 7, Some("eve")), []);
        let passwd = "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n";
        assert_eq!((name_of(passwd, 1000).as_deref(), name_of(passwd, 1)), (Some("ann"), None));
        let pid = Pid::from_raw(42).unwrap();
        let arguments = map_arguments(pid, 1000, &[(100_000, 65_536), (300_000, 10)]).join(" ");
        assert_eq!(arguments, "42 0 1000 1 1 100000 65536 65537 300000 10");
    }

    #[test]
    fn failures_pass_the_pipe() {
        let failures = [
            program::output::<&str>("no-such-program-here", &[]).map(drop),
            program::output("sh", &["-c", "echo broken >&2; exit 3"]).map(drop),
            Err(Errno::PERM).call(|| "fork".to_string()),
        ];
        for failure in failures {
            let text = failure.as_ref().unwrap_err().to_string();
            assert_eq!(decode(&encode(failure)).unwrap_err().to_string(), text);
        }
        decode(&encode(Ok(()))).unwrap();
    }
}
