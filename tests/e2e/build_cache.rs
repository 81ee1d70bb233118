//! Results of steps shared by workers through a registry: each with a store of its own.

use crate::common::proxy::{Fault, Proxy, Request};
use crate::common::registry::Registry;
use crate::common::work::{BUSYBOX, TAG, Work};
use crate::common::{collect, failed, succeeded};
use serde_json::Value;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A machine that builds.
struct Worker(Work);

impl Deref for Worker {
    type Target = Work;

    fn deref(&self) -> &Work {
        &self.0
    }
}

impl Worker {
    fn new(last: &str) -> Self {
        let worker = Self(Work::new());
        worker.recipe("r.toml", last);
        worker
    }

    fn recipe(&self, name: &str, last: &str) {
        let steps = format!("[[run]]\nshell = \"seq 1000 > /numbers\"\n[[run]]\nshell = \"{last}\"\n");
        self.write(name, format!("{BUSYBOX}{steps}{TAG}"));
    }

    #[track_caller]
    fn build(&self, more: &[&str]) -> Value {
        self.built(&[&["r.toml"], more].concat())
    }
}

fn digest(made: &Value) -> &str {
    made["digest"].as_str().unwrap()
}

fn results(made: &Value) -> Vec<&str> {
    made["steps"].as_array().unwrap().iter().map(|s| s["result"].as_str().unwrap()).collect()
}

#[test]
fn no_step_is_done_twice() {
    let registry = Registry::start();
    let cache = format!("{}/cache", registry.host());
    let alone = Worker::new("echo x > /last");
    let wanted = alone.build(&[]);
    let first = Worker::new("echo x > /last");
    let made = first.build(&["--cache-to", &cache]);
    assert_eq!((digest(&made), made["done"].as_u64()), (digest(&wanted), Some(5)));
    assert!(made["pushed"].as_u64().unwrap() > 100_000);
    let second = Worker::new("echo x > /last");
    let made = second.build(&["--cache-from", &cache]);
    assert_eq!(digest(&made), digest(&wanted), "as on one machine");
    assert_eq!(results(&made), ["unneeded", "unneeded", "unneeded", "unneeded", "fetched"]);
    let third = Worker::new("echo y > /last");
    let made = third.build(&["--cache-to", &cache]);
    assert_eq!(results(&made), ["unneeded", "unneeded", "unneeded", "fetched", "done"]);
    let made = second.build(&["--cache-to", &cache]);
    assert_eq!((made["pushed"].as_u64(), results(&made)[4]), (Some(0), "kept"), "all is there");
    let digest_of_y = digest(&third.build(&[])).to_string();
    second.recipe("r.toml", "echo y > /last");
    assert_eq!(digest(&second.build(&["--cache-from", &cache])), digest_of_y);
}

#[test]
fn a_killed_worker_is_made_up_for() {
    let registry = Registry::start();
    let cache = format!("{}/cache", registry.host());
    let killed = Worker::new("sleep 600");
    let mut child = killed
        .command(&["build", "r.toml", "--cache-to", &cache])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let tags = || {
        let dir = registry.data().join("docker/registry/v2/repositories/cache/_manifests/tags");
        fs::read_dir(dir).map_or(0, Iterator::count)
    };
    let end = Instant::now() + Duration::from_mins(1);
    while tags() < 4 {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "{} results", tags());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let other = Worker::new("true");
    let made = other.build(&["--cache-to", &cache]);
    assert_eq!(results(&made), ["unneeded", "unneeded", "unneeded", "fetched", "done"]);
    // The next command takes away what the killed one left.
    killed.recipe("r.toml", "true");
    assert_eq!(digest(&killed.build(&["--cache-from", &cache])), digest(&made));
    for area in ["tmp", "bundles", "containers"] {
        let left: Vec<_> =
            fs::read_dir(killed.store.path().join("shipimg").join(area)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{area}: {left:?}");
    }
}

#[test]
fn only_what_is_needed_is_fetched() {
    let registry = Registry::start();
    let proxy = Proxy::start(registry.port(), |_: &Request| Fault::None);
    let cache = format!("{}/cache", proxy.host());
    let first = Worker::new("echo x > /last");
    first.build(&["--cache-to", &cache]);
    let writes = |r: &Request| r.method == "PUT" || r.method == "POST";
    let puts = proxy.requests("/").iter().filter(|r| writes(r)).count();
    let second = Worker::new("echo x > /last");
    let before = proxy.requests("/").len();
    let made = second.build(&["--cache-from", &cache]);
    let asked = proxy.requests("/");
    let got =
        |part: &str| asked[before..].iter().filter(|r| r.method == "GET" && r.path.contains(part)).count();
    let (documents, blobs) = (got("/manifests/"), got("/blobs/"));
    assert!(
        documents <= 2 && blobs == 5,
        "{documents} documents, {blobs} blobs: configuration, four layers; {made}"
    );
    assert_eq!(asked.iter().filter(|r| writes(r)).count(), puts, "read only");
}

#[test]
fn a_broken_cache_is_left_alone() {
    let registry = Registry::start();
    let cache = format!("{}/cache", registry.host());
    let first = Worker::new("echo x > /last");
    let made = first.build(&["--cache-to", &cache]);
    // All layers that it has are damaged.
    let blobs = registry.data().join("docker/registry/v2/blobs/sha256");
    let mut damaged = 0;
    for file in walk(&blobs) {
        let bytes = fs::read(&file).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            fs::write(&file, vec![7; bytes.len()]).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 2);
    let second = Worker::new("echo x > /last");
    let args = ["build", "r.toml", "--cache-from", &cache, "--format", "json"];
    let out = collect(&mut second.command(&args));
    let again: Value = serde_json::from_str(&succeeded(&args, &out)).unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(digest(&again), digest(&made));
    assert_eq!(text.matches("is left alone").count(), 1, "{text}");
    let third = Worker::new("echo x > /last");
    let args = [&args[..], &["--cache-required"]].concat();
    failed(9, &args, &collect(&mut third.command(&args)));
    // Nobody answers there.
    let nobody = format!("127.0.0.1:{}/cache", crate::common::registry::free_port());
    let made = third.build(&["--cache-to", &nobody]);
    assert_eq!(made["done"], 5);
    let fourth = Worker::new("echo x > /last");
    let args = ["build", "r.toml", "--cache-to", &nobody, "--cache-required"];
    failed(6, &args, &collect(&mut fourth.command(&args)));
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|p| if p.is_dir() { walk(&p) } else { vec![p] }).collect()
}

#[test]
fn results_are_pruned() {
    let registry = Registry::start();
    let cache = format!("{}/cache", registry.host());
    let worker = Worker::new("echo x > /last");
    worker.build(&["--cache-to", &cache]);
    worker.recipe("r.toml", "echo y > /last");
    let made = worker.build(&["--cache-to", &cache]);
    let prune = |more: &[&str]| {
        let args = [&["cache", "prune", &cache], more].concat();
        succeeded(&args, &collect(&mut worker.command(&args)))
    };
    assert_eq!(prune(&["r.toml"]), "1 of 6 results deleted\n");
    let other = Worker::new("echo y > /last");
    let again = other.build(&["--cache-from", &cache]);
    assert_eq!((digest(&again), again["done"].as_u64()), (digest(&made), Some(0)));
    assert!(prune(&["--all"]).starts_with("5 of 5") || prune(&["--all"]).contains("results deleted"));
    let third = Worker::new("echo y > /last");
    assert_eq!(third.build(&["--cache-from", &cache])["done"], 5);
}

/// Wall time and bytes are of one host: workers share its processors and its loopback interface.
#[test]
fn builds_are_spread_over_workers() {
    let names = ["a", "b", "c", "d"];
    let mut digests: Option<Vec<String>> = None;
    for workers in [1, 2, 4] {
        let registry = Registry::start();
        let cache = format!("{}/cache", registry.host());
        let planner = Worker::new("true");
        for name in names {
            planner.recipe(&format!("{name}.toml"), &format!("echo {name} > /last"));
        }
        let files = names.map(|n| format!("{n}.toml"));
        let args: Vec<&str> =
            ["plan", "--shards"].into_iter().map(String::from).map(|s| &*s.leak()).collect();
        let count = workers.to_string();
        let args =
            [&args[..], &[count.as_str()], &files.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        let shards: Value =
            serde_json::from_str(&succeeded(&args, &collect(&mut planner.command(&args)))).unwrap();
        let shards = shards.as_array().unwrap();
        assert_eq!(shards.len(), workers);
        let begun = Instant::now();
        let made: Vec<Value> = std::thread::scope(|scope| {
            let run = |shard: &Value| {
                let worker = Worker::new("true");
                let jobs = shard["jobs"].as_array().unwrap();
                let build = |job: &Value| {
                    let name = job["recipe"].as_str().unwrap().to_string();
                    fs::copy(planner.dir.path().join(&name), worker.dir.path().join("r.toml")).unwrap();
                    let mut made = worker.build(&["--cache-to", &cache]);
                    made["recipe"] = name.into();
                    made
                };
                jobs.iter().map(build).collect::<Vec<_>>()
            };
            let running: Vec<_> = shards.iter().map(|shard| scope.spawn(move || run(shard))).collect();
            running.into_iter().flat_map(|r| r.join().unwrap()).collect()
        });
        let bytes = |key: &str| made.iter().map(|m| m[key].as_u64().unwrap()).sum::<u64>();
        println!(
            "{workers} workers on one host: {:.2} s, {} bytes pushed, {} fetched",
            begun.elapsed().as_secs_f64(),
            bytes("pushed"),
            bytes("fetched")
        );
        let mut all: Vec<_> = made.iter().map(|m| format!("{} {}", m["recipe"], digest(m))).collect();
        all.sort();
        assert_eq!(all.len(), names.len());
        assert_eq!(digests.get_or_insert_with(|| all.clone()), &all, "the same as on one machine");
        // What is published is done by nobody again.
        for name in names {
            let late = Worker::new(&format!("echo {name} > /last"));
            assert_eq!(late.build(&["--cache-from", &cache])["done"], 0);
        }
    }
    let planner = Worker::new("true");
    let github = succeeded(
        &["plan"],
        &collect(&mut planner.command(&["plan", "r.toml", "--format", "github-matrix"])),
    );
    let github: Value = serde_json::from_str(&github).unwrap();
    assert!(github["include"][0]["builds"].as_str().unwrap().starts_with("r.toml linux/"));
    let gitlab =
        succeeded(&["plan"], &collect(&mut planner.command(&["plan", "r.toml", "--format", "gitlab"])));
    assert!(gitlab.starts_with("build-1:\n  extends: .shipimg-build\n"), "{gitlab}");
}
