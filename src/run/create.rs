//! `create` and `run`: from a bundle to a process that waits for its start, and on.

use super::cgroup::{self, Cgroup};
use super::idmap::{self, Idmaps};
use super::init::{Init, has_runtime_hooks};
use super::keeper::Streams;
use super::lifecycle::{Container, Held, Runtime, end};
use super::namespaces::{self, Plan};
use super::process::Program;
use super::state::{self, ProcessId, State, Status};
use super::sync::{Channel, Tag};
use super::watch;
use super::{Error, Notify, Result, Sockets, hooks, io_error, network, notify, reaper, spec::Spec};
use crate::sys::process::{Child, CloneOptions, Fork, clone3, exit_now};
use crate::sys::{Call, systemd};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a container is made from.
#[derive(Debug, Default, Clone)]
pub struct Launch {
    /// The container's name.
    pub id: String,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Another file than the bundle's `config.json`.
    pub config: Option<PathBuf>,
    /// Program and arguments instead of the bundle's.
    pub args: Vec<String>,
    /// Whether the program gets a terminal, instead of what the bundle says.
    pub terminal: Option<bool>,
    /// A unix socket that takes the terminal.
    pub console_socket: Option<PathBuf>,
    /// Takes the process id.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors after the standard streams the program gets.
    pub preserve_fds: u32,
    /// Sockets of a service manager, before those.
    pub sockets: Sockets,
    /// The service manager that is to hear when it is ready; for [`Launch::create`].
    pub notify: Option<Notify>,
    /// Move the root instead of pivoting it.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How long [`Launch::run`] lets it run.
    pub timeout: Option<Duration>,
    /// Have systemd make the control groups.
    pub systemd_cgroup: bool,
}

/// A container that waits for its start, its first process a child of this one.
#[derive(Debug)]
pub struct Running {
    /// The container.
    pub held: Held,
    /// Its first process.
    pub child: Child,
}

/// How a container is made.
#[derive(Default)]
pub struct Manner {
    /// Whether it ends with this process.
    pub tied: bool,
    /// Whether this process, or whoever finds it gone, takes it away at the end.
    pub remove: bool,
    /// Its standard streams, instead of this process's.
    pub streams: Option<Streams>,
    /// Takes the driving end of its terminal.
    pub console: Option<OwnedFd>,
}

/// The two ends of how init is told to start and how it tells what went wrong.
pub struct Gate {
    /// Init's end of the one.
    pub start: OwnedFd,
    /// Init's end of the other.
    pub report: OwnedFd,
}

/// Everything known before anything is made.
pub struct Prepared {
    /// config.json, with what is asked for beside it.
    pub spec: Spec,
    text: Vec<u8>,
    bundle: PathBuf,
    rootfs: PathBuf,
    /// What it runs.
    pub program: Program,
    plan: Plan,
    /// Its control groups.
    pub cgroup: Cgroup,
    network: network::Plan,
    idmaps: Idmaps,
}

impl Prepared {
    /// Makes the control groups, with the limits.
    fn make_groups(&self) -> Result<()> {
        self.cgroup.create(&self.spec.linux.resources)?;
        self.cgroup.hand_over(&self.spec, self.program.spec().user.uid)
    }
}

impl Launch {
    /// Creates the container; its first process waits for [`Container::start`].
    ///
    /// # Errors
    /// What is wrong with the bundle, or the call that failed; nothing is left then.
    pub fn create(&self, runtime: &Runtime) -> Result<Container> {
        let held = runtime.reserve(&self.id)?;
        let prepared = self.prepare(runtime)?;
        let terminal = prepared.program.spec().terminal;
        let invalid = |reason: &str| {
            Err(Error::Invalid { field: "process.terminal".into(), reason: reason.to_string() })
        };
        let console = match (&self.console_socket, terminal) {
            (None, true) => return invalid("a terminal needs --console-socket here"),
            (Some(_), false) => return invalid("--console-socket without a terminal"),
            (None, false) => None,
            (Some(path), true) => Some(io_error("connect to", path, UnixStream::connect(path))?.into()),
        };
        let manner = Manner { console, ..Manner::default() };
        Ok(self.launch(&prepared, held, manner, None)?.held.keep())
    }

    /// The config.json that counts, with the program and the terminal that are asked for.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`].
    pub fn text(&self) -> Result<Vec<u8>> {
        let (path, text) = self.config()?;
        let mut config: serde_json::Value =
            serde_json::from_slice(&text).map_err(|source| Error::Config { path, source })?;
        if !self.args.is_empty() {
            config["process"]["args"] = self.args.clone().into();
        }
        if let Some(terminal) = self.terminal {
            config["process"]["terminal"] = terminal.into();
        }
        Ok(format!("{config:#}\n").into_bytes())
    }

    /// How many descriptors after the standard streams the program gets.
    fn passed_on(&self) -> u32 {
        self.sockets.before(self.preserve_fds)
    }

    pub(super) fn wants_terminal(&self) -> bool {
        let config = self.config().ok().and_then(|(_, text)| Spec::parse(&text).ok());
        config.and_then(|c| c.process).is_some_and(|p| p.terminal)
    }

    fn config(&self) -> Result<(PathBuf, Vec<u8>)> {
        let path = self.config.clone().unwrap_or_else(|| self.bundle.join("config.json"));
        let text = io_error("read", &path, std::fs::read(&path))?;
        Ok((path, text))
    }

    /// Reads and checks everything.
    pub(super) fn prepare(&self, runtime: &Runtime) -> Result<Prepared> {
        state::check_preserved(self.passed_on())?;
        let bundle = io_error("open bundle", &self.bundle, self.bundle.canonicalize())?;
        let (path, text) = self.config()?;
        let mut spec = Spec::parse(&text).map_err(|source| Error::Config { path, source })?;
        if let Some(process) = spec.process.as_mut().filter(|_| !self.args.is_empty()) {
            process.args.clone_from(&self.args);
        }
        if let (Some(process), Some(terminal)) = (&mut spec.process, self.terminal) {
            process.terminal = terminal;
        }
        if let Some(process) = &mut spec.process {
            self.sockets.tell(&mut process.env);
            if self.notify.is_some() {
                process.env.push(notify::variable());
                spec.mounts.push(notify::mount(&runtime.folder(&self.id)));
            }
        }
        for mount in &mut spec.mounts {
            // Relative ones, as old tools have them, are below the root.
            mount.destination = Path::new("/").join(&mount.destination);
        }
        spec.check()?;
        let network = network::Plan::new(&mut spec, runtime)?;
        reaper::is_wanted(&spec)?;
        let root = spec.root.as_ref().map(|r| bundle.join(&r.path)).unwrap_or_default();
        let rootfs = io_error("open root filesystem", &root, root.canonicalize())?;
        if !rootfs.is_dir() {
            let reason = format!("{} is not a folder", rootfs.display());
            return Err(Error::Invalid { field: "root.path".into(), reason });
        }
        let program = Program::new(spec.process.clone(), &spec.linux, self.passed_on())?;
        let plan = Plan::new(&spec)?;
        network.joined()?;
        let by_systemd = self.systemd_cgroup || runtime.systemd();
        if by_systemd && !systemd::is_there() {
            return Err(Error::Unsupported { what: "cgroup manager systemd".into() });
        }
        let name = runtime.group_name(&self.id);
        let cgroup = Cgroup::plan(&spec.linux.cgroups_path, &name, by_systemd)?;
        let idmaps = idmap::prepare(&spec, &bundle)?;
        Ok(Prepared { spec, text, bundle, rootfs, program, plan, cgroup, network, idmaps })
    }

    /// Makes the container, whose first process waits at `gate`; nothing is left where that fails.
    ///
    /// # Errors
    /// The call that failed.
    pub(super) fn launch(
        &self,
        prepared: &Prepared,
        held: Held,
        manner: Manner,
        gate: Option<Gate>,
    ) -> Result<Running> {
        let mut state = State {
            id: self.id.clone(),
            bundle: prepared.bundle.clone(),
            rootfs: prepared.rootfs.clone(),
            created: state::now(),
            complete: false,
            owned: manner.remove,
            process: None,
            keeper: None,
            exit: None,
            finished: None,
            health: None,
            cgroups: prepared.cgroup.paths(),
            own_cgroups: prepared.cgroup.new_paths(),
            unit: prepared.cgroup.unit().map(|unit| unit.name.clone()),
            network: None,
            annotations: prepared.spec.annotations.clone(),
        };
        let mut child = None;
        let result = self.make(held.container(), prepared, &mut state, &manner, gate, &mut child);
        // The receiver is to notice where init has not sent anything.
        drop(manner);
        match (result, child) {
            (Ok(()), Some(child)) => Ok(Running { held, child }),
            (result, child) => {
                if let Some(child) = child {
                    if let Err(e) = end(&self.id, &child.pidfd, &state.cgroups) {
                        held.keep();
                        return Err(e);
                    }
                    let _ = watch::reap(child.pidfd.as_fd());
                }
                drop(held);
                let gone =
                    || Error::Init { message: "no process".into(), kind: crate::error::Kind::Internal };
                Err(result.err().unwrap_or_else(gone))
            }
        }
    }

    fn make(
        &self,
        container: &Container,
        p: &Prepared,
        state: &mut State,
        manner: &Manner,
        gate: Option<Gate>,
        made: &mut Option<Child>,
    ) -> Result<()> {
        let dir = container.dir();
        state.write(dir)?;
        let config = dir.join("config.json");
        io_error("write", &config, std::fs::write(&config, &p.text))?;
        if self.notify.is_some() {
            let folder = notify::folder(dir);
            io_error("create", &folder, std::fs::create_dir(&folder))?;
        }
        let resources = &p.spec.linux.resources;
        let unit = p.cgroup.unit();
        if unit.is_none() {
            p.make_groups()?;
        }
        let files = p.network.files(&p.spec, &self.id, dir)?;
        let gate = gate.map_or_else(|| fifos(dir), Ok)?;
        let (ours, theirs) = Channel::pair()?;
        let document = state.document(Status::Creating);
        let init = Init {
            spec: &p.spec,
            id: &self.id,
            bundle: &p.bundle,
            rootfs: &p.rootfs,
            cgroup: &p.cgroup,
            idmaps: &p.idmaps,
            program: &p.program,
            streams: manner.streams.as_ref(),
            console: manner.console.as_ref(),
            network: &p.network,
            files: &files,
            start: &gate.start,
            report: &gate.report,
            state: &document,
            tied: manner.tied,
            no_pivot: self.no_pivot,
            keep_keyring: self.no_new_keyring,
        };
        let group = if unit.is_none() { p.cgroup.open_v2()? } else { None };
        let mut keep = vec![theirs.number(), gate.start.as_raw_fd(), gate.report.as_raw_fd()];
        keep.extend(manner.console.as_ref().map(AsRawFd::as_raw_fd));
        keep.extend(manner.streams.iter().flatten().map(AsRawFd::as_raw_fd));
        keep.extend(files.numbers());
        keep.extend(idmap::numbers(&p.idmaps));
        let options = CloneOptions {
            flags: p.plan.clone_flags,
            cgroup: group.as_ref().map(AsFd::as_fd),
            keep: Some(&keep),
            preserve: self.passed_on(),
        };
        let child = fork(&p.plan, options, &ours, theirs, &init)?;
        drop(gate);
        let child = made.insert(child);
        let pid = child.pid;
        state.process = Some(ProcessId::of(pid)?);
        if p.spec.new_namespace("user") {
            namespaces::write_maps(pid, &p.spec.linux.uid_mappings, &p.spec.linux.gid_mappings)?;
            ours.send(Tag::Mapped, &[])?;
        }
        if let Some(adjustment) = p.program.spec().oom_score_adj {
            let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
            io_error("write", &path, std::fs::write(&path, adjustment.to_string()))?;
        }
        let told = p.network.attach(&p.spec, state, dir, pid)?;
        if let Some(unit) = unit {
            state.write(dir)?;
            entered(unit.start(&self.id, child, resources), &ours)?;
            p.make_groups()?;
        }
        entered(cgroup::enter_v1(&state.cgroups, pid), &ours)?;
        ours.send(Tag::Grouped, &told)?;
        if has_runtime_hooks(&p.spec) {
            ours.expect(Tag::Mounted)?;
            state.write(dir)?;
            let document = state.document(Status::Creating);
            hooks::run("prestart", &p.spec.hooks.prestart, &document)?;
            hooks::run("createRuntime", &p.spec.hooks.create_runtime, &document)?;
            ours.send(Tag::Hooked, &[])?;
        }
        if let Some(agent) = p.program.listener() {
            agent.send(&ours, child, &state.document(Status::Creating))?;
        }
        ours.expect(Tag::Ready)?;
        state.complete = true;
        state.write(dir)?;
        self.pid_file.as_deref().map_or(Ok(()), |path| write_pid(path, pid))
    }
}

/// A process that failed early cannot be moved any more; what it has to say counts then.
fn entered(result: Result<()>, channel: &Channel) -> Result<()> {
    match result {
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {
            channel.expect(Tag::Ready).map(drop)
        }
        other => other,
    }
}

/// Copies this process into new namespaces. Where existing ones are joined, a process in
/// between does that, so that this one stays where it is; the copy is this one's child all
/// the same (`CLONE_PARENT`).
///
/// # Errors
/// The failed call; what the process in between reports.
fn fork(
    plan: &Plan,
    mut options: CloneOptions,
    ours: &Channel,
    theirs: Channel,
    init: &Init,
) -> Result<Child> {
    if plan.joins.is_empty() {
        return match clone3(options)? {
            Fork::Child => init.run(&theirs),
            Fork::Parent(child) => Ok(child),
        };
    }
    let helper = match clone3(CloneOptions::default())? {
        Fork::Parent(helper) => helper,
        Fork::Child => {
            options.flags |= u64::from(libc::CLONE_PARENT.unsigned_abs());
            let joined = plan.join().and_then(|()| Ok(clone3(options)?));
            match joined {
                Ok(Fork::Child) => init.run(&theirs),
                Ok(Fork::Parent(child)) => {
                    let _ = theirs.send(Tag::Pid, &child.pid.to_ne_bytes());
                }
                Err(e) => theirs.fail(&e),
            }
            exit_now(0)
        }
    };
    // Its end must be noticed.
    drop(theirs);
    let answer = ours.expect(Tag::Pid);
    watch::reap(helper.pidfd.as_fd())?;
    let pid = answer?.try_into().map_or(0, i32::from_ne_bytes);
    let known = Pid::from_raw(pid).ok_or(Errno::SRCH);
    let pidfd =
        known.and_then(|p| pidfd_open(p, PidfdFlags::empty())).call(|| format!("pidfd_open({pid})"))?;
    Ok(Child { pid, pidfd })
}

/// The id of a container that is named after the folder of its bundle.
#[must_use]
pub fn id_of(bundle: &Path) -> String {
    let real = bundle.canonicalize().unwrap_or_else(|_| bundle.to_path_buf());
    real.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// The ends of a new pipe, to read and to write.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call(|| "pipe2".to_string())?)
}

/// The fifos that a later `start` opens by name; open for both ends, so that none waits.
fn fifos(dir: &Path) -> Result<Gate> {
    let open = |name: &str| -> Result<OwnedFd> {
        let path = dir.join(name);
        let call = || format!("fifo {}", path.display());
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).call(call)?;
        Ok(rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).call(call)?)
    };
    Ok(Gate { start: open("start")?, report: open("report")? })
}

/// Reads to the end.
pub(super) fn read_all(fd: &OwnedFd) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut buffer = [0u8; 8192];
    loop {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => return Ok(out),
            Ok(n) => out.extend(&buffer[..n]),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Ok(Err(e).call(|| "read(report)".to_string())?),
        }
    }
}

/// Writes a process id, at once or not at all.
pub(super) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    io_error("write", path, std::fs::write(&new, pid.to_string()))?;
    io_error("write", path, std::fs::rename(&new, path))
}
