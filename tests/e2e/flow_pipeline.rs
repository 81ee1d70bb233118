//! An image pipeline in one job: pull the base by digest, build what a recipe says, locked and cached, check it,
//! push it by digest. By root and by an ordinary user, without a daemon.

use crate::common::registry::Registry;
use crate::common::user::User;
use crate::common::{TestStore, collect, failed, need_root, ok, succeeded};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Who runs the job.
struct Job<'a> {
    command: &'a dyn Fn() -> Command,
    dir: &'a Path,
}

impl Job<'_> {
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        succeeded(args, &collect((self.command)().args(args).current_dir(self.dir)))
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let out = collect((self.command)().args(args).current_dir(self.dir));
        eprintln!("{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_str(&succeeded(args, &out)).unwrap()
    }

    #[track_caller]
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let out = collect((self.command)().args(args).current_dir(self.dir));
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stderr).into_owned()
    }
}

/// A registry with a base of busybox; its digest.
fn base(registry: &Registry) -> String {
    let (store, dir) = (TestStore::new(), tempfile::tempdir().unwrap());
    let text = format!(
        "version = 1\n[base]\nscratch = true\n[[copy]]\nfrom = \"/bin/busybox\"\nto = \"/bin/\"\nmode = \"0755\"\n\
         [[run]]\ncommand = [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n[image]\nenv = {{ PATH = \"/bin\" }}\n\
         [[output]]\nkind = \"oci\"\ntag = \"{}/base:1\"\npush = true\n",
        registry.host()
    );
    fs::write(dir.path().join("base.toml"), text).unwrap();
    let job = Job { command: &|| store.command(), dir: dir.path() };
    job.json(&["build", "base.toml", "--format", "json"])["digest"].as_str().unwrap().to_string()
}

fn recipe(host: &str, base: &str, body: &str) -> String {
    format!(
        "version = 1\nname = \"web\"\n[base]\nimage = \"{host}/base@{base}\"\n[[copy]]\nfrom = \"site/\"\nto = \"/www/\"\n\
         [[run]]\nshell = \"echo built > /built\"\n[image]\ncmd = [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\n\
         [[output]]\nkind = \"oci\"\ntag = \"localhost/web:latest\"\n\
         [[check]]\nname = \"serves\"\nrun = true\nhttp = {{ port = 80, path = \"/\", body = \"{body}\" }}\n\
         [[check]]\nfile = \"/built\"\n"
    )
}

fn pipeline(job: &Job, registry: &Registry, base: &str, first: bool) -> String {
    let (host, cache) = (registry.host(), format!("{}/cache", registry.host()));
    fs::create_dir_all(job.dir.join("site")).unwrap();
    fs::write(job.dir.join("site/index.html"), "hello").unwrap();
    fs::write(job.dir.join("web.toml"), recipe(&host, base, "hello")).unwrap();
    job.ok(&["pull", &format!("{host}/base@{base}")]);
    assert!(job.fails(4, &["build", "web.toml", "--frozen"]).contains("web.lock"));
    job.ok(&["lock", "web.toml"]);
    let build = [
        "build",
        "web.toml",
        "--frozen",
        "--cache-to",
        &cache,
        "--report",
        "junit=checks.xml",
        "--format",
        "json",
    ];
    let made = job.json(&build);
    assert_eq!(made["checks"]["verdicts"].as_array().unwrap().len(), 2);
    assert_eq!(
        made["done"],
        if first { 4 } else { 0 },
        "the second machine takes what the first one has done: {made}"
    );
    let junit = fs::read_to_string(job.dir.join("checks.xml")).unwrap();
    assert!(junit.contains("tests=\"2\"") && junit.contains("failures=\"0\""), "{junit}");
    ok(
        "python3",
        &[
            "-c",
            "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])",
            job.dir.join("checks.xml").to_str().unwrap(),
        ],
    );
    let digest = made["digest"].as_str().unwrap().to_string();
    job.ok(&["push", "--quiet", &digest, &format!("{host}/web@{digest}")]);
    job.ok(&[
        "copy",
        "--quiet",
        &format!("docker://{host}/web@{digest}"),
        &format!("docker://{host}/web:latest"),
    ]);
    // Another job looks at what was pushed, by checks of its own.
    fs::write(job.dir.join("more.toml"), "[[check]]\nfile = \"/www/index.html\"\ncontains = \"hello\"\n")
        .unwrap();
    job.ok(&["pull", "--quiet", &format!("{host}/web@{digest}")]);
    job.ok(&["verify", &digest, "--checks", "more.toml"]);
    fs::write(job.dir.join("more.toml"), "[[check]]\nfile = \"/www/index.html\"\ncontains = \"bye\"\n")
        .unwrap();
    job.fails(3, &["verify", &digest, "--checks", "more.toml"]);
    // A change that its checks do not hold for.
    fs::write(job.dir.join("web.toml"), recipe(&host, base, "another")).unwrap();
    job.fails(3, &["build", "web.toml", "--frozen", "--cache-to", &cache]);
    fs::write(job.dir.join("web.toml"), "version = 1\n[bsae]\n").unwrap();
    job.fails(2, &["build", "web.toml"]);
    digest
}

#[test]
fn an_image_goes_through_a_pipeline() {
    need_root();
    let registry = Registry::start();
    let base = base(&registry);
    let (store, dir) = (TestStore::new(), tempfile::tempdir().unwrap());
    let job = Job { command: &|| store.command(), dir: dir.path() };
    let wanted = pipeline(&job, &registry, &base, true);
    let user = User::new();
    let folder = user.home().join("job");
    fs::create_dir(&folder).unwrap();
    user.give(&folder);
    let job = Job { command: &|| user.shipimg(), dir: &folder };
    assert_eq!(pipeline(&job, &registry, &base, false), wanted, "the same image by whom ever");
    // Without what the first has done the user does it all, to the same end.
    let anew = User::new();
    let folder = anew.home().join("job");
    fs::create_dir_all(folder.join("site")).unwrap();
    fs::write(folder.join("site/index.html"), "hello").unwrap();
    fs::write(folder.join("web.toml"), recipe(&registry.host(), &base, "hello")).unwrap();
    anew.give(&folder);
    let job = Job { command: &|| anew.shipimg(), dir: &folder };
    let built = job.json(&["build", "web.toml", "--format", "json"]);
    assert_eq!((built["digest"].as_str(), built["done"].as_u64()), (Some(wanted.as_str()), Some(4)));
    drop(registry);
    fs::write(folder.join("gone.toml"), "version = 1\n[base]\nimage = \"127.0.0.1:1/none:1\"\n").unwrap();
    let out = collect(anew.shipimg().args(["build", "gone.toml"]).current_dir(&folder));
    failed(6, &["build", "gone.toml"], &out);
}
