//! Bundles made by code around Debian's static busybox.

use super::{TestStore, need_root};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

/// A store with one bundle in it, and whatever runs from it; gone with the value.
pub struct Bundle {
    /// The store.
    pub store: TestStore,
    /// The bundle's folder.
    pub dir: PathBuf,
    /// A container id of its own.
    pub id: String,
}

impl Bundle {
    /// The default configuration without a terminal, running `sh -c SCRIPT`.
    pub fn new(script: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        need_root();
        let store = TestStore::new();
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("t{}-{count}", std::process::id());
        let dir = store.path().join(&id);
        fs::create_dir(&dir).unwrap();
        busybox(&dir.join("rootfs"));
        store.ok(&["spec", "--bundle", dir.to_str().unwrap()]);
        let bundle = Self { store, dir, id };
        bundle.change(|c| {
            c["process"]["terminal"] = json!(false);
            c["process"]["args"] = json!(["sh", "-c", script]);
        });
        bundle
    }

    /// The root filesystem.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Changes config.json.
    pub fn change(&self, f: impl FnOnce(&mut Value)) {
        let path = self.dir.join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        f(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// Adds to the mounts of config.json.
    pub fn add_mount(&self, mount: Value) {
        self.change(|c| c["mounts"].as_array_mut().unwrap().push(mount));
    }

    /// Gives the program another capability.
    pub fn add_capability(&self, name: &str) {
        self.change(|c| {
            for set in ["bounding", "effective", "permitted"] {
                c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!(name));
            }
        });
    }

    /// `shipimg COMMAND --bundle DIR ID`. Its output goes to files: a container that goes on
    /// holds its ends of pipes open.
    pub fn launch(&self, command: &str) -> Output {
        self.detached(&[command, "--bundle", self.dir.to_str().unwrap(), &self.id])
    }

    /// Runs shipimg with its output going to files.
    pub fn detached(&self, args: &[&str]) -> Output {
        let files = ["stdout", "stderr"].map(|n| self.dir.join(n));
        let [stdout, stderr] = files.each_ref().map(|f| fs::File::create(f).unwrap());
        let status = self.store.command().args(args).stdout(stdout).stderr(stderr).status().unwrap();
        let [stdout, stderr] = files.map(|f| fs::read(f).unwrap());
        Output { status, stdout, stderr }
    }

    /// Runs the bundle, which must give `code`; gives its standard output.
    pub fn run(&self, code: i32) -> String {
        let out = self.launch("run");
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "stdout: {stdout}\nstderr: {stderr}");
        self.nothing_left();
        stdout.into_owned()
    }

    /// Runs the bundle, which must fail before its program; gives standard error.
    pub fn refused(&self, code: i32) -> String {
        let out = self.launch("run");
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("error: "), "{stderr}");
        self.nothing_left();
        stderr
    }

    /// Creates and starts it.
    pub fn start(&self) {
        let out = self.launch("create");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        self.store.ok(&["start", &self.id]);
    }

    /// A field of the state.
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.store.ok(&["state", &self.id])).unwrap()
    }

    /// The control group with this controller of version 1, or the one of version 2 where that is
    /// alone.
    pub fn group(&self, controller: &str) -> PathBuf {
        let top = Path::new("/sys/fs/cgroup");
        let dir = if version_2() { top.to_path_buf() } else { top.join(controller) };
        find_groups(&dir, &self.id, 4).remove(0)
    }

    /// A file of the control groups, by its name in version 1 and in version 2.
    pub fn limit(&self, v1: &str, v2: &str) -> String {
        let controller = v1.split('.').next().unwrap();
        let text = fs::read_to_string(self.group(controller).join(if version_2() { v2 } else { v1 }));
        text.unwrap().trim().to_string()
    }

    /// Waits until `holds`, for ten seconds at most.
    pub fn wait(&self, holds: impl Fn(&Self) -> bool) {
        super::within(10, "it", || holds(self));
    }

    /// No state, no mount, no control group of it is there.
    pub fn nothing_left(&self) {
        assert!(!self.store.path().join("shipimg/containers").join(&self.id).exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*self.dir.to_string_lossy()), "{mounts}");
        let cgroups = find_groups(Path::new("/sys/fs/cgroup"), &self.id, 4);
        assert!(cgroups.is_empty(), "{cgroups:?}");
    }
}

/// Whether control groups are of version 2 alone here.
pub fn version_2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.store.output(&["delete", "--force", &self.id]);
    }
}

fn find_groups(dir: &Path, id: &str, depth: u32) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            let name = entry.file_name().into_string().unwrap_or_default();
            // Its own, with what tells it from the same id in another store.
            if name == id || name.strip_prefix(id).is_some_and(|rest| rest.starts_with('-')) {
                out.push(entry.path());
            } else if depth > 0 {
                out.extend(find_groups(&entry.path(), id, depth - 1));
            }
        }
    }
    out
}

/// A root filesystem with busybox and its links.
pub fn busybox(rootfs: &Path) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
    for name in super::ok("/bin/busybox", &["--list"]).lines().filter(|n| *n != "busybox") {
        symlink("busybox", rootfs.join("bin").join(name)).unwrap();
    }
}

/// Exchanges the names `a` and `b` in `dir` over and over while `work` is done.
pub fn while_swapping(dir: &Path, a: &str, b: &str, work: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let dir = fs::File::open(dir).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&dir, a, &dir, b, flags).unwrap();
            }
        });
        let _stop = Stop(&stop);
        work();
    });
}
