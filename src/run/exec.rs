//! `exec`: another program in a running container.
//!
//! The process enters the container's namespaces by its first process's descriptor, its
//! control groups first, and gives up the same privileges as that one did.

use super::cgroup;
use super::create::write_pid;
use super::init::hand_over;
use super::lifecycle::{Container, PATIENCE, end};
use super::process::Program;
use super::spec::{self, Spec};
use super::state::{self, Status};
use super::sync::{Channel, Tag};
use super::terminal::{Exit, Relay, console};
use super::watch::{self, Duty};
use super::{Error, Result, Sockets, io_error, namespaces, priority};
use crate::bundle::users::{self, Ids};
use crate::sys::Call;
use crate::sys::inroot::Root;
use crate::sys::process::{self, Child, CloneOptions, Fork, clone3, exit_now, setns};
use crate::sys::pty::{self, Pty};
use crate::sys::signal::Signals;
use crate::sys::userns;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What to execute and how.
#[derive(Debug, Default, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "options of a command line")]
pub struct Exec {
    /// The whole process as JSON, in place of the container's.
    pub process: Option<PathBuf>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Added to the environment.
    pub env: Vec<String>,
    /// Another working directory.
    pub cwd: Option<PathBuf>,
    /// Another user and group, `USER[:GROUP]`: numbers as they are, names by the container's files.
    pub user: Option<String>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Added capabilities.
    pub caps: Vec<String>,
    /// With a terminal.
    pub terminal: bool,
    /// Whether execve may not raise privileges.
    pub no_new_privs: bool,
    /// Another `AppArmor` profile.
    pub apparmor: Option<String>,
    /// Another `SELinux` label.
    pub label: Option<String>,
    /// Takes the terminal.
    pub console_socket: Option<PathBuf>,
    /// Takes the process id.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors after the standard streams the program gets.
    pub preserve_fds: u32,
    /// Sockets of a service manager, before those.
    pub sockets: Sockets,
    /// Existing control groups below the container's own, `[CONTROLLER,…:]PATH`.
    pub groups: Vec<String>,
    /// Also in a paused container; it begins when that is resumed.
    pub ignore_paused: bool,
    /// Do not wait for its end.
    pub detach: bool,
    /// After which it is killed.
    pub timeout: Option<Duration>,
}

impl Exec {
    /// Executes it in `container`; gives how it ended, nothing where detached.
    ///
    /// # Errors
    /// [`Error::State`] where the container does not run; what keeps the program from running.
    pub fn run(&self, container: &Container) -> Result<Option<Exit>> {
        state::check_preserved(self.passed_on())?;
        let (state, status) = container.status()?;
        let refused = |what| Err(Error::State { what, id: container.id().to_string() });
        match status {
            Status::Running | Status::Created => {}
            Status::Paused if self.ignore_paused => {}
            Status::Stopped => return refused("exec in a stopped container"),
            Status::Paused => return refused("exec in a paused container"),
            Status::Creating => return refused("exec in a container that is not created yet"),
        }
        let gone = || Error::NotRunning { id: container.id().to_string() };
        let root = root_of(&state)?;
        // Known to run still: the folder is its own.
        let pidfd = state.pidfd().ok_or_else(gone)?;
        let spec = container.spec()?;
        let program = self.program(&spec, &root)?;
        let groups = cgroup::below(&state.cgroups, &self.groups)?;
        let signals = Signals::take()?;
        let (console, inbox) = self.console(&program)?;
        let (ours, theirs) = Channel::pair()?;
        if status != Status::Paused {
            ours.limit(PATIENCE)?;
        }
        let pid = state.process.as_ref().map_or(0, |p| p.pid);
        let id = container.id();
        let entry =
            Entry { id, spec: &spec, program: &program, pid, pidfd: &pidfd, console: console.as_ref() };
        if let Some(affinity) = &program.spec().exec_cpu_affinity {
            priority::run_on(&affinity.initial)?;
        }
        // Children from now on are born in the container's pid namespace, this process stays.
        if spec.has_namespace("pid") {
            setns(&pidfd, libc::CLONE_NEWPID, "pid namespace")?;
        }
        let pid = state.process.as_ref().map_or(0, |p| p.pid);
        let group = cgroup::open_v2(&groups, pid);
        let mut keep = vec![theirs.number(), pidfd.as_raw_fd()];
        keep.extend(console.as_ref().map(AsRawFd::as_raw_fd));
        let options = CloneOptions {
            flags: 0,
            cgroup: group.as_ref().map(AsFd::as_fd),
            keep: Some(&keep),
            preserve: self.passed_on(),
        };
        let child = match clone3(options)? {
            Fork::Child => entry.run(&theirs),
            Fork::Parent(child) => child,
        };
        drop((theirs, console));
        let begun = self.begin(&ours, &groups, &state.document(status), &program, &child);
        if let Err(e) = begun {
            end(container.id(), &child.pidfd, &[])?;
            let _ = watch::reap(child.pidfd.as_fd());
            return Err(e);
        }
        if self.detach {
            return Ok(None);
        }
        let master = inbox.map(|i| pty::receive_fd(i.as_fd(), &mut [0; 64])).transpose()?;
        let mut relay = master.map(Relay::new).transpose()?;
        let mut duties: Vec<&mut dyn Duty> = relay.iter_mut().map(|r| r as &mut dyn Duty).collect();
        let end = self.timeout.map(|t| Instant::now() + t);
        watch::wait(child.pidfd.as_fd(), &signals, end, &mut duties).map(Some)
    }

    /// Lets the process go on once it is in its groups; waits until it has become the program.
    fn begin(
        &self,
        channel: &Channel,
        groups: &[PathBuf],
        state: &serde_json::Value,
        program: &Program,
        child: &Child,
    ) -> Result<()> {
        cgroup::enter_v1(groups, child.pid)?;
        if let Some(adjustment) = program.spec().oom_score_adj {
            let path = PathBuf::from(format!("/proc/{}/oom_score_adj", child.pid));
            io_error("write", &path, std::fs::write(&path, adjustment.to_string()))?;
        }
        channel.send(Tag::Grouped, &[])?;
        if let Some(agent) = program.listener() {
            agent.send(channel, child, state)?;
        }
        channel.expect(Tag::Ready)?;
        if let Some(path) = &self.pid_file {
            write_pid(path, child.pid)?;
        }
        channel.send(Tag::Hooked, &[])?;
        channel.ended()
    }

    fn program(&self, spec: &Spec, root: &Root) -> Result<Program> {
        let mut process = if let Some(path) = &self.process {
            let text = io_error("read", path, std::fs::read(path))?;
            serde_json::from_slice(&text).map_err(|source| Error::Config { path: path.clone(), source })?
        } else {
            let own = spec.process.clone();
            let own = own.unwrap_or_else(|| spec::Process { cwd: "/".into(), ..spec::Process::default() });
            spec::Process { args: self.args.clone(), terminal: false, console_size: None, ..own }
        };
        if let Some(text) = &self.user {
            let ids = user(text, root)?;
            if ids.uid != process.user.uid {
                // That of another one is not its own.
                process.env.retain(|v| !v.starts_with("HOME="));
            }
            (process.user.uid, process.user.gid) = (ids.uid, ids.gid);
            process.user.additional_gids = ids.additional;
        }
        process.env.extend(self.env.iter().cloned());
        process.terminal |= self.terminal;
        process.no_new_privileges |= self.no_new_privs;
        for (given, field) in
            [(&self.apparmor, &mut process.apparmor_profile), (&self.label, &mut process.selinux_label)]
        {
            if let Some(given) = given {
                field.clone_from(given);
            }
        }
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        process.user.additional_gids.extend(&self.additional_gids);
        self.sockets.tell(&mut process.env);
        let mut program = Program::new(Some(process), &spec.linux, self.passed_on())?;
        self.caps.iter().try_for_each(|name| program.add_capability(name))?;
        Ok(program)
    }

    /// How many descriptors after the standard streams the program gets.
    fn passed_on(&self) -> u32 {
        self.sockets.before(self.preserve_fds)
    }

    fn console(&self, program: &Program) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        let terminal = program.spec().terminal;
        if self.detach && terminal && self.console_socket.is_none() {
            let reason = "a detached terminal needs --console-socket".to_string();
            return Err(Error::Invalid { field: "process.terminal".into(), reason });
        }
        console(self.console_socket.as_deref(), terminal)
    }
}

/// The container's root, as its first process has it.
pub(super) fn root_of(state: &state::State) -> Result<Root> {
    let path = format!("/proc/{}/root", state.process.as_ref().map_or(0, |p| p.pid));
    let fd = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    Ok(Root::new(fd.call(|| format!("open({path})"))?))
}

/// Who `USER[:GROUP]` is. Numbers need no file and mean what they say: without a group it is 0.
fn user(text: &str, root: &Root) -> Result<Ids> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok(Ids { uid, gid, ..Ids::default() }),
        _ => Ok(users::inside(root, text)?),
    }
}

/// What the new process works from.
struct Entry<'a> {
    id: &'a str,
    spec: &'a Spec,
    program: &'a Program,
    pid: i32,
    pidfd: &'a OwnedFd,
    console: Option<&'a OwnedFd>,
}

impl Entry<'_> {
    fn run(&self, channel: &Channel) -> ! {
        let error = match self.prepare(channel) {
            Ok((path, label)) => {
                match channel.send(Tag::Ready, &[]).and_then(|()| channel.expect(Tag::Hooked)) {
                    Ok(_) => self.program.execute(&path, label.as_ref(), None),
                    Err(e) => e,
                }
            }
            Err(e) => e,
        };
        channel.fail(&error);
        exit_now(i32::from(error.launch_code()))
    }

    fn prepare(&self, channel: &Channel) -> Result<(std::ffi::CString, Option<OwnedFd>)> {
        rustix::process::setsid().call(|| "setsid".to_string())?;
        let label = self.program.open_label()?;
        channel.expect(Tag::Grouped)?;
        if let Some(affinity) = &self.program.spec().exec_cpu_affinity {
            priority::run_on(&affinity.r#final)?;
        }
        state::close_to_others()?;
        let flags = self.spec.linux.namespaces.iter().filter_map(|n| namespaces::flag(&n.kind));
        // The user namespace of the container that an ordinary user has made is entered already.
        let entered = if userns::is_shared_with(self.pid) { libc::CLONE_NEWUSER } else { 0 };
        let flags = flags.filter(|f| ![libc::CLONE_NEWPID, entered].contains(f)).fold(0, |all, f| all | f);
        setns(self.pidfd, flags, "the container's namespaces")?;
        if self.spec.has_namespace("user") {
            namespaces::become_root()?;
        }
        // Whatever the container's first process has: the caller's keys are not for this one.
        process::new_session_keyring(&format!("_ses.{}", self.id))?;
        if !self.spec.has_namespace("mount") {
            return Err(Error::Unsupported { what: "exec without a mount namespace".into() });
        }
        if self.program.spec().terminal {
            hand_over(&own_terminal()?, self.console, self.program.spec().console_size.as_ref())?;
        }
        self.program.drop_privileges()?;
        Ok((self.program.find()?, label))
    }
}

/// A pseudo-terminal of the container's devpts: no link on the way, and truly a devpts.
fn own_terminal() -> Result<Pty> {
    const DEVPTS: i64 = 0x1cd1;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(/)".to_string())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let ptmx = Root::new(root).open_without_links(Path::new("/dev/pts/ptmx"), OFlags::PATH)?;
    let fs = rustix::fs::fstatfs(&ptmx).call(|| "fstatfs(/dev/pts/ptmx)".to_string())?;
    if fs.f_type != DEVPTS {
        let reason = "/dev/pts of the container is not a devpts".to_string();
        return Err(Error::Invalid { field: "process.terminal".into(), reason });
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(/)".to_string())?;
    Ok(Pty::new(Root::new(root).open_without_links(Path::new("/dev/pts/ptmx"), flags)?)?)
}
