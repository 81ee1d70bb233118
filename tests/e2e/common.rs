//! What the tests share: the binary, a store of their own, a registry server, images by code.
#![allow(dead_code, reason = "each test module uses a part")]

pub mod archive;
pub mod bundle;
pub mod checks;
pub mod docker;
pub mod images;
pub mod layout;
pub mod listener;
pub mod netns;
pub mod proxy;
pub mod registry;
pub mod serve;
pub mod server;
pub mod tls;
pub mod user;
pub mod ways;
pub mod work;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::ffi::OsStr;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The binary under test.
pub fn bin() -> &'static str {
    env!("CARGO_BIN_EXE_shipimg")
}

/// Fails the test where it does not run as root; nothing is skipped in silence.
pub fn need_root() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root, see scripts/test");
}

/// Runs a program that must succeed; gives its standard output.
pub fn ok<A: AsRef<OsStr>>(program: &str, args: &[A]) -> String {
    let out = output(program, args);
    assert!(out.status.success(), "{}", describe(program, args, &out));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs a program without standard input.
pub fn output<A: AsRef<OsStr>>(program: &str, args: &[A]) -> Output {
    let result = Command::new(program).args(args).stdin(Stdio::null()).output();
    result.unwrap_or_else(|e| panic!("{program}: {e}; scripts/test installs what the tests need"))
}

/// Runs a command with its output in files: a container that outlives the command would keep
/// a pipe open.
pub fn collect(command: &mut Command) -> Output {
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let status = command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap()).status().unwrap();
    let read = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).unwrap();
        bytes
    };
    Output { status, stdout: read(&mut out), stderr: read(&mut err) }
}

/// A command with its output, for a failed assertion.
pub fn describe<A: AsRef<OsStr>>(program: &str, args: &[A], out: &Output) -> String {
    let args: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    format!(
        "{program} {}\n{}\nstdout: {}\nstderr: {}",
        args.join(" "),
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

/// The standard output of shipimg, which did `out` and must have succeeded.
pub fn succeeded<A: AsRef<OsStr>>(args: &[A], out: &Output) -> String {
    assert!(out.status.success(), "{}", describe("shipimg", args, out));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The standard error of shipimg, which did `out` and must have failed with exit code `code` and
/// one `error: ` line.
pub fn failed<A: AsRef<OsStr>>(code: i32, args: &[A], out: &Output) -> String {
    assert_eq!(out.status.code(), Some(code), "{}", describe("shipimg", args, out));
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(stderr.lines().filter(|l| l.starts_with("error: ")).count(), 1, "{stderr}");
    stderr
}

/// A store that is gone with the value.
pub struct TestStore {
    dir: tempfile::TempDir,
}

impl TestStore {
    /// A fresh store on disk.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() }
    }

    /// A fresh store in memory, for tests that would wait for the disk.
    pub fn in_memory() -> Self {
        Self { dir: tempfile::tempdir_in("/dev/shm").unwrap() }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `shipimg --root STORE`, to add arguments to.
    pub fn command(&self) -> Command {
        let mut c = Command::new(bin());
        c.arg("--root").arg(self.path()).stdin(Stdio::null());
        c
    }

    /// Runs shipimg; gives what it did.
    pub fn output<A: AsRef<OsStr>>(&self, args: &[A]) -> Output {
        collect(self.command().args(args))
    }

    /// Runs shipimg, which must succeed; gives its standard output.
    pub fn ok<A: AsRef<OsStr>>(&self, args: &[A]) -> String {
        succeeded(args, &self.output(args))
    }

    /// Runs shipimg, which must fail with exit code `code` and one `error: ` line; gives standard error.
    pub fn fails<A: AsRef<OsStr>>(&self, code: i32, args: &[A]) -> String {
        failed(code, args, &self.output(args))
    }
}

impl TestStore {
    /// Runs shipimg, which must refuse the command line.
    pub fn fails_usage<A: AsRef<OsStr>>(&self, args: &[A]) {
        let out = self.output(args);
        assert_eq!(out.status.code(), Some(2), "{}", describe("shipimg", args, &out));
    }
}

impl Drop for TestStore {
    /// Takes away what a failed test left running and mounted, so that the folder can go.
    fn drop(&mut self) {
        let left = std::fs::read_dir(self.path().join("shipimg/containers")).into_iter().flatten().flatten();
        for container in left {
            self.output(&["delete".as_ref(), "--force".as_ref(), container.file_name().as_os_str()]);
        }
        unmount_below(self.path());
    }
}

/// Waits until `holds`, for so many seconds at most.
pub fn within(seconds: u64, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Unmounts a filesystem. A child that another test forks holds what this process has open until it executes
/// its program, so what is busy is waited for.
pub fn unmount(at: impl AsRef<Path>) {
    let at = at.as_ref();
    within(10, "the end of its use", || {
        let done = rustix::mount::unmount(at, UnmountFlags::NOFOLLOW);
        assert!(matches!(done, Ok(()) | Err(Errno::BUSY)), "umount {}: {done:?}", at.display());
        done.is_ok()
    });
}

/// Unmounts what is mounted at `folder` and below in this thread's mount namespace, the newest first.
pub fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|l| l.split(' ').nth(4));
    for point in points.filter(|p| Path::new(p).starts_with(folder)).collect::<Vec<_>>().iter().rev() {
        output("umount", &["-l", point]);
    }
}

/// A real Debian root of this suite as a folder, made once per build directory by debootstrap and
/// kept there between runs; never written to.
pub fn debian_root(suite: &str) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    need_root();
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("debian-{suite}"));
    if !dir.exists() {
        let new = dir.with_extension("new");
        let _ = std::fs::remove_dir_all(&new);
        ok("debootstrap", &[OsStr::new("--variant=minbase"), OsStr::new(suite), new.as_os_str()]);
        std::fs::rename(&new, &dir).unwrap();
    }
    dir
}
