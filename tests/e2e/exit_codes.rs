//! What `docs/exit-codes.md` says, of `build` and `verify`.

use crate::common::work::{BUSYBOX, TAG, Work};
use crate::common::{bin, failed};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// A recipe with these lines, which has busybox and the image `made:1`.
fn recipe(more: &str) -> String {
    format!("{BUSYBOX}{more}{TAG}")
}

const RANDOM: &str = "[[run]]\nshell = \"cat /proc/sys/kernel/random/uuid > /id\"\n";
const SQUASHFS: &str = "[[output]]\nkind = \"squashfs\"\npath = \"x.img\"\n";
/// Programs that builds need, without mksquashfs(1).
fn path(work: &Work) -> std::path::PathBuf {
    let folder = work.path("programs");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("/usr/bin/tee", folder.join("tee")).unwrap();
    folder
}

/// Nothing listens there.
const UNREACHABLE: &str = "version = 1\n[base]\nimage = \"localhost:1/none:1\"\n";

#[test]
fn of_builds() {
    let work = Work::new();
    let path = path(&work);
    for (code, text, args) in [
        (0, recipe(""), &[][..]),
        (1, recipe("[[run]]\nshell = \"false\"\n"), &[]),
        (2, recipe("[[runs]]\nshell = \"true\"\n"), &[]),
        (3, recipe("[[check]]\nfile = \"/none\"\n"), &[]),
        (4, recipe(""), &["--frozen"]),
        (5, recipe(RANDOM), &["--rebuild"]),
        (6, format!("{UNREACHABLE}{TAG}"), &[]),
        (7, recipe(SQUASHFS), &[]),
        (10, recipe("[[copy]]\nfrom = \"none\"\nto = \"/\"\n"), &[]),
    ] {
        let name = format!("{code}.toml");
        work.write(&name, &text);
        let args = [&["build", &name], args].concat();
        let out = work.command(&args).env("PATH", &path).output().unwrap();
        match code {
            0 | 3 | 5 => assert_eq!(out.status.code(), Some(code), "{out:?}"),
            _ => drop(failed(code, &args, &out)),
        }
    }
    work.nothing_left();
}

#[test]
fn of_checks() {
    let work = Work::new();
    work.write("r.toml", recipe(SQUASHFS)).write("random.toml", recipe(RANDOM));
    work.write("far.toml", format!("{UNREACHABLE}{TAG}"));
    work.ok(&["build", "r.toml"]);
    std::fs::remove_file(work.path("r.lock")).unwrap();
    let checks = [("good", "file = '/bin/sh'"), ("bad", "file = '/none'"), ("wrong", "flie = 'x'")];
    for (name, check) in checks {
        work.write(&format!("{name}.toml"), format!("[[check]]\n{check}\n"));
    }
    let path = path(&work);
    for (code, target, args) in [
        (0, "made:1", &["--checks", "good.toml", "--rebuild", "r.toml"][..]),
        (2, "made:1", &["--checks", "wrong.toml"]),
        (3, "made:1", &["--checks", "bad.toml"]),
        (4, "made:1", &["--rebuild", "r.toml", "--frozen"]),
        (5, "made:1", &["--rebuild", "random.toml"]),
        (6, "made:1", &["--rebuild", "far.toml"]),
        (7, "./x.img", &["--rebuild", "r.toml"]),
        (10, "none:1", &["--checks", "good.toml"]),
        (10, "made:1", &["--checks", "none.toml"]),
    ] {
        let args = [&["verify", target], args].concat();
        let out = work.command(&args).env("PATH", &path).output().unwrap();
        match code {
            0 | 3 | 5 => assert_eq!(out.status.code(), Some(code), "{out:?}"),
            _ => drop(failed(code, &args, &out)),
        }
    }
    work.nothing_left();
}

/// Runs shipimg by a shell; gives what that says of its end when it is interrupted once the step sleeps.
fn interrupted(work: &Work, args: &[&str]) -> String {
    let mut shell = Command::new("sh");
    // Of a process group of its own, as on a terminal; the shell outlives the signal.
    shell.args(["-c", "trap : INT; \"$@\"; echo \"code $?\" >&2", "sh", bin(), "--root"]);
    shell.arg(work.store.path()).args(args).current_dir(work.dir.path());
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let mut child = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
        if line == "sleeps" {
            let group = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
        }
        said += &line;
        said.push('\n');
    }
    child.wait().unwrap();
    said
}

#[test]
fn of_what_is_interrupted() {
    let work = Work::new();
    work.write("r.toml", recipe("")).ok(&["build", "r.toml"]);
    work.write("slow.toml", recipe("[[run]]\nshell = \"echo sleeps; sleep 600\"\n"));
    for args in [&["build", "slow.toml"][..], &["verify", "made:1", "--rebuild", "slow.toml"]] {
        let said = interrupted(&work, args);
        assert!(said.ends_with("code 130\n"), "{args:?}: {said}");
        work.nothing_left();
    }
}
