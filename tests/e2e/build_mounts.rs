//! What steps have mounted: caches, files of stages, images and contexts, memory.

use crate::common::user::User;
use crate::common::work::{BUSYBOX, Work};
use crate::common::{collect, succeeded};
use std::fs;
use std::path::PathBuf;

/// A folder `ctx` with a Dockerfile, and a base with users of its own.
fn work() -> Work {
    let work = Work::new();
    work.write(
        "base.toml",
        format!(
            "{BUSYBOX}[[user]]\nname = \"app\"\nuid = 1000\n[[run]]\nshell = \"mkdir -m 1777 /tmp && echo image > /etc/issue\"\n\
             [image]\nenv = {{ PATH = \"/bin\" }}\n[[output]]\nkind = \"oci\"\ntag = \"localhost/base:1\"\n\
             [[output]]\nkind = \"oci-archive\"\npath = \"base.tar\"\ntag = \"localhost/base:1\"\n"
        ),
    );
    work.ok(&["build", "base.toml"]);
    fs::create_dir(work.path("ctx")).unwrap();
    work
}

/// Builds a Dockerfile: how many steps were done, and its root.
#[track_caller]
fn build(work: &Work, text: &str, more: &[&str]) -> (u64, PathBuf) {
    work.write("ctx/Dockerfile", text);
    let (_, done) = work.made(&[&["ctx", "--tag", "localhost/made:1"], more].concat());
    let out = work.path("unpacked");
    if out.exists() {
        fs::remove_dir_all(&out).unwrap();
    }
    work.ok(&["unpack", "localhost/made:1", out.to_str().unwrap()]);
    (done, out.join("rootfs"))
}

fn read(root: &std::path::Path, name: &str) -> String {
    fs::read_to_string(root.join(name)).unwrap()
}

#[test]
fn a_cache_is_kept_between_builds_and_in_no_layer() {
    let work = work();
    let fill = "FROM localhost/base:1\nRUN --mount=type=cache,target=/cache/of/it,id=c,uid=1000,gid=1000,mode=0710 \
                echo one > /cache/of/it/f; stat -c '%u %a' /cache/of/it > /mode\n";
    let (_, root) = build(&work, fill, &[]);
    assert_eq!(read(&root, "mode"), "1000 710\n");
    assert!(!root.join("cache").exists(), "neither its files nor its place");
    let look = "FROM localhost/base:1\nUSER app\nRUN --mount=type=cache,target=/tmp/x,id=c cat /tmp/x/f > /tmp/got\n";
    assert_eq!(read(&build(&work, look, &[]).1, "tmp/got"), "one\n", "by another build");
    // What is in it is in no key, where it is: without it files would be in the layer.
    build(&work, &fill.replace("echo one", "echo two"), &[]);
    assert_eq!(build(&work, look, &[]).0, 0);
    assert_eq!(
        build(&work, &look.replace("id=c", "sharing=private,id=other"), &[]).0,
        0,
        "as much as its name"
    );
    assert!(build(&work, &look.replace("/tmp/x", "/tmp/y"), &[]).0 > 0);
    assert_eq!(read(&build(&work, look, &["--no-cache"]).1, "tmp/got"), "two\n");
    let caches = || fs::read_dir(work.store.path().join("shipimg/caches")).unwrap().count();
    work.ok(&["prune", "--yes"]);
    assert_eq!(caches(), 1, "it was used just now");
    assert!(work.ok(&["prune", "--all", "--yes"]).contains("1 cache of steps"));
    assert_eq!(caches(), 0);
    work.ok(&["build", "base.toml"]);
    work.fails(1, &["build", "ctx", "--no-cache"]);
    work.nothing_left();
}

#[test]
fn caches_are_shared_as_they_say() {
    let work = work();
    // Two that meet in one, and two of which each is alone with it.
    let recipe = |sharing: &str, a: &str, b: &str| {
        let stage = |name: &str, line: &str| {
            format!(
                "[[stage]]\nname = \"{name}\"\nbase = {{ image = \"localhost/base:1\" }}\n[[stage.run]]\n\
                 cache = [{{ target = \"/c\", sharing = \"{sharing}\" }}]\ntmpfs = [\"/t\", {{ target = \"/u\", size = \"1m\" }}]\n\
                 shell = \"echo {sharing}; mount | grep -c 'tmpfs on /[tu] '; {line}; echo {name} > /got\"\n"
            )
        };
        format!(
            "version = 1\n[base]\nimage = \"localhost/base:1\"\n{}{}[[run]]\ncache = [\"/c\"]\nbind = [{{ stage = \"a\", from = \"/got\", target = \"/in/a\" }}, {{ stage = \"b\", target = \"/in/b\" }}, \
             {{ image = \"localhost/base:1\", from = \"/etc/issue\", target = \"/in/i\", write = true }}]\n\
             shell = \"ls /c > /list; rm -f /c/*; cat /in/a /in/b/got /in/i > /both; echo x > /in/i; ! touch /in/b/x\"\n\
             [[output]]\nkind = \"dir\"\npath = \"out\"\n",
            stage("a", a),
            stage("b", b)
        )
    };
    let meets = |own: &str, other: &str| {
        format!(
            "touch /c/{own}; n=0; until test -e /c/{other}; do n=$((n+1)); test $n -lt 600; sleep 0.1; done"
        )
    };
    let alone = "mkdir /c/busy; sleep 0.3; rmdir /c/busy";
    for (sharing, a, b, list) in [
        ("shared", meets("a", "b"), meets("b", "a"), "a\nb\n"),
        ("locked", alone.to_string(), alone.to_string(), ""),
        ("private", alone.to_string(), alone.to_string(), ""),
    ] {
        work.write("r.toml", recipe(sharing, &a, &b));
        work.ok(&["build", "r.toml", "--jobs", "2"]);
        assert_eq!(fs::read_to_string(work.path("out/list")).unwrap(), list, "{sharing}");
        assert_eq!(fs::read_to_string(work.path("out/both")).unwrap(), "a\nb\nimage\n");
        assert!(
            !work.path("out/in").exists() && !work.path("out/c").exists() && !work.path("out/t").exists()
        );
        fs::remove_dir_all(work.path("out")).unwrap();
    }
    work.nothing_left();
}

#[test]
fn files_are_bound_from_stages_and_contexts() {
    let work = work();
    let text = |word: &str| {
        format!(
            "FROM localhost/base:1 AS dep\nRUN mkdir /out && echo {word} > /out/f && ln -s ../../../../etc/issue /out/l && ln -s /etc /e\n\
             FROM localhost/base:1 AS unneeded\nRUN false\n\
             FROM localhost/base:1\nWORKDIR /w\n\
             RUN --mount=type=bind,from=dep,source=/out,target=/in --mount=from=dep,source=e/issue,target=/i \
             cat /in/f /in/l /i > got; touch /in/x 2> /dev/null && echo written >> got; true\n\
             RUN --mount=type=bind,from=0,target=/in,rw echo x > /in/x && cat /in/x > got2\n\
             RUN --mount=target=. ls -A > /list; cat sub/f >> /list\n\
             RUN --mount=type=bind,source=up,target=/in cat /in/issue > /up 2>&1 || true\n\
             RUN --mount=type=tmpfs,target=/w echo gone > x\n"
        )
    };
    work.write("ctx/sub/f", "one\n")
        .write("ctx/skipped", "x")
        .write("ctx/.dockerignore", "skipped\nDockerfile\n");
    work.write("ctx/etc/issue", "the context's\n");
    std::os::unix::fs::symlink("../../../../../etc", work.path("ctx/up")).unwrap();
    let (_, root) = build(&work, &text("first"), &[]);
    assert_eq!(read(&root, "w/got"), "first\nimage\nimage\n", "links lead nowhere else");
    assert_eq!(read(&root, "w/got2"), "x\n");
    assert_eq!(read(&root, "list"), ".dockerignore\netc\nsub\nup\none\n");
    assert_eq!(read(&root, "up"), "the context's\n");
    let mut left: Vec<_> = fs::read_dir(root.join("w")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert!(left == ["got", "got2"] && !root.join("in").exists() && !root.join("i").exists(), "{left:?}");
    assert_eq!(build(&work, &text("first"), &[]).0, 0);
    let (done, root) = build(&work, &text("other"), &[]);
    assert!(done == 7 && read(&root, "w/got").starts_with("other\n"), "what is bound counts: {done}");
    work.write("ctx/sub/f", "two\n");
    let (done, root) = build(&work, &text("other"), &[]);
    assert!(done == 4 && read(&root, "list").ends_with("two\n"), "{done}");
    work.write("ctx/skipped", "y");
    assert_eq!(build(&work, &text("other"), &[]).0, 0, "what is not seen does not");
    work.nothing_left();
}

#[test]
fn an_ordinary_user_has_the_same_mounts() {
    let (work, user) = (work(), User::new());
    let dir = user.home().join("ctx");
    fs::create_dir(&dir).unwrap();
    let text = "FROM localhost/base:1 AS dep\nRUN echo dep > /f\nFROM localhost/base:1\n\
                RUN --mount=type=cache,target=/c,uid=1000 --mount=from=dep,target=/in --mount=type=tmpfs,target=/t \
                --mount=target=/ctx cat /in/f /ctx/f > /got; echo x > /c/x; echo x > /t/x; stat -c %u /c >> /got\n";
    fs::write(dir.join("Dockerfile"), text).unwrap();
    fs::write(dir.join("f"), "context\n").unwrap();
    fs::copy(work.path("base.tar"), user.home().join("base.tar")).unwrap();
    user.give(&user.home());
    user.ok(&["import", "base.tar", "localhost/base:1"]);
    let args = ["build", "ctx", "--tag", "localhost/made:1", "--format", "json"];
    let made: serde_json::Value = serde_json::from_str(&user.ok(&args)).unwrap();
    work.write("ctx/f", "context\n");
    let (_, root) = build(&work, text, &[]);
    assert_eq!(read(&root, "got"), "dep\ncontext\n1000\n");
    assert_eq!(made["digest"], work.built(&["ctx", "--tag", "localhost/made:1"])["digest"]);
    let out = collect(user.shipimg().args(["prune", "--all", "--yes"]));
    assert!(succeeded(&["prune"], &out).contains("1 cache of steps"));
}
