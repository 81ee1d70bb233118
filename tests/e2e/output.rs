//! What a command says, and to whom: outputs that are closed, full or no longer read; stores
//! in folders with odd names.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::proxy::{Fault, Proxy};
use crate::common::registry::Registry;
use crate::common::tls::htpasswd;
use crate::common::{TestStore, bin, describe, need_root, within};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn filled() -> TestStore {
    let store = TestStore::new();
    fill(store.path());
    store
}

fn fill(path: &Path) {
    let busybox = fs::read("/bin/busybox").expect("busybox-static; scripts/test installs it");
    let layer = Tar::new().dir("bin/").entry(tar::EntryType::Regular, "bin/busybox", 0o755, "", &busybox);
    let config = serde_json::json!({"Entrypoint": ["/bin/busybox"]});
    Layout::new(path).add("img:x", &[Blob::gzip(&layer.finish())], &config);
}

/// Commands that print.
const PRINTING: [&[&str]; 8] = [
    &["images"],
    &["images", "--format", "json"],
    &["inspect", "img:x"],
    &["inspect", "img:x", "--raw"],
    &["list"],
    &["bundle", "list"],
    &["--help"],
    &["run", "--help"],
];

#[test]
fn a_full_output_is_an_error() {
    let store = filled();
    for args in PRINTING {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let out = store.command().args(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {stderr}");
        assert_eq!(stderr, "error: standard output: No space left on device (os error 28)\n", "{args:?}");
    }
}

#[test]
fn an_output_that_nobody_reads_is_no_error() {
    let store = filled();
    for args in PRINTING {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let out = store.command().args(args).stdout(write).stderr(Stdio::piped()).output().unwrap();
        assert!(out.stderr.is_empty(), "{}", describe("shipimg", args, &out));
        assert_eq!(out.status.code(), Some(141), "{args:?}");
    }
}

#[test]
fn closed_and_full_standard_streams() {
    need_root();
    let store = filled();
    let closed = |fds: std::ops::RangeInclusive<i32>, args: &[&str]| -> Output {
        let script = fds.map(|fd| format!(" {fd}>&-")).collect::<String>();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec \"$0\" \"$@\"{script}")).arg(bin());
        command.arg("--root").arg(store.path()).args(args).output().unwrap()
    };
    for (args, code) in [
        (&["images"][..], 0),
        (&["inspect", "nosuch"], 10),
        (&["run", "img:x", "--", "/bin/busybox", "false"], 1),
        (&["run", "img:x", "--", "/bin/busybox", "true"], 0),
    ] {
        for fds in [0..=0, 1..=1, 2..=2, 0..=2] {
            let out = closed(fds.clone(), args);
            let said = describe("shipimg", args, &out);
            assert_eq!(out.status.code(), Some(code), "{fds:?}: {said}");
            assert!(!said.contains("panicked"), "{said}");
        }
        let full = File::options().write(true).open("/dev/full").unwrap();
        let status = store.command().args(args).stderr(full).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?} with a full standard error");
    }
}

/// Names with everything that mount data, JSON or a shell may take for its own.
#[test]
fn stores_in_odd_folders() {
    need_root();
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let long = format!("{}/{}", "l".repeat(250), "m".repeat(250));
    for name in ["a b", "c,d", "e:f", "g\\h", "i\"j'k", "-n", "o\np", "%s $q", &long] {
        fs::create_dir_all(work.path().join(name)).unwrap();
        fill(&work.path().join(name));
        // Relative, and by the current folder.
        let run = |args: &[&str]| {
            let mut command = Command::new(bin());
            command.current_dir(work.path()).arg(format!("--root={name}")).args(args);
            crate::common::collect(command.stdin(Stdio::null()))
        };
        for (args, says) in [
            (&["bundle", "create", "img:x", "b", "--driver", "overlay"][..], "shipimg/bundles/b\n"),
            (&["run", "b", "--", "/bin/busybox", "echo", "here"], "here\n"),
            (&["run", "img:x", "--", "/bin/busybox", "echo", "there"], "there\n"),
            (&["unpack", "img:x", &format!("./{name}.out")], ""),
            (&["bundle", "delete", "b"], ""),
        ] {
            let out = run(args);
            let shown = describe("shipimg", args, &out);
            assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).ends_with(says), "{shown}");
        }
        assert!(work.path().join(format!("{name}.out/rootfs/bin/busybox")).exists());
    }
    // JSON cannot hold the path of such a bundle: one error, nothing left.
    let name = work.path().join(OsStr::from_bytes(b"not\xffutf8"));
    fill(&name);
    let root = ["--root".as_ref(), name.as_os_str()];
    let out = Command::new(bin()).args(root).args(["bundle", "create", "img:x", "b"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(stderr.lines().filter(|l| l.starts_with("error: ")).count(), 1, "{stderr}");
    assert_eq!(fs::read_dir(name.join("shipimg/bundles")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(name.join("shipimg/tmp")).unwrap().count(), 0);
}

/// By the name that a caller gave, which may look like an option's value or a path.
#[test]
fn the_program_may_be_called_anything() {
    let out = Command::new(bin()).arg0("").arg("--version").output().unwrap();
    assert!(out.status.success() && out.stdout.starts_with(b"shipimg "));
}

#[test]
fn errors_say_what_to_do() {
    let (store, dir) = (filled(), tempfile::tempdir().unwrap());
    let registry = Registry::start_with(&htpasswd(dir.path(), &[("ann", "right")]));
    let open = Registry::start();
    let layout = format!("oci:{}:img:x", store.path().display());
    let in_terminal = |args: &str| -> Vec<String> {
        let line = format!("{} --root {} {args}", bin(), store.path().display());
        let out = crate::common::output("script", &["-qec", &line, "/dev/null"]);
        let seen = String::from_utf8_lossy(&out.stdout).into_owned();
        seen.lines().map(|l| l.trim_end().to_string()).collect()
    };
    let (host, open) = (registry.host(), open.host());
    let (none, tags) = (format!("pull {open}/none:1"), format!("tags {open}/none"));
    let denied = format!("copy {layout} docker://{host}/img:x");
    for (args, error, help) in [
        (
            denied.as_str(),
            format!("error: {host} refused access to img: 401"),
            format!("help: shipimg login {host}"),
        ),
        (
            &none,
            format!("error: no image {open}/none:1 at {open}: manifest unknown"),
            format!("help: shipimg tags {open}/none"),
        ),
        (
            &tags,
            format!("error: no repository {open}/none at {open}: "),
            format!("help: shipimg search {open}/"),
        ),
        (
            "inspect none",
            "error: no image none in the store".to_string(),
            "help: shipimg pull none".to_string(),
        ),
    ] {
        let seen = in_terminal(args);
        // Each in a line of its own, below whatever bars there were.
        assert!(seen.iter().any(|l| l.starts_with(&error)), "{args}: {seen:#?}");
        assert_eq!(seen.last(), Some(&help), "{args}: {seen:#?}");
    }
    let login = in_terminal(&format!("login -u ann -p wrong {host}"));
    assert_eq!(login.len(), 1, "{login:#?}");
    assert!(login[0].starts_with(&format!("error: {host} refused the credentials: 401")), "{login:#?}");
}

#[test]
fn an_interrupted_pull_says_that_it_goes_on() {
    let (from, registry) = (filled(), Registry::start());
    let image = registry.fill(&Layout::at(from.path()), "img:x");
    let proxy = Proxy::start(registry.port(), |r| {
        if r.path.contains("/blobs/") { Fault::Stall(50) } else { Fault::None }
    });
    let store = TestStore::new();
    let reference = image.replace(&registry.host(), &proxy.host());
    let mut pull = store.command();
    let child =
        pull.args(["pull", &reference]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    within(20, "a request for a blob", || !proxy.requests("/blobs/").is_empty());
    crate::common::ok("kill", &["-INT", &child.id().to_string()]);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.signal(), Some(2), "a shell says 130");
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.ends_with("error: interrupted; the same pull goes on from here\n"), "{said}");
    assert_eq!(store.ok(&["images", "-q"]), "");
    store.ok(&["pull", "-q", &image]);
    assert!(store.ok(&["fsck"]).contains("all whole"));
}
