//! Stages of a recipe that are built at once.

use crate::common::netns::Host;
use crate::common::user::User;
use crate::common::work::{TAG, Work};
use crate::common::{collect, failed, succeeded};
use serde_json::Value;
use std::fs;
use std::io::BufRead;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Stages `a` and `b` on one of busybox, each with a step, and what takes `/got` of both.
fn recipe(a: &str, b: &str) -> String {
    let stage = |name: &str, line: &str| {
        format!(
            "[[stage]]\nname = \"{name}\"\nbase = {{ stage = \"busybox\" }}\n[[stage.run]]\nnetwork = true\nshell = \"\"\"\n{line}\n\"\"\"\n"
        )
    };
    format!(
        "version = 1\nname = \"both\"\n[base]\nstage = \"busybox\"\n[[stage]]\nname = \"busybox\"\nbase = {{ scratch = true }}\n\
         [[stage.copy]]\nfrom = \"/bin/busybox\"\nto = \"/bin/\"\nmode = \"0755\"\n\
         [[stage.run]]\ncommand = [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n{}{}\
         [[run]]\nshell = \"echo own > /own\"\n\
         [[copy]]\nstage = \"a\"\nfrom = \"/got\"\nto = \"/a\"\n[[copy]]\nstage = \"b\"\nfrom = \"/got\"\nto = \"/b\"\n\
         [[run]]\nshell = \"cat /a /b /own\"\n{TAG}",
        stage("a", a),
        stage("b", b)
    )
}

/// Waits for the other, and has nothing where it does not come.
const LISTENS: &str = "timeout 60 nc -l -p 7001 < /dev/null > /dev/null\necho listened > /got";
/// Goes to the other, as soon as that is there.
const CALLS: &str = "n=0\nuntil echo hello | nc 127.0.0.1 7001\ndo n=$((n+1)); test $n -lt 600; sleep 0.1\ndone\necho met > /got";

#[test]
fn stages_that_meet_are_built_at_once() {
    let (work, host, user) = (Work::new(), Host::new(), User::new());
    // One after the other neither would come to its end, in either order.
    work.write("r.toml", recipe(LISTENS, CALLS));
    let args = ["build", "r.toml", "--format", "json", "--jobs", "2"];
    let dir = user.home().join("work");
    fs::create_dir(&dir).unwrap();
    fs::copy(work.path("r.toml"), dir.join("r.toml")).unwrap();
    user.give(&dir);
    let mut digests = Vec::new();
    for (mut command, dir) in
        [(host.command(&work.store), work.path("")), (user.shipimg_on(&host.path()), dir)]
    {
        let out = collect(command.args(args).current_dir(&dir));
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let built: Value = serde_json::from_str(&succeeded(&args, &out)).unwrap();
        assert_eq!(built["done"], built["steps"].as_array().unwrap().len(), "{built}");
        assert!(said.contains("a: run timeout 60") && said.contains("listened\nmet\nown\n"), "{said}");
        digests.push(built["digest"].clone());
    }
    assert_eq!(digests[0], digests[1]);
    work.nothing_left();
    assert!(user.processes().is_empty());
    assert!(host.processes("nc").is_empty());
}

#[test]
fn the_result_is_that_of_one_after_the_other() {
    let text = recipe("echo first && echo a > /got", "echo second && echo b > /got && rm /bin/vi");
    let build = |jobs: &str, more: &[&str]| {
        let work = Work::new();
        work.write("r.toml", &text);
        let args = ["r.toml", "--jobs", jobs];
        let built = work.built(&[&args[..], more].concat());
        let again = work.built(&args);
        assert_eq!((again["done"].as_u64(), &again["digest"]), (Some(0), &built["digest"]));
        // A step of one stage is done again, and what depends on it.
        work.write("r.toml", text.replace("echo second", "echo other"));
        let other = work.built(&args);
        work.nothing_left();
        let how = |v: &Value| -> Vec<(Value, Value)> {
            v["steps"].as_array().unwrap().iter().map(|s| (s["key"].clone(), s["result"].clone())).collect()
        };
        (built["digest"].clone(), how(&built), other["digest"].clone(), how(&other))
    };
    let wanted = build("1", &[]);
    assert_eq!(build("2", &[]), wanted);
    assert_eq!(build("9", &["--no-cache"]), wanted);
    assert_eq!(build("2", &["--rebuild"]), wanted, "and the same a second time");
}

#[test]
fn a_stage_that_fails_ends_the_others() {
    let (work, host) = (Work::new(), Host::new());
    // The first one fails when the second one is at work.
    let listens = "timeout 60 nc -l -p 7001 < /dev/null > /dev/null\necho why it\necho failed >&2\nexit 7";
    let calls = format!("{CALLS}\necho goes on\nsleep 600");
    work.write("r.toml", recipe(listens, &calls));
    let args = ["build", "r.toml", "--jobs", "2"];
    let begun = Instant::now();
    let out = collect(host.command(&work.store).args(args).current_dir(work.dir.path()));
    let said = failed(1, &args, &out);
    assert!(begun.elapsed() < Duration::from_mins(5), "nobody waits for the other: {said}");
    let lines: Vec<&str> = said.lines().collect();
    let error = lines.iter().position(|l| l.starts_with("error: ")).unwrap();
    assert!(
        lines[error].contains("r.toml:17: run timeout 60") && lines[error].ends_with("exit code 7"),
        "{said}"
    );
    assert_eq!(lines[error + 1..], ["    why it", "    failed"], "all of it, and last: {said}");
    assert!(lines[..error].contains(&"a: why it"), "as it came, with its stage: {said}");
    work.nothing_left();
    assert!(host.processes("sleep").is_empty() && host.processes("nc").is_empty());
    // What was done before is kept.
    work.write("r.toml", recipe("echo a > /got", "echo b > /got"));
    assert_eq!(work.made(&["r.toml"]).1, 6, "the two and what is on them");
}

#[test]
fn a_signal_ends_all_stages() {
    let (work, host) = (Work::new(), Host::new());
    work.write("r.toml", recipe("echo ready; sleep 600", "echo ready; sleep 601"));
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut command = host.command(&work.store);
        command.args(["build", "r.toml", "--jobs", "2"]).current_dir(work.dir.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
        let (mut ready, mut line) = (0, String::new());
        while ready < 2 {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "{ready}");
            ready += usize::from(line.ends_with(": ready\n"));
        }
        while host.processes("sleep").len() < 2 {
            std::thread::sleep(Duration::from_millis(10));
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status:?}");
        work.nothing_left();
        assert!(host.processes("sleep").is_empty());
    }
}
