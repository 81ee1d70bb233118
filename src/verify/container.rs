//! Throw-away containers that are looked at from outside.
//!
//! A [`ThrowAway`] is a bundle in a scratch folder, with no network but its own loopback and no new
//! privileges. Programs in it are started by executing this program, `run` for one that is the
//! container's first and `exec` for others: they are children of the thread that asks for them and end
//! with it. What they print is read up to a limit by threads of its own.

use super::check::{Check, Run, Words};
use super::{Error, Result};
use crate::bundle::{self, Bundle, Net, Origin, Settings};
use crate::rootfs;
use crate::run::{Container, Runtime, State, Status};
use crate::store::Store;
use crate::sys::{Call, process, signal};
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So much of what a program prints is kept; the rest is read and forgotten.
const MOST_OUTPUT: usize = 16 << 20;
/// How often is looked whether something has happened.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// How long a container may take to start.
const START: Duration = Duration::from_secs(30);

/// A bundle in which programs can run, one after the other.
#[derive(Debug)]
pub(super) struct ThrowAway {
    store: PathBuf,
    id: String,
    pub(super) bundle: Bundle,
}

/// What a program has printed so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    /// All of it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The error, where it is one of this program's.
    fn refusal(&self) -> Option<Error> {
        let bytes = self.bytes();
        let text = bytes.strip_prefix(b"error: ")?;
        Some(Error::Start(String::from_utf8_lossy(text).trim().to_string()))
    }

    /// Takes what comes out of `pipe`, on a thread of its own.
    fn take(&self, pipe: Option<impl Read + Send + 'static>) -> JoinHandle<()> {
        let kept = self.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            let Some(mut pipe) = pipe else { return };
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                let mut kept = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MOST_OUTPUT.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..n.min(room)]);
            }
        })
    }
}

/// A program that was started.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    readers: Vec<JoinHandle<()>>,
    stdout: Printed,
    stderr: Printed,
}

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code; none where it did not end in time.
    pub(super) code: Option<u8>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl ThrowAway {
    /// Makes a bundle of `origin`, with the program of `base` where `run` has none. To be called while this process has one thread.
    pub(super) fn new(store: &Store, origin: &Origin, base: &Settings, run: &Run) -> Result<Self> {
        let random = RandomState::new().hash_one(std::process::id());
        let id = format!("verify-{random:016x}");
        let env = run.env.iter().map(|(name, value)| format!("{name}={value}"));
        let settings = Settings {
            args: if run.args.is_empty() { base.args.clone() } else { run.args.clone() },
            env: base.env.iter().cloned().chain(env).collect(),
            user: run.user.clone().or_else(|| base.user.clone()),
            workdir: base.workdir.clone(),
            read_only: run.read_only,
            no_new_privileges: true,
            net: Net::None,
            hostname: Some("verify".to_string()),
            ..Settings::default()
        };
        let (driver, _) = rootfs::choose(store, &origin.source())?;
        let bundle = Bundle::throw_away(store, &id, origin, Some(driver), &settings)?;
        Ok(Self { store: store.root().to_path_buf(), id, bundle })
    }

    /// Runs `words` in place of its program, or without words that, until it ends or time is over.
    pub(super) fn run(&self, words: &[String], limit: Duration) -> Result<Ended> {
        self.start(words, false)?.end(limit, self)
    }

    /// Starts its program; both streams go into one.
    fn start(&self, words: &[String], merged: bool) -> Result<Program> {
        let mut command = self.command("run");
        command.arg("--bundle").arg(self.bundle.path()).arg(&self.id).arg("--").args(words);
        Program::start(command, merged)
    }

    fn command(&self, word: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--root").arg(&self.store).arg(word);
        command
    }

    fn container(&self) -> Result<Container> {
        Ok(Runtime::open(&self.store)?.get(&self.id)?)
    }

    /// Ends the container with its first process, where that has begun; before that it is another
    /// process's to make.
    fn stop(&self) {
        let Ok(container) = self.container() else { return };
        if matches!(container.status(), Ok((_, Status::Running | Status::Paused)))
            && let Err(e) = container.kill(libc::SIGKILL, false)
        {
            tracing::debug!("{e}");
        }
    }

    /// Takes all of it away.
    pub(super) fn remove(self) -> Result<()> {
        if let Ok(container) = self.container() {
            container.delete(true)?;
        }
        Ok(self.bundle.remove()?)
    }
}

/// What the `config.json` of the bundle in `folder` says of its process.
pub(super) fn process_of(folder: &Path) -> Result<Settings> {
    let spec = oci_spec::runtime::Spec::load(folder.join("config.json")).map_err(bundle::Error::Spec)?;
    let Some(process) = spec.process() else { return Ok(Settings::default()) };
    Ok(Settings {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        user: Some(format!("{}:{}", process.user().uid(), process.user().gid())),
        workdir: Some(process.cwd().clone()),
        ..Settings::default()
    })
}

impl Program {
    fn start(mut command: Command, merged: bool) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::ends_with_thread(&mut command);
        let mut child = command.spawn().call(|| "execve(/proc/self/exe)".to_string())?;
        let stdout = Printed::default();
        let stderr = if merged { stdout.clone() } else { Printed::default() };
        let readers = vec![stdout.take(child.stdout.take()), stderr.take(child.stderr.take())];
        Ok(Self { child, readers, stdout, stderr })
    }

    /// Its exit code, where it has ended.
    fn ended(&mut self) -> Result<Option<u8>> {
        let status = self.child.try_wait().call(|| "waitpid".to_string())?;
        Ok(status.map(|s| s.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)))
    }

    /// Waits for its end, or ends it and its container.
    fn end(mut self, limit: Duration, within: &ThrowAway) -> Result<Ended> {
        let begun = Instant::now();
        let mut code = self.ended()?;
        while code.is_none() && begun.elapsed() < limit && signal::pending().is_none() {
            std::thread::sleep(TICK);
            code = self.ended()?;
        }
        self.close(within);
        if signal::pending().is_some() {
            return Err(Error::Interrupted);
        }
        match self.stderr.refusal().filter(|_| code == Some(125)) {
            Some(e) => Err(e),
            None => Ok(Ended { code, stdout: self.stdout.bytes(), stderr: self.stderr.bytes() }),
        }
    }

    /// Ends it and its container, and sees that they have ended.
    fn close(&mut self, within: &ThrowAway) {
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            within.stop();
            if begun.elapsed() > START {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(TICK);
        }
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
    }
}

/// A container in which the image's own program runs.
#[derive(Debug)]
pub(super) struct Running<'a> {
    pub(super) inside: &'a ThrowAway,
    begun: Instant,
    program: Mutex<Program>,
    /// What it prints, both streams as they come.
    pub(super) log: Printed,
}

impl<'a> Running<'a> {
    /// Starts it, and waits until it runs, or has run.
    pub(super) fn start(inside: &'a ThrowAway) -> Result<Self> {
        let program = inside.start(&[], true)?;
        let log = program.stdout.clone();
        let begun = Instant::now();
        let running = Self { inside, begun, program: Mutex::new(program), log };
        while running.state().is_none() && matches!(running.ended(), Ok(None)) {
            if begun.elapsed() > START || signal::pending().is_some() {
                break;
            }
            std::thread::sleep(TICK);
        }
        if let Err(e) = running.ended() {
            running.stop();
            return Err(e);
        }
        Ok(running)
    }

    /// Its exit code, where it has ended and all is read that it has printed; why it could not be
    /// started, where that is so.
    pub(super) fn ended(&self) -> Result<Option<u8>> {
        let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        let code = program.ended()?;
        let code = code.filter(|_| program.readers.iter().all(JoinHandle::is_finished));
        match code {
            Some(125..=127) => self.log.refusal().map_or(Ok(code), Err),
            _ => Ok(code),
        }
    }

    /// Waits until it has run for so long, or has ended.
    pub(super) fn has_run(&self, time: Duration) {
        while self.begun.elapsed() < time && matches!(self.ended(), Ok(None)) && signal::pending().is_none() {
            std::thread::sleep(TICK);
        }
    }

    /// Its state, while it runs.
    pub(super) fn state(&self) -> Option<State> {
        self.inside.container().ok()?.state().ok().filter(|state| state.complete && state.pidfd().is_some())
    }

    /// The ids of its processes on the host: those of its pid namespace, since an ordinary user's
    /// container may have no control group.
    pub(super) fn processes(&self) -> Vec<i32> {
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(own) = self.state().and_then(|s| namespace(s.process?.pid)) else { return Vec::new() };
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| namespace(*pid).as_ref() == Some(&own)).collect()
    }

    /// The container itself.
    pub(super) fn container(&self) -> Result<Container> {
        self.inside.container()
    }

    /// Runs `words` in it, as the check says.
    pub(super) fn exec(&self, words: &Words, check: &Check, limit: Duration) -> Result<Ended> {
        let mut command = self.inside.command("exec");
        for (name, value) in check.env.iter().flatten() {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        if let Some(user) = check.as_.as_ref().filter(|_| check.command.is_some()) {
            command.arg("--user").arg(user);
        }
        command.arg("--no-new-privs").arg(&self.inside.id).arg("--").args(words);
        let mut program = Program::start(command, false)?;
        let begun = Instant::now();
        while program.ended()?.is_none() && begun.elapsed() < limit && signal::pending().is_none() {
            std::thread::sleep(TICK);
        }
        if program.ended()?.is_none() {
            let _ = program.child.kill();
            let stdout = program.stdout.bytes();
            // A process of its own may hold the pipes; it goes with the container.
            return Ok(Ended { code: None, stdout, stderr: program.stderr.bytes() });
        }
        program.end(limit, self.inside)
    }

    /// Ends it.
    pub(super) fn stop(self) {
        self.program.into_inner().unwrap_or_else(PoisonError::into_inner).close(self.inside);
    }
}
