//! Control groups: version 1, version 2, and both at once (cgroups(7)).
//!
//! The hierarchies are those of `/proc/self/cgroup` that are mounted below
//! `/sys/fs/cgroup`. An absolute `cgroupsPath` is taken from each hierarchy's root; any
//! other, or the container's own name, from the caller's own group on version 1, so that its
//! limits hold, and from the root on version 2, where groups with processes have no
//! children; for an ordinary user from the nearest group above the caller's own that was handed
//! down to the user and has no processes. Version 2 is entered by clone3 itself; entering version 1 waits in the kernel
//! for milliseconds the first time and is left to the parent, beside the mounts.
//!
//! With systemd as the manager the groups are those of a scope (`unit`).
//!
//! A group that was there before stays when the container goes, and one that holds
//! processes is not taken: they would be limited, and killed, with the container.

mod devices;
mod freeze;
mod limits;
mod owner;
mod stats;
mod unit;

pub use freeze::{freeze, is_frozen, thaw};
pub use limits::apply as limit;
pub use stats::{oom_kills, read as stats};
pub use unit::{Unit, stop as stop_unit, update as update_unit};

use super::{Error, Result, io_error};
use crate::sys::userns;
use rustix::fd::OwnedFd;
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

const MOUNT: &str = "/sys/fs/cgroup";

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Controllers of version 1, `memory` or `name=systemd`; none for version 2.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// This process's group in it, absolute.
    pub own: PathBuf,
}

impl Hierarchy {
    /// Whether it is of version 2.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// The hierarchies of this machine.
///
/// # Errors
/// [`Error::Io`] for an unreadable `/proc/self/cgroup`.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let path = Path::new("/proc/self/cgroup");
    let text = io_error("read", path, fs::read_to_string(path))?;
    Ok(text.lines().filter_map(|line| parse_line(line, &|p| p.join("cgroup.procs").exists())).collect())
}

/// Reads `4:memory:/a/b`; `mounted` says whether a hierarchy is mounted at a path.
fn parse_line(line: &str, mounted: &dyn Fn(&Path) -> bool) -> Option<Hierarchy> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (names, own) = (fields.next()?, fields.next()?);
    let controllers: Vec<String> = names.split(',').filter(|n| !n.is_empty()).map(String::from).collect();
    let base = Path::new(MOUNT);
    let candidates = if controllers.is_empty() {
        vec![base.to_path_buf(), base.join("unified")]
    } else {
        let first = controllers[0].strip_prefix("name=").unwrap_or(&controllers[0]);
        vec![base.join(names.strip_prefix("name=").unwrap_or(names)), base.join(first)]
    };
    let mount = candidates.into_iter().find(|p| mounted(p))?;
    Some(Hierarchy { controllers, mount, own: own.into() })
}

/// The groups at `paths`, those of a container, with their hierarchies.
///
/// # Errors
/// [`Error::Io`] for an unreadable `/proc/self/cgroup`.
pub fn with_hierarchies(paths: &[PathBuf]) -> Result<Vec<(Hierarchy, PathBuf)>> {
    let found = hierarchies()?;
    let of = |path: &PathBuf| {
        let above = found.iter().filter(|h| path.starts_with(&h.mount));
        Some((above.max_by_key(|h| h.mount.components().count())?.clone(), path.clone()))
    };
    Ok(paths.iter().filter_map(of).collect())
}

/// Where the groups of a container belong in each hierarchy: `cgroups_path`, or `name` where
/// that is empty.
///
/// # Errors
/// [`Error::Invalid`] for a `cgroupsPath` with `..`.
pub fn places(cgroups_path: &str, name: &str) -> Result<Vec<(Hierarchy, PathBuf)>> {
    let wanted = if cgroups_path.is_empty() { Path::new(name) } else { Path::new(cgroups_path) };
    if wanted.components().any(|c| c == Component::ParentDir) {
        let reason = format!("{cgroups_path:?} leads upwards");
        return Err(Error::Invalid { field: "linux.cgroupsPath".into(), reason });
    }
    let place = |h: Hierarchy| {
        let base = if h.is_v2() { handed_down(&h).unwrap_or_else(|| "/".into()) } else { h.own.clone() };
        // An absolute one stays what it is.
        let path = below_mount(&h, &base.join(wanted));
        (h, path)
    };
    Ok(hierarchies()?.into_iter().map(place).collect())
}

fn below_mount(h: &Hierarchy, group: &Path) -> PathBuf {
    h.mount.join(group.strip_prefix("/").unwrap_or(group))
}

/// The nearest version 2 group above this process's own that an ordinary user may make groups in
/// and move processes below (cgroup-v2.rst, Delegation); one with processes hands no
/// controllers down. None for root, who needs none.
fn handed_down(h: &Hierarchy) -> Option<PathBuf> {
    if userns::ids() == userns::Ids::Host {
        return None;
    }
    let fits = |group: &Path| {
        let procs = group.join("cgroup.procs");
        let may = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
        may(group) && may(&procs) && fs::read(&procs).is_ok_and(|pids| pids.is_empty())
    };
    h.own.ancestors().find(|group| fits(&below_mount(h, group))).map(Path::to_path_buf)
}

/// Where the groups of a container are that nothing else tells of: those of a scope where
/// `cgroups_path` has that form.
///
/// # Errors
/// As [`places`].
pub fn likely_places(cgroups_path: &str, name: &str) -> Result<Vec<(Hierarchy, PathBuf)>> {
    if unit::is_unit(cgroups_path) {
        return places_of(&Unit::parse(cgroups_path, name)?);
    }
    places(cgroups_path, name)
}

/// Where the groups of a unit of systemd are.
fn places_of(unit: &Unit) -> Result<Vec<(Hierarchy, PathBuf)>> {
    let place = |h: Hierarchy| {
        let path = unit::below(&h.mount, &unit.path());
        (h, path)
    };
    Ok(hierarchies()?.into_iter().map(place).collect())
}

/// A container's control groups.
#[derive(Debug)]
pub struct Cgroup {
    groups: Vec<(Hierarchy, PathBuf)>,
    new: Vec<PathBuf>,
    unit: Option<Unit>,
}

impl Cgroup {
    /// Names the groups of a container; makes nothing. With `systemd` they are those of a scope.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a `cgroupsPath` with `..`, or with processes in it.
    pub fn plan(cgroups_path: &str, name: &str, systemd: bool) -> Result<Self> {
        let unit = if systemd { Some(Unit::parse(cgroups_path, name)?) } else { None };
        let mut groups = unit.as_ref().map_or_else(|| places(cgroups_path, name), places_of)?;
        if userns::ids() != userns::Ids::Host {
            // An ordinary user has those that were handed down, if any, and runs without the others.
            groups.retain(|(_, path)| is_writable(path));
        }
        let (there, new): (Vec<_>, Vec<_>) = groups.iter().map(|(_, p)| p.clone()).partition(|p| p.exists());
        if let Some(path) = there.iter().find(|path| !processes(&[(*path).clone()]).is_empty()) {
            let reason = format!("{} has processes in it", path.display());
            return Err(Error::Invalid { field: "linux.cgroupsPath".into(), reason });
        }
        Ok(Self { groups, new, unit })
    }

    /// The groups with their hierarchies.
    #[must_use]
    pub fn groups(&self) -> &[(Hierarchy, PathBuf)] {
        &self.groups
    }

    /// The groups' paths.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.groups.iter().map(|(_, path)| path.clone()).collect()
    }

    /// The paths of the groups that were not there before, which go with the container.
    #[must_use]
    pub fn new_paths(&self) -> Vec<PathBuf> {
        self.new.clone()
    }

    /// Makes the groups and sets the limits.
    ///
    /// # Errors
    /// [`Error::Io`] with the file that could not be made or written.
    pub fn create(&self, resources: &super::spec::Resources) -> Result<()> {
        for (hierarchy, path) in &self.groups {
            io_error("create", path, fs::create_dir_all(path))?;
            if hierarchy.controllers.iter().any(|c| c == "cpuset") {
                inherit_cpuset(path, &hierarchy.mount)?;
            }
            if hierarchy.is_v2() {
                enable_controllers(path, &hierarchy.mount);
            }
        }
        limits::apply(&self.groups, resources)
    }

    /// The scope of systemd, which is made around the container's first process.
    #[must_use]
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// The version 2 group, open, for clone3.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open_v2(&self) -> Result<Option<OwnedFd>> {
        let Some((_, path)) = self.groups.iter().find(|(h, _)| h.is_v2()) else { return Ok(None) };
        Ok(Some(io_error("open", path, fs::File::open(path))?.into()))
    }
}

/// Whether the group can be made or is there to be changed.
fn is_writable(group: &Path) -> bool {
    let there = group.ancestors().find(|p| p.exists()).unwrap_or(group);
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Opens the version 2 group among `paths`, for clone3. Once it has handed controllers down it
/// takes no process any more: then the group below it that `pid` is in.
#[must_use]
pub fn open_v2(paths: &[PathBuf], pid: i32) -> Option<OwnedFd> {
    let path = paths.iter().find(|p| is_v2(p))?;
    let handed_down = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
    let below = if handed_down.trim().is_empty() { None } else { group_of(pid) };
    let group = below.filter(|group| group.starts_with(path));
    fs::File::open(group.as_ref().unwrap_or(path)).ok().map(Into::into)
}

/// The version 2 group of a process.
fn group_of(pid: i32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mounted = |p: &Path| p.join("cgroup.procs").exists();
    let found = text.lines().filter_map(|line| parse_line(line, &mounted)).find(Hierarchy::is_v2)?;
    Some(found.mount.join(found.own.strip_prefix("/").ok()?))
}

/// Puts a process into the version 1 groups among `paths`.
///
/// # Errors
/// [`Error::Io`]: the process is gone, the group does not take it.
pub fn enter_v1(paths: &[PathBuf], pid: i32) -> Result<()> {
    for path in paths.iter().filter(|p| !is_v2(p)) {
        let file = path.join("cgroup.procs");
        io_error("write", &file, fs::write(&file, pid.to_string()))?;
    }
    Ok(())
}

/// The groups below those of a container that `wanted` names, each `[CONTROLLER,…:]PATH`; the
/// container's own where it names none. Without a controller a path goes for all hierarchies,
/// beside those of version 1 for that of version 2 where it is there.
///
/// # Errors
/// [`Error::Invalid`]: no such group, or one outside of the container's.
pub fn below(paths: &[PathBuf], wanted: &[String]) -> Result<Vec<PathBuf>> {
    let mut groups = with_hierarchies(paths)?;
    let mixed = groups.iter().any(|(h, _)| !h.is_v2());
    for text in wanted {
        let invalid = |reason: &str| {
            let reason = format!("{text:?}: {reason}");
            Err(Error::Invalid { field: "--cgroup".into(), reason })
        };
        let (controllers, path) = match text.split_once(':') {
            Some((names, path)) => (names.split(',').collect(), Path::new(path)),
            None => (Vec::new(), Path::new(text)),
        };
        if path.components().any(|c| c == Component::ParentDir) {
            return invalid("leads upwards");
        }
        let has = |h: &Hierarchy, name: &str| {
            h.controllers.iter().any(|c| c == name || c.strip_prefix("name=") == Some(name))
        };
        if let Some(name) = controllers.iter().find(|name| !groups.iter().any(|(h, _)| has(h, name))) {
            return invalid(&format!("no hierarchy of version 1 has the controller {name:?}"));
        }
        for (h, group) in &mut groups {
            let new = group.join(path.strip_prefix("/").unwrap_or(path));
            let named = controllers.iter().any(|name| has(h, name));
            let meant = named || (controllers.is_empty() && (!mixed || !h.is_v2() || new.exists()));
            if meant && !new.is_dir() {
                return invalid(&format!("{} is not there", new.display()));
            }
            if meant {
                *group = new;
            }
        }
    }
    Ok(groups.into_iter().map(|(_, group)| group).collect())
}

fn is_v2(group: &Path) -> bool {
    group.starts_with(Path::new(MOUNT).join("unified")) || group.join("cgroup.controllers").exists()
}

/// A new version 1 cpuset has no processors and takes no process until it has some.
fn inherit_cpuset(group: &Path, mount: &Path) -> Result<()> {
    let chain: Vec<&Path> = group.ancestors().take_while(|p| *p != mount).collect();
    for dir in chain.into_iter().rev() {
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let file = dir.join(name);
            let current = io_error("read", &file, fs::read_to_string(&file))?;
            if current.trim().is_empty() {
                let above = dir.parent().unwrap_or(mount).join(name);
                let value = io_error("read", &above, fs::read_to_string(&above))?;
                io_error("write", &file, fs::write(&file, value.trim()))?;
            }
        }
    }
    Ok(())
}

/// Hands the controllers down to `group`; those that a group above lacks are missing
/// later only where a limit asks for them.
fn enable_controllers(group: &Path, mount: &Path) {
    let chain: Vec<&Path> = group.ancestors().skip(1).take_while(|p| p.starts_with(mount)).collect();
    for dir in chain.into_iter().rev() {
        let all = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        for name in all.split_whitespace() {
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"));
        }
    }
}

/// The processes in the groups and below them, on the host's count.
#[must_use]
pub fn processes(paths: &[PathBuf]) -> Vec<i32> {
    fn collect(dir: &Path, out: &mut Vec<i32>) {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        out.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 0));
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                collect(&entry.path(), out);
            }
        }
    }
    let mut out = Vec::new();
    // Every process is in all hierarchies; one that can be read is enough.
    for path in paths.iter().filter(|p| p.exists()).take(1) {
        collect(path, &mut out);
    }
    out
}

/// How long a group may be busy with processes that are ending.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);

/// Removes the groups and those below them; the processes in them must be ending.
///
/// # Errors
/// [`Error::Io`]; [`Error::Timeout`] where processes stay.
pub fn remove(paths: &[PathBuf]) -> Result<()> {
    let end = Instant::now() + REMOVE_LIMIT;
    paths.iter().try_for_each(|path| remove_one(path, end))
}

fn remove_one(path: &Path, end: Instant) -> Result<()> {
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == ErrorKind::ResourceBusy => {
                for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                    if entry.file_type().is_ok_and(|t| t.is_dir()) {
                        remove_one(&entry.path(), end)?;
                    }
                }
                if Instant::now() > end {
                    let what = format!("control group {} did not get empty", path.display());
                    return Err(Error::Timeout { what, seconds: REMOVE_LIMIT.as_secs() });
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return io_error("remove", path, Err(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_hierarchies() {
        let hybrid = |p: &Path| p != Path::new(MOUNT);
        let found = |line, mounted: &dyn Fn(&Path) -> bool| parse_line(line, mounted).map(|h| h.mount);
        assert_eq!(found("4:memory:/a", &hybrid), Some("/sys/fs/cgroup/memory".into()));
        assert_eq!(found("0::/", &hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(found("0::/", &|_| true), Some("/sys/fs/cgroup".into()));
        assert_eq!(found("9:name=systemd:/", &hybrid), Some("/sys/fs/cgroup/systemd".into()));
        let separate = |p: &Path| p.ends_with("cpu");
        assert_eq!(found("2:cpu,cpuacct:/", &separate), Some("/sys/fs/cgroup/cpu".into()));
        assert_eq!(found("5:net_cls:/", &separate), None);
        assert_eq!(parse_line("4:memory:/a:b", &hybrid).unwrap().own, Path::new("/a:b"));
    }

    #[test]
    fn refuses_to_lead_upwards() {
        assert!(matches!(Cgroup::plan("/a/../../b", "id", false), Err(Error::Invalid { .. })));
    }
}
