//! A container that runs: its processes, limits and figures; it stands still and goes on.

use super::lifecycle::{Container, PATIENCE};
use super::log::{self, Entry, Query};
use super::state::{ProcessId, State, Status};
use super::watch::ends_within;
use super::{Error, Result, cgroup, spec::Resources};
use crate::bundle::STOP_SIGNAL_ANNOTATION;
use crate::sys::signal;
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

    /// Asks its program to end, with the signal that the image names (SIGTERM where it names none)
    /// or `signal`, and kills it after `patience`. One that does not run is left as it is.
    ///
    /// # Errors
    /// [`Error::Timeout`] where it does not end even then; the failed call.
    pub fn stop(&self, signal: Option<i32>, patience: Duration) -> Result<()> {
        let (state, status) = self.status()?;
        let named = state.annotations.get(STOP_SIGNAL_ANNOTATION).and_then(|text| signal::parse(text));
        let number = match status {
            Status::Stopped | Status::Creating => return Ok(()),
            // It has nothing that could end by itself.
            Status::Created => libc::SIGKILL,
            Status::Running | Status::Paused => signal.or(named).unwrap_or(libc::SIGTERM),
        };
        let ends = |number, limit| -> Result<bool> {
            match self.kill(number, false) {
                Err(Error::NotRunning { .. } | Error::NoContainer { .. }) => Ok(true),
                Err(e) => Err(e),
                Ok(()) => Ok(ended_within(&state, limit)),
            }
        };
        let limit = Duration::from_secs(PATIENCE);
        if !ends(number, patience)? && !ends(libc::SIGKILL, limit)? {
            let what = format!("the killed process of container {} did not end", self.id());
            return Err(Error::Timeout { what, seconds: PATIENCE });
        }
        // Whoever keeps it writes down how it ended.
        if let Some(keeper) = state.keeper.as_ref().and_then(ProcessId::open) {
            let _ = ends_within(&keeper, limit);
        }
        Ok(())
    }

    /// Reads its log.
    ///
    /// # Errors
    /// [`Error::State`] where it has none; [`Error::Io`]; those of `sink`.
    pub fn logs<E: From<Error>>(
        &self,
        query: &Query,
        sink: &mut dyn FnMut(&Entry) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let state = self.state()?;
        if state.keeper.is_none() {
            let what = "show what a container has printed that no `run --detach` keeps";
            return Err(Error::State { what, id: self.id().to_string() }.into());
        }
        let keeper = state.keeper.as_ref();
        log::read(self.dir(), query, &|| keeper.is_some_and(|k| k.open().is_some()), sink)
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
        Ok(ended_within(&self.state()?, limit))
    }
}

fn ended_within(state: &State, limit: Duration) -> bool {
    state.pidfd().is_none_or(|pidfd| ends_within(&pidfd, limit))
}
