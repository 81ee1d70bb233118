//! What a container tells the service manager (`sd_notify(3)`): that it is ready.
//!
//! The manager takes messages from the processes of its unit only, so the container gets a
//! socket of its own, in a folder that is bound to `/run/notify`; `start` listens there until the
//! container is ready, and tells the manager, with the container's process as the main one.

use super::attach::short_path;
use super::spec::Mount;
use super::{Result, io_error};
use crate::sys::{Call, pty};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

/// In the container's folder, and below /run in the container.
const FOLDER: &str = "notify";
/// In that folder.
const SOCKET: &str = "notify.sock";
/// The longest message that is read, in bytes.
const MAX_MESSAGE: usize = 4096;
/// How long the manager may take to read that the container is ready, in seconds.
const BARRIER: i64 = 5;

/// The service manager's socket.
#[derive(Debug, Clone)]
pub struct Notify {
    address: OsString,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET` from this process's environment.
    #[must_use]
    pub fn inherited() -> Option<Self> {
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
        Some(Self { address })
    }

    /// Tells the manager that the container of the process `pid` is ready, and waits until it has
    /// read that: it looks up who has sent it.
    fn tell(&self, pid: i32) -> Result<()> {
        let path = Path::new(&self.address);
        let told = || {
            let address = match self.address.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
                _ => SocketAddr::from_pathname(path)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            socket.send(format!("MAINPID={pid}\nREADY=1\n").as_bytes())?;
            Ok(socket)
        };
        let socket = io_error("notify", path, told())?;
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (read, write) = pipe.call(|| "pipe2".to_string())?;
        pty::send_fd(socket.as_fd(), write.as_fd(), b"BARRIER=1")?;
        drop(write);
        let limit = Timespec { tv_sec: BARRIER, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&read, PollFlags::empty())], Some(&limit));
        Ok(())
    }
}

/// The variable that tells the program of its socket.
#[must_use]
pub fn variable() -> String {
    format!("NOTIFY_SOCKET=/run/{FOLDER}/{SOCKET}")
}

/// The mount by which it has it; `dir` is the container's folder.
#[must_use]
pub fn mount(dir: &Path) -> Mount {
    Mount {
        destination: Path::new("/run").join(FOLDER),
        source: Some(folder(dir).to_string_lossy().into_owned()),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(String::from).to_vec(),
        ..Mount::default()
    }
}

/// The folder that is bound.
#[must_use]
pub fn folder(dir: &Path) -> PathBuf {
    dir.join(FOLDER)
}

/// A container's socket, open.
#[derive(Debug)]
pub struct Listening<'a> {
    manager: &'a Notify,
    socket: UnixDatagram,
}

impl<'a> Listening<'a> {
    /// Opens the socket of the container with the folder `dir`; none where it was made without.
    ///
    /// # Errors
    /// The failed call.
    pub fn open(manager: &'a Notify, dir: &Path) -> Result<Option<Self>> {
        let folder = folder(dir);
        if !folder.is_dir() {
            return Ok(None);
        }
        let (path, _open) = short_path(&folder, SOCKET)?;
        let _ = std::fs::remove_file(&path);
        let socket = io_error("bind", &folder, UnixDatagram::bind(&path))?;
        let all = Permissions::from_mode(0o777);
        io_error("change mode of", &folder, std::fs::set_permissions(&path, all))?;
        Ok(Some(Self { manager, socket }))
    }

    /// Waits until the container is ready, and tells the manager; returns where it ends before.
    ///
    /// # Errors
    /// The failed call.
    pub fn pass_on(&self, pidfd: &OwnedFd, pid: i32) -> Result<()> {
        let mut message = [0; MAX_MESSAGE];
        loop {
            let socket = self.socket.as_fd();
            let mut fds =
                [PollFd::from_borrowed_fd(socket, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut fds, None)).call(|| "poll".to_string())?;
            if fds[0].revents().is_empty() {
                return Ok(());
            }
            let length = self.socket.recv(&mut message).unwrap_or(0);
            if is_ready(&message[..length]) {
                return self.manager.tell(pid);
            }
        }
    }
}

fn is_ready(message: &[u8]) -> bool {
    message.split(|b| *b == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    #[test]
    fn ready_is_a_line_of_its_own() {
        for (message, ready) in
            [("READY=1", true), ("STATUS=x\nREADY=1\n", true), ("STATUS=READY=1", false), ("READY=0", false)]
        {
            assert_eq!(super::is_ready(message.as_bytes()), ready, "{message}");
        }
    }
}
