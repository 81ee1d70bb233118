//! Containers by name: find, list, kill, delete, and sweep up what was abandoned.

use super::state::{self, State, Status};
use super::terminal::Exit;
use super::watch::ends_within;
use super::{Error, Result, cgroup, hooks, io_error, network, spec::Spec};
use crate::bundle::Bundle;
use crate::store::Area;
use crate::sys::{Call, signal, userns};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a killed process may take to end, and a lock to become free, in seconds.
pub(super) const PATIENCE: u64 = 10;

/// In a container's folder, a link to the bundle that goes with it.
const BUNDLE: &str = "bundle";

/// The folder of all containers.
#[derive(Debug)]
pub struct Runtime {
    dir: PathBuf,
    systemd: bool,
}

/// A container's folder, locked.
#[derive(Debug)]
pub struct Lock {
    _dir: File,
}

/// A container that this process makes, locked. It is taken away with the value.
#[derive(Debug)]
pub struct Held {
    container: Container,
    lock: Lock,
    stays: bool,
}

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    id: String,
    dir: PathBuf,
}

impl Runtime {
    /// The containers of the store at `root`, where a store need not be.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn open(root: &Path) -> Result<Self> {
        let dir = Area::Containers.folder(root)?;
        let dir = io_error("resolve", &dir, dir.canonicalize())?;
        Ok(Self { dir, systemd: false })
    }

    /// Whether systemd makes the control groups of all new containers, whatever their launch says.
    #[must_use]
    pub fn by_systemd(self, systemd: bool) -> Self {
        Self { systemd, ..self }
    }

    /// As [`Self::by_systemd`] says.
    pub(super) fn systemd(&self) -> bool {
        self.systemd
    }

    /// The container `id`.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::BadId`].
    pub fn get(&self, id: &str) -> Result<Container> {
        state::check_id(id)?;
        let dir = self.dir.join(id);
        if !dir.join("state.json").exists() {
            return Err(Error::NoContainer { id: id.to_string() });
        }
        Ok(Container { id: id.to_string(), dir })
    }

    /// All containers with their states, by name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<(State, Status)>> {
        self.sweep()?;
        let mut names = self.names()?;
        names.sort();
        let read = |id: String| {
            let dir = self.dir.join(id);
            match State::read(&dir) {
                Ok(state) => {
                    let status = state.status(&dir);
                    Some((state, status))
                }
                Err(e) => {
                    if !is_missing(&e) {
                        tracing::warn!("{e}");
                    }
                    None
                }
            }
        };
        Ok(names.into_iter().filter_map(read).collect())
    }

    /// Who has made the container `id`, by name where the user has one.
    #[must_use]
    pub fn owner(&self, id: &str) -> String {
        let uid = fs::metadata(self.dir.join(id)).map_or(0, |m| m.uid());
        userns::user_name(uid).unwrap_or_else(|| format!("#{uid}"))
    }

    /// The folder of the container `id`, there or not.
    pub(super) fn folder(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// The name of the control groups of a container that asks for none.
    pub(super) fn group_name(&self, id: &str) -> String {
        group_name(&self.dir, id)
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = io_error("list", &self.dir, fs::read_dir(&self.dir))?;
        Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
    }

    /// Takes away what killed commands left, and says whether `id` is free then.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Io`].
    fn vacant(&self, id: &str) -> Result<()> {
        self.sweep()?;
        if self.dir.join(id).exists() { Err(Error::Exists { id: id.to_string() }) } else { Ok(()) }
    }

    /// Makes the folder of a new container, locked, for [`super::Launch`].
    ///
    /// # Errors
    /// [`Error::BadId`], [`Error::Exists`], [`Error::Io`].
    pub fn reserve(&self, id: &str) -> Result<Held> {
        state::check_id(id)?;
        self.vacant(id)?;
        let parent = io_error("open", &self.dir, File::open(&self.dir))?;
        // Shared with other reservations, so that no sweep sees the folder before its lock.
        flock(&parent, FlockOperation::LockShared).call(|| format!("flock({})", self.dir.display()))?;
        let dir = self.dir.join(id);
        match fs::create_dir(&dir) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::Exists { id: id.to_string() });
            }
            other => io_error("create", &dir, other)?,
        }
        let container = Container { id: id.to_string(), dir };
        let lock = container.lock()?;
        Ok(Held { container, lock, stays: false })
    }

    /// Takes away what killed commands left.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sweep(&self) -> Result<()> {
        let names = self.names()?;
        if names.is_empty() {
            return Ok(());
        }
        let parent = io_error("open", &self.dir, File::open(&self.dir))?;
        if flock(&parent, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        for id in names {
            let container = Container { dir: self.dir.join(&id), id };
            if state::is_settled(&container.dir) {
                continue;
            }
            let Some(lock) = container.try_lock() else { continue };
            let abandoned = match State::read(&container.dir) {
                Ok(state) => !state.complete || (state.owned && state.pidfd().is_none()),
                // A damaged one may still have processes; that is for `delete --force`.
                Err(e) => is_missing(&e),
            };
            if abandoned && let Err(e) = container.destroy(&lock) {
                tracing::warn!("leftovers of {}: {e}", container.id);
            }
        }
        Ok(())
    }
}

impl Held {
    /// The container.
    pub(super) fn container(&self) -> &Container {
        &self.container
    }

    /// Notes that the bundle in the folder `path`, which need not be there yet, goes with the container.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn owns(&self, path: &Path) -> Result<()> {
        let link = self.container.dir.join(BUNDLE);
        io_error("create", &link, std::os::unix::fs::symlink(path, &link))
    }

    /// Lets go of the container, which stays.
    pub(super) fn keep(mut self) -> Container {
        self.stays = true;
        self.container.clone()
    }

    /// Takes the container away.
    ///
    /// # Errors
    /// What could not be taken away.
    pub(super) fn destroy(mut self) -> Result<()> {
        self.stays = true;
        self.container.destroy(&self.lock)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.stays
            && let Err(e) = self.container.destroy(&self.lock)
        {
            tracing::warn!("{e}");
        }
    }
}

impl Container {
    /// Its folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn try_lock(&self) -> Option<Lock> {
        let dir = File::open(&self.dir).ok()?;
        flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
        // Deleted and made anew between open and lock?
        self.dir.exists().then_some(Lock { _dir: dir })
    }

    /// Locks it against other changes.
    pub(super) fn lock(&self) -> Result<Lock> {
        let end = Instant::now() + Duration::from_secs(PATIENCE);
        loop {
            if let Some(lock) = self.try_lock() {
                return Ok(lock);
            }
            if !self.dir.exists() {
                return Err(Error::NoContainer { id: self.id.clone() });
            }
            if Instant::now() > end {
                let what = format!("another command did not let go of container {}", self.id);
                return Err(Error::Timeout { what, seconds: PATIENCE });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What is known of it.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::Damaged`].
    pub fn state(&self) -> Result<State> {
        let id = self.id.clone();
        State::read(&self.dir).map_err(|e| match e {
            e if is_missing(&e) => Error::NoContainer { id },
            Error::Config { path, source } => Error::Damaged { id, path, source },
            other => other,
        })
    }

    /// Its state and where it is in its life.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn status(&self) -> Result<(State, Status)> {
        let state = self.state()?;
        let status = state.status(&self.dir);
        Ok((state, status))
    }

    /// Its config.json, as it was when it was created.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`].
    pub fn spec(&self) -> Result<Spec> {
        Spec::read(&self.dir.join("config.json"))
    }

    /// Sends a signal to its first process, or with `all` to every process in it. `SIGKILL` ends
    /// a paused one too.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; the failed call.
    pub fn kill(&self, number: i32, all: bool) -> Result<()> {
        let state = self.state()?;
        let not_running = || Error::NotRunning { id: self.id.clone() };
        if all {
            let pids = cgroup::processes(&state.cgroups);
            if pids.is_empty() {
                return Err(not_running());
            }
            send_all(&pids, number);
        } else {
            let pidfd = state.pidfd().ok_or_else(not_running)?;
            match signal::send(pidfd.as_fd(), number) {
                Err(e) if e.errno() == Some(Errno::SRCH) => return Err(not_running()),
                other => other?,
            }
        }
        if number == libc::SIGKILL {
            // Version 2 does so by itself.
            cgroup::thaw(&state.cgroups);
        }
        Ok(())
    }

    /// Deletes it: one that has stopped, one that was never started, or with `force` any.
    ///
    /// # Errors
    /// [`Error::NotStopped`]; [`Error::Timeout`] where a killed process does not end.
    pub fn delete(&self, force: bool) -> Result<()> {
        if force && matches!(self.state(), Err(Error::Damaged { .. })) {
            send_all(&cgroup::processes(&self.likely_cgroups()?), libc::SIGKILL);
            return self.destroy_unless_gone();
        }
        let (state, status) = self.status()?;
        match status {
            Status::Stopped | Status::Created => {}
            _ if force => {}
            status => return Err(Error::NotStopped { id: self.id.clone(), status }),
        }
        if let Some(pidfd) = state.pidfd() {
            end(&self.id, &pidfd, &state.cgroups)?;
        }
        self.destroy_unless_gone()
    }

    fn destroy_unless_gone(&self) -> Result<()> {
        match self.lock() {
            // Its `run` has seen the end and deleted it.
            Err(Error::NoContainer { .. }) => Ok(()),
            Err(e) => Err(e),
            Ok(lock) if self.dir.join("state.json").exists() => self.destroy(&lock),
            Ok(_) => Ok(()),
        }
    }

    /// Its control groups where its state does not tell them.
    fn likely_cgroups(&self) -> Result<Vec<PathBuf>> {
        let path = self.spec().map(|s| s.linux.cgroups_path).unwrap_or_default();
        let name = group_name(self.dir.parent().unwrap_or(&self.dir), &self.id);
        Ok(cgroup::likely_places(&path, &name)?.into_iter().map(|(_, group)| group).collect())
    }

    /// Remembers how it ended, and lets go of the host's ports.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Timeout`].
    pub(super) fn ended(&self, exit: Exit) -> Result<()> {
        let mut state = self.state()?;
        state.network.as_ref().map_or(Ok(()), network::ended)?;
        (state.exit, state.finished) = (Some(exit.code()), Some(state::now()));
        state.write(&self.dir)
    }

    /// Takes away everything that there is of it; the lock is the caller's.
    ///
    /// # Errors
    /// What could not be taken away.
    pub(super) fn destroy(&self, _lock: &Lock) -> Result<()> {
        let state = State::read(&self.dir);
        let spec = self.spec().ok();
        match &state {
            Ok(state) => {
                if let Some(pidfd) = state.pidfd() {
                    end(&self.id, &pidfd, &state.cgroups)?;
                }
                if let Some(unit) = &state.unit {
                    cgroup::stop_unit(unit);
                }
                // Without a pid namespace of its own its other processes go on.
                empty(&state.cgroups, &state.own_cgroups)?;
                state.network.as_ref().map_or(Ok(()), network::detach)?;
            }
            Err(e) if is_missing(e) => {}
            Err(_) => {
                let groups = self.likely_cgroups()?;
                empty(&groups, &groups)?;
            }
        }
        if let Ok(path) = fs::read_link(self.dir.join(BUNDLE))
            && let Some(bundle) = Bundle::in_folder(&path)?.filter(Bundle::is_containers)
        {
            bundle.remove()?;
        }
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => io_error("remove", &self.dir, Err(e))?,
            _ => {}
        }
        if let (Ok(state), Some(spec)) = (state, spec) {
            hooks::run_all("poststop", &spec.hooks.poststop, &state.document(Status::Stopped));
        }
        Ok(())
    }
}

/// The id, and what tells it from the same id in another store.
fn group_name(containers: &Path, id: &str) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    (containers.canonicalize().unwrap_or_default(), id).hash(&mut hasher);
    let start: String = id.chars().take(200).collect();
    format!("{start}-{:016x}", hasher.finish())
}

/// Whether there is no state at all, as opposed to one that cannot be read.
fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Kills what is left in `cgroups` and removes those of them that are `own`.
fn empty(cgroups: &[PathBuf], own: &[PathBuf]) -> Result<()> {
    cgroup::thaw(cgroups);
    send_all(&cgroup::processes(cgroups), libc::SIGKILL);
    cgroup::remove(own)
}

/// Kills a process and waits for its end, thawing its groups.
///
/// # Errors
/// [`Error::Timeout`] where it sits in the kernel and does not end.
pub(super) fn end(id: &str, pidfd: &OwnedFd, cgroups: &[PathBuf]) -> Result<()> {
    match signal::send(pidfd.as_fd(), libc::SIGKILL) {
        Err(e) if e.errno() == Some(Errno::SRCH) => return Ok(()),
        other => other?,
    }
    cgroup::thaw(cgroups);
    if ends_within(pidfd, Duration::from_secs(PATIENCE)) {
        return Ok(());
    }
    let what = format!("the killed process of container {id} did not end");
    Err(Error::Timeout { what, seconds: PATIENCE })
}

fn send_all(pids: &[i32], number: i32) {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    for pid in pids.iter().filter_map(|p| Pid::from_raw(*p)) {
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            let _ = signal::send(pidfd.as_fd(), number);
        }
    }
}
