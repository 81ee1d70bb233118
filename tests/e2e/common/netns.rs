//! A network namespace that stands for a host, and one behind a link that stands for the world.

use super::{TestStore, collect, failed, need_root, ok, output, succeeded};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// The host's address on the link to the world.
pub const HOST: &str = "198.51.100.1";
/// The world's.
pub const WORLD: &str = "198.51.100.2";

/// A host of its own with its world; gone with the value.
pub struct Host {
    name: String,
    world: String,
}

impl Host {
    /// Two namespaces, a link between them, loopback in both; only the host has a way to both sides.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        need_root();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shipimg-{}-{count}", std::process::id());
        let host = Self { world: format!("{name}-w"), name };
        for ns in [&host.name, &host.world] {
            ok("ip", &["netns", "add", ns]);
            ok("ip", &["-n", ns, "link", "set", "lo", "up"]);
        }
        let link = ["link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", &host.world];
        ok("ip", &[&["-n", &host.name], &link[..]].concat());
        for (ns, address) in [(&host.name, HOST), (&host.world, WORLD)] {
            ok("ip", &["-n", ns, "addr", "add", &format!("{address}/24"), "dev", "up0"]);
            ok("ip", &["-n", ns, "link", "set", "up0", "up"]);
        }
        host
    }

    /// Its name below `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of its namespace.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// The processes of programs with this name on it, whoever runs them.
    pub fn processes(&self, program: &str) -> Vec<i32> {
        let own = fs::metadata(self.path()).unwrap().ino();
        let is_here = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let first = line.split(|b| *b == 0).next().unwrap_or_default();
            let netns = fs::metadata(format!("/proc/{pid}/ns/net")).map(|meta| meta.ino());
            first.rsplit(|b| *b == b'/').next() == Some(program.as_bytes())
                && netns.is_ok_and(|ino| ino == own)
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(is_here).collect()
    }

    /// shipimg with the network namespace of this host alone; mounts and control groups are the machine's.
    pub fn command(&self, store: &TestStore) -> Command {
        let mut command = Command::new("nsenter");
        let plain = store.command();
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg(plain.get_program())
            .args(plain.get_args());
        command.stdin(std::process::Stdio::null());
        command
    }

    /// Runs shipimg; gives what it did.
    pub fn output(&self, store: &TestStore, args: &[&str]) -> Output {
        collect(self.command(store).args(args))
    }

    /// Runs shipimg, which must succeed; gives its standard output.
    pub fn ok(&self, store: &TestStore, args: &[&str]) -> String {
        succeeded(args, &self.output(store, args))
    }

    /// Runs shipimg, which must fail with this exit code; gives its standard error.
    pub fn fails(&self, store: &TestStore, code: i32, args: &[&str]) -> String {
        failed(code, args, &self.output(store, args))
    }

    /// Runs a program of the machine's on this host; gives its standard output.
    pub fn run(&self, args: &[&str]) -> String {
        let net = format!("--net=/run/netns/{}", self.name);
        ok("nsenter", &[&[net.as_str()], args].concat())
    }

    /// Calls `f` on this host.
    pub fn here<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        inside(&format!("/run/netns/{}", self.name), f)
    }

    /// Calls `f` in the world outside.
    pub fn outside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        inside(&format!("/run/netns/{}", self.world), f)
    }

    /// What there is on it: interfaces, rules, whether packets are passed on.
    pub fn inventory(&self) -> String {
        let links = self.run(&["ip", "-br", "link"]);
        let names: Vec<_> = links.lines().filter_map(|l| l.split([' ', '@']).next()).collect();
        let rules = self.run(&["nft", "list", "ruleset"]);
        format!("{names:?}\n{rules}{}", self.run(&["cat", "/proc/sys/net/ipv4/ip_forward"]))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for ns in [&self.name, &self.world] {
            output("ip", &["netns", "del", ns]);
        }
    }
}

/// Calls `f` on a thread in the network namespace at `path`.
pub fn inside<T: Send>(path: &str, f: impl FnOnce() -> T + Send) -> T {
    let netns = File::open(path).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            f()
        });
        thread.join().unwrap()
    })
}
