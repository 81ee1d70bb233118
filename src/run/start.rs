//! `start`: a container that was created goes on to its program.

use super::create::read_all;
use super::lifecycle::Container;
use super::notify::{Listening, Notify};
use super::state::Status;
use super::sync::decode;
use super::{Error, Result, hooks};
use crate::sys::Call;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;

impl Container {
    /// Lets its program begin; with `manager`, waits until it is ready and tells.
    ///
    /// # Errors
    /// [`Error::State`] where it has begun or ended; what keeps the program from being executed.
    pub fn start(&self, manager: Option<&Notify>) -> Result<()> {
        let lock = self.lock()?;
        let (state, status) = self.status()?;
        let refused = |what| Err(Error::State { what, id: self.id().to_string() });
        match status {
            Status::Created if self.spec()?.process.is_none() => {
                return refused("start a container whose config.json has no process");
            }
            Status::Created => {}
            Status::Creating => return refused("start a container that is not created yet"),
            Status::Stopped => return refused("start a container that has stopped"),
            Status::Paused => return refused("start a paused container"),
            Status::Running => return refused("start an already running container"),
        }
        let open = |name: &str, flags| {
            let path = self.dir().join(name);
            let call = || format!("open({})", path.display());
            rustix::fs::open(&path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).call(call)
        };
        let report = open("report", OFlags::RDONLY)?;
        let start = match open("start", OFlags::WRONLY) {
            Err(e) if e.errno() == Some(Errno::NXIO) => {
                self.started();
                return refused("start an already running container");
            }
            other => other?,
        };
        let socket = manager.map(|manager| Listening::open(manager, self.dir())).transpose()?.flatten();
        rustix::io::write(&start, b"s").call(|| "write(start)".to_string())?;
        rustix::fs::fcntl_setfl(&report, OFlags::empty()).call(|| "fcntl(report)".to_string())?;
        let report = read_all(&report)?;
        self.started();
        if !report.is_empty() {
            return Err(decode(&report));
        }
        let spec = self.spec()?;
        hooks::run_all("poststart", &spec.hooks.poststart, &state.document(Status::Running));
        drop(lock);
        if let (Some(socket), Some(pidfd)) = (socket, state.pidfd())
            && let Err(e) = socket.pass_on(&pidfd, state.process.map_or(0, |p| p.pid))
        {
            // It runs all the same.
            tracing::warn!("{e}");
        }
        Ok(())
    }

    fn started(&self) {
        for name in ["start", "report"] {
            let _ = fs::remove_file(self.dir().join(name));
        }
    }
}
