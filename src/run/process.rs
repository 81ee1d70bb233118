//! A program about to be executed in a container: what it gives up, and the execve.

use super::{
    Error, Result, caps::Sets, listener::Listener, reaper::Reaper, seccomp::Filter, sockets, spec, why,
};
use crate::bundle::users;
use crate::sys::inroot::Root;
use crate::sys::{Call, process, signal};
use rustix::fd::OwnedFd;
use rustix::fs::{Access, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread as t;
use std::cell::OnceCell;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Everything about a program that can be worked out before the process for it is there.
#[derive(Debug)]
pub struct Program {
    spec: spec::Process,
    args: Vec<CString>,
    env: Vec<CString>,
    home: OnceCell<CString>,
    sets: Sets,
    rlimits: Vec<(Resource, Rlimit)>,
    filter: Option<Filter>,
    listener: Option<Listener>,
    label: Option<String>,
    persona: Option<u64>,
    preserve: u32,
}

impl Program {
    /// Works it out; descriptors 3 up to `preserve` more are left open for it. Without a
    /// `process` there is nothing to execute, and no privilege is kept.
    ///
    /// # Errors
    /// What makes no sense or is not there on this machine.
    pub fn new(process: Option<spec::Process>, linux: &spec::Linux, preserve: u32) -> Result<Self> {
        process.as_ref().map_or(Ok(()), spec::Process::check)?;
        let process = process.unwrap_or_default();
        let c_strings = |list: &[String]| -> Vec<CString> {
            list.iter().map(|s| CString::new(s.as_bytes()).unwrap_or_default()).collect()
        };
        let wanted = process.capabilities.clone().unwrap_or_default();
        let filter = linux.seccomp.as_ref().map(Filter::compile).transpose()?;
        let profile = linux.seccomp.as_ref().filter(|_| filter.as_ref().is_some_and(|f| f.notifies));
        Ok(Self {
            args: c_strings(&process.args),
            env: c_strings(&process.env),
            home: OnceCell::new(),
            sets: Sets::resolve(&wanted)?,
            rlimits: process.rlimits.iter().map(limit).collect::<Result<_>>()?,
            filter,
            listener: profile.map(Listener::new).transpose()?,
            label: label(&process)?,
            persona: linux.personality.as_ref().map(persona).transpose()?,
            preserve,
            spec: process,
        })
    }

    /// Its description.
    #[must_use]
    pub fn spec(&self) -> &spec::Process {
        &self.spec
    }

    /// The agent that is to decide on some of its system calls.
    #[must_use]
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Adds a capability to what the program gets.
    ///
    /// # Errors
    /// The failed capget(2) call.
    pub fn add_capability(&mut self, name: &str) -> Result<()> {
        self.sets.add(name)
    }

    /// Opens the file that takes the security label for the next execve; on the host's procfs,
    /// before the container's is in sight.
    ///
    /// # Errors
    /// The failed open(2) call.
    pub fn open_label(&self) -> Result<Option<OwnedFd>> {
        let Some(_) = &self.label else { return Ok(None) };
        let path = "/proc/thread-self/attr/exec";
        let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        Ok(Some(fd.call(|| format!("open({path})"))?))
    }

    /// Gives up everything that the program is not to have, in the container's root.
    ///
    /// # Errors
    /// The failed call.
    pub fn drop_privileges(&self) -> Result<()> {
        self.change_directory()?;
        self.find_home()?;
        for (resource, limit) in &self.rlimits {
            rustix::process::setrlimit(*resource, *limit)
                .call(|| format!("setrlimit({resource:?}, {limit:?})"))?;
        }
        if let Some(priority) = &self.spec.io_priority {
            let class = super::priority::io_class(&priority.class).unwrap_or_default();
            process::io_priority(class, priority.priority)?;
        }
        if let Some(scheduler) = &self.spec.scheduler {
            process::scheduler(&super::priority::scheduler(scheduler)?)?;
        }
        if let Some(persona) = self.persona {
            process::personality(persona)?;
        }
        if self.spec.no_new_privileges {
            t::set_no_new_privs(true).call(|| "prctl(SET_NO_NEW_PRIVS)".to_string())?;
        } else {
            self.load_filter()?;
        }
        self.sets.cut_bounding()?;
        t::set_keep_capabilities(true).call(|| "prctl(SET_KEEPCAPS)".to_string())?;
        self.change_user()?;
        t::set_keep_capabilities(false).call(|| "prctl(SET_KEEPCAPS)".to_string())?;
        self.sets.apply()?;
        rustix::process::umask(Mode::from_raw_mode(self.spec.user.umask.unwrap_or(0o022)));
        if self.spec.no_new_privileges && self.listener.is_some() {
            // The parent is still there to send what the agent needs.
            self.load_filter()?;
        }
        Ok(())
    }

    /// Finds out what HOME is where the environment has none: what the container's passwd file
    /// says, as other runtimes have it.
    fn find_home(&self) -> Result<()> {
        if self.env.iter().any(|v| v.as_bytes().strip_prefix(b"HOME=").is_some_and(|home| !home.is_empty())) {
            return Ok(());
        }
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .call(|| "open(/)".to_string())?;
        let home = users::home(&Root::new(root), self.spec.user.uid);
        let home = CString::new(format!("HOME={}", home.as_deref().unwrap_or("/"))).unwrap_or_default();
        let _ = self.home.set(home);
        Ok(())
    }

    fn load_filter(&self) -> Result<()> {
        let Some(filter) = &self.filter else { return Ok(()) };
        match &self.listener {
            Some(agent) => agent.give(process::load_seccomp_listening(&filter.program, filter.flags)?),
            None => process::load_seccomp(&filter.program, filter.flags)?,
        }
        Ok(())
    }

    /// Enters the working directory: never through a magic link of procfs, never outside.
    fn change_directory(&self) -> Result<()> {
        let cwd = &self.spec.cwd;
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .call(|| "open(/)".to_string())?;
        let dir = Root::new(root).open(cwd, OFlags::PATH | OFlags::DIRECTORY)?;
        rustix::process::fchdir(&dir).call(|| format!("fchdir({})", cwd.display()))?;
        let real = rustix::process::getcwd(Vec::new()).call(|| "getcwd".to_string())?;
        if !real.as_bytes().starts_with(b"/") {
            let reason = format!("{} is outside of the container", cwd.display());
            return Err(Error::Invalid { field: "process.cwd".into(), reason });
        }
        Ok(())
    }

    fn change_user(&self) -> Result<()> {
        let user = &self.spec.user;
        own_streams(user.uid);
        let groups: Vec<Gid> = user.additional_gids.iter().map(|g| Gid::from_raw(*g)).collect();
        match t::set_thread_groups(&groups) {
            // Denied in a user namespace without privileges, where there are none to lose and none to get.
            Err(Errno::PERM) if user.additional_gids.iter().all(|g| *g == user.gid) => {}
            other => other.call(|| format!("setgroups({:?})", user.additional_gids))?,
        }
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        t::set_thread_res_gid(gid, gid, gid).call(|| format!("setresgid({})", user.gid))?;
        t::set_thread_res_uid(uid, uid, uid).call(|| format!("setresuid({})", user.uid))?;
        Ok(())
    }

    /// Where the program is, as seen by its user.
    ///
    /// # Errors
    /// [`Error::Exec`].
    pub fn find(&self) -> Result<CString> {
        let Some(name) = self.spec.args.first() else { return Ok(CString::default()) };
        let failed =
            |reason: &str, code| Err(Error::Exec { program: name.clone(), reason: reason.to_string(), code });
        if name.contains('/') {
            return match executable(Path::new(name)) {
                Ok(()) => Ok(self.args[0].clone()),
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    failed(&format!("stat {name}: no such file or directory"), 127)
                }
                Err(e) => failed(&denial(Path::new(name), e), 126),
            };
        }
        let path = self.spec.env.iter().rev().find_map(|v| v.strip_prefix("PATH=")).unwrap_or("");
        let mut denied = None;
        for dir in path.split(':') {
            let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
            match executable(&candidate) {
                Ok(()) => {
                    return Ok(
                        CString::new(candidate.into_os_string().into_encoded_bytes()).unwrap_or_default()
                    );
                }
                Err(Errno::ACCESS) if denied.is_none() => denied = Some(candidate),
                Err(_) => {}
            }
        }
        match denied {
            Some(path) => failed(&format!("{}: {}", path.display(), denial(&path, Errno::ACCESS)), 126),
            None => failed("executable file not found in $PATH", 127),
        }
    }

    /// Executes the program at `path`, or the init process that it is to be the child of;
    /// returns only to say why it did not.
    #[must_use]
    pub fn execute(&self, path: &CString, label: Option<&OwnedFd>, reaper: Option<&Reaper>) -> Error {
        match self.last_steps(label) {
            Ok(()) => {}
            Err(e) => return e,
        }
        let mut env = self.env.clone();
        if let Some(home) = self.home.get() {
            env.retain(|v| v.as_bytes() != b"HOME=");
            env.push(home.clone());
        }
        for told in env.iter_mut().filter(|v| v.as_bytes() == sockets::PID.as_bytes()) {
            *told = CString::new(sockets::own_pid()).unwrap_or_default();
        }
        let program = self.spec.args.first().map_or("", String::as_str);
        match reaper {
            None => refused(program, path, process::execve(path, &self.args, &env)),
            Some(reaper) => {
                let errno = reaper.execute(path, &self.args, &env);
                Error::Exec { program: "init".into(), reason: text(errno), code: 126 }
            }
        }
    }

    fn last_steps(&self, label: Option<&OwnedFd>) -> Result<()> {
        if let (Some(fd), Some(label)) = (label, &self.label) {
            match rustix::io::write(fd, label.as_bytes()) {
                Err(Errno::NOENT) => {
                    let reason = format!("the kernel knows no profile {:?}", self.spec.apparmor_profile);
                    return Err(Error::Invalid { field: "process.apparmorProfile".into(), reason });
                }
                other => other.call(|| format!("write(attr/exec, {label:?})"))?,
            };
        }
        signal::reset();
        process::close_on_exec_from(3)?;
        for number in 3..3 + i32::try_from(self.preserve).unwrap_or(0) {
            let _ = process::keep_on_exec(number);
        }
        if self.spec.no_new_privileges && self.listener.is_none() {
            self.load_filter()?;
        }
        Ok(())
    }
}

/// Why `program`, which is at `path`, could not be executed.
pub(super) fn refused(program: &str, path: &CString, errno: Errno) -> Error {
    let code = if errno == Errno::NOENT { 127 } else { 126 };
    let why = why::explain(Path::new(OsStr::from_bytes(path.as_bytes())), errno);
    let reason = why.map_or_else(|| text(errno), |why| format!("{}: {why}", text(errno)));
    Error::Exec { program: program.to_string(), reason, code }
}

pub(super) fn text(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "no such file or directory".into(),
        Errno::ACCESS => "permission denied".into(),
        Errno::NOEXEC => "exec format error".into(),
        e => std::io::Error::from(e).to_string(),
    }
}

/// Why what is at `path` is not executed, by its type and mode.
fn denial(path: &Path, errno: Errno) -> String {
    let stat = rustix::fs::stat(path).ok();
    match (errno, stat.map(|s| (FileType::from_raw_mode(s.st_mode), s.st_mode & 0o7777))) {
        (Errno::ISDIR, _) => "is a directory".to_string(),
        (Errno::ACCESS, Some((FileType::RegularFile, mode))) if mode & 0o111 == 0 => {
            format!("permission denied: not executable, its mode is {mode:04o}")
        }
        (Errno::ACCESS, Some((kind, _))) if kind != FileType::RegularFile => {
            "permission denied: not a regular file".to_string()
        }
        _ => text(errno),
    }
}

fn executable(path: &Path) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Err(Errno::ISDIR),
        FileType::RegularFile => rustix::fs::access(path, Access::EXEC_OK),
        _ => Err(Errno::ACCESS),
    }
}

/// Pipes among the standard streams become the user's, so that `/dev/stdout` can be opened
/// again; files and devices of the host stay what they are.
fn own_streams(uid: u32) {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let terminal = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (136..144).contains(&rustix::fs::major(stat.st_rdev));
        let pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
        if (pipe || terminal) && stat.st_uid != uid {
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

fn limit(rlimit: &spec::Rlimit) -> Result<(Resource, Rlimit)> {
    let resource = match rlimit.kind.as_str() {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        other => {
            let reason = format!("unknown type {other:?}");
            return Err(Error::Invalid { field: "process.rlimits".into(), reason });
        }
    };
    let value = |n: u64| (n != u64::MAX).then_some(n);
    Ok((resource, Rlimit { current: value(rlimit.soft), maximum: value(rlimit.hard) }))
}

/// What the kernel takes as a label for the next execve.
fn label(process: &spec::Process) -> Result<Option<String>> {
    let enabled = |path| std::fs::read_to_string(path).is_ok_and(|t| t.starts_with('Y'));
    if !process.apparmor_profile.is_empty() && process.apparmor_profile != "unconfined" {
        if !enabled("/sys/module/apparmor/parameters/enabled") {
            let what = format!(
                "process.apparmorProfile {:?} without AppArmor in the kernel",
                process.apparmor_profile
            );
            return Err(Error::Unsupported { what });
        }
        return Ok(Some(format!("exec {}", process.apparmor_profile)));
    }
    if !process.selinux_label.is_empty() {
        if !has_selinux() {
            let what =
                format!("process.selinuxLabel {:?} without SELinux in the kernel", process.selinux_label);
            return Err(Error::Unsupported { what });
        }
        return Ok(Some(process.selinux_label.clone()));
    }
    Ok(None)
}

/// Whether the kernel has `SELinux` at work.
#[must_use]
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn persona(personality: &spec::Personality) -> Result<u64> {
    if let Some(flag) = personality.flags.first() {
        let reason = format!("unknown flag {flag:?}");
        return Err(Error::Invalid { field: "linux.personality".into(), reason });
    }
    match personality.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => {
            let reason = format!("unknown domain {other:?}");
            Err(Error::Invalid { field: "linux.personality".into(), reason })
        }
    }
}
