//! Files into containers and out of them.

use crate::common::bundle::Bundle;
use crate::common::{describe, failed, ok, succeeded};
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

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
