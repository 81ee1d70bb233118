//! Attacks that runtimes have fallen to, on every command that they can be tried on: `run`, `create`,
//! `exec` and `cp`. What `hostile_run` has is not tried again. The table is in docs/conformance.md.

use crate::common::bundle::{Bundle, version_2, while_swapping};
use crate::common::user::User;
use crate::common::{bin, collect, ok};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// Whatever a command makes of it, it says so and ends; what it says.
fn tried(out: &Output) -> String {
    assert!(out.status.code().is_some(), "{out:?}");
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn writable(b: &Bundle) {
    b.change(|c| c["root"]["readonly"] = json!(false));
}

/// The host's programs in the container.
fn with_perl(b: &Bundle) {
    for dir in ["usr", "lib", "lib64"] {
        fs::create_dir(b.rootfs().join(dir)).unwrap();
        let mount = json!({"destination": format!("/{dir}"), "source": format!("/{dir}"), "options": ["rbind", "ro"]});
        b.change(|c| c["mounts"].as_array_mut().unwrap().push(mount));
    }
}

#[test]
fn proc_sys_and_dev_lead_out() {
    let b = Bundle::new("sleep 60");
    writable(&b);
    let outside = b.dir.join("outside");
    let names = ["self/attr", "self/fd", "1", "pts", "shm", "fs/cgroup"];
    for name in names {
        fs::create_dir_all(outside.join(name)).unwrap();
    }
    for file in ["null", "ptmx", "pts/ptmx", "self/attr/exec", "secret"] {
        fs::write(outside.join(file), "host").unwrap();
    }
    let state =
        || ok("sh", &["-c", &format!("cd {} && find . | sort && cat $(find . -type f)", outside.display())]);
    let before = state();
    let own = b.dir.join("own");
    fs::write(&own, "mine").unwrap();
    let own = own.to_str().unwrap();
    let up = Path::new("../outside");
    for name in ["proc", "sys", "dev"] {
        for mounted in [false, true] {
            for target in [outside.as_path(), up, Path::new("../../../../../../../../../../proc/1/root")] {
                let (dir, id) = (b.rootfs().join(name), b.id.as_str());
                fs::remove_dir_all(&dir).or_else(|_| fs::remove_file(&dir)).unwrap();
                symlink(target, &dir).unwrap();
                let below = format!("/{name}");
                let config = fs::read(b.dir.join("config.json")).unwrap();
                b.change(|c| {
                    let list = c["mounts"].as_array_mut().unwrap();
                    list.retain(|m| mounted || !m["destination"].as_str().unwrap().starts_with(&below));
                });
                b.change(|c| c["process"]["args"] = json!(["true"]));
                tried(&b.launch("run"));
                b.change(|c| c["process"]["args"] = json!(["sleep", "60"]));
                if b.launch("create").status.success() {
                    let _ = b.store.output(&["start", id]);
                    for command in [
                        &["exec", id, "true"][..],
                        &["exec", "--tty", id, "true"],
                        &["exec", "--cwd", &below, id, "true"],
                        &["exec", "--process-label", "x", id, "true"],
                        &["exec", "--apparmor", "x", id, "true"],
                        &["cp", own, &format!("{id}:{below}/canary")],
                        &["cp", own, &format!("{id}:{below}/null")],
                        &["cp", "-a", b.dir.join("host").to_str().unwrap(), &format!("{id}:{below}/.")],
                    ] {
                        tried(&b.store.output(command));
                    }
                    let read = b.store.output(&["cp", &format!("{id}:{below}/secret"), "-"]);
                    assert!(!tried(&read).contains("host"), "{name} {mounted} {target:?}");
                    b.store.ok(&["delete", "--force", id]);
                }
                assert_eq!(state(), before, "{name}, mounted {mounted}, to {}", target.display());
                fs::write(b.dir.join("config.json"), config).unwrap();
            }
        }
        let dir = b.rootfs().join(name);
        fs::remove_file(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
    }
    b.nothing_left();
}

/// Swaps `/race/a` and `/race/b` by renameat2(2), as a container does that shares its root with another.
const SWAPPER: &str = "perl -e 'chdir \"/race\" or die; $| = 1; my ($a, $b) = (\"a\", \"b\"); \
     for (;;) { for (1..1000) { syscall(316, -100, $a, -100, $b, 2) == 0 or die $! } print \"thousand\\n\" }'";

#[test]
fn another_container_swaps_what_is_mounted_on() {
    let swapper = Bundle::new(SWAPPER);
    writable(&swapper);
    with_perl(&swapper);
    let outside = swapper.dir.join("outside");
    fs::create_dir_all(outside.join("there")).unwrap();
    fs::write(outside.join("passwd"), "evil:x:77:77::/:/bin/sh\n").unwrap();
    let race = swapper.rootfs().join("race");
    fs::create_dir_all(race.join("a/there")).unwrap();
    fs::write(race.join("a/passwd"), "good:x:0:0::/:/bin/sh\n").unwrap();
    symlink(&outside, race.join("b")).unwrap();
    symlink("/race/a/passwd", swapper.rootfs().join("etc/passwd")).unwrap();
    let b = Bundle::new("sleep 60");
    let source = b.dir.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "bound").unwrap();
    b.change(|c| {
        c["root"] = json!({"path": swapper.rootfs(), "readonly": false});
        c["linux"]["maskedPaths"] = json!(["/race/a/there"]);
        c["linux"]["devices"] = json!([{"path": "/race/a/dev/null", "type": "c", "major": 1, "minor": 3}]);
        let list = c["mounts"].as_array_mut().unwrap();
        list.push(json!({"destination": "/race/a/new/folder", "type": "tmpfs"}));
        list.push(json!({"destination": "/race/a/there", "source": source, "options": ["rbind"]}));
        list.push(json!({"destination": "/race/a/file", "source": source.join("f"), "options": ["bind"]}));
        list.push(json!({"destination": "/race/a/cg", "type": "cgroup"}));
    });
    swapper.start();
    let swaps = |b: &Bundle| fs::read_to_string(b.dir.join("stdout")).unwrap().lines().count();
    swapper.wait(|b| swaps(b) > 0);
    let before = swaps(&swapper);
    let (mut made, mut refused) = (0, 0);
    let own = b.dir.join("own");
    fs::write(&own, "mine").unwrap();
    let (own, id) = (own.to_str().unwrap(), b.id.as_str());
    for _ in 0..30 {
        if b.launch("create").status.success() {
            made += 1;
            tried(&b.store.output(&["exec", "--user", "good", id, "true"]));
            let evil = b.store.output(&["exec", "--user", "evil", id, "id", "-u"]);
            assert!(!tried(&evil).contains("77\n"), "{evil:?}");
            tried(&b.store.output(&["exec", "--cwd", "/race/a", id, "touch", "made-by-exec"]));
            tried(&b.store.output(&["cp", own, &format!("{id}:/race/a/made-by-cp")]));
            let read = b.store.output(&["cp", &format!("{id}:/race/a/passwd"), "-"]);
            assert!(!tried(&read).contains("evil"), "{read:?}");
            b.store.ok(&["delete", "--force", id]);
        } else {
            refused += 1;
        }
        let found = ok("find", &[outside.to_str().unwrap(), "-printf", "%P\n"]);
        let mut found: Vec<_> = found.lines().collect();
        found.sort_unstable();
        assert_eq!(found, ["", "passwd", "there"], "made outside of the root");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(outside.to_str().unwrap()), "{mounts}");
    }
    let thousands = swaps(&swapper) - before;
    assert!(made > 0 && thousands > 10, "{made} made, {refused} refused, {thousands} thousand swaps");
    assert_eq!(
        swapper.state()["status"],
        "running",
        "{}",
        fs::read_to_string(swapper.dir.join("stderr")).unwrap()
    );
    swapper.store.ok(&["delete", "--force", &swapper.id]);
}

/// shipimg, called with a secret in its environment and descriptors open that are not for others.
fn careless(b: &Bundle, args: &[&str]) -> Output {
    let line = format!(
        "exec 5</etc/shadow 7</ 9>>{}/kept; exec {} --root {} \"$@\"",
        b.dir.display(),
        bin(),
        b.store.path().display()
    );
    let mut command = Command::new("bash");
    command
        .args(["-c", &line, "bash"])
        .args(args)
        .env("SECRET_OF_THE_HOST", "secret")
        .stdin(std::process::Stdio::null());
    collect(&mut command)
}

#[test]
fn descriptors_and_variables_stay_behind() {
    let show =
        "echo \"$(ls /proc/self/fd | tr '\\n' ' ') $(tr '\\0' '\\n' </proc/self/environ | grep -c SECRET)\"";
    let b = Bundle::new(&format!("{show}; sleep 60"));
    writable(&b);
    let log = b.dir.join("hooks");
    let on_host =
        format!("(ls -l /proc/self/fd; cat /proc/self/environ) >> {}; cat >/dev/null", log.display());
    let inside = "(ls -l /proc/self/fd; cat /proc/self/environ) >> /tmp/hooks; cat >/dev/null";
    b.change(|c| {
        let hook = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        let mut hooks = serde_json::Map::new();
        for point in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            hooks.insert(point.into(), hook(&on_host));
        }
        hooks.insert("startContainer".into(), hook(inside));
        c["hooks"] = hooks.into();
    });
    let dir = b.dir.to_str().unwrap();
    // Three, for it is ls that looks, and one for the shell's pipe at most.
    let clean = |text: &str| assert_eq!(text, "0 1 2 3  0\n");
    let created = careless(&b, &["create", "-b", dir, &b.id]);
    assert!(created.status.success(), "{created:?}");
    let started = careless(&b, &["start", &b.id]);
    assert!(started.status.success(), "{started:?}");
    let executed = careless(&b, &["exec", &b.id, "sh", "-c", show]);
    clean(&String::from_utf8_lossy(&executed.stdout));
    let copied = careless(&b, &["cp", &format!("{}:/proc/1/environ", b.id), "-"]);
    assert!(copied.status.success() && !tried(&copied).contains("SECRET"), "{copied:?}");
    careless(&b, &["delete", "--force", &b.id]);
    b.change(|c| c["process"]["args"] = json!(["sh", "-c", show]));
    let ran = careless(&b, &["run", "-b", dir, &b.id]);
    clean(&String::from_utf8_lossy(&ran.stdout));
    // One that nobody waits for.
    b.change(|c| c["process"]["args"] = json!(["sh", "-c", format!("{show} >/tmp/said; sleep 60")]));
    let detached = careless(&b, &["run", "--detach", "-b", dir, &b.id]);
    assert!(detached.status.success(), "{detached:?}");
    let said = b.rootfs().join("tmp/said");
    b.wait(|_| fs::read_to_string(&said).is_ok_and(|text| text.ends_with('\n')));
    clean(&fs::read_to_string(&said).unwrap());
    careless(&b, &["delete", "--force", &b.id]);
    let hooks =
        fs::read_to_string(&log).unwrap() + &fs::read_to_string(b.rootfs().join("tmp/hooks")).unwrap();
    assert!(!hooks.contains("SECRET") && !hooks.contains("shadow") && !hooks.contains("kept"), "{hooks}");
    let numbers: Vec<_> = hooks
        .lines()
        .filter_map(|l| l.split(" -> ").next()?.rsplit(' ').next()?.parse::<u32>().ok())
        .collect();
    assert!(numbers.len() >= 4 * 18 && numbers.iter().all(|n| *n <= 3), "{hooks}");
    b.nothing_left();
}

/// What looks for the caller's key.
const SEARCH: &str = "perl -e 'my ($t, $d) = (\"user\", \"key-of-the-caller\"); \
     print syscall(250, 10, -3, $t, $d, 0) > 0 ? \"found\" : \"none\", \"\\n\"'";

/// What `sh -c SCRIPT` says beside a session keyring with a key in it.
fn with_a_key(script: &str) -> String {
    // keyctl(2): 1 is KEYCTL_JOIN_SESSION_KEYRING, 10 KEYCTL_SEARCH; add_key(2) puts a key into it, -3.
    let perl = "my ($s, $t, $d, $p) = (\"attack\", \"user\", \"key-of-the-caller\", \"secret\"); \
                syscall(250, 1, $s) > 0 or die $!; \
                syscall(248, $t, $d, $p, 6, -3) > 0 or die $!; exec @ARGV";
    let out = crate::common::output("perl", &["-e", perl, "sh", "-c", script]);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn keys_of_the_caller_stay_behind() {
    let b = Bundle::new(&format!("{SEARCH}; sleep 60"));
    with_perl(&b);
    b.change(|c| c["linux"]["seccomp"] = json!(null));
    let shipimg = format!("{} --root {}", bin(), b.store.path().display());
    let (dir, id) = (b.dir.display(), &b.id);
    assert_eq!(with_a_key(SEARCH), "found\n");
    // In a file, for the container outlives it.
    with_a_key(&format!("{shipimg} create -b {dir} {id} >{dir}/out 2>&1; {shipimg} start {id}"));
    b.wait(|b| fs::read_to_string(b.dir.join("out")).is_ok_and(|said| said.ends_with('\n')));
    assert_eq!(fs::read_to_string(b.dir.join("out")).unwrap(), "none\n");
    fs::write(b.rootfs().join("bin/search"), format!("#!/bin/sh\n{SEARCH}\n")).unwrap();
    fs::set_permissions(b.rootfs().join("bin/search"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(with_a_key(&format!("{shipimg} exec {id} search")), "none\n");
}

#[test]
fn files_of_users_that_are_none() {
    let b = Bundle::new("sleep 60");
    writable(&b);
    b.start();
    let outside = b.dir.join("passwd");
    fs::write(&outside, "web:x:77:77::/:/bin/sh\n").unwrap();
    let passwd = b.rootfs().join("etc/passwd");
    let at = passwd.to_str().unwrap();
    let exec = |name: &str| {
        // Bounded: what hangs fails the test.
        let mut command = Command::new("timeout");
        command.args(["20", bin(), "--root"]).arg(b.store.path()).args(["exec", "--user", name, &b.id]);
        // Not id(1), which reads the file itself.
        collect(command.args(["stat", "-L", "-c", "%u", "/proc/self"]))
    };
    let refused = |what: &str| {
        for name in ["web", "0:web"] {
            let out = exec(name);
            assert_eq!(out.status.code(), Some(125), "{what}: {out:?}");
        }
        assert_eq!(String::from_utf8_lossy(&exec("7").stdout), "7\n", "{what}");
        fs::remove_file(&passwd).or_else(|_| fs::remove_dir(&passwd)).unwrap();
    };
    ok("mkfifo", &[at]);
    refused("a fifo");
    for device in [["c", "1", "5"], ["c", "1", "3"], ["c", "5", "0"], ["b", "7", "200"]] {
        ok("mknod", &[&[at], &device[..]].concat());
        refused("a device");
    }
    for target in [
        outside.to_str().unwrap(),
        "../../passwd",
        "/proc/1/root/etc/passwd",
        "/proc/self/fd/0",
        "passwd",
        "/dev/stdin",
    ] {
        symlink(target, &passwd).unwrap();
        refused(target);
    }
    fs::create_dir(&passwd).unwrap();
    refused("a directory");
    let file = fs::File::create(&passwd).unwrap();
    file.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"\nweb:x:33:33::/:\n", (1 << 30) - 20).unwrap();
    refused("a gigabyte");
    std::os::unix::net::UnixListener::bind(&passwd).unwrap();
    refused("a socket");
    fs::write(&passwd, "web:x:33:33::/:\n").unwrap();
    assert_eq!(String::from_utf8_lossy(&exec("web").stdout), "33\n");
}

#[test]
fn files_of_users_swapped_for_links_meanwhile() {
    let b = Bundle::new("sleep 60");
    b.start();
    let outside = b.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("passwd"), "web:x:77:77::/:/bin/sh\n").unwrap();
    fs::write(b.rootfs().join("etc/passwd"), "web:x:33:33::/:/bin/sh\n").unwrap();
    symlink(&outside, b.rootfs().join("other")).unwrap();
    let mut found = 0;
    while_swapping(&b.rootfs(), "etc", "other", || {
        for _ in 0..60 {
            let said = tried(&b.store.output(&["exec", "--user", "web", &b.id, "id", "-u"]));
            assert!(!said.contains("77\n"), "{said}");
            found += usize::from(said.contains("33\n"));
        }
    });
    assert!(found > 0);
}

#[test]
fn the_program_is_a_script_of_the_runtime() {
    let before = fs::read(bin()).unwrap();
    let b = Bundle::new("true");
    let script = b.rootfs().join("bin/self");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    b.change(|c| c["process"]["args"] = json!(["/bin/self"]));
    // It is shipimg that runs in the container, with a file for a command.
    let said = tried(&b.launch("run"));
    assert!(said.contains("unrecognized subcommand '/bin/self'"), "{said}");
    assert!(b.launch("create").status.success());
    b.store.output(&["start", &b.id]);
    b.wait(|b| b.state()["status"] == "stopped");
    b.store.ok(&["delete", &b.id]);
    assert!(before == fs::read(bin()).unwrap());
    b.nothing_left();
}

#[test]
fn a_frozen_container_answers_in_time() {
    let (file, frozen) = if version_2() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    let freeze = || {
        let b = Bundle::new("sleep 60");
        b.start();
        fs::write(b.group("freezer").join(file), frozen).unwrap();
        b.wait(|b| b.state()["status"] == "paused");
        b
    };
    let b = freeze();
    b.store.ok(&["kill", &b.id, "KILL"]);
    b.wait(|b| b.state()["status"] == "stopped");
    b.store.ok(&["delete", &b.id]);
    b.nothing_left();
    let b = freeze();
    let out = b.dir.join("out");
    b.store.ok(&["cp", &format!("{}:/bin/busybox", b.id), out.to_str().unwrap()]);
    b.store.ok(&["cp", out.to_str().unwrap(), &format!("{}:/dev/shm/x", b.id)]);
    assert!(b.store.fails(2, &["delete", &b.id]).contains("not stopped: paused"));
    b.store.ok(&["delete", "--force", &b.id]);
    b.nothing_left();
}

#[test]
fn kernel_parameters_do_not_go_astray() {
    // A /proc that is something else, with files where the parameters would be.
    let b = Bundle::new("true");
    let fake = b.dir.join("fake");
    for file in ["sys/net/ipv4/ip_forward", "self/attr/exec", "thread-self/attr/exec", "self/oom_score_adj"] {
        fs::create_dir_all(fake.join(file).parent().unwrap()).unwrap();
        fs::write(fake.join(file), "untouched").unwrap();
    }
    let show = format!("cat $(find {} -type f)", fake.display());
    let before = ok("sh", &["-c", &show]);
    b.change(|c| {
        c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        c["process"]["oomScoreAdj"] = json!(500);
        for mount in c["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/proc" {
                *mount = json!({"destination": "/proc", "source": fake, "options": ["rbind"]});
            }
        }
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    tried(&b.launch("run"));
    assert_eq!(ok("sh", &["-c", &show]), before);
    b.nothing_left();
}

#[test]
fn control_groups_are_not_for_the_container() {
    let script =
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/made 2>/dev/null && echo $d; done; echo done";
    assert_eq!(Bundle::new(script).run(0), "done\n");
    let b = Bundle::new("sleep 60");
    b.start();
    assert_eq!(b.store.ok(&["exec", &b.id, "sh", "-c", script]), "done\n");
}

#[test]
fn groups_of_an_ordinary_user_are_kept() {
    // A group that is kept from something must not be dropped: setgroups is denied with a single id.
    let user = User::single();
    let rootfs = user.home().join("rootfs");
    crate::common::bundle::busybox(&rootfs);
    user.give(&rootfs);
    let run = |script: &str| user.ok(&["run", rootfs.to_str().unwrap(), "--", "sh", "-c", script]);
    assert_eq!(run("cat /proc/self/setgroups"), "deny\n");
}

#[test]
fn working_directories_that_are_links_to_descriptors() {
    let b = Bundle::new("pwd; ls");
    let c = Bundle::new("sleep 60");
    for n in 3..16 {
        for b in [&b, &c] {
            symlink(format!("/proc/self/fd/{n}"), b.rootfs().join(format!("wd{n}"))).unwrap();
        }
    }
    c.start();
    for n in 3..16 {
        let wd = format!("/wd{n}");
        b.change(|c| c["process"]["cwd"] = json!(wd));
        b.refused(125);
        c.store.fails(125, &["exec", "--cwd", &wd, &c.id, "ls"]);
        let out = c.dir.join("out");
        c.store.output(&["cp", "-L", &format!("{}:{wd}", c.id), out.to_str().unwrap()]);
        assert!(!out.exists(), "{n}");
    }
}

#[test]
fn no_capability_is_inheritable() {
    let show = "grep -E 'Cap(Inh|Amb)' /proc/self/status | cut -f2";
    let none = "0000000000000000\n0000000000000000\n";
    assert_eq!(Bundle::new(show).run(0), none);
    let b = Bundle::new("sleep 60");
    b.start();
    for user in ["0", "1"] {
        assert_eq!(b.store.ok(&["exec", "--user", user, &b.id, "sh", "-c", show]), none);
    }
}

#[test]
fn ids_do_not_lead_out() {
    let b = Bundle::new("sleep 60");
    b.start();
    let around = format!("../containers/{}", b.id);
    for id in [around.as_str(), "..", "", ".", "a\nb"] {
        assert!(b.store.fails(125, &["exec", "--", id, "true"]).contains("invalid container ID"), "{id}");
        let side = format!("{id}:/bin/busybox");
        b.store.fails(2, &["cp", "--", &side, "/nowhere/at/all"]);
    }
}

#[test]
fn null_and_console_swapped_for_links_meanwhile() {
    let b = Bundle::new("cat /etc/secret; echo end");
    fs::write(b.rootfs().join("etc/secret"), "of the image").unwrap();
    let victim = b.dir.join("victim");
    fs::write(&victim, "of the host").unwrap();
    let before = fs::metadata(&victim).unwrap();
    let dev = b.rootfs().join("dev");
    b.change(|c| {
        c["root"]["readonly"] = json!(false);
        c["linux"]["maskedPaths"] = json!(["/etc/secret"]);
        // /dev is the image's own.
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    });
    symlink(&victim, dev.join("other")).unwrap();
    let check = |name: &str, all: u32| {
        let mut ended = 0;
        while_swapping(&dev, name, "other", || {
            for _ in 0..all {
                let out = b.launch("run");
                let said = tried(&out);
                assert!(matches!(out.status.code(), Some(0 | 1 | 125)), "{out:?}");
                assert!(!said.contains("of the image") && !said.contains("of the host"), "{name}: {said}");
                ended += u32::from(said.contains("end"));
                let now = fs::metadata(&victim).unwrap();
                assert_eq!(fs::read_to_string(&victim).unwrap(), "of the host", "{name}");
                assert_eq!(
                    (now.uid(), now.mode(), now.ino()),
                    (before.uid(), before.mode(), before.ino()),
                    "{name}"
                );
            }
        });
        ended
    };
    ok("mknod", &["-m", "666", dev.join("null").to_str().unwrap(), "c", "1", "3"]);
    let (masked, console) = (check("null", 60), {
        fs::write(dev.join("console"), "").unwrap();
        b.change(|c| c["process"]["terminal"] = json!(true));
        for name in ["null", "other"] {
            fs::remove_file(dev.join(name)).unwrap();
        }
        symlink(&victim, dev.join("other")).unwrap();
        check("console", 60)
    });
    assert!(masked > 0 && console > 0, "{masked} and {console} came to their end");
    b.nothing_left();
}
