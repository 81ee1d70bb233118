//! The container's first process, from its birth to the execve of its program.

use super::idmap::Idmaps;
use super::keeper::Streams;
use super::mounts::{self, Mounts};
use super::process::Program;
use super::reaper::{self, Reaper};
use super::sync::{Channel, Tag, encode};
use super::{Error, Result, cgroup::Cgroup, hooks, namespaces, network, spec, spec::Spec, state, sysctl};
use crate::sys::pty::{self, Pty};
use crate::sys::{Call, mountfd, process};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use std::path::Path;

/// What init works from; made by the parent, copied by clone3.
pub struct Init<'a> {
    /// config.json.
    pub spec: &'a Spec,
    /// The container's id.
    pub id: &'a str,
    /// The bundle's folder.
    pub bundle: &'a Path,
    /// The root filesystem's folder.
    pub rootfs: &'a Path,
    /// Its control groups.
    pub cgroup: &'a Cgroup,
    /// Its network.
    pub network: &'a network::Plan,
    /// What is mounted into its `/etc`.
    pub files: &'a network::Files,
    /// What its idmapped mounts need.
    pub idmaps: &'a Idmaps,
    /// What it becomes.
    pub program: &'a Program,
    /// Its standard streams, instead of those of the process that made it.
    pub streams: Option<&'a Streams>,
    /// Takes the driving end of its terminal.
    pub console: Option<&'a OwnedFd>,
    /// A byte comes when it is to start.
    pub start: &'a OwnedFd,
    /// Takes what goes wrong after that; closed by the execve.
    pub report: &'a OwnedFd,
    /// The state for hooks, but for what changes.
    pub state: &'a serde_json::Value,
    /// Whether it ends with the process that made it.
    pub tied: bool,
    /// Whether `/` is moved over instead of pivoted.
    pub no_pivot: bool,
    /// Whether it keeps the caller's session keyring.
    pub keep_keyring: bool,
}

/// What is left once everything is prepared: the program's path, where its security label
/// goes, and the init process that it is to be the child of.
type Ready<'a> = (std::ffi::CString, Option<OwnedFd>, Option<Reaper<'a>>);

impl Init<'_> {
    /// Becomes the container's program, or says why not and ends.
    pub fn run(&self, channel: &Channel) -> ! {
        let ready = self.prepare(channel).and_then(|ready| {
            channel.send(Tag::Ready, &[])?;
            Ok(ready)
        });
        let (path, label, reaper) = match ready {
            Ok(ready) => ready,
            Err(e) => {
                channel.fail(&e);
                process::exit_now(1)
            }
        };
        let mut byte = [0u8];
        if !matches!(rustix::io::retry_on_intr(|| rustix::io::read(self.start, &mut byte)), Ok(1)) {
            process::exit_now(1);
        }
        let error = match self.run_hooks("startContainer", &self.spec.hooks.start_container, "created") {
            Ok(()) => self.program.execute(&path, label.as_ref(), reaper.as_ref()),
            Err(e) => e,
        };
        let _ = rustix::io::write(self.report, &encode(&error));
        process::exit_now(i32::from(error.launch_code()))
    }

    fn prepare(&self, channel: &Channel) -> Result<Ready<'_>> {
        rustix::process::setsid().call(|| "setsid".to_string())?;
        if self.spec.new_namespace("user") {
            channel.expect(Tag::Mapped)?;
            namespaces::become_root()?;
        }
        if !self.keep_keyring {
            process::new_session_keyring(&format!("_ses.{}", self.id))?;
        }
        self.network.begin(self.spec)?;
        namespaces::new_time(self.spec)?;
        let label = self.program.open_label()?;
        let reaper = if reaper::is_wanted(self.spec)? { Some(Reaper::open(self.report)?) } else { None };
        rustix::process::umask(Mode::empty());
        let mut waiting = true;
        let mut grouped = || -> Result<()> {
            if std::mem::take(&mut waiting) {
                self.network.inside(&channel.expect(Tag::Grouped)?)?;
                if self.spec.new_namespace("cgroup") {
                    process::unshare(libc::CLONE_NEWCGROUP)?;
                }
            }
            Ok(())
        };
        if self.spec.has_namespace("mount") {
            self.enter_root(channel, &mut grouped)?;
        } else {
            grouped()?;
            self.names()?;
            sysctl::write(self.spec)?;
            self.hooks(channel)?;
            state::close_to_others()?;
            rustix::process::chroot(self.rootfs).call(|| format!("chroot({})", self.rootfs.display()))?;
            rustix::process::chdir("/").call(|| "chdir(/)".to_string())?;
            self.host_terminal()?;
            self.attach(None)?;
        }
        self.program.drop_privileges()?;
        if self.tied {
            // After the change of ids, which would take it back.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
                .call(|| "prctl(PR_SET_PDEATHSIG)".to_string())?;
        }
        let path = self.program.find()?;
        Ok((path, label, reaper))
    }

    fn enter_root(&self, channel: &Channel, grouped: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut mounts = Mounts::new(self.spec, self.bundle, self.rootfs, self.cgroup, self.idmaps)?;
        mounts.make(grouped)?;
        let terminal = self.terminal(&mounts)?;
        if let Some(pty) = &terminal {
            mounts.console(&pty.slave)?;
        }
        let cwd = &self.program.spec().cwd;
        // A working directory that is not there is made, as far as that is possible.
        let _ = mounts.root.make_dir(cwd);
        mounts.hide()?;
        self.names()?;
        sysctl::write(self.spec)?;
        grouped()?;
        self.files.mount(self.spec, &mounts.root)?;
        self.hooks(channel)?;
        mounts.close_root()?;
        state::close_to_others()?;
        if self.no_pivot {
            mountfd::move_root(&mounts.root)?;
        } else {
            mountfd::pivot(&mounts.root)?;
        }
        mounts::propagate_root(self.spec, &mounts.root)?;
        self.attach(terminal)
    }

    fn names(&self) -> Result<()> {
        let (host, domain) = (&self.spec.hostname, &self.spec.domainname);
        if !host.is_empty() {
            rustix::system::sethostname(host.as_bytes()).call(|| format!("sethostname({host:?})"))?;
        }
        if !domain.is_empty() {
            rustix::system::setdomainname(domain.as_bytes()).call(|| format!("setdomainname({domain:?})"))?;
        }
        Ok(())
    }

    fn hooks(&self, channel: &Channel) -> Result<()> {
        if has_runtime_hooks(self.spec) {
            channel.send(Tag::Mounted, &[])?;
            channel.expect(Tag::Hooked)?;
        }
        self.run_hooks("createContainer", &self.spec.hooks.create_container, "creating")
    }

    /// Runs hooks from within, which see the process as the container does.
    fn run_hooks(&self, point: &'static str, list: &[spec::Hook], status: &str) -> Result<()> {
        if list.is_empty() {
            return Ok(());
        }
        let mut state = self.state.clone();
        state["status"] = status.into();
        state["pid"] = rustix::process::getpid().as_raw_nonzero().get().into();
        hooks::run(point, list, &state)
    }

    /// A pseudo-terminal of the container's own devpts, or of the host's where it has none.
    fn terminal(&self, mounts: &Mounts) -> Result<Option<Pty>> {
        if !self.program.spec().terminal {
            return Ok(None);
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let ptmx = match &mounts.pts {
            Some(pts) => rustix::fs::openat(pts, "ptmx", flags | OFlags::NOFOLLOW, Mode::empty()),
            None => rustix::fs::openat(CWD, "/dev/ptmx", flags, Mode::empty()),
        };
        Ok(Some(Pty::new(ptmx.call(|| "open(ptmx)".to_string())?)?))
    }

    fn host_terminal(&self) -> Result<()> {
        if !self.program.spec().terminal {
            return Ok(());
        }
        Err(Error::Unsupported { what: "a terminal without a mount namespace".into() })
    }

    fn attach(&self, terminal: Option<Pty>) -> Result<()> {
        if let Some(streams) = self.streams {
            process::set_streams(streams.each_ref().map(AsFd::as_fd))?;
        }
        let Some(pty) = terminal else { return Ok(()) };
        hand_over(&pty, self.console, self.program.spec().console_size.as_ref())
    }
}

/// Gives the driving end of `pty` away and makes the other this process's terminal.
///
/// # Errors
/// The failed call.
pub fn hand_over(pty: &Pty, console: Option<&OwnedFd>, size: Option<&spec::ConsoleSize>) -> Result<()> {
    if let Some(size) = size {
        pty::resize(&pty.master, size.width, size.height)?;
    }
    if let Some(console) = console {
        pty::send_fd(console.as_fd(), pty.master.as_fd(), b"/dev/console")?;
    }
    Ok(pty::become_terminal(&pty.slave)?)
}

/// Whether hooks must run on the host before init goes on.
#[must_use]
pub fn has_runtime_hooks(spec: &Spec) -> bool {
    !spec.hooks.prestart.is_empty() || !spec.hooks.create_runtime.is_empty()
}
