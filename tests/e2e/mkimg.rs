//! `mkimg` with the real mirror: the image against debootstrap's root, dpkg's own checks, apt.

use crate::common::archive::{Archive, script};
use crate::common::{TestStore, bin, debian_root, need_root, ok, unmount_below, within};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What differs from debootstrap's root, and why.
const EXCEPTIONS: [&str; 7] = [
    "/lost+found",                   // of the filesystem
    "/etc/hostname",                 // debootstrap copies the host's
    "/etc/resolv.conf",              // debootstrap copies the host's
    "/run/mount",                    // a trace of debootstrap's umount
    "/var/cache/ldconfig/aux-cache", // inode numbers and times
    "/var/lib/apt/lists/",           // caches
    "/var/cache/apt/archives/",      // caches
];

/// Files that hold times, the order of events, or debootstrap's own records.
const OTHER_CONTENT: [&str; 7] = [
    "/etc/apt/sources.list",     // with updates and security, unless they are left out
    "/var/lib/dpkg/available",   // debootstrap's copy of the index
    "/var/lib/dpkg/status",      // compared field by field below
    "/var/lib/dpkg/status-old",  // the state before the last change
    "/var/log/alternatives.log", // times
    "/var/log/bootstrap.log",    // debootstrap's
    "/var/log/dpkg.log",         // times
];

/// An image mounted by the kernel, read-only; its changes, where `writable`, go to memory.
struct Mounted {
    dir: PathBuf,
}

impl Mounted {
    fn new(image: &Path, writable: bool) -> Self {
        let dir = image.with_extension("mnt");
        fs::create_dir_all(&dir).unwrap();
        ok("mount", &["-o".as_ref(), "loop,ro".as_ref(), image.as_os_str(), dir.as_os_str()]);
        if writable {
            let top = image.with_extension("top");
            fs::create_dir_all(&top).unwrap();
            ok("mount", &["-t".as_ref(), "tmpfs".as_ref(), "tmpfs".as_ref(), top.as_os_str()]);
            fs::create_dir(top.join("u")).unwrap();
            fs::create_dir(top.join("w")).unwrap();
            let t = top.display();
            let options = format!("lowerdir={},upperdir={t}/u,workdir={t}/w", dir.display());
            ok("mount", &["-t", "overlay", "overlay", "-o", &options, dir.to_str().unwrap()]);
            ok("umount", &["-l".as_ref(), top.as_os_str()]);
        }
        Self { dir }
    }

    fn chroot(&self, command: &[&str]) -> String {
        let mut args = vec![self.dir.to_str().unwrap()];
        args.extend(command);
        ok("chroot", &args)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount_below(&self.dir);
    }
}

fn packages(root: &Path) -> String {
    ok("dpkg-query", &["--admindir", &format!("{}/var/lib/dpkg", root.display()), "-W"])
}

/// Path to type, mode, owner, link target, device, content.
fn tree(root: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut queue = vec![root.to_path_buf()];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let link = fs::read_link(&path).unwrap_or_default();
            let device = meta.file_type().is_char_device() || meta.file_type().is_block_device();
            let device = if device { meta.rdev() } else { 0 };
            let shown =
                format!("{:o} {}:{} {} {device}", meta.mode(), meta.uid(), meta.gid(), link.display());
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            all.insert(format!("/{}", path.strip_prefix(root).unwrap().display()), (shown, content));
            if meta.is_dir() {
                queue.push(path);
            }
        }
    }
    all
}

/// Status of each package and conffile, without what its index says of priorities.
fn status(root: &Path) -> Vec<String> {
    let text = fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap();
    text.lines().filter(|l| !l.starts_with("Priority: ")).map(str::to_string).collect()
}

#[test]
fn minbase_is_debootstraps() {
    is_debootstraps("bookworm");
}

#[test]
fn minbase_of_trixie_is_debootstraps() {
    is_debootstraps("trixie");
}

fn is_debootstraps(suite: &str) {
    need_root();
    let reference = &debian_root(suite);
    let store = TestStore::new();
    let image = store.path().join(format!("{suite}.img"));
    // Passwords are as old as the packages otherwise, and not of the day of debootstrap's root.
    let made = fs::metadata(reference.join("etc/shadow")).unwrap().mtime();
    let mut command = store.command();
    command
        .args(["mkimg", image.to_str().unwrap(), "--no-updates"])
        .env("SOURCE_DATE_EPOCH", made.to_string());
    assert!(command.status().unwrap().success());
    ok("e2fsck", &["-fn", image.to_str().unwrap()]);
    let mounted = Mounted::new(&image, false);
    let root = &mounted.dir;
    assert_eq!(packages(root), packages(reference));
    assert_eq!(status(root), status(reference));
    assert!(!fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap().contains("newconffile"));
    let (ours, theirs) = (tree(root), tree(reference));
    let excepted = |p: &str| EXCEPTIONS.iter().any(|e| p == *e || (e.ends_with('/') && p.starts_with(e)));
    let differs = |path: &&String| {
        let (a, b) = (ours.get(*path), theirs.get(*path));
        let content = !OTHER_CONTENT.contains(&path.as_str());
        (content && a != b) || (!path.starts_with("/var/log/boot") && a.map(|a| &a.0) != b.map(|b| &b.0))
    };
    let paths = ours.keys().chain(theirs.keys()).filter(|p| !excepted(p));
    let shown = |p: &String| {
        format!("{p}: {:?}, debootstrap has {:?}", ours.get(p).map(|a| &a.0), theirs.get(p).map(|b| &b.0))
    };
    let different: Vec<String> = paths.filter(differs).map(shown).collect();
    assert!(different.is_empty(), "{different:#?}");
    assert_eq!(mounted.chroot(&["dpkg", "--audit"]), "");
    assert_eq!(mounted.chroot(&["dpkg", "--verify"]), "");
}

#[test]
fn includes_and_updates_work_inside() {
    need_root();
    let store = TestStore::new();
    let image = store.path().join("lab.img");
    let path = image.to_str().unwrap();
    let args = ["--suite", "bookworm", "--include", "openssh-server,net-tools,tini", "--size", "1G"];
    store.ok(&[&["mkimg", path], &args[..]].concat());
    // Once more from the packages, of which there are more than files may be open at first.
    let (again, root) = (store.path().join("again.img"), store.path());
    let begin = ["--nofile=80:4096", bin(), "--root", root.to_str().unwrap(), "mkimg", "--no-base-cache"];
    ok("prlimit", &[&begin[..], &[again.to_str().unwrap()], &args[..]].concat());
    ok("cmp", &[path, again.to_str().unwrap()]);
    assert_eq!(fs::metadata(&image).unwrap().len(), 1 << 30);
    ok("e2fsck", &["-fn", path]);
    let mounted = Mounted::new(&image, true);
    let listed = mounted.chroot(&["dpkg", "-l"]);
    let odd: Vec<_> = listed
        .lines()
        .skip_while(|l| !l.starts_with("+++"))
        .skip(1)
        .filter(|l| !l.starts_with("ii "))
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert!(listed.contains("openssh-server") && listed.contains("tini"));
    assert_eq!(mounted.chroot(&["dpkg", "--audit"]), "");
    assert_eq!(mounted.chroot(&["dpkg", "--verify"]), "");
    let missing = [
        "usr/sbin/policy-rc.d",
        "etc/resolv.conf",
        "etc/hostname",
        "var/cache/shipimg-debs",
        "var/lib/dpkg/tmp.ci",
        "etc/ssh/ssh_host_rsa_key",
    ];
    assert!(missing.iter().all(|m| !mounted.dir.join(m).exists()));
    fs::copy("/etc/resolv.conf", mounted.dir.join("etc/resolv.conf")).unwrap();
    let config = ok("apt-config", &["dump", "Acquire"]);
    fs::write(mounted.dir.join("etc/apt/apt.conf.d/99host"), config).unwrap();
    let update = mounted.chroot(&["apt-get", "update"]);
    assert!(update.contains("bookworm-security") && !update.contains("Err:"), "{update}");
}

#[test]
fn modules_of_python_are_compiled_together() {
    let mut archive = Archive::new("bookworm");
    for (name, text) in [("one", "x = ('a', 'b')\n"), ("two", "y = ('a', 'b')\n"), ("broken", "z = (\n")] {
        archive.add_tree(name, "1", "Depends: python3\n", |tree| {
            let modules = tree.join("usr/lib/python3/dist-packages");
            fs::create_dir_all(&modules).unwrap();
            fs::write(modules.join(format!("{name}.py")), text).unwrap();
            script(tree, "postinst", &format!("py3compile -p {name}"));
        });
    }
    archive.publish("", Some("good"));
    let image = archive.store.path().join("x.img");
    let repo = archive.at("");
    let repo = format!("deb [signed-by={}good.gpg] file://{} bookworm main", repo.display(), repo.display());
    let args = ["mkimg", "--suite", "bookworm", "--repo", &repo, image.to_str().unwrap(), "--include"];
    let with = |include| [&args[..], &[include]].concat();
    let said = archive.store.fails(1, &with("one,broken,two"));
    assert!(said.contains("configuring package broken failed in dpkg"), "{said}");
    assert!(said.contains("SyntaxError") && said.contains("its py3compile failed"), "{said}");
    archive.store.ok(&with("one,two"));
    let mounted = Mounted::new(&image, true);
    for name in ["one", "two"] {
        let file = format!("usr/lib/python3/dist-packages/__pycache__/{name}.cpython-311.pyc");
        let together = fs::read(mounted.dir.join(&file)).unwrap();
        mounted.chroot(&["env", "SOURCE_DATE_EPOCH=1", "py3compile", "-f", "-p", name]);
        assert_eq!(together, fs::read(mounted.dir.join(&file)).unwrap(), "{name}");
    }
}

#[test]
fn apt_works_offline_from_what_is_kept() {
    need_root();
    let store = TestStore::new();
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_string();
    let (lock, tar) = (at("x.lock"), at("x.tar"));
    let args = ["mkimg", "--suite", "bookworm", "--include", "tini", "--keep-apt", "--lock", &lock];
    store.ok(&[&args[..], &[&at("root"), &tar]].concat());
    let inside = |args: &[&str]| ok("unshare", &[&["-n", "chroot", &at("root")], args].concat());
    let again = inside(&["apt-get", "-y", "--reinstall", "install", "tini"]);
    assert!(again.contains("Setting up tini") && !again.contains("WARNING"), "{again}");
    // Of a package that is not there apt knows where it would be.
    let more = inside(&["apt-get", "-y", "--print-uris", "install", "jq"]);
    assert!(more.contains("/jq_") && more.contains(".deb"), "{more}");
    assert!(inside(&["apt-cache", "policy", "bash"]).contains("bookworm/main"));
    // The same lock gives the same, from the store and in another one.
    let other = TestStore::new();
    for (store, more) in [(&store, &[][..]), (&store, &["--no-base-cache"]), (&other, &[])] {
        store.ok(&[&args[..], &[&at("again.tar")], more].concat());
        assert!(fs::read(at("again.tar")).unwrap() == fs::read(&tar).unwrap());
    }
    // One whose Release file is gone cannot.
    let text = fs::read_to_string(&lock).unwrap();
    let at_sum =
        text.find("[[release]]").and_then(|i| Some(i + text[i..].find("sha256 = \"")? + 10)).unwrap();
    let gone = format!("{}{}{}", &text[..at_sum], "0".repeat(64), &text[at_sum + 64..]);
    fs::write(&lock, gone).unwrap();
    let said = store.fails(9, &[&args[..], &["--frozen", "--no-base-cache", &at("never.tar")]].concat());
    assert!(said.contains("it is another one than the lock's, of which apt was to have the lists"), "{said}");
}

#[test]
fn names_and_options_are_checked() {
    let store = TestStore::new();
    let image = |name: &str| store.path().join(name).display().to_string();
    assert!(store.fails(2, &["mkimg", &image("hamm.img")]).contains("unknown suite \"hamm\""));
    assert!(store.fails(2, &["mkimg", &image("bookworm.vmdk")]).contains("its end tells no kind of output"));
    assert!(
        store
            .fails(10, &["mkimg", &image("trixie.img"), "--include", "no-such-package-x"])
            .contains("no-such-package-x")
    );
    assert!(
        store
            .fails(10, &["mkimg", &image("trixie.img"), "--keyring", "/no/keyring.gpg"])
            .contains("/no/keyring.gpg")
    );
    assert!(store.fails(7, &["mkimg", &image("trixie.img"), "--arch", "s390x"]).contains("s390x"));
    assert!(!store.path().join("trixie.img").exists());
}

#[test]
fn killed_in_the_middle_leaves_nothing() {
    need_root();
    let store = TestStore::new();
    let image = store.path().join("trixie.img");
    fs::write(&image, "the old one").unwrap();
    let mut child = Command::new(bin())
        .args(["--root".as_ref(), store.path().as_os_str(), "mkimg".as_ref(), image.as_os_str()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    for line in std::io::BufRead::lines(std::io::BufReader::new(stderr)) {
        if line.unwrap().starts_with("configure") {
            break;
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    child.kill().unwrap();
    child.wait().unwrap();
    let ours = store.path().to_str().unwrap();
    within(10, "the end of its processes", || processes_below(ours) == 0);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(ours));
    assert!(!ok("losetup", &["-a"]).contains(ours));
    assert_eq!(fs::read_to_string(&image).unwrap(), "the old one");
    store.ok(&["images"]);
    assert_eq!(fs::read_dir(store.path().join("shipimg/tmp")).unwrap().count(), 0);
    assert!(
        fs::read_dir(store.path()).unwrap().all(|e| !e
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".new"))
    );
}

/// How many processes have a mount below `path` in their mount namespace.
fn processes_below(path: &str) -> usize {
    let numbers = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok());
    numbers.filter(|e| fs::read_to_string(e.path().join("mountinfo")).is_ok_and(|m| m.contains(path))).count()
}
