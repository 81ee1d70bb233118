//! `verify`: what is checked without starting anything, of every sort of target; reports.

use crate::common::checks::{add, add_system, file, holds, nothing_left, verify};
use crate::common::layout::{Blob, Tar};
use crate::common::registry::Registry;
use crate::common::serve::Served;
use crate::common::user::User;
use crate::common::{TestStore, need_root, ok};
use serde_json::{Value, json};
use shipimg::disk::gpt::{Disk, Guid, Partition};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tar::EntryType as T;

fn system() -> TestStore {
    need_root();
    let store = TestStore::in_memory();
    let config = json!({"Entrypoint": ["/bin/sh"], "Cmd": ["-c", "true"], "User": "web", "WorkingDir": "/srv",
        "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "Labels": {"v": "1.2"}});
    add_system(&store, &config);
    store
}

#[test]
fn every_static_check_holds_and_does_not() {
    let store = system();
    holds(
        &store,
        "img:1",
        &[
            ("file = '/etc/passwd'\nmode = '0644'\nowner = 'root:root'\ncontains = '^web:'", ""),
            ("file = '/etc/mine'\nowner = 'web:web'\nmode = '0600'", ""),
            (
                "file = '/etc/mine'\nmode = '0644'",
                "/etc/mine mode 0644 | 0600 by recipe.toml:12: run touch /etc/mine",
            ),
            ("file = '/etc/passwd'\ncontains = '^nobody:'", "by the base"),
            ("file = '/etc/gone'", "/etc/gone /etc/gone | nothing by recipe.toml:12"),
            ("file = '/etc/gone'\nabsent = true", ""),
            ("file = '/etc/mine'\nabsent = true", "no /etc/mine | a file"),
            ("file = '/etc/link'\nlink = '../etc/passwd'", ""),
            ("file = '/bin/ping'\ncapability = 'net_raw'", ""),
            ("file = '/bin/ping'\ncapability = ['net_raw', 'chown']", "capability chown, net_raw | net_raw"),
            ("file = '/etc/conf.json'\njson = { '/a/b/1' = 'x' }", ""),
            ("file = '/etc/conf.json'\njson = { '/a/b/1' = 'y' }", "/a/b/1 = \"y\" | \"x\""),
            ("files = '/etc/*'\nowner = 'root'\nexcept = '/etc/mine'", ""),
            ("files = '/etc/*'\nowner = 'root'", "/etc/mine owner root | web:web"),
            ("package = 'demo'\nversion = '>= 1.2'", ""),
            ("package = 'demo'\nversion = '2'", "demo 2 | 1.2-3"),
            ("package = 'none'", "it is not installed"),
            ("user = 'web'\nuid = 33\nhome = '/srv'\nshell = '/bin/false'\ngroups = ['adm', 'web']", ""),
            ("user = 'web'\nshell = '/bin/sh'", "shell /bin/sh | /bin/false"),
            ("group = 'adm'\ngid = 4", ""),
            ("group = 'adm'\ngid = 5", "gid 5 | 4"),
            (
                "config = { user = 'web', cmd = ['-c', 'true'], env = { A = 'b' }, ports = [80], labels = { v = '1.2' } }",
                "",
            ),
            ("config = { workdir = '/', volumes = ['/x'] }", "volume /x | /data"),
            ("max-size = '100M'", ""),
            ("max-size = '1k'", "at most 1k in all files | "),
            ("max-layers = 2", ""),
            ("max-layers = 1", "at most 1 layers | 2"),
            ("max-wasted = '3000'", ""),
            (
                "max-wasted = '2k'",
                "/etc/twice a file that is of use | 2000 bytes for nothing: replaced by layer 2 by the base",
            ),
            ("only-setuid = '/bin/su'", ""),
            (
                "only-setuid = []",
                "/bin/su no set-uid or set-gid file but those listed | mode 4755 by recipe.toml:12",
            ),
            ("no-secrets = true\nexcept = '/root/*'", ""),
            ("no-secrets = true", "/root/key no secrets | what looks like a private key"),
            ("no-world-writable = true\nexcept = '/etc/open'", ""),
            ("no-world-writable = true", "/etc/open nothing that everybody may write | mode 0666"),
            ("reproducible = true", "error: two builds are compared by `build`, and"),
        ],
    );
    nothing_left(&store);
}

#[test]
fn waste_is_what_analyze_counts() {
    let store = TestStore::new();
    let lower = Tar::new()
        .file("deleted", &[1; 1000])
        .file("replaced", &[2; 200])
        .file("moved", &[3; 30])
        .file("first", &[4; 4])
        .link("second", "first");
    let upper = Tar::new()
        .file(".wh.deleted", b"")
        .file("replaced", &[5; 7])
        .file("moved", &[3; 30])
        .file("repeated", &[4; 4])
        .file("empty", b"");
    add(&store, "img:1", &[Blob::gzip(&lower.finish()), Blob::gzip(&upper.finish())], &json!({}));
    let report: Value = serde_json::from_str(&store.ok(&["analyze", "img:1", "--format", "json"])).unwrap();
    let waste = 1000 + 200 + 30 + 4;
    assert_eq!(report["waste"], waste);
    let checks = [
        (format!("max-wasted = {waste}"), String::new()),
        (format!("max-wasted = {}", waste - 1), format!("repeat others | {waste} bytes in 4 files")),
        ("max-wasted = 0".to_string(), "4 bytes for nothing: the same as /first".to_string()),
        ("max-wasted = '0'".to_string(), "30 bytes for nothing: written again".to_string()),
    ];
    let checks: Vec<_> = checks.iter().map(|(check, want)| (check.as_str(), want.as_str())).collect();
    holds(&store, "img:1", &checks);
}

/// A disk whose second partition is the filesystem in `image`.
fn disk(image: &str, target: &str) {
    let image = fs::read(image).unwrap();
    let partition = |name, size| Partition { kind: Guid::new(1), id: Guid::new(2), name, size };
    let disk = Disk::new(Guid::new(3), &[partition("empty", 1 << 20), partition("root", image.len() as u64)]);
    let file = fs::File::create(target).unwrap();
    file.set_len(disk.size()).unwrap();
    file.write_all_at(&image, disk.places().nth(1).unwrap().offset).unwrap();
    disk.write(&file, Path::new(target)).unwrap();
}

#[test]
fn every_sort_of_target() {
    need_root();
    let store = TestStore::in_memory();
    let script = "echo hi $(id -un)";
    add_system(&store, &json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": [script], "User": "web"}));
    let at = |name: &str| store.path().join(name).to_str().unwrap().to_string();
    store.ok(&["copy", "-q", "img:1", &format!("docker-archive:{}", at("docker.tar"))]);
    store.ok(&["copy", "-q", "img:1", &format!("oci:{}", at("layout"))]);
    store.ok(&["unpack", "-q", "img:1", &at("bundle")]);
    store.ok(&["bundle", "create", "--driver", "copy", "img:1", "named"]);
    let rootfs = format!("{}/rootfs", at("bundle"));
    for (program, args) in [
        ("mke2fs", &["-q", "-t", "ext4", "-d", &rootfs, &at("ext4.img"), "32M"][..]),
        ("mksquashfs", &[&rootfs, &at("squashfs.img"), "-quiet", "-no-progress"]),
        ("mkfs.erofs", &["--quiet", &at("erofs.img"), &rootfs]),
        ("mkfs.btrfs", &["-q", "--rootdir", &rootfs, "--shrink", &at("btrfs.img")]),
    ] {
        ok(program, args);
    }
    disk(&at("ext4.img"), &at("disk.img"));
    let sums =
        || ["ext4", "squashfs", "erofs", "btrfs"].map(|kind| ok("sha256sum", &[at(&format!("{kind}.img"))]));
    let before = sums();
    let common = [
        ("file = '/etc/passwd'\nmode = '0644'\ncontains = '^web:'", ""),
        ("file = '/etc/mine'\nowner = 'web'\nmode = '0600'", ""),
        ("file = '/etc/gone'\nabsent = true", ""),
        ("file = '/etc/none'", "/etc/none | nothing"),
        ("package = 'demo'", ""),
        ("command = ['/bin/cat', '/etc/twice']\nstdout-is = '2'", ""),
    ];
    let image = ("max-layers = 2", "");
    let no_image = ("max-layers = 2", "error: only an image has layers");
    for (target, more) in [
        (format!("docker-archive:{}", at("docker.tar")), image),
        (format!("oci:{}", at("layout")), image),
        ("store:img:1".to_string(), image),
        ("named".to_string(), no_image),
        (at("bundle"), no_image),
        (at("bundle"), ("log = '^hi web$'", "")),
        ("named".to_string(), ("log = '^hi web$'", "")),
        ("img:1".to_string(), ("log = '^hi web$'", "")),
        (rootfs, no_image),
        (at("ext4.img"), no_image),
        (at("squashfs.img"), no_image),
        (at("erofs.img"), no_image),
        (at("btrfs.img"), no_image),
        (at("disk.img"), no_image),
    ] {
        holds(&store, &target, &[&common[..], &[more]].concat());
    }
    assert_eq!(sums(), before, "images are as they were");
    store.ok(&["bundle", "delete", "named"]);
    nothing_left(&store);
}

#[test]
fn an_ordinary_user_is_told_who_may_mount() {
    let user = User::new();
    fs::create_dir(user.home().join("root")).unwrap();
    fs::write(user.home().join("root/file"), "x").unwrap();
    let at = |name: &str| user.home().join(name).to_str().unwrap().to_string();
    for (program, args) in [
        ("mke2fs", &["-q", "-t", "ext4", "-d", &at("root"), &at("ext4.img"), "4M"][..]),
        ("mksquashfs", &[&at("root"), &at("squashfs.img"), "-quiet", "-no-progress"]),
        ("mkfs.erofs", &["--quiet", &at("erofs.img"), &at("root")]),
        ("mkfs.btrfs", &["-q", "--rootdir", &at("root"), "--shrink", &at("btrfs.img")]),
    ] {
        ok(program, args);
    }
    fs::write(user.home().join("c.toml"), "[[check]]\nfile = '/file'\n").unwrap();
    user.give(&user.home());
    for kind in ["ext4", "squashfs", "erofs", "btrfs"] {
        let image = at(&format!("{kind}.img"));
        user.give(Path::new(&image));
        for args in [&["verify", &image, "--checks", &at("c.toml")][..], &["analyze", &image]] {
            let said = user.fails(8, args);
            assert!(
                said.contains(&image) && said.contains("cannot be mounted by an ordinary user"),
                "{kind}: {said}"
            );
        }
    }
    let left = fs::read_dir(user.store().join("shipimg/tmp")).into_iter().flatten().count();
    assert_eq!(left, 0);
}

#[test]
fn an_image_cannot_mislead() {
    need_root();
    let store = TestStore::in_memory();
    fs::write(store.path().join("secret"), "outside").unwrap();
    let secret = store.path().join("secret");
    let up = format!("../../../../../../../../../..{}", secret.display());
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
        d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
        g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    let layer = Tar::new()
        .dir("./")
        .dir("etc/")
        .entry(T::Fifo, "etc/passwd", 0o644, "", b"")
        .symlink("etc/group", &up)
        .symlink("abs", secret.to_str().unwrap())
        .symlink("up", &up)
        .symlink("dir", store.path().to_str().unwrap())
        .symlink("loop", "loop")
        .file("big", &vec![0; (64 << 20) + 1])
        .file("plain", b"\x1b[31mred\n")
        .file("bomb.yaml", bomb.as_bytes())
        .file("deep.json", "[".repeat(100_000).as_bytes());
    let config = json!({"Env": ["A=\u{1b}[31m"], "User": "0"});
    add(&store, "img:1", &[Blob::gzip(&layer.finish())], &config);
    holds(
        &store,
        "img:1",
        &[
            ("user = 'root'", "none in /etc/passwd"),
            ("group = 'root'", "none in /etc/group"),
            ("file = '/abs'\ncontains = 'outside'", "which leads to nothing in the image"),
            ("file = '/up'\ncontains = 'outside'", "which leads to nothing in the image"),
            ("file = '/dir/secret'\ncontains = 'outside'", "/dir/secret | nothing"),
            ("file = '/loop'\nmode = '0777'", "which leads to nothing"),
            ("file = '/../../../etc/passwd'\ntype = 'fifo'", ""),
            ("file = '/etc/passwd'\ncontains = 'root'", "a file with content | a named pipe"),
            ("file = '/bomb.yaml'\nyaml = { '/h' = 1 }", "no YAML"),
            ("file = '/deep.json'\njson = { '/0' = 1 }", "no JSON"),
            ("config = { env = { A = 'x' } }", "\\u{1b}[31m"),
            ("file = '/big'\ncontains = 'x'", "67108865 bytes, more than are read"),
            ("files = '/**'\nmode = '0777'\nexcept = ['/etc', '/etc/**']", "/plain mode 0777"),
        ],
    );
    let out = verify(&store, "img:1", "[[check]]\nconfig = { env = { A = 'x' } }\n", &["--again"]);
    assert!(!out.stdout.contains(&0x1b), "{}", String::from_utf8_lossy(&out.stdout));
    nothing_left(&store);
}

#[test]
fn many_files_and_a_large_list_of_users() {
    let store = TestStore::in_memory();
    // As large as is read; twice as large is none of its kind.
    let users = "someone:x:77:77::/:/bin/sh\n".repeat((4 << 20) / 27);
    for (name, users, want) in [
        ("large:1", users.clone(), "owner someone | 77:"),
        ("huge:1", users.repeat(2), "owner someone | 77:"),
    ] {
        let mut tar = Tar::new().dir("./").dir("etc/").file("etc/passwd", users.as_bytes()).dir("d/");
        for n in 0..2000 {
            tar = tar.pax(&[("uid", b"77")]).file(&format!("d/{n}"), b"");
        }
        add(&store, name, &[Blob::gzip(&tar.finish())], &json!({}));
        let begun = std::time::Instant::now();
        let holds_or_not = if name == "large:1" { "" } else { want };
        holds(&store, name, &[("files = '/d/*'\nowner = 'someone'", holds_or_not)]);
        // Read for each file it would be many minutes.
        assert!(begun.elapsed() < std::time::Duration::from_mins(1), "{:?}", begun.elapsed());
    }
    nothing_left(&store);
}

#[test]
fn what_is_wrong_with_the_call() {
    let store = system();
    let check = |name: &str, text: &str| file(&store, name, text).to_str().unwrap().to_string();
    for (name, text, want) in [
        (
            "a.toml",
            "[[check]]\nfile = '/a'\n[[check]]\nfile = '/a'\nhttp = { port = 1 }\n",
            "a.toml:3: `file` and `http` are two checks",
        ),
        ("b.toml", "[[check]]\nfiel = '/a'\n", "b.toml:2: unknown field `fiel`"),
        ("c.yaml", "service:\n  x:\n    running: true\n", "c.yaml:1: unknown field `service`"),
        (
            "d.yaml",
            "schemaVersion: '2.0.0'\nlicenseTests:\n- debian: true\n",
            "d.yaml:3: licenseTests is not supported",
        ),
    ] {
        let said = store.fails(2, &["verify", "img:1", "--checks", &check(name, text)]);
        assert!(said.contains(want), "{said}");
    }
    let good = check("good.toml", "[[check]]\nfile = '/etc/passwd'\n");
    store.fails(10, &["verify", "none:1", "--checks", &good]);
    store.fails(10, &["verify", "img:1", "--checks", "/none.toml"]);
    store.fails(2, &["verify", store.path().join("index.json").to_str().unwrap(), "--checks", &good]);
    store.fails(2, &["verify", "/etc", "--checks", &good, "--attach"]);
    store.fails_usage(&["verify", "img:1"]);
    store.fails_usage(&["verify", "img:1", "--checks", &good, "--report", "xml=-"]);
}

const MIXED: &str = "[[check]]\nfile = '/etc/passwd'\n[[check]]\nname = 'a <b> & \"c\", d'\nfile = '/etc/mine'\n\
    mode = '0644'\n[[check]]\nreproducible = true\n";

#[test]
fn reports_are_read_by_others() {
    let store = system();
    let at = |name: &str| store.path().join(name).to_str().unwrap().to_string();
    let forms = ["junit", "json", "tap", "sarif", "markdown"];
    let reports: Vec<String> = forms.iter().map(|form| format!("{form}={}", at(form))).collect();
    let args: Vec<&str> = reports.iter().flat_map(|r| ["--report", r.as_str()]).collect();
    let out = verify(&store, "img:1", MIXED, &args);
    assert_eq!(out.status.code(), Some(3));
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("failed a <b> & \"c\", d ("), "{said}");
    assert!(said.contains("wanted mode 0644, found 0600 (brought by layer "), "{said}");
    assert!(said.contains(", recipe.toml:12: run touch /etc/mine)"), "{said}");
    assert!(said.contains("checks.toml:3\n"), "{said}");
    assert!(said.ends_with("img:1: 1 passed, 1 failed, 1 could not be checked\n"), "{said}");
    let script = r#"
import json, sys, xml.etree.ElementTree as tree
folder = sys.argv[1]
root = tree.parse(folder + "/junit").getroot()
cases = root.findall("testsuite/testcase")
assert [c.get("name") for c in cases] == ["file /etc/passwd", 'a <b> & "c", d', "reproducible"], cases
assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "1")
assert "mode 0644" in cases[1].find("failure").get("message") and cases[1].get("line") == "3"
assert cases[2].find("error") is not None and cases[0].find("failure") is None
sarif = json.load(open(folder + "/sarif"))
results = sarif["runs"][0]["results"]
assert [r["ruleId"] for r in results] == ["file", "reproducible"]
assert results[0]["locations"][0]["physicalLocation"]["region"]["startLine"] == 3
report = json.load(open(folder + "/json"))
assert report["passed"] is False and len(report["verdicts"]) == 3
lines = open(folder + "/tap").read().splitlines()
assert lines[:4] == ["TAP version 14", "1..3", "ok 1 - file /etc/passwd", 'not ok 2 - a <b> & "c", d'], lines
assert "| failed | a &lt;b>" in open(folder + "/markdown").read()
"#;
    ok("python3", &["-c", script, store.path().to_str().unwrap()]);
    // A report on standard output is alone there.
    let out = verify(&store, "img:1", MIXED, &["--report", "json=-"]);
    assert_eq!(serde_json::from_slice::<Value>(&out.stdout).unwrap()["target"], "img:1");
    let path = file(&store, "checks.toml", MIXED);
    let mut command = store.command();
    command.env("GITHUB_ACTIONS", "true").args(["verify", "img:1", "--checks", path.to_str().unwrap()]);
    let said = command.output().unwrap().stderr;
    let want = format!("::error file={},line=3,title=a <b> & \"c\"%2C d::", path.display());
    assert!(String::from_utf8_lossy(&said).contains(&want), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn verdicts_are_kept_and_attached() {
    let store = system();
    let checks =
        "[[check]]\nfile = '/etc/passwd'\n[[check]]\ncommand = ['/bin/true']\n[[check]]\nmax-layers = 1\n";
    let said = |checks: &str, args: &[&str]| {
        String::from_utf8_lossy(&verify(&store, "img:1", checks, args).stdout).into_owned()
    };
    assert_eq!(said(checks, &[]).matches("kept from").count(), 0);
    let second = said(checks, &[]);
    assert!(second.ends_with("2 passed, 1 failed, 3 kept from before\n"), "{second}");
    // Another name is the same check, another line too; another value is another check.
    let other = "\n\n[[check]]\nname = 'x'\nfile = '/etc/passwd'\n[[check]]\nmax-layers = 2\n";
    let third = said(other, &[]);
    assert!(
        third.contains("passed x (kept from ") && third.ends_with("2 passed, 0 failed, 1 kept from before\n"),
        "{third}"
    );
    assert!(said(checks, &["--again"]).ends_with("2 passed, 1 failed\n"));
    // What runs and fails may do better the next time.
    let failing = "[[check]]\ncommand = ['/bin/false']\n";
    assert!(!said(failing, &[]).contains("kept") && !said(failing, &[]).contains("kept"));

    for _ in 0..2 {
        assert_eq!(verify(&store, "img:1", other, &["--attach"]).status.code(), Some(0));
    }
    let served = Served::start(&store, &[]);
    let place = format!("{}/docker.io/library/img:1", served.host());
    let found = store.output(&["referrers", "--format", "json", "--tls-verify=false", &place]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap_or_default();
    drop(served);
    let all = found["referrers"].as_array().unwrap();
    assert_eq!(all.len(), 1, "an earlier report gives way: {found:#}");
    assert_eq!(all[0]["artifactType"], "application/vnd.shipimg.verify.report.v1+json");
    // It goes along to a registry, also to one without the referrers API.
    let registry = Registry::start();
    let there = format!("{}/img:1", registry.host());
    for _ in 0..2 {
        store.ok(&["push", "--quiet", "--referrers", "img:1", &there]);
    }
    let pushed = store.ok(&["referrers", "--format", "json", &there]);
    let pushed: Value = serde_json::from_str(&pushed).unwrap();
    assert_eq!(pushed["referrers"], found["referrers"]);
    // The report stays as long as its image; what is kept about that goes with it.
    store.ok(&["prune", "-y"]);
    assert!(store.path().join("blobs/sha256").join(&all[0]["digest"].as_str().unwrap()[7..]).exists());
    let kept = store.path().join("shipimg/verdicts");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
    store.ok(&["rmi", "img:1"]);
    store.ok(&["prune", "-y"]);
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 0);
}

#[test]
fn files_of_other_programs() {
    let store = system();
    let structure = r#"
schemaVersion: "2.0.0"
globalEnvVars: [{key: G, value: g}]
commandTests:
  - {name: env, command: env, setup: [[touch, /tmp/x]], expectedOutput: ["^G=g$"], excludedOutput: [nope]}
  - {name: wrong, command: "false"}
fileExistenceTests:
  - {name: passwd, path: /etc/passwd, permissions: "-rw-r--r--", uid: 0, gid: 0}
fileContentTests:
  - {name: content, path: /etc/passwd, expectedContents: ["^web:.*"], excludedContents: ["^nobody"]}
metadataTest: {exposedPorts: ["80"], entrypoint: [/bin/sh], envVars: [{key: A, value: b}]}
"#;
    let goss = r#"
file:
  /etc/passwd: {exists: true, mode: "0644", owner: root, group: root, contents: ["/^web:/", "!nobody"]}
package:
  demo: {installed: true, versions: [1.2-3]}
user:
  web: {exists: true, uid: 34}
"#;
    for (name, text, want) in
        [("s.yaml", structure, "4 passed, 1 failed"), ("g.yaml", goss, "2 passed, 1 failed")]
    {
        let path = file(&store, name, text);
        let out = store.output(&["verify", "img:1", "--checks", path.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(said.contains(want), "{said}{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(3));
    }
}

#[test]
fn an_ordinary_user_checks_too() {
    let user = User::new();
    crate::common::layout::Layout::new(&user.store()).add(
        "x:0",
        &crate::unprivileged::layers(),
        &json!({"Cmd": ["/bin/sh"]}),
    );
    user.give(&user.store());
    let checks = user.home().join("c.toml");
    let text = "[[check]]\nfile = '/home/ann/note'\nowner = 'ann:100'\n[[check]]\nfile = '/suid'\nowner = '42'\n\
        mode = '6755'\n[[check]]\ncommand = ['/bin/sh', '-c', 'echo $0']\nstdout = 'sh'\n[[check]]\n\
        command = ['/bin/busybox', 'wget', '-O', '-', 'http://127.0.0.1/etc/passwd']\nretry = 9\n\
        run = { args = ['/bin/busybox', 'httpd', '-f', '-h', '/'] }\nstdout = '^ann:'\n[[check]]\n\
        http = { port = 80, path = '/etc/passwd', body = '^ann:' }\n\
        run = { args = ['/bin/busybox', 'httpd', '-f', '-h', '/'] }\n[[check]]\n\
        process = 'busybox'\nas = 'root'\nrun = { args = ['/bin/busybox', 'httpd', '-f', '-h', '/'] }\n[[check]]\n\
        writes-only = []\nrun = { args = ['/bin/busybox', 'httpd', '-f', '-h', '/'] }\n";
    fs::write(&checks, text).unwrap();
    user.give(Path::new(&checks));
    let out = user.output(&["verify", "x:0", "--checks", checks.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.ends_with("7 passed, 0 failed\n"), "{said}{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn two_builds_are_compared() {
    need_root();
    let store = TestStore::in_memory();
    let layer = |text: &[u8], mode| {
        let tar = Tar::new().dir("./").file("a", b"same").entry(T::Regular, "b", mode, "", text);
        Blob::gzip(&tar.finish())
    };
    let image = |name: &str, blob: Blob, config: &Value| drop(add(&store, name, &[blob], config));
    image("one:1", layer(b"x", 0o644), &json!({}));
    image("mode:1", layer(b"x", 0o600), &json!({}));
    image("content:1", layer(b"y", 0o644), &json!({}));
    image("config:1", layer(b"x", 0o644), &json!({"User": "a"}));
    let opened = shipimg::store::Store::open(store.path()).unwrap();
    let find = |name: &str| {
        let entry = opened.find(&name.parse().unwrap()).unwrap();
        opened.image(&entry.descriptor, &shipimg::oci::Platform::host()).unwrap()
    };
    let check: shipimg::verify::Check = toml::from_str("reproducible = true").unwrap();
    let checks = [shipimg::verify::Placed { check, place: None }];
    for (second, want) in [
        ("one:1", None),
        (
            "mode:1",
            Some("/b: wanted the same image from a second build, found another mode (brought by layer "),
        ),
        ("content:1", Some("wanted the same image from a second build, found layer 1 has other contents")),
        ("config:1", Some("wanted the same image from a second build, found another configuration")),
    ] {
        let second = find(second);
        let options = shipimg::verify::Options {
            second: Some(shipimg::verify::Second::Image(&second)),
            ..Default::default()
        };
        let origin = shipimg::bundle::Origin::Image(None, Box::new(find("one:1")));
        let report = shipimg::verify::verify(&opened, &origin, &checks, &options).unwrap();
        let lines = report.verdicts[0].lines();
        match want {
            None => assert!(report.passed(), "{lines:?}"),
            Some(want) => assert!(lines[0].starts_with(want), "{lines:?}"),
        }
    }
}
