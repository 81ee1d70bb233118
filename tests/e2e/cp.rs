//! Files into containers and out of them.

use crate::common::bundle::{Bundle, while_swapping};
use crate::common::layout::{Layout, Tar};
use crate::common::user::User;
use crate::common::{collect, describe, failed, ok, succeeded};
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tar::EntryType as T;

/// A container that runs, and a folder of the host's.
struct Ground {
    bundle: Bundle,
    host: PathBuf,
}

impl Ground {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(prepare: impl FnOnce(&Bundle)) -> Self {
        let bundle = Bundle::new("sleep 600");
        bundle.change(|c| c["root"]["readonly"] = json!(false));
        let host = bundle.dir.join("host");
        fs::create_dir(&host).unwrap();
        prepare(&bundle);
        bundle.start();
        Self { bundle, host }
    }

    /// An argument: `:PATH` is in the container, all else in the host's folder.
    fn argument(&self, text: &OsStr) -> OsString {
        match text.as_bytes() {
            [b':', ..] => [OsStr::new(&self.bundle.id), text].concat_os(),
            [b'-', ..] => text.to_os_string(),
            // Unlike Path::join, this keeps a final dot.
            _ => [self.host.as_os_str(), OsStr::new("/"), text].concat_os(),
        }
    }

    fn cp<A: AsRef<OsStr>>(&self, args: &[A]) -> (Vec<OsString>, Output) {
        let mut all = vec![OsString::from("cp")];
        all.extend(args.iter().map(|a| self.argument(a.as_ref())));
        let out = self.bundle.store.output(&all);
        (all, out)
    }

    fn ok<A: AsRef<OsStr>>(&self, args: &[A]) {
        let (all, out) = self.cp(args);
        succeeded(&all, &out);
        assert!(out.stderr.is_empty(), "{}", describe("shipimg", &all, &out));
        self.nothing_half_made();
    }

    fn fails<A: AsRef<OsStr>>(&self, code: i32, args: &[A]) -> String {
        let (all, out) = self.cp(args);
        self.nothing_half_made();
        failed(code, &all, &out)
    }

    /// `cp - DST` with `tar` on standard input.
    fn pour<A: AsRef<OsStr>>(&self, args: &[A], tar: &[u8]) -> Output {
        let file = self.bundle.dir.join("poured");
        fs::write(&file, tar).unwrap();
        let mut command = self.bundle.store.command();
        command.arg("cp").args(args.iter().map(|a| self.argument(a.as_ref())));
        let out = collect(command.stdin(fs::File::open(&file).unwrap()));
        self.nothing_half_made();
        out
    }

    /// `cp … SRC -`, which must succeed.
    fn tar<A: AsRef<OsStr>>(&self, args: &[A]) -> Vec<u8> {
        let (all, out) = self.cp(args);
        assert!(out.status.success(), "{}", describe("shipimg", &all, &out));
        out.stdout
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.bundle.rootfs().join(path.trim_start_matches('/'))
    }

    fn nothing_half_made(&self) {
        for place in [&self.host, &self.bundle.rootfs()] {
            let found = ok("find", &[place.to_str().unwrap(), "-name", ".shipimg-*"]);
            assert_eq!(found, "");
        }
    }
}

trait ConcatOs {
    fn concat_os(&self) -> OsString;
}

impl ConcatOs for [&OsStr] {
    fn concat_os(&self) -> OsString {
        OsString::from_vec(self.iter().flat_map(|s| s.as_bytes().to_vec()).collect())
    }
}

/// All below `top`: names, types, modes, owners, times, content, attributes.
fn tree(top: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut work = vec![top.to_path_buf()];
    while let Some(path) = work.pop() {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let what = if meta.is_dir() {
            work.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if meta.is_file() {
            format!("{} {}", meta.nlink(), fs::read(&path).unwrap().escape_ascii())
        } else {
            format!("{:x}", meta.rdev())
        };
        let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
        all.push(format!("{name} {mode:o} {uid}:{gid} {}.{} {what}", meta.mtime(), meta.mtime_nsec()));
    }
    all.sort();
    all
}

/// One of each sort, with what belongs to them.
fn fill(dir: &Path) {
    fs::create_dir_all(dir.join("sub/empty")).unwrap();
    fs::write(dir.join("file"), "content").unwrap();
    fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(dir.join("file"), dir.join("sub/same")).unwrap();
    symlink("../file", dir.join("sub/link")).unwrap();
    symlink("/nowhere", dir.join("dangling")).unwrap();
    ok("mkfifo", &["-m", "620", dir.join("fifo").to_str().unwrap()]);
    fs::write(dir.join(OsStr::from_bytes(b"not\nUTF-8 \xff")), "x").unwrap();
    fs::write(dir.join(".wh.file"), "a name like any other").unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(2 << 20).unwrap();
    fs::set_permissions(dir.join("sub/empty"), fs::Permissions::from_mode(0o1750)).unwrap();
    for name in ["sub/empty", "sub", "file", "sparse", "fifo", "dangling", ""] {
        ok("touch", &["-h", "-d", "2001-02-03 04:05:06.789", dir.join(name).to_str().unwrap()]);
    }
}

#[test]
fn a_tree_goes_in_and_out_as_it_is() {
    let ground = Ground::new();
    let source = ground.host.join("source");
    fill(&source);
    ground.ok(&["source", ":/tmp/new"]);
    let want = tree(&source);
    assert_eq!(tree(&ground.inside("tmp/new")), want);
    let sparse = ground.inside("tmp/new/sparse").metadata().unwrap();
    assert!(sparse.blocks() < 64 && sparse.len() == 2 << 20);
    ground.ok(&[":tmp/new", "back"]);
    assert_eq!(tree(&ground.host.join("back")), want);
    assert!(ground.host.join("back/sparse").metadata().unwrap().blocks() < 64);
    // Once more over what is there.
    ground.ok(&["source/.", ":/tmp/new"]);
    ground.ok(&[":/tmp/new", "back2"]);
    let differs =
        |a: &[String], b: &[String]| a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>();
    let again = tree(&ground.host.join("back2"));
    let changed = differs(&again, &want);
    assert!(changed.iter().all(|l| l.starts_with(' ') || l.starts_with("sub")), "{changed:?}");
}

/// What stands in `top`: names, with a slash after directories, and what files hold.
fn names(top: &Path) -> String {
    let show = |line: &String| {
        let (name, rest) = line.split_once(' ').unwrap();
        let kind = &rest[..rest.len().min(2)];
        let text = rest.rsplit(' ').next().unwrap();
        match kind {
            "40" | "41" => format!("{name}/"),
            "12" => format!("{name}->{text}"),
            _ => format!("{name}={text}"),
        }
    };
    tree(top).iter().map(show).filter(|n| n != "/").collect::<Vec<_>>().join(" ")
}

#[test]
fn what_goes_where() {
    // Source, destination, then what is in the destination's folder, or a part of the error. The
    // folder has a directory `d`, a file `f`, links `ld` and `lf` to them, `gone` to nothing.
    let there = "d/ f=old gone->nothing ld->d lf->f";
    let with = |more: &str| {
        let mut all: Vec<&str> = there.split(' ').filter(|n| !more.contains("f=") || *n != "f=old").collect();
        all.extend(more.split(' '));
        all.sort_unstable();
        all.join(" ")
    };
    let table: &[(&str, &str, Result<String, &str>)] = &[
        ("file", "new", Ok(with("new=1"))),
        ("file", "new/", Err("no such directory")),
        ("file", "f", Ok(with("f=1"))),
        ("file", "f/", Err("a file, not a directory")),
        ("file", "d", Ok(with("d/file=1"))),
        ("file", "d/", Ok(with("d/file=1"))),
        ("file", "d/.", Ok(with("d/file=1"))),
        ("file", "ld", Ok(with("d/file=1"))),
        ("file", "lf", Ok(with("f=1"))),
        ("file", "gone", Ok(with("nothing=1"))),
        ("file", "no/new", Err("No such file")),
        ("file", "f/new", Err("Not a directory")),
        ("file", "d/../new", Ok(with("new=1"))),
        ("file/", "new", Err("Not a directory")),
        ("file/.", "new", Err("Not a directory")),
        ("none", "new", Err("No such file")),
        ("dir", "new", Ok(with("new/ new/in=2"))),
        ("dir", "new/", Ok(with("new/ new/in=2"))),
        ("dir", "d", Ok(with("d/dir/ d/dir/in=2"))),
        ("dir/", "d", Ok(with("d/dir/ d/dir/in=2"))),
        ("dir/.", "d", Ok(with("d/in=2"))),
        ("dir/../dir/.", "d/", Ok(with("d/in=2"))),
        ("dir/.", "new", Ok(with("new/ new/in=2"))),
        ("dir", "ld", Ok(with("d/dir/ d/dir/in=2"))),
        ("dir", "f", Err("it is a file, and the source is a directory")),
        ("dir/.", "f", Err("it is a file, and the source is a directory")),
        ("dir", "lf", Err("it is a file, and the source is a directory")),
        ("dir", "no/new", Err("No such file")),
        ("link", "new", Ok(with("new->file"))),
        ("link", "d", Ok(with("d/link->file"))),
        ("-L link", "new", Ok(with("new=1"))),
        ("--follow-link link", "d", Ok(with("d/link=1"))),
        ("linkdir", "new", Ok(with("new->dir"))),
        ("linkdir/", "new", Ok(with("new/ new/in=2"))),
        ("linkdir/.", "d", Ok(with("d/in=2"))),
        ("-L linkdir", "d", Ok(with("d/linkdir/ d/linkdir/in=2"))),
        ("-L dangling", "new", Err("No such file")),
        ("clash/f", "d/clash", Err("No such file")),
        ("clash", "..", Err("a file in it has the name of the source, which is a directory")),
        ("named/taken", "..", Err("a directory in it has the name of the source, which is none")),
    ];
    let ground = Ground::new();
    let fresh = |top: &Path| {
        let _ = fs::remove_dir_all(top);
        fs::create_dir_all(top.join("to/d")).unwrap();
        fs::write(top.join("to/f"), "old").unwrap();
        fs::write(top.join("clash"), "old").unwrap();
        fs::create_dir(top.join("taken")).unwrap();
        for (name, target) in [("ld", "d"), ("lf", "f"), ("gone", "nothing")] {
            symlink(target, top.join("to").join(name)).unwrap();
        }
    };
    let source = |top: &Path| {
        for dir in ["dir", "clash", "named"] {
            fs::create_dir_all(top.join(dir)).unwrap();
        }
        fs::write(top.join("file"), "1").unwrap();
        fs::write(top.join("named/taken"), "1").unwrap();
        fs::write(top.join("dir/in"), "2").unwrap();
        for (name, target) in [("link", "file"), ("linkdir", "dir"), ("dangling", "nowhere")] {
            symlink(target, top.join(name)).unwrap();
        }
    };
    source(&ground.host.join("from"));
    source(&ground.inside("from"));
    for (from, to, want) in table {
        let (options, from) = from.rsplit_once(' ').unwrap_or(("", from));
        for (here, side, top) in [("", ":", ground.inside("work")), (":", "", ground.host.join("work"))] {
            fresh(&top);
            let (from, to) = (format!("{here}from/{from}"), format!("{side}work/to/{to}"));
            let args: Vec<&str> = [options, &from, &to].into_iter().filter(|a| !a.is_empty()).collect();
            match want {
                Ok(want) => {
                    ground.ok(&args);
                    assert_eq!(names(&top.join("to")), *want, "{args:?}");
                }
                Err(want) => {
                    let (all, out) = ground.cp(&args);
                    let code = out.status.code();
                    assert!(matches!(code, Some(2 | 10)), "{}", describe("shipimg", &all, &out));
                    let stderr = String::from_utf8_lossy(&out.stderr);
                    assert!(stderr.contains(want), "{args:?}: {stderr}");
                    assert_eq!(names(&top.join("to")), there, "{args:?}");
                }
            }
        }
    }
}

#[test]
fn sides_that_cannot_be() {
    let ground = Ground::new();
    fs::write(ground.host.join("a"), "").unwrap();
    for args in [["a", "b"], [":a", ":b"], ["-", "b"], ["a", "-"], ["-", "-"]] {
        assert!(ground.fails(2, &args).contains("one of SRC and DST"), "{args:?}");
    }
    let store = &ground.bundle.store;
    assert!(store.fails(10, &["cp", "none:/a", "/tmp/x"]).contains("container does not exist: none"));
    assert!(store.fails(2, &["cp", "a b:/a", "/tmp/x"]).contains("invalid container ID"));
    store.fails_usage(&["cp", "x"]);
}

#[test]
fn whatever_the_container_does() {
    let ground = Ground::new();
    let (bundle, store) = (&ground.bundle, &ground.bundle.store);
    let both = |what: &str| {
        fs::write(ground.host.join(what), what).unwrap();
        ground.ok(&[what, ":/tmp"]);
        ground.ok(&[&format!(":/tmp/{what}"), "back"]);
        assert_eq!(fs::read_to_string(ground.host.join("back")).unwrap(), what);
    };
    both("running");
    store.ok(&["pause", &bundle.id]);
    both("paused");
    store.ok(&["resume", &bundle.id]);
    store.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait(|b| b.state()["status"] == "stopped");
    both("stopped");
    store.ok(&["delete", &bundle.id]);
    assert!(ground.fails(10, &["stopped", ":/tmp"]).contains("does not exist"));
    assert!(bundle.launch("create").status.success());
    both("created");
}

#[test]
fn a_root_that_is_read_only_stays_as_it_is() {
    let ground = Ground::with(|b| b.change(|c| c["root"]["readonly"] = json!(true)));
    fs::write(ground.host.join("f"), "").unwrap();
    assert!(ground.fails(8, &["f", ":/etc/f"]).contains("Read-only file system"));
    ground.ok(&["f", ":/dev/shm/f"]);
    ground.ok(&[":/bin/busybox", "out"]);
    ground.bundle.store.ok(&["kill", &ground.bundle.id, "KILL"]);
    ground.bundle.wait(|b| b.state()["status"] == "stopped");
    assert!(ground.fails(2, &["f", ":/etc/f"]).contains("cannot copy into a read-only root"));
    ground.ok(&[":/bin/busybox", "out2"]);
}

#[test]
fn mounts_of_the_container_are_seen() {
    let ground = Ground::with(|b| {
        fs::create_dir(b.dir.join("volume")).unwrap();
        fs::write(b.dir.join("volume/v"), "v").unwrap();
        fs::write(b.dir.join("one"), "1").unwrap();
        fs::create_dir_all(b.rootfs().join("data/volume")).unwrap();
        fs::write(b.rootfs().join("data/volume/hidden"), "").unwrap();
        b.change(|c| {
            let list = c["mounts"].as_array_mut().unwrap();
            let volume = b.dir.join("volume");
            list.push(json!({"destination": "/data/volume", "source": volume, "options": ["rbind"]}));
            list.push(json!({"destination": "/data/memory", "type": "tmpfs"}));
            list.push(json!({"destination": "/data/proc", "type": "proc"}));
            list.push(
                json!({"destination": "/data/version", "source": "/proc/version", "options": ["bind", "ro"]}),
            );
            list.push(json!({"destination": "/data/one", "source": b.dir.join("one"), "options": ["bind"]}));
        });
    });
    ground.ok(&[":/data", "data"]);
    assert_eq!(
        names(&ground.host.join("data")),
        format!("memory/ one=1 proc/ version={} volume/ volume/v=v", version())
    );
    ground.ok(&["data/.", ":/data/volume"]);
    ground.ok(&["data/one", ":/data/memory"]);
    let volume = format!("memory/ one=1 proc/ v=v version={} volume/ volume/v=v", version());
    assert_eq!(names(&ground.bundle.dir.join("volume")), volume);
    ground.ok(&[":/data/memory/.", "memory"]);
    assert_eq!(names(&ground.host.join("memory")), "one=1");
    // A file that is a mount point is not replaced, nor written through.
    assert!(ground.fails(2, &["data/volume/v", ":/data/one"]).contains("it is a mount point"));
    assert_eq!(fs::read_to_string(ground.bundle.dir.join("one")).unwrap(), "1");
}

/// The last word of /proc/version, as `names` shows it.
fn version() -> String {
    let text = fs::read("/proc/version").unwrap().escape_ascii().to_string();
    text.rsplit(' ').next().unwrap().to_string()
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let meta = path.symlink_metadata().unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

/// A directory with one file that is somebody's, setuid, capable, and has an attribute.
fn owned(dir: &Path, uid: u32) {
    fs::create_dir(dir).unwrap();
    fs::write(dir.join("f"), "f").unwrap();
    symlink("f", dir.join("l")).unwrap();
    for name in [".", "f", "l"] {
        std::os::unix::fs::lchown(dir.join(name), Some(uid), Some(uid + 1)).unwrap();
    }
    let file = dir.join("f");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6751)).unwrap();
    let file = file.to_str().unwrap();
    ok("setfattr", &["-n", "user.note", "-v", "n", file]);
    ok("setfattr", &["-n", "trusted.note", "-v", "t", file]);
    ok("setcap", &["cap_net_raw+ep", file]);
}

fn attributes(path: &Path) -> String {
    let all = ok("getfattr", &["-hdm-", "--absolute-names", path.to_str().unwrap()]);
    let mut names: Vec<_> = all.lines().filter_map(|l| l.split_once('=')).map(|(n, _)| n).collect();
    names.sort_unstable();
    names.join(" ")
}

#[test]
fn owners_and_what_belongs_to_them() {
    let ground = Ground::new();
    owned(&ground.host.join("d"), 1000);
    ground.ok(&["d", ":/tmp"]);
    ground.ok(&["-a", "d", ":/tmp/kept"]);
    ground.ok(&[":/tmp/kept", "back"]);
    ground.ok(&["--archive", ":/tmp/kept", "kept"]);
    for (plain, kept) in [
        (ground.inside("tmp/d"), ground.inside("tmp/kept")),
        (ground.host.join("back"), ground.host.join("kept")),
    ] {
        assert_eq!(owner(&plain), (0, 0, 0o755));
        assert_eq!(owner(&plain.join("f")), (0, 0, 0o751));
        assert_eq!(owner(&plain.join("l")), (0, 0, 0o777));
        assert_eq!(attributes(&plain.join("f")), "user.note");
        assert_eq!(owner(&kept), (1000, 1001, 0o755));
        assert_eq!(owner(&kept.join("f")), (1000, 1001, 0o6751));
        assert_eq!(owner(&kept.join("l")), (1000, 1001, 0o777));
        assert_eq!(attributes(&kept.join("f")), "security.capability user.note");
    }
    // A directory that is there keeps what it has, unless owners are kept.
    fs::set_permissions(ground.host.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    ground.ok(&["d/.", ":/tmp/kept"]);
    assert_eq!(owner(&ground.inside("tmp/kept")), (1000, 1001, 0o755));
    ground.ok(&["-a", "d/.", ":/tmp/d"]);
    assert_eq!(owner(&ground.inside("tmp/d")), (1000, 1001, 0o700));
}

fn with_users(bundle: &Bundle) {
    bundle.change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 2000}]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        c["linux"]["resources"] = json!({});
    });
    ok("chown", &["-R", "100000:100000", bundle.rootfs().to_str().unwrap()]);
}

#[test]
fn ids_are_those_of_the_user_namespace() {
    let ground = Ground::with(with_users);
    owned(&ground.host.join("d"), 1000);
    let check = || {
        for name in ["d", "kept"] {
            let _ = fs::remove_dir_all(ground.inside("tmp").join(name));
            let _ = fs::remove_dir_all(ground.host.join("back"));
        }
        ground.ok(&["d", ":/tmp"]);
        assert_eq!(owner(&ground.inside("tmp/d/f")), (100_000, 100_000, 0o751));
        ground.ok(&["-a", "d", ":/tmp/kept"]);
        assert_eq!(owner(&ground.inside("tmp/kept/f")), (101_000, 101_001, 0o6751));
        assert_eq!(owner(&ground.inside("tmp/kept/l")), (101_000, 101_001, 0o777));
        ground.ok(&["-a", ":/tmp/kept", "back"]);
        assert_eq!(owner(&ground.host.join("back/f")), (1000, 1001, 0o6751));
        let tar = ground.tar(&[":/tmp/kept/f", "-"]);
        let mut tar = tar::Archive::new(&tar[..]);
        let header = tar.entries().unwrap().next().unwrap().unwrap().header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (1000, 1001));
    };
    check();
    std::os::unix::fs::lchown(ground.host.join("d/f"), Some(5000), Some(0)).unwrap();
    assert!(ground.fails(2, &["-a", "d", ":/tmp/none"]).contains("no id 5000 is mapped"));
    std::os::unix::fs::lchown(ground.host.join("d/f"), Some(1000), Some(1001)).unwrap();
    fs::set_permissions(ground.host.join("d/f"), fs::Permissions::from_mode(0o6751)).unwrap();
    ok("setcap", &["cap_net_raw+ep", ground.host.join("d/f").to_str().unwrap()]);
    ground.bundle.store.ok(&["kill", &ground.bundle.id, "KILL"]);
    ground.bundle.wait(|b| b.state()["status"] == "stopped");
    check();
}

#[test]
fn tars_in_and_out() {
    let ground = Ground::new();
    fill(&ground.host.join("source"));
    ground.ok(&["source", ":/tmp/t"]);
    let out = ground.tar(&[":/tmp/t", "-"]);
    let list = |tar: &[u8]| {
        let mut archive = tar::Archive::new(tar);
        let name = |e: std::io::Result<tar::Entry<&[u8]>>| e.unwrap().path_bytes().escape_ascii().to_string();
        archive.entries().unwrap().map(name).collect::<Vec<_>>()
    };
    assert_eq!(list(&out)[..3], ["t/", "t/.wh.file", "t/dangling"]);
    assert_eq!(list(&ground.tar(&[":/tmp/t/.", "-"]))[..2], ["./", ".wh.file"]);
    assert_eq!(list(&ground.tar(&[":/tmp/t/file", "-"])), ["file"]);
    let want = tree(&ground.inside("tmp/t"));
    let gzip = crate::common::layout::Blob::gzip(&out).bytes;
    let zstd = crate::common::layout::Blob::zstd(&out).bytes;
    for (to, tar) in [("a", &out), ("b", &gzip), ("c", &zstd)] {
        let to = format!("tmp/{to}");
        fs::create_dir(ground.inside(&to)).unwrap();
        let poured = ground.pour(&["-", &format!(":{to}")], tar);
        assert!(poured.status.success(), "{poured:?}");
        assert_eq!(tree(&ground.inside(&to).join("t")), want);
    }
    // Names in directories that the tar does not have.
    let implicit = Tar::new().file("x/y/z", b"z").file("t/file", b"new").finish();
    assert!(ground.pour(&["-", ":/tmp"], &implicit).status.success());
    assert_eq!(fs::read_to_string(ground.inside("tmp/x/y/z")).unwrap(), "z");
    assert_eq!(owner(&ground.inside("tmp/x/y")), (0, 0, 0o755));
    assert_eq!(fs::read_to_string(ground.inside("tmp/t/file")).unwrap(), "new");
    // Whoever stops to read ends it without a word.
    let line = format!(
        "set -o pipefail; {} --root {} cp {}:/bin - | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}",
        crate::common::bin(),
        ground.bundle.store.path().display(),
        ground.bundle.id
    );
    let out = crate::common::output("bash", &["-c", &line]);
    assert_eq!((&*String::from_utf8_lossy(&out.stdout), out.stderr.len()), ("141\n", 0));
    let nowhere = ground.pour(&["-", ":/none"], &implicit);
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("No such file"), "{nowhere:?}");
    let file = ground.pour(&["-", ":/bin/busybox"], &implicit);
    assert!(String::from_utf8_lossy(&file.stderr).contains("Not a directory"), "{file:?}");
}

#[test]
fn hostile_tars_stay_where_they_are_put() {
    let ground = Ground::new();
    let outside = ground.bundle.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "host").unwrap();
    let out = outside.to_str().unwrap();
    let canary = format!("{out}/canary");
    let tars = [
        ("..", Tar::new().file("../x", b"x"), "name with a .. component"),
        ("absolute", Tar::new().file("/tmp/x", b"x"), "absolute name"),
        (
            "link, then through it",
            Tar::new().symlink("l", out).file("l/canary", b"x"),
            "/l is not a directory",
        ),
        (
            "a directory over a link",
            Tar::new().symlink("l", out).dir("l/").file("l/canary", b"x"),
            "/l is not a directory",
        ),
        (
            "through a link that was there",
            Tar::new().file("planted/canary", b"x"),
            "/planted is not a directory",
        ),
        (
            "a directory over that",
            Tar::new().dir("planted/").file("planted/canary", b"x"),
            "/planted is not a directory",
        ),
        ("a hard link to the outside", Tar::new().link("h", &canary), "No such file"),
        ("a hard link through a link", Tar::new().link("h", "planted/canary"), "Too many levels"),
        ("a hard link to itself", Tar::new().link("h", "h"), "to itself"),
        ("a hard link to a directory", Tar::new().dir("d/").link("h", "d"), "Operation not permitted"),
        (
            "a file over a directory",
            Tar::new().dir("d/").file("d", b"x"),
            "there is a directory of that name",
        ),
        ("a directory over a file", Tar::new().file("f", b"x").dir("f/"), "/f is not a directory"),
        ("the root as a link", Tar::new().symlink("./", out), "the root has to be a directory"),
        ("a whiteout device", Tar::new().entry(T::Char, "c", 0o666, "", b""), "whiteout"),
        (
            "overlayfs' own",
            Tar::new().pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")]).file("f", b""),
            "overlay",
        ),
        ("content of a link", Tar::new().entry(T::Symlink, "l", 0o777, "x", b"content"), "content"),
    ];
    let work = ground.inside("work");
    for (what, tar, want) in tars {
        let tar = tar.finish();
        for options in [&["-", ":/work"][..], &["-a", "-", ":/work"]] {
            let _ = fs::remove_dir_all(&work);
            fs::create_dir(&work).unwrap();
            symlink(&outside, work.join("planted")).unwrap();
            let poured = ground.pour(options, &tar);
            let stderr = String::from_utf8_lossy(&poured.stderr);
            assert!(!poured.status.success() && stderr.contains(want), "{what}: {stderr}");
            assert_eq!(names(&outside), "canary=host", "{what}");
            assert!(!ground.inside("x").exists() && !ground.inside("tmp/x").exists(), "{what}");
        }
    }
    // A link that was there is replaced by a file, not followed.
    let poured = ground.pour(&["-", ":/work"], &Tar::new().file("planted", b"x").finish());
    assert!(poured.status.success(), "{poured:?}");
    assert_eq!(
        (names(&outside), fs::read_to_string(work.join("planted")).unwrap()),
        ("canary=host".into(), "x".into())
    );
    for (bytes, want) in [
        (&b"no tar at all"[..], "ends within"),
        (&[b'x'; 1024], "not a tar header"),
        (&[0x1f, 0x8b, 1, 2], ""),
    ] {
        let poured = ground.pour(&["-", ":/work"], bytes);
        let stderr = String::from_utf8_lossy(&poured.stderr);
        assert!(poured.status.code() == Some(9) && stderr.contains(want), "{poured:?}");
    }
}

/// Files that lie outside of the root, and their twins inside, by the same path.
fn twins(ground: &Ground) -> PathBuf {
    let outside = ground.bundle.dir.join("outside");
    for (dir, text) in [(outside.clone(), "host"), (ground.inside(outside.to_str().unwrap()), "inside")] {
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("canary"), text).unwrap();
        fs::write(dir.join("sub/canary"), text).unwrap();
    }
    outside
}

#[test]
fn swapped_for_links_meanwhile() {
    let ground = Ground::new();
    let outside = twins(&ground);
    let race = ground.inside("race");
    fs::create_dir_all(race.join("a/sub")).unwrap();
    fs::write(race.join("a/canary"), "inside").unwrap();
    fs::write(race.join("a/sub/canary"), "inside").unwrap();
    fs::create_dir_all(ground.host.join("d/sub")).unwrap();
    fs::write(ground.host.join("d/canary"), "mine").unwrap();
    fs::write(ground.host.join("d/sub/canary"), "mine").unwrap();
    fs::write(ground.host.join("d/sub/new"), "mine").unwrap();
    let before = tree(&outside);
    let (mut done, mut refused) = (0, 0);
    // By an absolute path, by climbing, and by what a process of the host would see.
    for link in [outside.clone(), "../../outside".into(), format!("/proc/1/root{}", outside.display()).into()]
    {
        let _ = fs::remove_file(race.join("b")).or_else(|_| fs::rename(race.join("b"), race.join("a2")));
        if race.join("a2").exists() {
            fs::remove_file(race.join("a")).unwrap();
            fs::rename(race.join("a2"), race.join("a")).unwrap();
        }
        symlink(&link, race.join("b")).unwrap();
        let ways: [&[&str]; 10] = [
            &["d/canary", ":/race/a/canary"],
            &["d/canary", ":/race/a/sub"],
            &["d/.", ":/race/a"],
            &["d", ":/race/a/"],
            &["-a", "d/.", ":/race"],
            &[":/race/a/canary", "out"],
            &["-L", ":/race/a", "out"],
            &[":/race/a/sub", "out"],
            &[":/race/a/.", "out"],
            &["-a", ":/race", "out"],
        ];
        while_swapping(&race, "a", "b", || {
            for way in ways.iter().cycle().take(20) {
                let out = ground.host.join("out");
                let (all, output) = ground.cp(way);
                match output.status.code() {
                    Some(0) => done += 1,
                    Some(1 | 2 | 8..=10) => refused += 1,
                    _ => panic!("{}", describe("shipimg", &all, &output)),
                }
                let read =
                    ok("find", &[ground.host.to_str().unwrap(), "-type", "f", "-exec", "cat", "{}", "+"]);
                assert!(!read.contains("host"), "{way:?} read the host's file");
                assert_eq!(tree(&outside), before, "{way:?} wrote outside of the root");
                let _ = fs::remove_file(&out).or_else(|_| fs::remove_dir_all(&out));
            }
        });
    }
    assert!(done > 0 && refused > 0, "{done} went through, {refused} did not");
}

/// Takes away every folder in which files are being made, and puts a link to `outside` in its place,
/// while `work` is done; gives how often.
fn while_snatching(dir: &Path, outside: &Path, work: impl FnOnce()) -> u32 {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let snatcher = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name());
                for name in names.filter(|n| n.as_bytes().starts_with(b".shipimg-")) {
                    let stolen = dir.join(format!("stolen{count}"));
                    if fs::rename(dir.join(&name), &stolen).is_ok() {
                        count += 1;
                        let _ = symlink(outside, dir.join(&name));
                    }
                }
            }
            count
        });
        work();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        snatcher.join().unwrap()
    })
}

#[test]
fn the_folder_in_which_files_are_made_is_snatched() {
    let ground = Ground::new();
    let outside = ground.bundle.dir.join("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("new"), "host").unwrap();
    let before = tree(&outside);
    fill(&ground.host.join("d"));
    let target = ground.inside("target");
    fs::create_dir(&target).unwrap();
    let snatched = while_snatching(&target, &outside, || {
        for _ in 0..40 {
            for args in [["-a", "d/.", ":/target"], ["-L", "d/file", ":/target/new"]] {
                let (all, out) = ground.cp(&args);
                assert!(matches!(out.status.code(), Some(0..=10)), "{}", describe("shipimg", &all, &out));
                assert_eq!(tree(&outside), before);
            }
        }
    });
    assert!(snatched > 0);
    assert_eq!(tree(&outside), before);
}

#[test]
fn what_is_not_opened() {
    let ground = Ground::with(|b| {
        b.change(|c| {
            c["process"]["args"] = json!(["sh", "-c", "while :; do echo more >>/tmp/grows; done"]);
        });
    });
    let odd = ground.inside("odd");
    fs::create_dir(&odd).unwrap();
    let at = |name: &str| odd.join(name).to_str().unwrap().to_string();
    ok("mkfifo", &[at("fifo")]);
    // Reading this one would never end.
    ok("mknod", &[at("zero").as_str(), "c", "1", "5"]);
    ok("mknod", &[at("block").as_str(), "b", "7", "200"]);
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::File::create(at("huge")).unwrap().set_len(1 << 42).unwrap();
    fs::write(at("plain"), "p").unwrap();
    let list = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names.join(OsStr::new(" ")).into_string().unwrap()
    };
    let (all, out) = ground.cp(&[":/odd", "out"]);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}", describe("shipimg", &all, &out));
    assert_eq!(stderr.matches("a device is left out").count(), 2, "{stderr}");
    assert!(stderr.contains("a socket is left out: /out/socket"), "{stderr}");
    let out = ground.host.join("out");
    assert_eq!(list(&out), "fifo huge plain");
    assert!(out.join("fifo").metadata().unwrap().file_type().is_fifo());
    let huge = out.join("huge").metadata().unwrap();
    assert_eq!((huge.len(), huge.blocks()), (1 << 42, 0));
    let (all, out) = ground.cp(&["-a", ":/odd", "kept"]);
    assert!(out.status.success(), "{}", describe("shipimg", &all, &out));
    assert_eq!(list(&ground.host.join("kept")), "block fifo huge plain zero");
    assert_eq!(ground.host.join("kept/zero").metadata().unwrap().rdev(), rustix::fs::makedev(1, 5));
    ground.ok(&["-a", "kept/zero", ":/tmp/zero"]);
    ground.ok(&["kept/fifo", ":/tmp/fifo"]);
    assert!(ground.fails(2, &[":/odd/zero", "z"]).contains("devices are copied with --archive"));
    assert!(ground.fails(2, &["kept/zero", ":/z"]).contains("devices are copied with --archive"));
    assert!(ground.fails(2, &["-a", ":/odd/socket", "s"]).contains("a socket is not copied"));
    // In place of a file that is copied over they are replaced, not opened.
    ground.ok(&["kept/plain", ":/odd/fifo"]);
    ground.ok(&["kept/plain", ":/odd/zero"]);
    assert_eq!(fs::read_to_string(odd.join("zero")).unwrap(), "p");
    // What the kernel makes when it is read, what has no end, what grows.
    ground.ok(&[":/proc/1/status", "status"]);
    assert!(fs::read_to_string(ground.host.join("status")).unwrap().contains("Name:\tsh"));
    ground.ok(&[":/sys/kernel/mm/transparent_hugepage/enabled", "enabled"]);
    assert!(ground.fails(1, &[":/proc/1/mem", "mem"]).contains("read(/mem)"));
    assert!(ground.fails(10, &["status", ":/proc/new"]).contains("mkdirat(/proc/"));
    ground.ok(&[":/tmp/grows", "grows"]);
    assert!(fs::read_to_string(ground.host.join("grows")).unwrap().starts_with("more\n"));
}

#[test]
fn ten_thousand_files() {
    // In memory, on both sides.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let ground = Ground { host: memory.path().to_path_buf(), ..Ground::new() };
    let source = ground.host.join("many");
    for dir in 0..100 {
        let dir = source.join(dir.to_string());
        fs::create_dir_all(&dir).unwrap();
        (0..100).for_each(|n| fs::write(dir.join(n.to_string()), n.to_string()).unwrap());
    }
    ground.ok(&["many", ":/dev/shm"]);
    ground.ok(&[":/dev/shm/many", "back"]);
    let (a, b) = (source.to_str().unwrap(), ground.host.join("back"));
    ok("diff", &["-r", a, b.to_str().unwrap()]);
    assert_eq!(ok("find", &[b.to_str().unwrap(), "-type", "f"]).lines().count(), 10_000);
}

#[test]
fn not_into_itself() {
    let ground = Ground::new();
    // The host's folder has the container's root in it.
    let bundle = ground.bundle.dir.to_str().unwrap();
    for to in [":/", ":/tmp", ":/tmp/new"] {
        let to = ground.argument(OsStr::new(to));
        let all = [OsStr::new("cp"), OsStr::new(bundle), &to];
        let said = failed(2, &all, &ground.bundle.store.output(&all));
        assert!(said.contains("would be copied into itself"), "{said}");
    }
    ground.ok(&[":/bin/busybox", "busybox"]);
}

#[test]
fn nothing_of_the_container_runs() {
    let ground = Ground::new();
    // The program that runs has its file no longer; others are traps.
    fs::remove_dir_all(ground.inside("bin")).unwrap();
    for dir in ["bin", "lib", "usr/bin", "usr/lib"] {
        fs::create_dir_all(ground.inside(dir)).unwrap();
        for name in ["sh", "tar", "cp", "cat", "busybox", "shipimg", "libnss_files.so.2", "libc.so.6", "id"] {
            let trap = ground.inside(dir).join(name);
            fs::write(&trap, "#!/bin/sh\necho > /trapped\n").unwrap();
            fs::set_permissions(trap, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    fill(&ground.host.join("d"));
    ground.ok(&["d", ":/d"]);
    ground.ok(&["-a", ":/d", "back"]);
    assert_eq!(tree(&ground.host.join("back")), tree(&ground.host.join("d")));
    let tar = ground.tar(&[":/d", "-"]);
    assert!(ground.pour(&["-", ":/tmp"], &tar).status.success());
    assert!(!ground.inside("trapped").exists() && !Path::new("/trapped").exists());
}

#[test]
fn ended_in_the_middle_it_leaves_nothing_half_made() {
    use std::io::Write;
    let ground = Ground::new();
    let whole = Tar::new().file("big", &vec![7; 4 << 20]).finish();
    let mut command = ground.bundle.store.command();
    command.args(["cp", "-", &format!("{}:/tmp", ground.bundle.id)]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&whole[..2 << 20]).unwrap();
    let begun = || fs::read_dir(ground.inside("tmp")).unwrap().count() > 0;
    ground.bundle.wait(|_| begun());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let _ = stdin.write_all(&whole[2 << 20..]);
    drop(stdin);
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15), "{status:?}");
    assert_eq!(fs::read_dir(ground.inside("tmp")).unwrap().count(), 0);
    // And an archive has its limits.
    let out = ground.pour(
        &["--max-entries=2", "-", ":/tmp"],
        &Tar::new().file("a", b"").file("b", b"").file("c", b"").finish(),
    );
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(9) && stderr.contains("more than 2 entries"), "{stderr}");
}

#[test]
fn deep_trees_and_long_names() {
    let ground = Ground::new();
    let mut deep = ground.host.join("deep");
    (0..400).for_each(|_| deep.push("d"));
    fs::create_dir_all(&deep).unwrap();
    let name = "n".repeat(255);
    fs::write(deep.join(&name), "at the end").unwrap();
    ground.ok(&["deep", ":/deep"]);
    ground.ok(&[":/deep", "back"]);
    let path = deep.strip_prefix(ground.host.join("deep")).unwrap();
    let back = ground.host.join("back").join(path).join(&name);
    assert_eq!(fs::read_to_string(back).unwrap(), "at the end");
}

#[test]
fn by_an_ordinary_user() {
    for user in [User::new(), User::single()] {
        let layers = crate::unprivileged::layers();
        Layout::new(&user.store()).add("x:0", &layers, &json!({"Cmd": ["/bin/sh"]}));
        user.give(&user.store());
        user.ok(&["bundle", "create", "x:0", "c", "--", "/bin/busybox", "sleep", "600"]);
        user.ok(&["run", "--detach", "c"]);
        fs::write(user.home().join("f"), "f").unwrap();
        user.give(&user.home().join("f"));
        let check = |made: &str| {
            user.ok(&["cp", "f", &format!("c:/tmp/{made}")]);
            user.ok(&["cp", &format!("c:/tmp/{made}"), made]);
            assert_eq!(owner(&user.home().join(made)), (user.uid, user.gid, 0o644));
            assert_eq!(fs::read_to_string(user.home().join(made)).unwrap(), "f");
        };
        check("one");
        assert_eq!(user.ok(&["exec", "c", "busybox", "stat", "-c", "%u:%g", "/tmp/one"]), "0:0\n");
        user.ok(&[
            "exec",
            "c",
            "sh",
            "-c",
            "busybox mkdir /tmp/d; echo x >/tmp/d/x; busybox ln -s x /tmp/d/l",
        ]);
        user.ok(&["cp", "-a", "c:/tmp/d", "d"]);
        assert_eq!(names(&user.home().join("d")), "l->x x=x\\n");
        assert!(user.fails(2, &["cp", "-a", "c:/dev/null", "null"]).contains("by root of the host"));
        user.fails(8, &["cp", "/etc/shadow", "c:/tmp"]);
        user.ok(&["kill", "c", "KILL"]);
        while !user.ok(&["state", "c"]).contains("stopped") {}
        check("two");
        user.ok(&["delete", "c"]);
    }
}
