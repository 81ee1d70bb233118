//! Recipes built: steps and their keys, stages, files, secrets, users; with an image of busybox alone.

use crate::common::user::User;
use crate::common::work::{BUSYBOX, TAG, Work};
use crate::common::{self, collect, ok};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

impl Work {
    /// Builds `r.toml`: the digest, and how many steps were done.
    #[track_caller]
    fn build(&self, more: &[&str]) -> (String, u64) {
        self.made(&[&["r.toml"], more].concat())
    }

    /// Builds `r.toml`, whose output is the folder `out`.
    #[track_caller]
    fn folder(&self) -> PathBuf {
        let out = self.path("out");
        if out.exists() {
            fs::remove_dir_all(&out).unwrap();
        }
        self.build(&[]);
        out
    }
}

const OUT: &str = "[[output]]\nkind = \"dir\"\npath = \"out\"\n";

#[test]
fn steps_are_done_once() {
    let work = Work::new();
    let recipe = |last: &str| {
        format!("{BUSYBOX}[[copy]]\nfrom = \"site/\"\nto = \"/www/\"\n[[run]]\nshell = \"{last}\"\n{TAG}")
    };
    work.write("site/a", "one").write("r.toml", recipe("echo 1 > /x"));
    let (first, done) = work.build(&[]);
    assert_eq!(done, 5);
    assert_eq!(work.build(&[]), (first.clone(), 0), "nothing changed");
    work.write("r.toml", recipe("echo 2 > /x"));
    let (second, done) = work.build(&[]);
    assert!(done == 1 && second != first, "the last step alone");
    work.write("r.toml", recipe("echo 1 > /x"));
    assert_eq!(work.build(&[]), (first.clone(), 0), "both results are kept");
    work.write("site/a", "two");
    assert_eq!(work.build(&[]).1, 2, "an input");
    work.write("site/a", "one");
    let before = fs::metadata(work.path("site/a")).unwrap().modified().unwrap();
    fs::File::options()
        .write(true)
        .open(work.path("site/a"))
        .unwrap()
        .set_modified(before + std::time::Duration::from_secs(5))
        .unwrap();
    assert_eq!(work.build(&[]), (first.clone(), 0), "times of inputs do not count");
    assert_eq!(work.build(&["--no-cache"]), (first.clone(), 5), "made anew, the same");
    let other = Work::new();
    other.write("site/a", "one").write("r.toml", recipe("echo 1 > /x"));
    assert_eq!(other.build(&[]), (first, 5), "the same on another day, in another store and folder");
    let history = work.ok(&["history", "localhost/made:1", "--format", "json"]);
    assert!(history.contains("run echo 1 > /x") && history.contains("r.toml:13"), "{history}");
    work.nothing_left();
}

#[test]
fn plans_are_shown() {
    let work = Work::new();
    work.write("r.toml", format!("{BUSYBOX}{TAG}"));
    let text = work.ok(&["build", "r.toml", "--dry-run"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 4 && lines[2].ends_with("run /bin/busybox --install -s /bin"), "{text}");
    assert!(lines[2].contains("r.toml:8") && lines[3].contains("write oci localhost/made:1"), "{text}");
    let plan: Value =
        serde_json::from_str(&work.ok(&["build", "r.toml", "--dry-run", "--format", "json"])).unwrap();
    assert_eq!(plan["steps"][2]["needs"], serde_json::json!([1]));
    assert!(plan["steps"][2]["key"].as_str().unwrap().starts_with(&format!("sha256:{}", &lines[2][..12])));
    let dot = work.ok(&["build", "r.toml", "--dry-run", "--format", "dot"]);
    assert!(dot.starts_with("digraph") && dot.contains("s1 -> s2;") && dot.contains("s2 -> o0;"), "{dot}");
    assert!(!work.path("r.lock").exists(), "nothing is written");
    work.fails(2, &["build", "r.toml", "--format", "dot"]);
}

#[test]
fn files_are_copied() {
    let work = Work::new();
    work.write("site/a.html", "a")
        .write("site/sub/b", "b")
        .write("site/drop.tmp", "x")
        .write("bin/tool", "#!/bin/sh\n");
    ok("chmod", &["700", work.path("bin/tool").to_str().unwrap()]);
    std::os::unix::fs::symlink("a.html", work.path("site/link")).unwrap();
    work.write(
        "r.toml",
        format!(
            "{BUSYBOX}[[group]]\nname = \"web\"\ngid = 77\n[[user]]\nname = \"www\"\nuid = 33\ngroup = \"web\"\nhome = \"/home/www\"\n\
             [[run]]\nshell = \"mkdir -p /real /outside && ln -s /real /alias && ln -s /etc/../../../../outside /up\"\n\
             [[copy]]\nfrom = \"site/\"\nto = \"/www/\"\nowner = \"www:web\"\nexclude = [\"*.tmp\"]\n\
             [[copy]]\nfrom = [\"bin/tool\", \"site\"]\nto = \"/opt/\"\n\
             [[copy]]\nfrom = \"site/a.html\"\nto = \"/alias/named\"\nmode = \"0640\"\n\
             [[copy]]\ncontent = \"text\\n\"\nto = \"/up/inside\"\nmode = \"4711\"\n\
             [[stage]]\nname = \"build\"\nbase = {{ scratch = true }}\n[[stage.copy]]\ncontent = \"made\"\nto = \"/deep/er/file\"\n\
             [[copy]]\nstage = \"build\"\nfrom = \"/deep/\"\nto = \"/from\"\n{OUT}"
        ),
    );
    let out = work.folder();
    let list = ok(
        "find",
        &[out.to_str().unwrap(), "-path", "*/bin", "-prune", "-o", "-printf", "%P %y %m %U:%G %l\\n"],
    );
    let lines: Vec<&str> = list.lines().collect();
    for wanted in [
        "www d 755 33:77 ",
        "www/a.html f 644 33:77 ",
        "www/sub/b f 644 33:77 ",
        "www/link l 777 33:77 a.html",
        "opt/tool f 755 0:0 ",
        "opt/site/sub/b f 644 0:0 ",
        "real/named f 640 0:0 ",
        "outside/inside f 4711 0:0 ",
        "from/er/file f 644 0:0 ",
        "home/www d 755 33:77 ",
    ] {
        assert!(lines.contains(&wanted), "{wanted:?} is not in {list}");
    }
    assert!(!list.contains("drop.tmp ") || list.contains("opt/site/drop.tmp "), "{list}");
    assert!(!list.contains("www/drop.tmp") && !list.contains("recipe"), "{list}");
    assert_eq!(fs::read_to_string(out.join("etc/passwd")).unwrap(), "www:x:33:77::/home/www:/bin/sh\n");
    assert_eq!(fs::read_to_string(out.join("etc/group")).unwrap(), "web:x:77:\n");
    assert!(!Path::new("/outside").exists());
    work.nothing_left();
}

#[test]
fn a_step_sees_its_inputs_alone() {
    let work = Work::new();
    work.write("scripts/s.sh", "cd $RECIPE; find . -type f | sort; cat data/in; touch data/in 2>/dev/null && echo WRITTEN; hostname; cat /proc/net/dev | wc -l; env | grep -c TOKEN || true")
        .write("scripts/other", "x")
        .write("data/in", "inner\n")
        .write("r.toml", format!("{BUSYBOX}[[run]]\nscript = \"scripts/s.sh\"\ninputs = [\"data/\"]\n{OUT}"));
    let out = work.output(&["build", "r.toml"]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && text.contains("./data/in\n./scripts/s.sh\ninner\nbuild\n3\n0\n"),
        "{text}"
    );
    let left = work.path("out/run");
    assert!(!left.join("recipe").exists(), "what the mounts needed is gone");
    work.nothing_left();
}

#[test]
fn secrets_reach_no_layer() {
    let work = Work::new();
    work.write("key", "file-secret-bytes").write(
        "r.toml",
        format!(
            "{BUSYBOX}[secrets]\ntoken = {{ env = \"TOKEN\" }}\nkey = {{ file = \"key\" }}\n\
             [[run]]\nshell = \"cat /run/secrets/token /run/secrets/key | md5sum > /sum; ls -l /run/secrets | wc -l\"\nsecrets = [\"token\", \"key\"]\n\
             [image]\ncompression = \"none\"\n{TAG}"
        ),
    );
    let (digest, _) = work.build(&[]);
    let files = fs::read_dir(work.store.path().join("blobs/sha256")).unwrap();
    let blobs: Vec<Vec<u8>> = files.map(|f| fs::read(f.unwrap().path()).unwrap()).collect();
    let has = |word: &[u8]| blobs.iter().any(|b| b.windows(word.len()).any(|w| w == word));
    assert!(has(b"sum") && !has(b"sesame-open") && !has(b"file-secret-bytes"), "a secret is in the store");
    assert!(!has(b"run/secrets/token\0"), "its mount is in a layer");
    assert!(!fs::read_to_string(work.path("r.lock")).unwrap().contains("sesame"));
    work.write("key", "another secret");
    assert_eq!(work.build(&[]), (digest, 0), "secrets are in no key");
    let out =
        collect(work.store.command().args(["build", "r.toml", "--no-cache"]).current_dir(work.dir.path()));
    let text = crate::common::failed(10, &["build"], &out);
    assert!(text.contains("secret token is not set"), "{text}");
    work.nothing_left();
}

#[test]
fn a_failed_step_is_told_and_gone_on_from() {
    let work = Work::new();
    let recipe = |word: &str| {
        format!(
            "{BUSYBOX}[[run]]\nshell = \"echo good\"\n[[run]]\nshell = \"echo why it failed; {word} 7\"\n{OUT}"
        )
    };
    work.write("r.toml", recipe("exit"));
    let text = work.fails(1, &["build", "r.toml"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[lines.len() - 1].contains("r.toml:12: run echo why it failed; exit 7: exit code 7"),
        "{text}"
    );
    assert_eq!(lines[lines.len() - 2], "why it failed");
    assert!(!work.path("out").exists());
    work.nothing_left();
    work.write("r.toml", recipe("true"));
    assert_eq!(work.build(&[]).1, 1, "the steps before are kept");
}

#[test]
fn a_lock_can_be_held_to() {
    let work = Work::new();
    work.write("site/a", "one")
        .write("r.toml", format!("{BUSYBOX}[[copy]]\nfrom = \"site/\"\nto = \"/\"\n{TAG}"));
    assert!(work.fails(4, &["build", "r.toml", "--frozen"]).contains("is not in r.lock"));
    let (digest, _) = work.build(&[]);
    assert_eq!(work.build(&["--frozen", "--offline"]).0, digest);
    work.write("site/a", "two");
    assert!(work.fails(4, &["build", "r.toml", "--frozen"]).contains("site"));
    let changes = || {
        let out = work.output(&["lock", "r.toml"]);
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    assert!(matches!(changes(), (Some(4), text) if text.contains("site")));
    work.ok(&["lock", "r.toml", "--update"]);
    assert_eq!(changes().0, Some(0));
    work.build(&["--frozen"]);
    // An image is held by digest, whatever its name means later.
    work.write("on.toml", "version = 1\n[base]\nimage = \"localhost/made:1\"\n[[copy]]\ncontent = \"x\"\nto = \"/on\"\n[[output]]\nkind = \"oci\"\ntag = \"localhost/on:1\"\n");
    work.ok(&["build", "on.toml"]);
    let first = work.ok(&["inspect", "localhost/on:1"]);
    work.write("site/a", "three");
    work.build(&[]);
    work.ok(&["build", "on.toml", "--frozen"]);
    assert_eq!(work.ok(&["inspect", "localhost/on:1"]), first);
    assert_eq!(work.output(&["lock", "on.toml"]).status.code(), Some(4));
    work.ok(&["lock", "on.toml", "--update", "localhost/made:1"]);
    work.ok(&["build", "on.toml", "--frozen"]);
    assert_ne!(work.ok(&["inspect", "localhost/on:1"]), first);
}

#[test]
fn a_lock_has_packages_of_several_architectures() {
    let work = Work::new();
    let base = "debian = { suite = \"bookworm\", variant = \"custom\" }\n[packages]\ninclude = [\"tini\"]";
    work.write("r.toml", format!("version = 1\n[base]\n{base}\n{TAG}"));
    work.ok(&["lock", "r.toml"]);
    let plan = ["plan", "r.toml", "--platforms", "linux/amd64,linux/arm64", "--frozen", "--format", "json"];
    assert!(work.fails(4, &plan).contains("the packages of"));
    work.ok(&["lock", "r.toml", "--update", "--platform", "linux/arm64"]);
    work.ok(&plan);
    work.ok(&["lock", "r.toml", "--update"]);
    work.ok(&plan);
    let lock = std::fs::read_to_string(work.path("r.lock")).unwrap();
    assert!(lock.contains(".amd64]") && lock.contains(".arm64]"), "{lock}");
    assert!(work.fails(2, &["lock", "packages.lock", "--set", "a=b"]).contains("--set is for recipes"));
}

#[test]
fn variables_and_mistakes() {
    let work = Work::new();
    work.write("r.toml", format!("{BUSYBOX}[vars]\nword = \"plain\"\n[env]\nCI_SHA = \"none\"\n[[copy]]\ncontent = \"${{var:word}} ${{env:CI_SHA}}\"\nto = \"/word\"\n{OUT}"));
    let out = work.folder();
    assert_eq!(fs::read_to_string(out.join("word")).unwrap(), "plain none");
    fs::remove_dir_all(&out).unwrap();
    let command = ["build", "r.toml", "--set", "word=other"];
    collect(work.store.command().args(command).current_dir(work.dir.path()).env("CI_SHA", "abc"));
    assert_eq!(fs::read_to_string(out.join("word")).unwrap(), "other abc");
    assert!(work.fails(2, &["build", "r.toml", "--set", "wrd=x"]).contains("did you mean word?"));
    assert!(work.fails(2, &["build", "r.toml"]).contains("already exists"));
    work.write("bad.toml", "version = 1\n[base]\nscratch = true\n[[cpoy]]\n");
    assert!(
        work.fails(2, &["build", "bad.toml"])
            .contains("bad.toml:4: unknown field `cpoy`, did you mean copy?")
    );
    work.write("bad.toml", "version = 1\n[base]\nscratch = true\n[[copy]]\nfrom = \"nothing\"\n");
    assert!(work.fails(10, &["build", "bad.toml"]).contains("bad.toml:4: "));
}

#[test]
fn an_ordinary_user_builds_the_same() {
    let work = Work::new();
    let recipe = |chown: &str| {
        format!(
            "{BUSYBOX}[[user]]\nname = \"u\"\nuid = 1000\n[[copy]]\ncontent = \"x\"\nto = \"/x\"\nowner = \"u\"\n\
         [[run]]\nshell = \"id; mkdir /d; {chown}; rm /bin/vi\"\n\
         [[run]]\nnetwork = true\nshell = \"ls /sys/class >/d/classes; ! grep ' /sys[^ ]* rw' /proc/self/mountinfo; rm /bin/ed\"\n{TAG}"
        )
    };
    // With one id alone there is nobody else that a program could give a file to.
    for (user, chown) in [(User::new(), "chown 5:6 /d"), (User::single(), "true")] {
        let text = recipe(chown);
        work.write("r.toml", &text);
        let (wanted, _) = work.build(&[]);
        let dir = user.home().join("work");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("r.toml"), &text).unwrap();
        user.give(&dir);
        let out = collect(user.shipimg().args(["build", "r.toml", "--format", "json"]).current_dir(&dir));
        let made: Value = serde_json::from_str(&crate::common::succeeded(&["build"], &out)).unwrap();
        assert_eq!(made["digest"], wanted);
    }
}

#[test]
fn what_fails_its_checks_is_not_written() {
    let work = Work::new();
    let recipe = |word: &str| {
        format!(
            "{BUSYBOX}[[copy]]\ncontent = \"hello\\n\"\nto = \"/www/index.html\"\n[image]\ncmd = [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\n\
             env = {{ PATH = \"/bin\" }}\n[[check]]\nname = \"serves\"\nrun = true\nhttp = {{ port = 80, path = \"/\", body = \"hello\" }}\nwithin = \"10s\"\n\
             [[check]]\nfile = \"/www/index.html\"\ncontains = \"{word}\"\n[[check]]\ncommand = [\"ls\", \"/none\"]\nexit = 0\nwhen = {{ arch = [\"vax\"] }}\n{OUT}"
        )
    };
    work.write("r.toml", recipe("welcome"));
    let out = work.output(&["build", "r.toml", "--report", "junit=x.xml"]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(3), "{text}");
    assert!(text.contains("r.toml:21") && text.contains("welcome") && text.contains("r.toml:10"), "{text}");
    assert!(!work.path("out").exists(), "nothing is written");
    let junit = fs::read_to_string(work.path("x.xml")).unwrap();
    assert!(junit.contains("tests=\"2\"") && junit.contains("failures=\"1\""), "{junit}");
    assert!(work.ok(&["build", "r.toml", "--no-verify"]).contains("out"));
    fs::remove_dir_all(work.path("out")).unwrap();
    work.write("r.toml", recipe("hello"));
    let value: Value = serde_json::from_str(&work.ok(&["build", "r.toml", "--format", "json"])).unwrap();
    assert_eq!(value["checks"]["verdicts"].as_array().unwrap().len(), 2);
    assert!(work.path("out/www/index.html").exists());
    work.nothing_left();
}

#[test]
fn a_build_is_repeated_to_see_whether_it_is_the_same() {
    let work = Work::new();
    work.write("r.toml", format!("{BUSYBOX}{TAG}"));
    work.ok(&["build", "r.toml", "--rebuild"]);
    work.write(
        "r.toml",
        format!("{BUSYBOX}[[run]]\nshell = \"cat /proc/sys/kernel/random/uuid > /id\"\n{TAG}"),
    );
    let out = work.output(&["build", "r.toml", "--rebuild"]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(5) && text.contains("id"), "{text}");
}

#[test]
fn what_was_built_is_built_anew_and_compared() {
    let work = Work::new();
    let recipe = |more: &str| {
        let outputs =
            [("dir", "out"), ("docker-archive", "app.tar"), ("tar.gz", "root.tar.gz"), ("squashfs", "r.img")];
        let output = |(kind, path)| format!("[[output]]\nkind = \"{kind}\"\npath = \"{path}\"\n");
        let outputs = outputs.map(output).concat();
        let archive = "[[output]]\nkind = \"oci-archive\"\npath = \"oci.tar\"\ntag = \"x:1\"\n";
        format!("{BUSYBOX}{more}{TAG}{outputs}{archive}")
    };
    work.write("r.toml", recipe(""));
    work.ok(&["build", "r.toml"]);
    let lock = fs::read(work.path("r.lock")).unwrap();
    let targets = [
        "made:1",
        "out",
        "docker-archive:app.tar",
        "root.tar.gz",
        "./r.img",
        "oci-archive:oci.tar",
        "oci.tar",
    ];
    for target in targets {
        let said = work.ok(&["verify", target, "--rebuild", "r.toml"]);
        assert!(
            said.contains("passed reproducible") && said.contains("1 passed, 0 failed"),
            "{target}: {said}"
        );
    }
    work.write("checks.toml", "[[check]]\nfile = \"/bin/busybox\"\n[[check]]\nreproducible = true\n");
    let said = work.ok(&["verify", "made:1", "--checks", "checks.toml", "--rebuild", "r.toml", "--offline"]);
    assert!(said.contains("2 passed, 0 failed"), "{said}");

    // Another recipe: each target says where it is another one first.
    work.write("r.toml", recipe("[[copy]]\ncontent = \"new\"\nto = \"/etc/new\"\n"));
    let fails = |args: &[&str], want: &str| {
        let out = work.output(&[&["verify"], args].concat());
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.code() == Some(5) && said.contains(want), "{args:?}: {said}");
    };
    fails(&["made:1", "--rebuild", "r.toml"], "2 layers and 3");
    fails(
        &["out", "--rebuild", "r.toml"],
        "/etc: wanted the same bytes from a second build, found it is in the second",
    );
    fails(&["root.tar.gz", "--rebuild", "r.toml"], "another byte at offset ");
    fails(&["docker-archive:app.tar", "--rebuild", "r.toml"], "another byte at offset ");
    let random = "[[run]]\nshell = \"cat /proc/sys/kernel/random/uuid > /id\"\n";
    work.write("random.toml", format!("{BUSYBOX}{random}{TAG}"));
    work.ok(&["build", "random.toml"]);
    fails(&["made:1", "--rebuild", "random.toml"], "layer 3 has other contents of the same files");

    // Where checks fail, too, that is told first; what is no output is told before work is done.
    work.write("bad.toml", "[[check]]\nfile = \"/none\"\n");
    let out = work.output(&["verify", "made:1", "--checks", "bad.toml", "--rebuild", "random.toml"]);
    assert_eq!(out.status.code(), Some(3));
    let said = work.fails(2, &["verify", "r.toml", "--rebuild", "random.toml"]);
    assert!(said.contains("random.toml writes no /"), "{said}");
    work.fails(10, &["verify", "made:1", "--rebuild", "none.toml"]);
    work.store.fails_usage(&["verify", "made:1", "--checks", "x", "--set", "a=b"]);
    assert_eq!(fs::read(work.path("r.lock")).unwrap(), lock, "locks are left as they are");
    work.nothing_left();
}

#[test]
fn a_build_ends_when_it_is_interrupted() {
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};
    let work = Work::new();
    // The first step has run to its end: signals come as before it.
    work.write("r.toml", format!("{BUSYBOX}[[run]]\nshell = \"echo sleeps; sleep 600\"\n{OUT}"));
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut child = work
            .store
            .command()
            .args(["build", "r.toml"])
            .current_dir(work.dir.path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut lines = String::new();
        while !lines.ends_with("\nsleeps\n") {
            assert!(std::io::BufRead::read_line(&mut said, &mut lines).unwrap() > 0, "{lines}");
        }
        let begun = Instant::now();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status:?}");
        assert!(begun.elapsed() < Duration::from_mins(1));
        work.nothing_left();
    }
    assert!(!work.path("out").exists());
}

#[test]
fn a_shell_is_opened_where_a_step_has_failed() {
    let work = Work::new();
    let recipe = format!("{BUSYBOX}[[run]]\nshell = \"echo here > /made; exit 9\"\n{OUT}");
    work.write("r.toml", &recipe);
    let user = User::new();
    let dir = user.home().join("work");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("r.toml"), &recipe).unwrap();
    user.give(&dir);
    let store = work.store.path().display();
    let root =
        (format!("{} --root {store}", common::bin()), std::process::Command::new("script"), work.path(""));
    let other = (user.bin().display().to_string(), user.command("script"), dir);
    for (shipimg, mut script, dir) in [root, other] {
        let command = format!("{shipimg} build r.toml --shell-on-error; echo ended with $?");
        script.args(["-qec", &command, "/dev/null"]).current_dir(&dir);
        script.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = script.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"echo found $(cat /made) as $(id -u)\nexit 5\n").unwrap();
        let out = child.wait_with_output().unwrap();
        drop(stdin);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.contains("found here as 0") && text.contains("exit code 9"), "{text}");
        assert!(text.contains("ended with 1"), "the failure's, whatever the shell ends with: {text}");
        assert!(!dir.join("out").exists());
    }
    work.fails(2, &["build", "r.toml", "--shell-on-error"]);
    work.nothing_left();
    assert!(user.processes().is_empty(), "the user's processes");
}
