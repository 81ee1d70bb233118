//! Hostile roots and bundles: nothing outside of the root is touched or seen.

use crate::common::bundle::{Bundle, version_2, while_swapping};
use crate::common::layout::{Blob, Layout, Tar};
use crate::common::output;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

#[test]
fn links_in_place_of_proc_sys_and_dev() {
    for name in ["proc", "sys"] {
        let b = Bundle::new("true");
        let outside = b.dir.join("outside");
        fs::create_dir(&outside).unwrap();
        fs::remove_dir(b.rootfs().join(name)).unwrap();
        symlink("etc", b.rootfs().join(name)).unwrap();
        let text = b.refused(125);
        assert!(text.contains("must be mounted on an ordinary directory"), "{name}: {text}");
        fs::remove_file(b.rootfs().join(name)).unwrap();
        symlink(&outside, b.rootfs().join(name)).unwrap();
        let text = b.refused(125);
        assert!(text.contains("ordinary directory"), "{name}: {text}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
    // /dev may be a link: it means a folder inside.
    let b = Bundle::new("ls -d /inside/null");
    fs::remove_dir(b.rootfs().join("dev")).unwrap();
    fs::create_dir(b.rootfs().join("inside")).unwrap();
    symlink("/inside", b.rootfs().join("dev")).unwrap();
    assert_eq!(b.run(0), "/inside/null\n");
}

#[test]
fn destinations_through_links_stay_inside() {
    let b = Bundle::new("cat /abs/f /etc/rel/file");
    let outside = b.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    let source = b.dir.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "bound\n").unwrap();
    symlink("../../../../../../../../etc", b.rootfs().join("abs-up")).unwrap();
    symlink(&outside, b.rootfs().join("out")).unwrap();
    b.change(|c| {
        c["root"]["readonly"] = json!(false);
        let list = c["mounts"].as_array_mut().unwrap();
        list.push(json!({"destination": "/tmp/../../abs", "source": source, "options": ["rbind", "ro"]}));
        list.push(
            json!({"destination": "/abs-up/rel/file", "source": source.join("f"), "options": ["bind"]}),
        );
    });
    assert_eq!(b.run(0), "bound\nbound\n");
    assert!(b.rootfs().join("etc/rel/file").exists(), "made inside");
    b.change(|c| {
        let mount = json!({"destination": "/out/x", "type": "tmpfs"});
        c["mounts"].as_array_mut().unwrap().push(mount);
    });
    b.refused(125);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn masks_with_dots_and_a_false_null() {
    let b = Bundle::new("cat /etc/secret | wc -c; ls /etc/private | wc -l");
    fs::write(b.rootfs().join("etc/secret"), "x").unwrap();
    fs::create_dir_all(b.rootfs().join("etc/private/a")).unwrap();
    b.change(|c| {
        c["linux"]["maskedPaths"] = json!(["/../../etc/./secret", "/tmp/../etc/private", "/none/at/all"]);
        c["linux"]["readonlyPaths"] = json!(["/../../../tmp"]);
    });
    assert_eq!(b.run(0), "0\n0\n");
    // A /dev of the image's own, with a /dev/null that is something else.
    let victim = b.dir.join("victim");
    fs::write(&victim, "host").unwrap();
    b.change(|c| {
        let list = c["mounts"].as_array_mut().unwrap();
        list.retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    });
    for target in [victim.as_path(), Path::new("/etc/secret")] {
        let _ = fs::remove_file(b.rootfs().join("dev/null"));
        symlink(target, b.rootfs().join("dev/null")).unwrap();
        assert!(b.refused(125).contains("/dev/null"));
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "host");
}

#[test]
fn sysctl_keys_do_not_lead_out() {
    for key in ["net/../kernel/panic", "kernel.core_pattern", "net..ipv4", "net/./ipv4/x"] {
        let b = Bundle::new("true");
        b.change(|c| c["linux"]["sysctl"] = json!({key: "1"}));
        assert!(b.refused(125).contains("not in a separate kernel namespace"), "{key}");
    }
}

#[test]
fn working_directory_through_a_descriptor() {
    for number in 3..10 {
        let b = Bundle::new("pwd; ls");
        b.change(|c| c["process"]["cwd"] = json!(format!("/proc/self/fd/{number}")));
        b.refused(125);
        let b = Bundle::new("sleep 60");
        b.start();
        let cwd = format!("/proc/self/fd/{number}/../../..");
        b.store.fails(125, &["exec", "--cwd", &cwd, &b.id, "ls"]);
    }
}

#[test]
fn only_the_standard_streams_arrive() {
    let b = Bundle::new("ls /proc/1/fd; sleep 60");
    b.start();
    for process in ["1", "self"] {
        let out = b.store.ok(&["exec", &b.id, "ls", &format!("/proc/{process}/fd")]);
        let own = if process == "self" { "0\n1\n2\n3\n" } else { "0\n1\n2\n" };
        assert_eq!(out, own, "{process}");
    }
}

#[test]
fn nothing_of_the_host_is_seen() {
    let b = Bundle::new("cat /proc/1/environ | tr '\\0' '\\n'; cat /proc/self/mountinfo");
    let mut command = b.store.command();
    command.args(["run", "--bundle", b.dir.to_str().unwrap(), &b.id]).env("SECRET_OF_THE_HOST", "x");
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && !text.contains("SECRET_OF_THE_HOST"), "{text}");
    let foreign = text.lines().filter(|l| l.contains(" - ")).filter(|l| {
        let fields: Vec<_> = l.split(' ').collect();
        fields[3].starts_with(&*b.store.path().to_string_lossy()) && fields[4] != "/"
    });
    assert_eq!(foreign.count(), 0, "{text}");
}

#[test]
fn an_overlay_does_not_tell_where_its_layers_are() {
    let b = Bundle::new("true");
    let busybox = fs::read("/bin/busybox").unwrap();
    let layer = Tar::new()
        .dir("bin/")
        .entry(tar::EntryType::Regular, "bin/busybox", 0o755, "", &busybox)
        .dir("proc/");
    let upper = Tar::new().file("etc/upper", b"");
    let layers = [Blob::gzip(&layer.finish()), Blob::gzip(&upper.finish())];
    let dir = tempfile::tempdir().unwrap();
    Layout::new(dir.path()).add("x:0", &layers, &json!({}));
    b.store.ok(&["copy", "-q", &format!("oci:{}:x:0", dir.path().display()), "store:localhost/x:0"]);
    let store = b.store.path().to_str().unwrap();
    let check = |text: &str| {
        let root = text.lines().find(|l| l.split(' ').nth(4) == Some("/")).unwrap();
        assert!(root.contains(" - overlay overlay ") && root.contains("upperdir="), "{text}");
        assert!(!text.contains(store), "{text}");
    };
    let show = ["/bin/busybox", "cat", "/proc/self/mountinfo"];
    check(&b.store.ok(&[&["run", "--driver", "overlay", "localhost/x:0", "--"], &show[..]].concat()));
    b.store.ok(&[
        "bundle",
        "create",
        "--driver",
        "overlay",
        "localhost/x:0",
        &b.id,
        "--",
        "/bin/busybox",
        "sleep",
        "60",
    ]);
    let out = b.detached(&["create", &b.id]);
    assert!(out.status.success(), "{out:?}");
    b.store.ok(&["start", &b.id]);
    check(&b.store.ok(&[&["exec", &b.id], &show[..]].concat()));
    let out = b.dir.join("out");
    b.store.ok(&["cp", &format!("{}:/proc/1/mountinfo", b.id), out.to_str().unwrap()]);
    check(&fs::read_to_string(out).unwrap());
    b.store.ok(&["delete", "--force", &b.id]);
    b.store.ok(&["bundle", "delete", &b.id]);
}

#[test]
fn names_do_not_lead_out() {
    let b = Bundle::new("true");
    for id in ["../x", "a/b", "..", "", "a\nb", "."] {
        let text = b.store.fails(2, &["create", "-b", b.dir.to_str().unwrap(), "--", id]);
        assert!(text.contains("invalid container ID"), "{id:?}: {text}");
        b.store.fails(2, &["state", "--", id]);
    }
    for path in ["../../bin/true", "/bin/../bin/true", "true"] {
        b.change(|c| c["hooks"] = json!({"poststop": [{"path": path}]}));
        assert!(b.refused(125).contains("absolute path"), "{path}");
    }
    b.change(|c| {
        c["hooks"] = json!({});
        c["linux"]["cgroupsPath"] = json!("/a/../../b");
    });
    assert!(b.refused(125).contains("cgroupsPath"));
}

#[test]
fn the_binary_cannot_be_overwritten() {
    let before = fs::read(crate::common::bin()).unwrap();
    // A program that is /proc/self/exe runs shipimg itself in the container, whose file must be closed to writing.
    let b = Bundle::new("sleep 60");
    b.start();
    fs::write(b.rootfs().join("bin/self"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(b.rootfs().join("bin/self"), fs::Permissions::from_mode(0o755)).unwrap();
    let _ = b.store.output(&["exec", &b.id, "/bin/self"]);
    // From inside, the file of a waiting shipimg: opened for writing it must fail.
    let c = Bundle::new("true");
    assert!(c.launch("create").status.success());
    let exe = format!("/proc/{}/exe", c.state()["pid"]);
    let opened = fs::OpenOptions::new().write(true).open(exe);
    assert!(matches!(opened.unwrap_err().raw_os_error(), Some(libc::EROFS | libc::ETXTBSY)));
    let mount = rustix::fs::statvfs(format!("/proc/{}/exe", c.state()["pid"])).unwrap();
    assert!(
        mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        "writes fail when it has ended, too"
    );
    assert_eq!(before, fs::read(crate::common::bin()).unwrap());
}

#[test]
fn exec_user_is_that_user() {
    let b = Bundle::new("sleep 60");
    b.start();
    let script = "id -u; id -g; grep -E 'Cap(Eff|Inh)' /proc/self/status | cut -f2";
    let out = b.store.ok(&["exec", "--user", "1", &b.id, "sh", "-c", script]);
    assert_eq!(out, "1\n0\n0000000000000000\n0000000000000000\n");
    assert_eq!(b.store.ok(&["exec", "-u", "7:8", &b.id, "sh", "-c", "id -u; id -g"]), "7\n8\n");
    // To the kernel this one means "no change": still root.
    for user in ["4294967295", "1:4294967295", "-1", "1:-1", "root"] {
        let refused = b.store.fails(125, &["exec", &format!("--user={user}"), &b.id, "true"]);
        assert!(refused.contains("user"), "{refused}");
    }
}

#[test]
fn a_frozen_container_is_killed_and_not_entered() {
    let b = Bundle::new("sleep 60");
    b.start();
    let (file, frozen) = if version_2() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    fs::write(b.group("freezer").join(file), frozen).unwrap();
    b.wait(|b| b.state()["status"] == "paused");
    assert!(b.store.fails(125, &["exec", &b.id, "true"]).contains("paused container"));
    b.store.ok(&["delete", "--force", &b.id]);
    b.nothing_left();
}

#[test]
fn a_new_session_and_keyring() {
    let b = Bundle::new("cut -d' ' -f5,6 /proc/self/stat; cat /proc/keys | wc -l");
    // Process group and session are those of pid 1.
    assert!(b.run(0).starts_with("1 1\n"));
}

#[test]
fn destinations_swapped_for_links_meanwhile() {
    let b = Bundle::new("true");
    let (outside, source) = (b.dir.join("outside"), b.dir.join("source"));
    fs::create_dir_all(outside.join("there")).unwrap();
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "bound").unwrap();
    let race = b.rootfs().join("race");
    fs::create_dir_all(race.join("a/there")).unwrap();
    // Once by an absolute path, once by climbing: both lead to the host's folder outside of the root.
    symlink(&outside, race.join("b")).unwrap();
    b.change(|c| {
        c["root"]["readonly"] = json!(false);
        c["process"]["cwd"] = json!("/race/a/cwd/of/it");
        c["linux"]["maskedPaths"] = json!(["/race/a/there"]);
        c["linux"]["devices"] = json!([{"path": "/race/a/dev/null", "type": "c", "major": 1, "minor": 3}]);
        let list = c["mounts"].as_array_mut().unwrap();
        list.push(json!({"destination": "/race/a/new/folder", "type": "tmpfs"}));
        list.push(json!({"destination": "/race/a/there", "source": source, "options": ["rbind"]}));
        list.push(
            json!({"destination": "/race/a/new/file", "source": source.join("f"), "options": ["bind"]}),
        );
    });
    let (mut won, mut lost) = (0, 0);
    for link in [outside.as_path(), Path::new("../../outside")] {
        // `a` may be either of the two after the last exchange.
        for name in ["a", "b"] {
            if fs::symlink_metadata(race.join(name)).unwrap().is_symlink() {
                fs::remove_file(race.join(name)).unwrap();
                symlink(link, race.join(name)).unwrap();
            }
        }
        while_swapping(&race, "a", "b", || {
            for _ in 0..25 {
                match b.launch("run").status.code() {
                    Some(0) => won += 1,
                    Some(125) => lost += 1,
                    other => panic!("{other:?}"),
                }
                let made: Vec<_> = fs::read_dir(&outside).unwrap().flatten().map(|e| e.file_name()).collect();
                assert_eq!(made, ["there"], "made outside of the root");
                assert_eq!(fs::read_dir(outside.join("there")).unwrap().count(), 0);
            }
        });
    }
    assert_eq!(won + lost, 50);
    b.nothing_left();
}

#[test]
fn proc_swapped_for_a_link_meanwhile() {
    let b = Bundle::new("test -e /proc/self/stat || test -e /other/self/stat");
    let outside = b.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, b.rootfs().join("other")).unwrap();
    b.change(|c| c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"}));
    while_swapping(&b.rootfs(), "proc", "other", || {
        for _ in 0..25 {
            assert!(matches!(b.launch("run").status.code(), Some(0 | 1 | 125..=127)));
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        }
    });
    b.nothing_left();
}

#[test]
fn the_binary_opened_inside_cannot_be_written() {
    // Waits for a process that is not busybox, keeps its program open, and writes once it has ended.
    let b = Bundle::new(
        "while :; do for p in /proc/[0-9]*; do [ $p/exe -ef /bin/busybox ] && continue; \
         { exec 9<$p/exe; } 2>/dev/null && break 2; done; done; touch /tmp/open; \
         while [ -e /tmp/open ]; do sleep 0.05; done; stat -L -c %s /proc/self/fd/9; \
         { echo overwritten > /proc/self/fd/9; } 2>&1 || echo refused; \
         mount -o remount,rw,bind /proc/self/fd/9 2>/dev/null || echo refused",
    );
    b.change(|c| {
        c["root"]["readonly"] = json!(false);
        for set in ["bounding", "effective", "permitted"] {
            let caps = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_FOWNER"]);
            c["process"]["capabilities"][set] = caps;
        }
    });
    let before = fs::read(crate::common::bin()).unwrap();
    let open = b.rootfs().join("tmp/open");
    b.start();
    b.wait(|b| {
        let _ = b.store.output(&["exec", &b.id, "/proc/self/exe", "--help"]);
        open.exists()
    });
    fs::remove_file(&open).unwrap();
    b.wait(|b| b.state()["status"] == "stopped");
    let said = fs::read_to_string(b.dir.join("stdout")).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], before.len().to_string(), "it was this program that was open: {said}");
    assert_eq!(lines[lines.len() - 2..], ["refused", "refused"], "{said}");
    assert!(before == fs::read(crate::common::bin()).unwrap());
}

#[test]
fn the_image_program_is_the_runtime_itself() {
    let b = Bundle::new("");
    b.change(|c| c["process"]["args"] = json!(["/proc/self/exe", "--version"]));
    // It is shipimg, in the container, and sees nothing but that.
    assert!(b.run(0).starts_with("shipimg "));
    b.change(|c| c["process"]["args"] = json!(["/proc/self/exe", "list", "-q"]));
    let out = b.launch("run");
    assert!(!String::from_utf8_lossy(&out.stdout).contains(&b.id), "{out:?}");
    b.nothing_left();
}

#[test]
fn the_callers_terminal_takes_no_input_from_inside() {
    let script = "perl -e '$c = \"x\"; print ioctl(STDIN, 0x5412, $c) ? \"injected\" : \"refused\"'; \
                  (: < /dev/tty) || echo no terminal; cut -d' ' -f7 /proc/self/stat";
    let b = Bundle::new(script);
    for dir in ["usr", "lib", "lib64"] {
        fs::create_dir(b.rootfs().join(dir)).unwrap();
        let mount = json!({"destination": format!("/{dir}"), "source": format!("/{dir}"), "options": ["rbind", "ro"]});
        b.change(|c| c["mounts"].as_array_mut().unwrap().push(mount));
    }
    let check = |command: &str| {
        let command = format!(
            "stty -echo; {} --root {} {command}; echo code $?",
            crate::common::bin(),
            b.store.path().display()
        );
        let out = output("script", &["-qec", &command, "/dev/null"]);
        let text = String::from_utf8_lossy(&out.stdout).replace('\r', "");
        assert!(text.contains("refused") && text.contains("no terminal"), "{text}");
        assert!(text.ends_with("\n0\ncode 0\n"), "{text}");
    };
    check(&format!("run -b {} {}", b.dir.display(), b.id));
    b.change(|c| c["process"]["args"] = json!(["sleep", "60"]));
    b.start();
    fs::write(b.rootfs().join("bin/inject"), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(b.rootfs().join("bin/inject"), fs::Permissions::from_mode(0o755)).unwrap();
    check(&format!("exec {} inject", b.id));
}

#[test]
fn a_console_that_leads_elsewhere() {
    let b = Bundle::new("tty");
    let victim = b.dir.join("victim");
    fs::write(&victim, "host").unwrap();
    fs::write(b.rootfs().join("etc/inside"), "inside").unwrap();
    b.change(|c| {
        c["process"]["terminal"] = json!(true);
        // /dev is the image's own.
        let list = c["mounts"].as_array_mut().unwrap();
        list.retain(|m| m["destination"] != "/dev");
    });
    let console = b.rootfs().join("dev/console");
    for target in
        [victim.as_path(), Path::new("/etc/inside"), Path::new("../../../victim"), Path::new("/proc/1/root")]
    {
        symlink(target, &console).unwrap();
        assert!(b.refused(125).contains("/dev/console"), "{}", target.display());
        fs::remove_file(&console).unwrap();
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "host");
    assert_eq!(fs::read_to_string(b.rootfs().join("etc/inside")).unwrap(), "inside");
    // An ordinary file is covered and stays what it is.
    fs::write(&console, "kept").unwrap();
    assert!(b.run(0).starts_with("/dev/pts/0"));
    assert_eq!(fs::read_to_string(&console).unwrap(), "kept");
}
