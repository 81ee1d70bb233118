//! Hostile roots and bundles: nothing outside of the root is touched or seen.

use crate::common::bundle::Bundle;
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
    b.store.output(&["exec", "-u", "root", &b.id, "true"]).status.code().filter(|c| *c == 2).unwrap();
}

#[test]
fn a_frozen_container_is_killed_and_not_entered() {
    let b = Bundle::new("sleep 60");
    b.start();
    let freezer = Path::new("/sys/fs/cgroup/freezer").join(&b.id).join("freezer.state");
    fs::write(&freezer, "FROZEN").unwrap();
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
