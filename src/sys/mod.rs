//! The kernel and other programs: every syscall, every `unsafe`, every child process.
//!
//! Nothing here knows of images or containers. Each function is one thing that the
//! kernel does, typed; each failure names the call and its operands, as in
//! `openat2(fd 7 "/var/lib/x", "etc/passwd"): Too many levels of symbolic links`.
//! What owns a kernel resource ([`mount::Mount`], [`loopdev::LoopDevice`]) has
//! `close(self) -> Result`; its `Drop` is the best-effort spare.

pub mod bpf;
pub mod btrfs;
pub mod copy;
pub mod device_filter;
pub mod dir;
pub mod inroot;
pub mod loopdev;
pub mod memory;
pub mod mount;
pub mod mountfd;
pub mod netlink;
pub mod overlay;
pub mod process;
pub mod program;
pub mod pty;
pub mod sandbox;
pub mod selfexe;
pub mod signal;
pub mod systemd;
pub mod trial;
pub mod userns;
pub mod workspace;
pub mod xattr;

use crate::error::Kind;
use rustix::io::Errno;

/// A failed syscall or external program, with its operands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A syscall failed.
    #[error("{call}: {}", std::io::Error::from(*errno))]
    Syscall {
        /// The call with its operands, as it would be written.
        call: String,
        /// What the kernel answered.
        errno: Errno,
    },
    /// No loop device is to be had.
    #[error("no loop device for the file: {call}: {}", std::io::Error::from(*errno))]
    NoLoopDevice {
        /// The failed call.
        call: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
    /// A user has no ids beside the own one.
    #[error("user {user} has no subordinate ids: no entry in {file}")]
    NoSubIds {
        /// The name.
        user: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// No user namespace is to be had.
    #[error("no user namespace: {call}: {reason}")]
    NoUserNamespace {
        /// The failed call.
        call: String,
        /// What forbids it.
        reason: userns::Forbids,
    },
    /// An external program ended unsuccessfully.
    #[error("{command}: {status}{}", if stderr.is_empty() { String::new() } else { format!(": {stderr}") })]
    Program {
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of its standard error, trimmed.
        stderr: String,
    },
    /// A service of the host refuses what it was asked for.
    #[error("{call}: {message}")]
    Refused {
        /// What was asked of whom.
        call: String,
        /// Its answer.
        message: String,
    },
    /// An external program is not installed.
    #[error("program {program} not found")]
    NoProgram {
        /// The name looked for in `PATH`.
        program: String,
    },
    /// An external program did not end in time.
    #[error("program {program} gave no answer for {} s and was ended", time.as_secs())]
    TooSlow {
        /// Its name.
        program: String,
        /// How long was waited.
        time: std::time::Duration,
    },
}

/// Result of a call into the kernel or to a program.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Syscall { errno, .. } => match *errno {
                Errno::PERM => Kind::Privilege,
                Errno::NOSYS | Errno::OPNOTSUPP | Errno::NODEV => Kind::Unsupported,
                e => Kind::of_io(&e.into()),
            },
            Self::Program { .. } | Self::TooSlow { .. } | Self::Refused { .. } => Kind::Internal,
            Self::NoSubIds { .. }
            | Self::NoUserNamespace { .. }
            | Self::NoLoopDevice { errno: Errno::PERM | Errno::ACCESS, .. } => Kind::Privilege,
            Self::NoLoopDevice { .. } | Self::NoProgram { .. } => Kind::Unsupported,
        }
    }

    /// The kernel's error number, where a syscall failed.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Syscall { errno, .. } | Self::NoLoopDevice { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// Puts the call and its operands to a failed syscall: `mkdirat(…).call(|| format!(…))`.
pub trait Call<T> {
    /// Names the call; `name` is evaluated on failure only.
    ///
    /// # Errors
    /// The failure that it was called on, named.
    fn call(self, name: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Call<T> for rustix::io::Result<T> {
    fn call(self, name: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Syscall { call: name(), errno })
    }
}

impl<T> Call<T> for std::io::Result<T> {
    fn call(self, name: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::Syscall {
            call: name(),
            errno: Errno::from_io_error(&e).unwrap_or(Errno::IO),
        })
    }
}
