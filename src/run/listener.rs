//! The agent that decides on system calls with `SCMP_ACT_NOTIFY` (runtime-spec,
//! `config-linux.md`, Seccomp, The Container Process State; `seccomp_unotify(2)`).
//!
//! The process that loads the filter may have any of its next calls held up until the agent
//! answers, and the agent cannot before it has the descriptor. So the descriptor's number is left
//! in memory that is shared with the parent, which takes the descriptor out of the process
//! (`pidfd_getfd(2)`) and sends it; meanwhile the process waits without a call.

use super::lifecycle::PATIENCE;
use super::spec::Seccomp;
use super::state::OCI_VERSION;
use super::sync::Channel;
use super::{Error, Result, io_error};
use crate::sys::Call;
use crate::sys::memory::SharedWord;
use crate::sys::process::{Child, exit_now};
use crate::sys::pty::send_fd;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// In the shared word: no filter yet. Anything between is the descriptor's number.
const NONE: i32 = 0;
/// The agent has the descriptor.
const SENT: i32 = -1;

/// The agent, and how far it is from having its descriptor.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    metadata: String,
    word: SharedWord,
}

impl Listener {
    /// The agent of a profile.
    ///
    /// # Errors
    /// The failed mmap(2) call.
    pub fn new(profile: &Seccomp) -> Result<Self> {
        let word = SharedWord::new(NONE)?;
        Ok(Self { path: profile.listener_path.clone(), metadata: profile.listener_metadata.clone(), word })
    }

    /// Waits until the parent has sent `fd`. No call is made on the way.
    pub fn give(&self, fd: OwnedFd) {
        self.word.set(fd.as_raw_fd());
        let end = Instant::now() + Duration::from_secs(PATIENCE);
        while self.word.get() != SENT {
            if Instant::now() > end {
                exit_now(1);
            }
            std::hint::spin_loop();
        }
        drop(fd);
    }

    /// Waits until `child` has loaded its filter and sends the descriptor to the agent; returns
    /// where the child has something else to say on its `channel`, too. `state` is the container's.
    ///
    /// # Errors
    /// [`Error::Io`] where the agent is not there; the failed call.
    pub fn send(&self, channel: &Channel, child: &Child, state: &Value) -> Result<()> {
        while self.word.get() == NONE {
            if !channel.is_silent_for(Duration::from_millis(1)) {
                return Ok(());
            }
        }
        let fd = pidfd_getfd(&child.pidfd, self.word.get(), PidfdGetfdFlags::empty())
            .call(|| format!("pidfd_getfd(process {}, seccomp listener)", child.pid))?;
        let stream = io_error("connect to seccomp agent", &self.path, UnixStream::connect(&self.path))?;
        let limit = Some(Duration::from_secs(PATIENCE));
        io_error("connect to seccomp agent", &self.path, stream.set_write_timeout(limit))?;
        let mut document = json!({
            "ociVersion": OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": child.pid,
            "state": state,
        });
        if !self.metadata.is_empty() {
            document["metadata"] = self.metadata.as_str().into();
        }
        send_fd(stream.as_fd(), fd.as_fd(), document.to_string().as_bytes()).map_err(|e| Error::Io {
            action: "send to seccomp agent",
            path: self.path.clone(),
            source: e.errno().unwrap_or(Errno::IO).into(),
        })?;
        drop(stream);
        self.word.set(SENT);
        Ok(())
    }
}
