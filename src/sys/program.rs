//! External programs: run one, get its output or an error that shows the command.

use super::{Call, Error, Result};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How much of a failed program's standard error goes into the error, in bytes.
const STDERR_TAIL: usize = 2000;

/// Runs `program` with `args` in the C locale, without standard input; gives its standard output.
///
/// # Errors
/// [`Error::NoProgram`] where it is not installed, [`Error::Program`] where it fails.
pub fn output<A: AsRef<OsStr>>(program: &str, args: &[A]) -> Result<Vec<u8>> {
    let mut command = command(program);
    command.args(args).env("LC_ALL", "C").stdin(Stdio::null());
    finish(program, args, &mut command)
}

/// A program that goes into the background by itself when it is ready.
#[derive(Debug)]
pub struct Background<'a> {
    /// What is executed.
    pub program: &'a str,
    /// The first word of its command line.
    pub name: &'a str,
    /// The others.
    pub args: &'a [String],
    /// What it has as standard input and output, or /dev/null.
    pub files: [Option<File>; 2],
}

impl Background<'_> {
    /// The file into which it is to write its process id, its standard error, in memory.
    pub const PID_FILE: &'static str = "/proc/self/fd/2";

    /// Runs it; gives its process id in the background. It gets nothing else of this process.
    ///
    /// # Errors
    /// As [`output`], also where it tells no process id; the failed call where there is no room for its errors.
    pub fn start(self) -> Result<i32> {
        let mut errors = in_memory("errors")?;
        let copy = errors.try_clone().call(|| "dup".to_string())?;
        let [input, output] = self.files.map(|file| file.map_or_else(Stdio::null, Stdio::from));
        let mut command = command(self.program);
        command.arg0(self.name).args(self.args).env("LC_ALL", "C").stdin(input).stdout(output).stderr(copy);
        let status = command.status().map_err(|e| spawn_error(self.program, &e))?;
        let mut bytes = Vec::new();
        errors.rewind().and_then(|()| errors.read_to_end(&mut bytes)).call(|| "read(errors)".to_string())?;
        let text = String::from_utf8_lossy(&bytes);
        // What it has said before is gone, what it has said since follows.
        match text.lines().next().map(str::parse) {
            Some(Ok(pid)) if status.success() => Ok(pid),
            _ => Err(failure(self.program, self.args, status, &text)),
        }
    }
}

/// A file in memory.
fn in_memory(name: &str) -> Result<File> {
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC);
    Ok(File::from(fd.call(|| "memfd_create".to_string())?))
}

/// As [`output`], with `input` on its standard input, which is a file in memory: no thread has to
/// feed a pipe.
///
/// # Errors
/// As [`output`]; the failed call where there is no room for the file.
pub fn fed<A: AsRef<OsStr>>(program: &str, args: &[A], input: &[u8]) -> Result<Vec<u8>> {
    let mut file = in_memory("input")?;
    file.write_all(input).and_then(|()| file.rewind()).call(|| "write(input)".to_string())?;
    let mut command = command(program);
    command.args(args).env("LC_ALL", "C").stdin(file);
    finish(program, args, &mut command)
}

/// As [`output`], with what `write` writes on its standard input, and `SOURCE_DATE_EPOCH` set to
/// `time`.
///
/// # Errors
/// As [`output`]; the failed call where `write` fails though the program does not.
pub fn piped<A: AsRef<OsStr>>(
    program: &str,
    args: &[A],
    time: i64,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let mut said = in_memory("stderr")?;
    let errors = said.try_clone().call(|| "dup".to_string())?;
    let mut command = command(program);
    command.args(args).env("LC_ALL", "C").env("SOURCE_DATE_EPOCH", time.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors);
    let mut child = command.spawn().map_err(|e| spawn_error(program, &e))?;
    let written = match child.stdin.take() {
        Some(input) => {
            let mut input = BufWriter::with_capacity(256 << 10, input);
            write(&mut input).and_then(|()| input.flush())
        }
        None => Ok(()),
    };
    if written.is_err() {
        // It would take what it has got for the whole.
        let _ = child.kill();
    }
    let status = child.wait().call(|| format!("wait({program:?})"))?;
    let broken = written.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
    if (written.is_ok() && !status.success()) || broken {
        let mut text = String::new();
        let read = said.rewind().and_then(|()| said.read_to_string(&mut text));
        read.call(|| "read(stderr)".to_string())?;
        return Err(failure(program, args, status, &text));
    }
    written.call(|| format!("write(input of {program:?})"))
}

/// Runs `program` with `args` and `env` on top of this process's environment, without standard
/// input; gives each line of its standard output and standard error to `line` and, at the end, how
/// it ended.
///
/// # Errors
/// [`Error::NoProgram`] where it is not installed, [`Error::Syscall`] where it cannot be talked to.
pub fn told(
    program: &str,
    args: &[&str],
    env: &[(&str, &str)],
    line: &mut dyn FnMut(&str),
) -> Result<ExitStatus> {
    let (read, write) = std::io::pipe().call(|| "pipe2()".to_string())?;
    let again = write.try_clone().call(|| "dup".to_string())?;
    let mut command = command(program);
    command.args(args).envs(env.iter().copied()).stdin(Stdio::null()).stdout(write).stderr(again);
    let mut child = command.spawn().map_err(|e| spawn_error(program, &e))?;
    drop(command);
    let mut text = BufReader::new(read);
    let mut bytes = Vec::new();
    while matches!(text.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
        line(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
        bytes.clear();
    }
    child.wait().call(|| format!("wait({program:?})"))
}

/// Whether the kernel itself runs this program, and it ends with success. No emulator can open it.
///
/// # Errors
/// The failed call, also where the kernel does not know the format.
pub fn runs(program: &[u8]) -> Result<bool> {
    let mut file = in_memory("program")?;
    file.write_all(program).call(|| "write(program)".to_string())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let status = Command::new(&path).stdin(Stdio::null()).status();
    Ok(status.call(|| format!("execve({path})"))?.success())
}

/// To run `program`, which is also looked for where an ordinary user's `PATH` does not lead.
pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    command.env("PATH", path);
    command
}

/// Runs `command`, which is `program` with `args`; gives its standard output.
///
/// # Errors
/// As [`output`].
pub(super) fn finish<A: AsRef<OsStr>>(program: &str, args: &[A], command: &mut Command) -> Result<Vec<u8>> {
    let out = command.output().map_err(|e| spawn_error(program, &e))?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    Err(failure(program, args, out.status, &String::from_utf8_lossy(&out.stderr)))
}

/// The error of a program that has failed and has written `stderr`.
fn failure<A: AsRef<OsStr>>(program: &str, args: &[A], status: ExitStatus, stderr: &str) -> Error {
    let text = stderr.trim();
    let start = text.ceil_char_boundary(text.len().saturating_sub(STDERR_TAIL));
    Error::Program { command: command_line(program, args), status, stderr: text[start..].to_string() }
}

/// What others print, written into a file and, where wanted, to this process's standard error (tee(1)).
#[derive(Debug)]
pub struct Tee {
    child: Child,
    input: File,
}

impl Tee {
    /// Into the new file `path`.
    ///
    /// # Errors
    /// The failed call.
    pub fn new(path: &Path, show: bool) -> Result<Self> {
        let (reader, writer) = std::io::pipe().call(|| "pipe2".to_string())?;
        let output = if show { Stdio::from(std::io::stderr()) } else { Stdio::null() };
        let mut command = Command::new("tee");
        // Signals of the terminal are for those that print.
        command.arg("-i").arg(path).stdin(reader).stdout(output).process_group(0);
        let child = command.spawn().map_err(|e| spawn_error("tee", &e))?;
        Ok(Self { child, input: OwnedFd::from(writer).into() })
    }

    /// Standard streams for who prints: no input, and this twice.
    ///
    /// # Errors
    /// The failed call.
    pub fn streams(&self) -> Result<[OwnedFd; 3]> {
        let copy = || self.input.try_clone().map(OwnedFd::from);
        let null = || File::open("/dev/null").map(OwnedFd::from);
        let streams = null().and_then(|null| Ok([null, copy()?, copy()?]));
        streams.call(|| "dup".to_string())
    }

    /// Waits until all is written. Those who print must have closed their streams.
    ///
    /// # Errors
    /// The failed call.
    pub fn finish(self) -> Result<()> {
        let Self { mut child, input } = self;
        drop(input);
        child.wait().map(drop).call(|| "wait(tee)".to_string())
    }
}

/// Runs `program` with `args` and `input` on its standard input, its standard error this
/// process's; gives how it ended and the first `limit` bytes of its standard output. After
/// `time` it is killed.
///
/// # Errors
/// [`Error::NoProgram`] where it is not installed, [`Error::TooSlow`], [`Error::Syscall`] where it
/// cannot be talked to.
pub fn filter(
    program: &str,
    args: &[&str],
    input: &[u8],
    limit: u64,
    time: Duration,
) -> Result<(ExitStatus, Vec<u8>)> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| spawn_error(program, &e))?;
    let (stdin, stdout, input) = (child.stdin.take(), child.stdout.take(), input.to_vec());
    let (done, read) = channel();
    // Not waited for: a child of the program may keep the pipe open.
    std::thread::spawn(move || {
        // A program that does not read what it is given may still answer.
        let _ = stdin.map(|mut stdin| stdin.write_all(&input));
        let mut out = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(limit).read_to_end(&mut out));
        let _ = done.send(read.map(|_| out));
    });
    let end = Instant::now() + time;
    let read = read.recv_timeout(time).ok();
    let status = match read {
        Some(_) => wait_until(&mut child, end).call(|| format!("wait({program:?})"))?,
        None => None,
    };
    let (Some(read), Some(status)) = (read, status) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(Error::TooSlow { program: program.to_string(), time });
    };
    Ok((status, read.call(|| format!("read(output of {program:?})"))?))
}

/// How the child ended; none where it has not by then.
fn wait_until(child: &mut Child, end: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            ended => return Ok(ended),
        }
    }
}

/// Replaces this process by `program`, looked for in `PATH`, with `args`; returns only to report
/// the failure.
#[must_use]
pub fn replace(program: &OsStr, args: impl Iterator<Item = OsString>) -> Error {
    let failed = Command::new(program).args(args).exec();
    spawn_error(&program.to_string_lossy(), &failed)
}

fn spawn_error(program: &str, e: &std::io::Error) -> Error {
    if e.kind() == std::io::ErrorKind::NotFound {
        return Error::NoProgram { program: program.to_string() };
    }
    Error::Syscall {
        call: format!("execve({program:?})"),
        errno: rustix::io::Errno::from_io_error(e).unwrap_or(rustix::io::Errno::IO),
    }
}

fn command_line<A: AsRef<OsStr>>(program: &str, args: &[A]) -> String {
    let mut line = program.to_string();
    for a in args {
        line.push(' ');
        line.push_str(&a.as_ref().to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_failures() {
        assert_eq!(output("echo", &["hi"]).unwrap(), b"hi\n");
        let e = output("sh", &["-c", "echo broken >&2; exit 3"]).unwrap_err();
        assert!(e.to_string().ends_with("exit status: 3: broken"), "{e}");
        assert_eq!(fed::<&str>("cat", &[], b"in").unwrap(), b"in");
        let background = |script: &str| {
            let args = ["-c".to_string(), script.to_string()];
            Background { program: "sh", name: "x/sh", args: &args, files: [None, None] }.start()
        };
        let script = format!("test $0 = x/sh && echo before >&2; echo 7 >{}", Background::PID_FILE);
        assert_eq!(background(&script).unwrap(), 7);
        for failing in ["echo 7; echo broken >&2; exit 3", "echo broken >&2"] {
            let e = background(failing).unwrap_err();
            assert!(e.to_string().ends_with(": broken"), "{e}");
        }
        let e = output::<&str>("no-such-program-here", &[]).unwrap_err();
        assert_eq!(e.to_string(), "program no-such-program-here not found");
    }

    #[test]
    fn tells_lines() {
        let mut lines = Vec::new();
        let mut line = |l: &str| lines.push(l.to_string());
        let status = told("sh", &["-c", "echo $A; echo b >&2; exit 3"], &[("A", "a")], &mut line).unwrap();
        assert_eq!((status.code(), lines.join(" ")), (Some(3), "a b".to_string()));
        assert!(runs(b"no program").is_err());
    }

    #[test]
    fn filter_feeds_and_limits() {
        let minute = Duration::from_mins(1);
        let (status, out) = filter("sh", &["-c", "cat; exit 4"], b"hello", 3, minute).unwrap();
        assert_eq!((status.code(), out.as_slice()), (Some(4), &b"hel"[..]));
        let (status, out) = filter("true", &[], &vec![0; 1 << 20], 10, minute).unwrap();
        assert!(status.success() && out.is_empty());
        for hanging in ["exec sleep 60", "echo hi; exec >&-; exec sleep 60"] {
            let e = filter("sh", &["-c", hanging], b"", 9, Duration::from_millis(50)).unwrap_err();
            assert!(matches!(e, Error::TooSlow { .. }), "{e}");
        }
    }
}
