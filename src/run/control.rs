//! A container that runs: its processes, limits and figures; it stands still and goes on.

use super::lifecycle::Container;
use super::state::{State, Status};
use super::{Error, Result, cgroup, spec::Resources};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::Duration;

impl Container {
    /// Its state, where it has processes.
    fn alive(&self) -> Result<State> {
        let (state, status) = self.status()?;
        match status {
            Status::Created | Status::Running | Status::Paused => Ok(state),
            Status::Creating | Status::Stopped => Err(Error::NotRunning { id: self.id().to_string() }),
        }
    }

    /// Freezes its processes.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::State`] where it is paused already; [`Error::Timeout`].
    pub fn pause(&self) -> Result<()> {
        let state = self.alive()?;
        if cgroup::is_frozen(&state.cgroups) {
            return Err(Error::State { what: "pause a paused container", id: self.id().to_string() });
        }
        cgroup::freeze(&state.cgroups)
    }

    /// Lets its frozen processes go on.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::State`] where it is not paused.
    pub fn resume(&self) -> Result<()> {
        let state = self.alive()?;
        if !cgroup::is_frozen(&state.cgroups) {
            let what = "resume a container that is not paused";
            return Err(Error::State { what, id: self.id().to_string() });
        }
        cgroup::thaw(&state.cgroups);
        Ok(())
    }

    /// The ids of its processes on the host, ascending.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = cgroup::processes(&self.alive()?.cgroups);
        pids.sort_unstable();
        Ok(pids)
    }

    /// Changes those of its limits that `resources` names. Devices are no part of it.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Invalid`]; the file that could not be written; what systemd
    /// answers.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        let state = self.alive()?;
        if let Some(unit) = &state.unit {
            cgroup::update_unit(unit, resources)?;
        }
        let groups = cgroup::with_hierarchies(&state.cgroups)?;
        cgroup::limit(&groups, &Resources { devices: Vec::new(), ..resources.clone() })
    }

    /// What it uses, in the form of runc's `events`.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn stats(&self) -> Result<serde_json::Value> {
        Ok(cgroup::stats(&cgroup::with_hierarchies(&self.alive()?.cgroups)?))
    }

    /// How many of its processes were killed for want of memory, since it was created.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn oom_kills(&self) -> Result<u64> {
        Ok(cgroup::oom_kills(&cgroup::with_hierarchies(&self.state()?.cgroups)?))
    }

    /// Waits for its end no longer than `limit`; tells whether it has come.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn ends_within(&self, limit: Duration) -> Result<bool> {
        let Some(pidfd) = self.state()?.pidfd() else { return Ok(true) };
        let limit = Timespec::try_from(limit).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        Ok(!matches!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)), Ok(0)))
    }
}
