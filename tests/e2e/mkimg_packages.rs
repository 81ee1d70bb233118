//! Which packages `mkimg` takes, from where, and what else it does with them: all of its options
//! for that, with small signed archives; the real mirror for other architectures only.

use crate::common::archive::{Archive, bookworm};
use crate::common::proxy::{Fault, Proxy};
use crate::common::{need_root, ok, output};
use crate::debian_http::serve;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The archive's address.
fn address(archive: &Archive) -> String {
    format!("file://{}", archive.at("").display())
}

/// The command for files alone: `--variant custom`.
fn files_only(archive: &Archive, include: &str, more: &[&str]) -> Vec<String> {
    let mut args = archive.args(include);
    let variant = args.iter_mut().find(|a| *a == "essential").unwrap();
    *variant = "custom".to_string();
    args.extend(more.iter().map(ToString::to_string));
    args
}

fn with(mut args: Vec<String>, more: &[&str]) -> Vec<String> {
    args.extend(more.iter().map(ToString::to_string));
    args
}

/// Leaves out an option and its value.
fn without(mut args: Vec<String>, option: &str) -> Vec<String> {
    let at = args.iter().position(|a| a == option).unwrap();
    args.drain(at..at + 2);
    args
}

/// Runs the command with a host whose apt has no configuration: dates are checked, no proxy.
fn run(archive: &Archive, args: &[String]) -> (i32, String) {
    let config = archive.at("apt.conf");
    fs::write(&config, "Dir::Etc::main \"/nowhere\";\nDir::Etc::parts \"/nowhere\";\n").unwrap();
    let mut command = archive.store.command();
    for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env_remove(proxy);
    }
    let out = command.env("APT_CONFIG", &config).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    (out.status.code().unwrap(), stderr)
}

#[track_caller]
fn succeeds(archive: &Archive, args: &[String]) -> String {
    let (code, stderr) = run(archive, args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    stderr
}

#[track_caller]
fn fails(archive: &Archive, code: i32, args: &[String], part: &str) {
    let (got, stderr) = run(archive, args);
    assert!(got == code && stderr.contains(part), "{got}, wanted {code} and {part:?}: {stderr}");
    archive.assert_nothing_left(&stderr);
}

/// A file of the image; empty where there is none.
fn read(archive: &Archive, path: &str) -> String {
    let image = archive.store.path().join("x.img");
    ok("debugfs", &["-R".as_ref(), format!("cat {path}").as_ref(), image.as_os_str()])
}

#[test]
fn excluded_packages_are_never_taken() {
    let mut archive = bookworm();
    archive.add("a", "Depends: b | c\n");
    archive.add("b", "");
    archive.add("c", "Depends: d\n");
    archive.add("d", "");
    archive.publish("", Some("good"));
    let args = |exclude| with(archive.args("a"), &["--exclude", exclude]);
    fails(&archive, 2, &args("b,d"), "a → b | c: b is excluded; cannot satisfy a → c → d: d is excluded");
    // Planned and unpacked: a, c, d and usr-is-merged; there is no shell to configure them.
    fails(&archive, 10, &args("b"), "configure: 4 packages");
    fails(&archive, 2, &args("a"), "a is excluded");
}

#[test]
fn versions_and_suites_can_be_named() {
    let mut archive = bookworm();
    archive.add_files("a", "1", "", &[("opt/a", "old")]);
    archive.add_files("a", "2", "", &[("opt/a", "new")]);
    archive.publish("", Some("good"));
    for (include, content) in
        [("a", "new"), ("a=1", "old"), ("a=2", "new"), ("a/bookworm", "new"), ("a/test", "new")]
    {
        succeeds(&archive, &files_only(&archive, include, &[]));
        assert_eq!(read(&archive, "/opt/a"), content, "{include}");
    }
    fs::remove_file(archive.store.path().join("x.img")).unwrap();
    fails(
        &archive,
        10,
        &files_only(&archive, "a=3", &[]),
        "no package a=3 in the archive, it has 2 (bookworm, test), 1",
    );
    fails(&archive, 10, &files_only(&archive, "a/sid", &[]), "no package a/sid");
}

#[test]
fn archives_and_their_keyrings_are_added() {
    need_root();
    let mut archive = Archive::new("noble");
    archive.add_system();
    archive.add_files("apt", "1", "Depends: tool (>= 2)\n", &[("etc/apt/apt.conf.d/x", "")]);
    archive.publish("", Some("good"));
    let mut other = Archive::new("stuff");
    other.add_files("tool", "2", "", &[("opt/tool", "2")]);
    other.publish("", Some("good"));
    let mut flat = Archive::new("flat");
    flat.add_files("thing", "1", "", &[("opt/thing", "flat")]);
    flat.publish_flat("good");
    let line = |archive: &Archive, rest: &str| {
        let (key, address) = (archive.at("good.gpg"), address(archive));
        format!("deb [arch=amd64 signed-by={}] {address} {rest}", key.display())
    };
    let (one, two) = (line(&other, "stuff main"), line(&flat, "./"));
    let args = with(archive.args("apt,thing"), &["--components", "main", "--repo", &one, "--repo", &two]);
    succeeds(&archive, &args);
    assert_eq!((read(&archive, "/opt/tool"), read(&archive, "/opt/thing")), ("2".into(), "flat".into()));
    let list = read(&archive, "/etc/apt/sources.list");
    let uri = |archive: &Archive| address(archive).trim_end_matches('/').to_string();
    let lines: Vec<&str> = list.lines().collect();
    let names: Vec<&str> = lines.iter().map(|l| l.split([' ', ']']).nth(1).unwrap()).collect();
    assert!(lines[0].ends_with(&format!("] {} noble main", uri(&archive))), "{list}");
    assert!(lines[1].ends_with(&format!("] {} stuff main", uri(&other))), "{list}");
    assert!(lines[2].ends_with(&format!("] {} ./", uri(&flat))), "{list}");
    for (name, from) in names.iter().zip([&archive, &other, &flat]) {
        let path = name.strip_prefix("[signed-by=").unwrap();
        let copy = archive.at("copy");
        let image = archive.store.path().join("x.img");
        let dump = format!("dump {path} {}", copy.display());
        ok("debugfs", &["-R".as_ref(), dump.as_ref(), image.as_os_str()]);
        assert_eq!(fs::read(&copy).unwrap(), fs::read(from.at("good.gpg")).unwrap(), "{path}");
    }
    fs::remove_file(archive.store.path().join("x.img")).unwrap();
    let plain = format!("deb {} stuff main", address(&other));
    let evil = line(&other, "stuff main").replace("good.gpg", "evil.gpg");
    for (repo, code, part) in [
        (plain.replace("deb ", "deb [arch=arm64] "), 2, "it is for arm64"),
        (plain.replace("deb ", "deb [signed-by=ABCD] "), 2, "no path of a keyring"),
        (plain.replace("deb ", "deb [frob=1] "), 2, "option frob=1 is not known"),
        (plain.replace(" main", ""), 2, "no component"),
        ("http://x".to_string(), 2, "not of the form"),
        (evil, 9, "is not signed by a key of"),
        // The keyring of the suite counts, and is another one.
        (plain.clone(), 9, "is not signed by a key of"),
    ] {
        fails(&archive, code, &with(archive.args("apt"), &["--repo", &repo]), part);
    }
    let bare = without(with(archive.args("apt"), &["--repo", &plain]), "--keyring");
    fails(&archive, 2, &bare, "names no keyring");
    fails(
        &archive,
        9,
        &with(archive.args("apt"), &["--components", "main,none"]),
        "it has no none/binary-amd64/Packages",
    );
}

#[test]
fn signatures() {
    let mut archive = bookworm();
    archive.add("a", "");
    archive.publish("", Some("good"));
    let args = files_only(&archive, "a", &[]);
    let insecure = files_only(&archive, "a", &["--insecure-no-signature"]);
    let (signed, release) = (archive.dist("InRelease"), archive.dist("Release"));
    fs::remove_file(&signed).unwrap();
    fails(&archive, 9, &args, "Release is not signed: no InRelease and no Release.gpg");
    assert!(succeeds(&archive, &insecure).contains("signatures are not checked"));
    fs::remove_file(archive.store.path().join("x.img")).unwrap();
    let detached = archive.dist("Release.gpg");
    let sign = |who: &str| {
        let files = [detached.to_str().unwrap(), release.to_str().unwrap()];
        archive.gpg(who, &["--armor", "--output", files[0], "--detach-sign", files[1]]);
    };
    sign("evil");
    fails(&archive, 9, &args, "Release is not signed by a key of");
    sign("good");
    succeeds(&archive, &args);
    fs::remove_file(archive.store.path().join("x.img")).unwrap();
    let text = fs::read_to_string(&release).unwrap();
    fs::write(&release, text.replace("Origin: Test", "Origin: Evil")).unwrap();
    fails(&archive, 9, &args, "Release is not signed by a key of");
    fs::write(&detached, "nonsense").unwrap();
    fails(&archive, 9, &args, "Release");
    archive.publish("", Some("evil"));
    succeeds(&archive, &insecure);
}

#[test]
fn snapshots_and_dates() {
    let mut archive = bookworm();
    archive.add("a", "");
    archive.publish("Valid-Until: Sun, 02 Jan 2022 00:00:00 UTC\n", Some("good"));
    for id in ["20220101T000000Z", "20220103T000000Z"] {
        symlink(".", archive.at(id)).unwrap();
    }
    let mirror = format!("{}/@SNAPSHOTID@", address(&archive));
    let at = |time: &str| {
        let args = without(files_only(&archive, "a", &["--snapshot", time]), "--mirror");
        with(args, &["--mirror", &mirror])
    };
    fails(&archive, 9, &at("20220103T000000Z"), "expired: valid until Sun, 02 Jan 2022");
    fails(&archive, 10, &at("20220102T000000Z"), "no suite bookworm");
    fails(&archive, 2, &at("2022"), "a time is written 20260901T000000Z");
    succeeds(&archive, &at("20220101T000000Z"));
    fs::remove_file(archive.store.path().join("x.img")).unwrap();
    let bare = without(files_only(&archive, "a", &[]), "--mirror");
    fails(&archive, 2, &with(bare, &["--mirror", &mirror]), "no snapshot is asked for");
    fails(&archive, 9, &files_only(&archive, "a", &[]), "expired");
    succeeds(&archive, &files_only(&archive, "a", &["--ignore-valid-until"]));
}

#[test]
fn mirrors_stand_in_for_each_other() {
    let mut archive = bookworm();
    let deb = archive.add("a", "");
    archive.publish("", Some("good"));
    let broken = archive.store.path().join("broken");
    ok("cp", &["-a".as_ref(), archive.at("").as_os_str(), broken.as_os_str()]);
    let whole = fs::read(&deb).unwrap();
    let bad = broken.join(deb.file_name().unwrap());
    let broken = format!("copy://{}", broken.display());
    let through = |mirrors: &[&str]| {
        let mut args = without(files_only(&archive, "a", &[]), "--mirror");
        args.extend(mirrors.iter().flat_map(|m| ["--mirror".to_string(), (*m).to_string()]));
        args
    };
    let good = address(&archive);
    let clean = || {
        fs::remove_file(archive.store.path().join("x.img")).unwrap();
        // Nor is the system itself kept.
        for area in ["packages", "results"] {
            fs::remove_dir_all(archive.store.path().join("shipimg").join(area)).unwrap();
        }
    };
    // One without the suite, one that is not there; then one with a broken package.
    succeeds(&archive, &through(&["file:///nowhere", "http://127.0.0.1:1/debian", &good]));
    clean();
    let mut other = whole.clone();
    *other.last_mut().unwrap() ^= 1;
    for content in [&other[..], &whole[..9]] {
        fs::write(&bad, content).unwrap();
        succeeds(&archive, &through(&[&broken, &good]));
        assert_eq!(read(&archive, "/opt/a"), "a");
        clean();
    }
    fs::write(&bad, &other).unwrap();
    fails(&archive, 9, &through(&[&broken]), "a.deb is not what the archive promises");
    fs::write(&deb, &other).unwrap();
    fails(&archive, 9, &through(&[&broken, &good]), "a.deb is not what the archive promises");
    fails(
        &archive,
        10,
        &through(&["file:///nowhere", "file:///nowhere/else"]),
        "no suite bookworm at file:///nowhere",
    );
}

#[test]
fn everything_goes_through_the_proxy() {
    let mut archive = bookworm();
    archive.add("a", "");
    archive.publish("", Some("good"));
    let proxy = Proxy::start(serve(archive.at("")), |_| Fault::None);
    let args = without(files_only(&archive, "a", &[]), "--mirror");
    let through = format!("http://{}", proxy.host());
    succeeds(&archive, &with(args, &["--mirror", "http://mirror.test/", "--proxy", &through]));
    assert_eq!(proxy.requests("http://mirror.test/a.deb").len(), 1);
}

#[test]
fn paths_are_left_out() {
    need_root();
    let mut archive = Archive::new("noble");
    archive.add_system();
    let doc = |name: &str| format!("usr/share/doc/{name}/copyright");
    let more = |name: &str| format!("usr/share/doc/{name}/changelog");
    archive.add_files("a", "1", "", &[(&doc("a"), "c"), (&more("a"), "x"), ("usr/share/man/a", "x")]);
    archive.publish("", Some("good"));
    let filters = [
        "--path-exclude",
        "/usr/share/doc/*",
        "--path-include",
        "/usr/share/doc/*/copyright",
        "--path-exclude=/usr/share/man/*",
    ];
    succeeds(&archive, &with(archive.args("a"), &filters));
    assert_eq!(
        (read(&archive, "/usr/share/doc/a/copyright"), read(&archive, "/usr/share/doc/a/changelog")),
        ("c".into(), String::new())
    );
    assert_eq!(read(&archive, "/usr/share/man/a"), "");
    // dpkg lists what it left out, too.
    assert!(read(&archive, "/var/lib/dpkg/info/a.list").contains("/usr/share/man/a\n"));
    assert_eq!(
        read(&archive, "/etc/dpkg/dpkg.cfg.d/90shipimg-path-filters"),
        "path-exclude=/usr/share/doc/*\npath-include=/usr/share/doc/*/copyright\npath-exclude=/usr/share/man/*\n"
    );
}

#[test]
fn hooks_run_in_their_stages() {
    need_root();
    let mut archive = Archive::new("noble");
    archive.add_system();
    archive.add_script("a", "echo configured >>/log");
    archive.publish("", Some("good"));
    let hooks = [
        "--hook=extract=ls $1/usr/bin/sh && echo extract >>$1/log",
        "--hook=customize=echo customize $SHIPIMG_TARGET >>$1/log",
        "--hook=setup=echo setup $(ls -A $1 | wc -l) >$1/log",
        "--hook=customize=echo last >>$1/log",
    ];
    succeeds(&archive, &with(archive.args("a"), &hooks));
    let log = read(&archive, "/log");
    let lines: Vec<&str> = log.lines().collect();
    assert!(matches!(lines[..], ["setup 0", "extract", "configured", _, "last"]), "{log}");
    assert!(lines[3].starts_with("customize /") && !Path::new(&lines[3]["customize ".len()..]).exists());
    fs::remove_file(archive.store.path().join("x.img")).unwrap();
    for stage in ["setup", "extract", "customize"] {
        let hook = format!("--hook={stage}=echo it hurts; exit 3");
        let (code, stderr) = run(&archive, &with(archive.args("a"), &[&hook]));
        assert!(
            code == 1 && stderr.contains(&format!("hook {stage}=echo it hurts; exit 3: exit status: 3")),
            "{stderr}"
        );
        assert!(stderr.trim_end().ends_with("it hurts"), "the output is last: {stderr}");
        archive.assert_nothing_left(&stderr);
    }
    fails(&archive, 2, &with(archive.args("a"), &["--hook=later=true"]), "setup, extract and customize");
}

#[test]
fn a_shell_after_a_failure() {
    need_root();
    let mut archive = Archive::new("noble");
    archive.add_system();
    archive.add_script("hurt", "echo it hurts; exit 3");
    archive.publish("", Some("good"));
    let args = with(archive.args("hurt"), &["--shell-on-error"]);
    let (code, stderr) = run(&archive, &args);
    assert!(code == 2 && stderr.contains("needs a terminal"), "{stderr}");
    let quoted = args.iter().map(|a| format!("'{a}'")).collect::<Vec<_>>().join(" ");
    let root = archive.store.path().display();
    let command = format!("{} --root '{root}' {quoted}", crate::common::bin());
    // In the shell: it is the first process, the failed package is seen, and the terminal is its own.
    let typed = "(sleep 3; echo 'echo pid $$ $(head -n1 /var/lib/dpkg/info/hurt.postinst); exit') | \
                 script -qec \"$0\" /dev/null";
    let out = output("sh", &["-c", typed, &command]);
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(told.contains("pid 1 #!/bin/sh\r\n") && !told.contains("process group"), "{told}");
    assert!(told.contains("configuring package hurt failed in postinst"), "{told}");
    archive.assert_nothing_left(&told);
}

#[test]
fn unpacked_for_another_machine() {
    need_root();
    let mut archive = Archive::new("noble");
    archive.add_system();
    archive.add_script("a", "echo configured >>/log");
    archive.publish("", Some("good"));
    succeeds(&archive, &with(archive.args("a"), &["--foreign"]));
    assert_eq!(read(&archive, "/log"), "");
    assert!(read(&archive, "/var/lib/dpkg/status").contains("Package: a\nStatus: install ok unpacked\n"));
    let image = archive.store.path().join("x.img");
    let script = "mount -o loop \"$0\" /mnt && chroot /mnt sh /var/lib/dpkg/shipimg-configure >&2
                  cat /mnt/log; ls /mnt/var/lib/dpkg; grep -A1 '^Package: a$' /mnt/var/lib/dpkg/status";
    let told = ok(
        "unshare",
        &["--mount".as_ref(), "sh".as_ref(), "-ec".as_ref(), script.as_ref(), image.as_os_str()],
    );
    assert!(told.starts_with("configured\n") && told.ends_with("install ok installed\n"), "{told}");
    assert!(!told.contains("shipimg"), "{told}");
}

#[test]
fn other_architectures() {
    need_root();
    let store = crate::common::TestStore::new();
    let image = store.path().join("bookworm.img");
    let path = image.to_str().unwrap();
    let base = ["mkimg", path, "--no-updates", "--variant", "essential", "--arch"];
    let args = |more: &[&'static str]| base.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    let status = || ok("debugfs", &["-R", "cat /var/lib/dpkg/status", path]);
    // The kernel runs it, without an emulator.
    store.ok(&args(&["i386"]));
    let all = status();
    assert!(all.contains("Status: install ok installed\n") && !all.contains("install ok unpacked"));
    assert!(all.contains("Architecture: i386\n") && !all.contains("Architecture: amd64\n"));
    fs::remove_file(&image).unwrap();
    assert!(store.fails(7, &args(&["riscv64x"])).contains("cannot run programs for riscv64x"));
    assert!(!image.exists());
    store.ok(&args(&["arm64", "--foreign"]));
    let all = status();
    assert!(all.contains("Status: install ok unpacked\n") && !all.contains("install ok installed"));
    assert!(all.contains("Architecture: arm64\n"));
}
