//! Control groups that systemd makes: a systemd of the test's own, in namespaces of its own.

use crate::common::bundle::{Bundle, version_2};
use crate::common::{bin, describe, need_root, ok, output};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Control groups as the namespace has them, then systemd without any unit of the host's.
const BOOT: &str = r#"
set -e
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    umount /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    # systemd adds to the folder, which is to be its own.
    names=$(ls /sys/fs/cgroup)
    umount --recursive /sys/fs/cgroup
    mount -t tmpfs groups /sys/fs/cgroup
    for name in $names; do
        mkdir "/sys/fs/cgroup/$name"
        case $name in
            unified) mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
            systemd) mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd ;;
            *) mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name" ;;
        esac
    done
fi
mount -t tmpfs run /run
mkdir -p /run/systemd/system
echo '[Unit]' > /run/systemd/system/tests.target
export container=tests
exec /lib/systemd/systemd --system --unit=tests.target --log-target=null --show-status=no
"#;

struct Systemd {
    unshare: Child,
    group: String,
}

/// The top of each hierarchy.
fn tops() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    if version_2() {
        return vec![top.to_path_buf()];
    }
    fs::read_dir(top)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.join("cgroup.procs").exists())
        .collect()
}

impl Systemd {
    fn new(group: &str) -> Self {
        need_root();
        for top in tops() {
            let dir = top.join(group);
            fs::create_dir(&dir).unwrap();
            let all = fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
            for name in all.split_whitespace() {
                fs::write(top.join("cgroup.subtree_control"), format!("+{name}")).unwrap();
            }
            for name in ["cpuset.cpus", "cpuset.mems"].iter().filter(|n| !version_2() && dir.join(n).exists())
            {
                fs::write(dir.join(name), fs::read_to_string(top.join(name)).unwrap().trim()).unwrap();
            }
        }
        let enter = "for top in \"$@\"; do echo $$ > \"$top/cgroup.procs\"; done; \
                     exec unshare --fork --kill-child --pid --mount --mount-proc --cgroup --uts --ipc sh -c \"$boot\"";
        let mut command = Command::new("sh");
        command.args(["-c", enter, "sh"]).args(tops().iter().map(|top| top.join(group)));
        let unshare = command.env("boot", BOOT).stdin(Stdio::null()).spawn().unwrap();
        let new = Self { unshare, group: group.into() };
        for _ in 0..600 {
            if new.inside(&["systemctl", "is-active", "tests.target"]).status.success() {
                // A group with processes hands no controllers down; systemd has left it already.
                for top in tops() {
                    fs::write(top.join("cgroup.procs"), new.unshare.id().to_string()).unwrap();
                }
                return new;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("systemd did not start");
    }

    /// Its process id on the host.
    fn pid(&self) -> String {
        let id = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().next().unwrap_or("1").to_string()
    }

    fn inside(&self, command: &[&str]) -> Output {
        let pid = self.pid();
        output("nsenter", &[&["-t", &pid, "-m", "-p", "-C", "-u", "-i"], command].concat())
    }

    fn ok(&self, command: &[&str]) -> String {
        let out = self.inside(command);
        assert!(out.status.success(), "{}", describe(command[0], &command[1..], &out));
        String::from_utf8_lossy(&out.stdout).trim().to_string()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        for top in tops() {
            for _ in 0..500 {
                output("find", &[top.join(&self.group).to_str().unwrap(), "-depth", "-type", "d", "-delete"]);
                if !top.join(&self.group).exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn a_scope_for_each_container() {
    let b = Bundle::new("sleep 60");
    let systemd = Systemd::new(&format!("systemd-{}", b.id));
    let scope = format!("tests-{}.scope", b.id);
    b.change(|c| {
        c["linux"]["cgroupsPath"] = json!(format!("more-tests.slice:tests:{}", b.id));
        c["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        c["linux"]["resources"]["pids"] = json!({"limit": 20});
        c["linux"]["devices"] = json!([
            {"path": "/dev/closed", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666},
            {"path": "/dev/open", "type": "c", "major": 10, "minor": 235, "fileMode": 0o666},
        ]);
        let rules = c["linux"]["resources"]["devices"].as_array_mut().unwrap();
        rules.push(json!({"allow": true, "type": "c", "major": 10, "minor": 235, "access": "r"}));
    });
    let (root, dir) = (b.store.path().to_str().unwrap(), b.dir.to_str().unwrap());
    let shipimg = |args: &[&str]| systemd.ok(&[&[bin(), "--root", root, "--systemd-cgroup"], args].concat());
    let show = |name: &str| systemd.ok(&["systemctl", "show", "--value", "--property", name, &scope]);
    // To a file: the container holds its ends of pipes open.
    let start = format!(
        "{} --root {root} --systemd-cgroup run --detach --bundle {dir} {} > {dir}/out 2>&1 < /dev/null || ! cat {dir}/out",
        bin(),
        b.id
    );
    systemd.ok(&["sh", "-c", &start]);
    assert_eq!(show("ActiveState"), "active");
    assert_eq!(show("Slice"), "more-tests.slice");
    assert_eq!((show("MemoryMax"), show("TasksMax")), ((64 << 20).to_string(), "20".into()));
    let place = format!("/more.slice/more-tests.slice/{scope}");
    assert_eq!(show("ControlGroup"), place);
    let pids: Vec<i32> = serde_json::from_str(&shipimg(&["ps", &b.id, "-f", "json"])).unwrap();
    let groups = systemd.ok(&["cat", &format!("/proc/{}/cgroup", pids[0])]);
    assert!(groups.lines().all(|l| l.ends_with(&place)), "{groups}");
    let limit = if version_2() { "memory.max" } else { "memory/memory.limit_in_bytes" };
    let limit = || match limit.split_once('/') {
        Some((controller, file)) => {
            systemd.ok(&["cat", &format!("/sys/fs/cgroup/{controller}{place}/{file}")])
        }
        None => systemd.ok(&["cat", &format!("/sys/fs/cgroup{place}/{limit}")]),
    };
    assert_eq!(limit(), (64 << 20).to_string());
    shipimg(&["update", "--memory", "50M", &b.id]);
    assert_eq!((limit(), show("MemoryMax")), ((50 << 20).to_string(), (50 << 20).to_string()));
    assert_eq!(show("DevicePolicy"), "strict");
    let devices = show("DeviceAllow");
    assert!(devices.lines().any(|l| l == "/dev/char/10:235 r") && !devices.contains("1:11"), "{devices}");
    let opens = |name: &str| {
        let script = format!("{{ cat < /dev/{name} | head -c 200; }} 2>&1");
        let text = shipimg(&["exec", &b.id, "timeout", "1", "sh", "-c", &script]);
        !text.contains("Operation not permitted")
    };
    assert_eq!(["null", "open", "closed"].map(opens), [true, true, false]);
    // What systemd knows of survives when it looks again.
    systemd.ok(&["systemctl", "daemon-reload"]);
    assert_eq!(limit(), (50 << 20).to_string());
    assert_eq!(["null", "open", "closed"].map(opens), [true, true, false]);
    shipimg(&["update", "--pids-limit", "30", &b.id]);
    assert_eq!((show("TasksMax"), show("DevicePolicy")), ("30".into(), "strict".into()));
    assert_eq!(["null", "open", "closed"].map(opens), [true, true, false]);
    shipimg(&["pause", &b.id]);
    shipimg(&["resume", &b.id]);
    shipimg(&["delete", "--force", &b.id]);
    b.wait(|_| show("LoadState") == "not-found");
    assert_eq!(systemd.ok(&["find", "/sys/fs/cgroup", "-name", &scope]), "");
    // A path for the other manager is none for this one, and the first process of a launch that
    // fails goes with its scope.
    b.change(|c| c["linux"]["cgroupsPath"] = json!("/a/b"));
    let run = [bin(), "--root", root, "run", "--systemd-cgroup", "--bundle", dir, &b.id];
    let refused = systemd.inside(&run);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("slice:prefix:name"), "{refused:?}");
    b.change(|c| c["linux"]["cgroupsPath"] = json!(""));
    b.change(|c| c["mounts"][0]["source"] = json!("/none"));
    b.change(|c| c["mounts"][0]["type"] = json!("bind"));
    assert_eq!(systemd.inside(&run).status.code(), Some(125));
    assert_eq!(
        systemd.ok(&["find", "/sys/fs/cgroup", "-name", "*.scope", "-not", "-name", "init.scope"]),
        ""
    );
    assert_eq!(ok(bin(), &["--root", root, "list", "-q"]), "");
}
