//! Whole images from a small archive with a system of its own, and what ends them early.

use crate::common::archive::{Archive, script};
use crate::common::{bin, need_root, ok, output};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn noble() -> Archive {
    need_root();
    let mut archive = Archive::new("noble");
    archive.add_system();
    archive
}

#[test]
fn an_ubuntu_suite_from_a_mirror_and_a_keyring() {
    let mut archive = noble();
    archive.add_script("hello", "echo \"$0 $*\" >/configured");
    archive.publish("", Some("good"));
    archive.store.ok(&archive.args("hello"));
    let image = archive.store.path().join("x.img");
    let image = image.to_str().unwrap();
    ok("e2fsck", &["-fn", image]);
    let read = |path: &str| ok("debugfs", &["-R", &format!("cat {path}"), image]);
    assert_eq!(read("/configured"), "/var/lib/dpkg/info/hello.postinst configure \n");
    assert!(read("/var/lib/dpkg/status").contains("Package: hello\nStatus: install ok installed\n"));
    let left = ok("debugfs", &["-R", "ls -p /var/lib/dpkg", image]);
    assert!(left.contains("/status/") && !left.contains("shipimg"), "{left}");
    assert!(ok("dumpe2fs", &["-h", image]).contains("noble"));
}

#[test]
fn the_base_is_configured_before_the_others() {
    let mut archive = noble();
    archive.add_script_with("zbase", "Essential: yes\n", "busybox ln -s busybox /usr/bin/awk");
    let script = "awk 'BEGIN { print 1 }' >/configured; if command -v py3compile; then py3compile -p a; fi";
    archive.add_script("a", script);
    archive.publish("", Some("good"));
    archive.store.ok(&archive.args("a"));
    let image = archive.store.path().join("x.img");
    assert_eq!(ok("debugfs", &["-R", "cat /configured", image.to_str().unwrap()]), "1\n");
}

#[test]
fn a_preinst_runs_before_its_package_is_placed() {
    let mut archive = noble();
    archive.add_tree("watch", "1", "Essential: yes\n", |tree| {
        fs::write(tree.join("DEBIAN/triggers"), "interest-noawait /opt/seen\n").unwrap();
        script(tree, "postinst", "echo \"$1 $2\" >>/watched");
    });
    archive.add_files("needed", "1", "", &[("opt/needed", "")]);
    archive.add_tree("first", "1", "Pre-Depends: needed\n", |tree| {
        for name in ["seen/f", "set", "second"] {
            fs::create_dir_all(tree.join("opt/seen")).unwrap();
            fs::write(tree.join("opt").join(name), "first").unwrap();
        }
        script(
            tree,
            "preinst",
            "[ ! -e /opt/set ]; echo \"$1 $DPKG_MAINTSCRIPT_PACKAGE $(dpkg-query -f '${Status}' -W needed)\" >/told
            echo root root 4711 /opt/set >/var/lib/dpkg/statoverride",
        );
    });
    archive.add_tree("second", "1", "Pre-Depends: first\nReplaces: first\n", |tree| {
        fs::create_dir_all(tree.join("opt")).unwrap();
        for name in ["second", "needed"] {
            fs::write(tree.join("opt").join(name), "second").unwrap();
        }
        let diversion = "printf '/opt/needed\n/opt/needed.diverted\n:\n' >/var/lib/dpkg/diversions";
        script(tree, "preinst", &format!("cat /opt/second >>/told; {diversion}"));
    });
    archive.publish("", Some("good"));
    archive.store.ok(&archive.args("second"));
    let image = archive.store.path().join("x.img").to_str().unwrap().to_string();
    let debugfs = |command: &str| ok("debugfs", &["-R", command, &image]);
    let read = |path: &str| debugfs(&format!("cat {path}"));
    assert_eq!(read("/told"), "install first install ok installed\nfirst");
    assert_eq!(read("/watched"), "configure \ntriggered /opt/seen\n");
    assert!(debugfs("stat /opt/set").contains("Mode:  04711"));
    assert_eq!((read("/opt/second"), read("/opt/needed.diverted")), ("second".into(), "second".into()));
    assert_eq!(read("/var/lib/dpkg/info/first.list"), "/.\n/opt\n/opt/seen\n/opt/seen/f\n/opt/set\n");
    let status = read("/var/lib/dpkg/status");
    assert_eq!(status.matches("Status: install ok installed\n").count(), 5, "{status}");
    let left = debugfs("ls -p /var/lib/dpkg");
    assert!(left.contains("/status/") && !left.contains("shipimg"), "{left}");
}

#[test]
fn a_failing_script_is_shown() {
    let mut archive = noble();
    archive.add_script("hurt", "echo it hurts; exit 3");
    archive.publish("", Some("good"));
    let stderr = archive.fails(1, "hurt");
    assert!(stderr.contains("configuring package hurt failed in postinst"), "{stderr}");
    assert!(stderr.contains("it hurts") && stderr.contains("exit status 3"), "{stderr}");
}

/// What `later`, configured after ca-certificates, finds done by a program that sleeps first.
fn found_by_later(program: &str, more: &str) -> Result<String, String> {
    let mut archive = noble();
    archive.add_script("ca-certificates", "update-ca-certificates one");
    archive.add_tree("tool", "1", "", |tree| {
        let file = tree.join("usr/sbin/update-ca-certificates");
        fs::create_dir_all(tree.join("usr/sbin")).unwrap();
        fs::write(&file, format!("#!/bin/sh\nsleep 1\n{program}\n")).unwrap();
        ok("chmod", &["755".as_ref(), file.as_os_str()]);
    });
    archive.add_script_with(
        "later",
        "Depends: ca-certificates, tool\n",
        &format!("{more}\n[ ! -e /made ] || echo made >/found\np=update-ca; $p-certificates two"),
    );
    archive.publish("", Some("good"));
    let out = archive.store.output(&archive.args("later"));
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let image = archive.store.path().join("x.img").to_str().unwrap().to_string();
    let read = |path: &str| ok("debugfs", &["-R", &format!("cat {path}"), &image]);
    assert_eq!(read("/made"), "one\ntwo\n", "one after the other");
    let left = ok("debugfs", &["-R", "ls -p /var/lib/dpkg", &image]);
    assert!(left.contains("/status/") && !left.contains("shipimg"), "{left}");
    Ok(ok("debugfs", &["-R", "cat /found", &image]))
}

#[test]
fn certificates_are_made_beside_dpkg() {
    assert_eq!(found_by_later("echo $1 >>/made", "").unwrap(), "");
    // Where another script may look for them, they are there.
    assert_eq!(found_by_later("echo $1 >>/made", ": /etc/ssl/certs").unwrap(), "made\n");
    let said = found_by_later("echo no luck; exit 4", "").unwrap_err();
    assert!(
        said.contains("configuring package ca-certificates failed") && said.contains("no luck"),
        "{said}"
    );
    assert!(said.contains("its update-ca-certificates failed"), "{said}");
}

/// Starts the command and waits until its scripts run.
fn configuring(archive: &Archive) -> Child {
    let mut child = Command::new(bin())
        .arg("--root")
        .arg(archive.store.path())
        .args(archive.args("slow"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().starts_with("configure")));
    std::thread::sleep(Duration::from_millis(300));
    child
}

#[test]
fn a_signal_in_the_middle_leaves_nothing() {
    let mut archive = noble();
    archive.add_script("slow", "sleep 600");
    archive.publish("", Some("good"));
    for signal in ["-INT", "-TERM"] {
        let mut child = configuring(&archive);
        ok("kill", &[signal, &child.id().to_string()]);
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!child.wait().unwrap().success());
        let ours = archive.store.path().to_str().unwrap();
        while inside(ours) > 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "processes live on");
            std::thread::sleep(Duration::from_millis(20));
        }
        archive.store.ok(&["images"]);
        archive.assert_nothing_left(signal);
    }
}

/// How many processes have a mount below `path`.
fn inside(path: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path().join("mountinfo"));
    all.filter(|m| fs::read_to_string(m).is_ok_and(|text| text.contains(path))).count()
}

#[test]
fn a_full_disk_leaves_no_image() {
    let mut archive = noble();
    archive.add_script("hello", ":");
    archive.publish("", Some("good"));
    let target = archive.at("target");
    fs::create_dir(&target).unwrap();
    let mut args = archive.args("hello");
    let image = args.iter_mut().find(|a| a.ends_with("x.img")).unwrap();
    *image = target.join("x.img").display().to_string();
    // In a mount namespace of its own, so that no mount is left behind.
    let script = "mount -t tmpfs -o size=1m none $0 || exit 99; echo old >$0/x.img; \"$@\"; code=$?; \
                  ls -A $0; cat $0/x.img; exit $code";
    let mut all = vec!["--mount", "sh", "-c", script, target.to_str().unwrap(), bin(), "--root"];
    all.push(archive.store.path().to_str().unwrap());
    all.extend(args.iter().map(String::as_str));
    let out = output("unshare", &all);
    let (told, e) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!((out.status.code(), told.as_ref()), (Some(1), "x.img\nold\n"), "{e}");
    assert!(e.contains("No space left") || e.contains("mke2fs"), "{e}");
    archive.assert_nothing_left(&e);
}
