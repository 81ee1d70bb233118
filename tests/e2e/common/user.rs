//! Ordinary users, freshly made: a home of their own, subordinate ids or none.

use super::{bin, collect, failed, need_root, ok, succeeded, unmount_below};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A user who is gone with the value, with processes and files.
pub struct User {
    /// The name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// The user's own group.
    pub gid: u32,
    /// Whether the user's commands work with a single id.
    pub single: bool,
    home: tempfile::TempDir,
}

impl User {
    /// A user with 65536 subordinate user and group ids, as useradd(8) gives them.
    pub fn new() -> Self {
        Self::with(&["-K", "SUB_UID_COUNT=65536", "-K", "SUB_GID_COUNT=65536"])
    }

    /// A user without an entry in /etc/subuid and /etc/subgid.
    pub fn without_sub_ids() -> Self {
        Self::with(&["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"])
    }

    /// The same, whose commands all have `--single-id`.
    pub fn single() -> Self {
        let mut user = Self::without_sub_ids();
        user.single = true;
        user
    }

    /// A user with these arguments for useradd(8).
    pub fn with(args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        need_root();
        let name = format!("ship{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Not below the build directory, which may lie in a home that nobody else may enter.
        let home = tempfile::Builder::new().prefix("shipimg-user-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let folder = home.path().join("home");
        {
            let _lock = Accounts::lock();
            let common = ["-m", "-U", "-s", "/bin/sh", "-d", folder.to_str().unwrap()];
            ok("useradd", &[&common, args, &[name.as_str()]].concat());
        }
        // Without the files that every new user gets.
        let skeleton = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
        skeleton.for_each(|path| fs::remove_file(path).unwrap());
        let meta = fs::metadata(&folder).unwrap();
        let user = Self { name, uid: meta.uid(), gid: meta.gid(), single: false, home };
        if fs::hard_link(bin(), user.bin()).is_err() {
            fs::copy(bin(), user.bin()).unwrap();
        }
        for folder in [".local", ".local/share", ".config", ".cache", "run"] {
            let folder = user.home().join(folder);
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
            user.give(&folder);
        }
        user
    }

    /// The home folder.
    pub fn home(&self) -> PathBuf {
        self.home.path().join("home")
    }

    /// The binary under test, where this user can execute it.
    pub fn bin(&self) -> PathBuf {
        self.home.path().join("shipimg")
    }

    /// The store that the user's commands take, when none is named.
    pub fn store(&self) -> PathBuf {
        self.home().join(".local/share/shipimg")
    }

    /// Gives the user a file or a folder with all in it.
    pub fn give(&self, path: &Path) {
        let owner = format!("{}:{}", self.uid, self.gid);
        ok("chown", &[OsStr::new("-hR"), OsStr::new(&owner), path.as_os_str()]);
    }

    /// The first and the number of the user's subordinate ids, user ids by `kind` `subuid`,
    /// group ids by `subgid`.
    pub fn sub_ids(&self, kind: &str) -> Vec<(u32, u32)> {
        let text = fs::read_to_string(Path::new("/etc").join(kind)).unwrap();
        let fields = text.lines().map(|l| l.split(':').collect::<Vec<_>>());
        let own = fields.filter(|f| f[0] == self.name || f[0] == self.uid.to_string());
        own.map(|f| (f[1].parse().unwrap(), f[2].parse().unwrap())).collect()
    }

    /// A program to be run as this user, at home, with the environment of a login.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.gid);
        self.log_in(&mut command);
        command
    }

    /// `shipimg` in the network namespace `netns`, mounts and control groups are the machine's.
    pub fn shipimg_on(&self, netns: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={netns}"));
        command.arg(format!("--setgid={}", self.gid)).arg(format!("--setuid={}", self.uid)).arg(self.bin());
        self.log_in(&mut command);
        command
    }

    /// Gives a command the environment of a login.
    fn log_in(&self, command: &mut Command) {
        command.env_clear().current_dir(self.home()).stdin(Stdio::null());
        command.envs([("USER", &self.name), ("LOGNAME", &self.name)]);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("SHELL", "/bin/sh").env("HOME", self.home());
        for (name, folder) in
            [("DATA_HOME", ".local/share"), ("CONFIG_HOME", ".config"), ("CACHE_HOME", ".cache")]
        {
            command.env(format!("XDG_{name}"), self.home().join(folder));
        }
        command.env("XDG_RUNTIME_DIR", self.home().join("run"));
        if self.single {
            command.env("SHIPIMG_SINGLE_ID", "true");
        }
    }

    /// `shipimg`, to add arguments to; its store is [`User::store`].
    pub fn shipimg(&self) -> Command {
        self.command(self.bin())
    }

    /// Runs shipimg; gives what it did.
    pub fn output<A: AsRef<OsStr>>(&self, args: &[A]) -> Output {
        collect(self.shipimg().args(args))
    }

    /// Runs shipimg, which must succeed; gives its standard output.
    pub fn ok<A: AsRef<OsStr>>(&self, args: &[A]) -> String {
        succeeded(args, &self.output(args))
    }

    /// Runs shipimg, which must fail with exit code `code` and one `error: ` line; gives standard error.
    pub fn fails<A: AsRef<OsStr>>(&self, code: i32, args: &[A]) -> String {
        failed(code, args, &self.output(args))
    }

    /// Runs `change` while nobody else changes the files with users.
    pub fn with_accounts(change: impl FnOnce()) {
        let _lock = Accounts::lock();
        change();
    }

    /// The processes with this user's ids, subordinate ones too.
    pub fn processes(&self) -> Vec<i32> {
        let mut ranges = self.sub_ids("subuid");
        ranges.push((self.uid, 1));
        let own = |uid: u32| ranges.iter().any(|(first, count)| uid >= *first && uid - first < *count);
        let all = fs::read_dir("/proc").unwrap().flatten();
        let pids =
            all.filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.metadata().ok()?.uid())));
        // One that has ended may wait for its parent's notice.
        let runs = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains("State:") && !status.contains("State:\tZ")
        };
        pids.filter(|(_, uid)| own(*uid)).map(|(pid, _)| pid).filter(runs).collect()
    }
}

/// The id of a user without an account.
const STRANGER: u32 = 54321;

/// `shipimg --single-id` by a user without an account, where a test has no need of more.
pub fn stranger() -> Command {
    // By its descriptor, for the way to it may be closed to this user; by one, which no program inherits.
    static BIN: OnceLock<File> = OnceLock::new();
    let bin = BIN.get_or_init(|| File::open(bin()).unwrap());
    let mut command = Command::new(format!("/proc/self/fd/{}", bin.as_raw_fd()));
    command.uid(STRANGER).gid(STRANGER).arg("--single-id");
    command
}

/// Gives that user a folder with all in it.
pub fn give_to_stranger(path: &Path) {
    ok("chown", &[OsStr::new("-hR"), OsStr::new(&format!("{STRANGER}:{STRANGER}")), path.as_os_str()]);
}

impl Drop for User {
    /// Ends what a failed test left running and mounted, so that everything can go.
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        while let processes = self.processes()
            && !processes.is_empty()
            && Instant::now() < end
        {
            for pid in processes.into_iter().filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        unmount_below(self.home.path());
        let _lock = Accounts::lock();
        super::output("userdel", &["-f", &self.name]);
    }
}

/// The lock of the files with users: programs that change them give up when another one does.
struct Accounts {
    _file: File,
}

impl Accounts {
    fn lock() -> Self {
        // A file that is there wherever useradd is, and never replaced.
        let file = File::open("/etc/login.defs").unwrap();
        file.lock().unwrap();
        for name in ["/etc/subuid", "/etc/subgid"] {
            // Without them useradd gives no subordinate ids.
            File::options().append(true).create(true).open(name).unwrap();
        }
        Self { _file: file }
    }
}

#[test]
fn users_come_and_go() {
    let (user, bare) = (User::new(), User::without_sub_ids());
    let (name, folder) = (user.name.clone(), user.home.path().to_path_buf());
    for kind in ["subuid", "subgid"] {
        assert!(user.sub_ids(kind).iter().any(|(_, count)| *count == 65536), "{:?}", user.sub_ids(kind));
        assert_eq!(bare.sub_ids(kind), []);
    }
    let out = collect(user.command("sh").args(["-c", "id -u; id -G; pwd; touch $XDG_DATA_HOME/x"]));
    let expected = format!("{}\n{}\n{}\n", user.uid, user.gid, user.home().display());
    assert_eq!((String::from_utf8_lossy(&out.stdout).into_owned(), out.status.code()), (expected, Some(0)));
    user.ok(&["images"]);
    assert!(user.store().join("oci-layout").exists());
    drop(user);
    assert!(!folder.exists() && !fs::read_to_string("/etc/passwd").unwrap().contains(&name));
    assert!(!fs::read_to_string("/etc/subuid").unwrap().contains(&name));
}
