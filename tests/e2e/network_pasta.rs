//! Networks of ordinary users' containers, on a host and in a world that are network namespaces of
//! the test's own.

use crate::common::bundle::{Bundle, busybox};
use crate::common::netns::{HOST, Host, WORLD, inside};
use crate::common::user::User;
use crate::common::{TestStore, collect, failed, ok, succeeded, within};
use crate::network::by_udp;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Where the host has a way to everywhere; nobody is asked there.
const ROUTER: &str = "198.51.100.254";

/// A host on which somebody runs containers.
struct Site {
    host: Host,
    /// Who; root where it is none.
    user: Option<User>,
    store: TestStore,
    root: PathBuf,
}

impl Site {
    fn new(user: Option<User>) -> Self {
        let (host, store) = (Host::new(), TestStore::new());
        // pasta takes addresses from the interface with the way to everywhere.
        host.run(&["ip", "route", "add", "default", "via", ROUTER]);
        let root = user.as_ref().map_or(store.path().to_path_buf(), User::home).join("root");
        busybox(&root);
        if let Some(user) = &user {
            user.give(&root);
        }
        let tun = store.path().join("tun");
        mknodat(CWD, &tun, FileType::CharacterDevice, Mode::empty(), makedev(10, 200)).unwrap();
        // As udev has it.
        fs::set_permissions(&tun, fs::Permissions::from_mode(0o666)).unwrap();
        Self { host, user, store, root }
    }

    /// All who may run containers.
    fn all() -> [Self; 3] {
        [Some(User::new()), Some(User::single()), None].map(Self::new)
    }

    fn command(&self) -> Command {
        self.command_with(None)
    }

    /// shipimg on the host, with another file in the place of `/etc/resolv.conf`.
    fn command_with(&self, resolv_conf: Option<&Path>) -> Command {
        let on_host = |user: &User| user.shipimg_on(&self.host.path());
        let plain = self.user.as_ref().map_or_else(|| self.host.command(&self.store), on_host);
        let mount = "mount --bind $0 /dev/net/tun && if [ $1 ]; then mount --bind $1 /etc/resolv.conf; fi &&
            shift && exec \"$@\"";
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--mount", "/bin/sh", "-c", mount]).arg(self.store.path().join("tun"));
        command.arg(resolv_conf.unwrap_or(Path::new("")));
        command.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
        if let Some(folder) = plain.get_current_dir() {
            command.env_clear().current_dir(folder);
        }
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        collect(self.command().args(args))
    }

    fn ok(&self, args: &[&str]) -> String {
        succeeded(args, &self.output(args))
    }

    /// The arguments to run `sh -c SCRIPT`.
    fn run<'a>(&'a self, options: &[&'a str], script: &'a str) -> Vec<&'a str> {
        let root = self.root.to_str().unwrap();
        [&["run", "--net", "pasta", "--driver", "copy"], options, &[root, "sh", "-c", script]].concat()
    }

    /// What a container that must succeed prints.
    fn printed(&self, options: &[&str], script: &str) -> String {
        self.ok(&self.run(options, script))
    }

    /// Starts the container `c`, which goes on.
    fn start(&self, options: &[&str], script: &str) {
        self.printed(&[&["-d", "--name", "c"], options].concat(), script);
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", "c"])).unwrap()
    }

    fn pastas(&self) -> Vec<i32> {
        self.host.processes("pasta")
    }

    /// Sees that pasta is gone, and all of the container's.
    fn nothing_left(&self) {
        assert_eq!(self.pastas(), [0; 0]);
        assert_eq!(self.ok(&["list", "-q"]), "");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.output(&["delete", "--force", "c"]);
        for pid in self.pastas().into_iter().filter_map(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// A server that says `word` once.
fn says(listener: &TcpListener, word: &str) {
    listener.set_nonblocking(true).unwrap();
    within(30, "a client", || {
        listener.accept().is_ok_and(|(mut stream, _)| stream.write_all(word.as_bytes()).is_ok())
    });
}

/// In a container: what the server at the address says. Debian 12's pasta keeps back what comes after the
/// client has ended its own half of the connection, as nc does at the end of its input.
fn ask(address: &str, port: u16) -> String {
    format!("mkfifo /tmp/never; nc -w 9 {address} {port} <>/tmp/never")
}

/// Something there and back between who connects and the one who listens.
fn by_tcp(mut client: TcpStream, listener: &TcpListener) {
    // Debian 12's pasta completes a connection from another machine with what the client sends first.
    client.write_all(b"ping").unwrap();
    let mut server = None;
    listener.set_nonblocking(true).unwrap();
    within(30, "a client", || {
        server = listener.accept().ok();
        server.is_some()
    });
    let (mut server, _) = server.unwrap();
    server.set_nonblocking(false).unwrap();
    let mut word = [0; 4];
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
    }
    server.read_exact(&mut word).unwrap();
    server.write_all(&word).unwrap();
    client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ping");
}

#[test]
fn the_world_is_reached() {
    for site in Site::all() {
        let listener = site.host.outside(|| TcpListener::bind((WORLD, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        let script = format!("{}; cat /proc/net/dev; exit 7", ask(WORLD, port));
        let out = std::thread::scope(|scope| {
            scope.spawn(|| says(&listener, "world"));
            site.output(&site.run(&["--rm"], &script))
        });
        let text = String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(7), "{out:?}");
        assert!(text.starts_with("world") && text.contains(" eth0:") && text.contains(" lo:"), "{text}");
        site.nothing_left();
    }
}

#[test]
fn published_ports_are_reached() {
    for site in Site::all() {
        let publish = ["-p", "127.0.0.1:8080:80", "-p", "8081:80", "-p", "5300:5300/udp", "-p", "80"];
        site.start(&publish, "exec sleep 600");
        let state = site.state();
        let network: Value =
            serde_json::from_str(state["annotations"]["org.shipimg.network"].as_str().unwrap()).unwrap();
        let free = &network["publish"].as_array().unwrap()[3]["host"];
        let netns = format!("/proc/{}/ns/net", state["pid"]);
        let listener = inside(&netns, || TcpListener::bind("0.0.0.0:80").unwrap());
        for address in ["127.0.0.1:8080", "127.0.0.1:8081", &format!("127.0.0.1:{free}")] {
            by_tcp(site.host.here(|| TcpStream::connect(address).unwrap()), &listener);
        }
        by_tcp(site.host.outside(|| TcpStream::connect((HOST, 8081)).unwrap()), &listener);
        let udp = inside(&netns, || UdpSocket::bind("0.0.0.0:5300").unwrap());
        let client = site.host.outside(|| UdpSocket::bind((WORLD, 0)).unwrap());
        by_udp(&client, &format!("{HOST}:5300"), &udp);
        let client = site.host.here(|| UdpSocket::bind("127.0.0.1:0").unwrap());
        by_udp(&client, "127.0.0.1:5300", &udp);
        let args = site.run(&["-p", "8081:1", "--rm"], "true");
        let taken = failed(125, &args, &site.output(&args));
        assert!(taken.contains("port 0.0.0.0:8081/tcp is taken by a process of the host"), "{taken}");
        site.ok(&["delete", "--force", "c"]);
        site.nothing_left();
    }
}

#[test]
fn addresses_are_chosen() {
    for site in Site::all() {
        let listener = site.host.here(|| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        let show = "ip -4 addr show eth0 | grep -o 'inet [0-9./]*'; cat /sys/class/net/eth0/address";
        let options = ["--ip", "10.7.0.9", "--mac", "02:00:00:00:00:07", "--rm"];
        assert_eq!(site.printed(&options, show), "inet 10.7.0.9/24\n02:00:00:00:00:07\n");
        assert!(site.printed(&["--rm"], show).starts_with(&format!("inet {HOST}/24\n")));
        // The host's own loopback interface by the name that is asked for, and not without.
        let script = format!("grep up /etc/hosts; {}", ask("up", port));
        let text = std::thread::scope(|scope| {
            scope.spawn(|| says(&listener, "loopback"));
            site.printed(&["--add-host", "up:host-gateway", "--rm"], &script)
        });
        assert_eq!(text, "10.0.2.1\tup\nloopback");
        let refused =
            format!("nc -w 2 {WORLD} {port} </dev/null; nc -w 2 {HOST} {port} </dev/null; echo none");
        assert_eq!(site.printed(&["--rm"], &refused), "none\n");
        site.nothing_left();
    }
}

/// The host's `/etc/resolv.conf` is one of the test's: its name server on the loopback interface
/// answers in the container by another address.
#[test]
fn names_are_asked_for() {
    for site in Site::all() {
        let conf = site.store.path().join("resolv.conf");
        let start = |text: &str, options: &[&str]| {
            fs::write(&conf, text).unwrap();
            let script = "cat /etc/resolv.conf; cat /etc/hostname; exec sleep 600";
            let args = site.run(&[&["-d", "--name", "c", "--hostname", "own"], options].concat(), script);
            succeeded(&args, &collect(site.command_with(Some(&conf)).args(&args)));
            within(30, "its output", || site.ok(&["logs", "c"]).ends_with("own\n"));
            site.ok(&["logs", "c"])
        };
        let delete = || site.ok(&["delete", "--force", "c"]);
        let text = start("nameserver 127.0.0.53\nsearch lan\n", &[]);
        assert_eq!(text, "search lan\nnameserver 169.254.1.1\nown\n");
        let local = site.host.here(|| UdpSocket::bind("127.0.0.53:53").unwrap());
        let netns = format!("/proc/{}/ns/net", site.state()["pid"]);
        let client = inside(&netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
        by_udp(&client, "169.254.1.1:53", &local);
        delete();
        let text = start("nameserver 127.0.0.53\nnameserver 192.0.2.53\n", &[]);
        assert_eq!(text, "nameserver 192.0.2.53\nown\n");
        delete();
        assert_eq!(start("nameserver 127.0.0.53\n", &["--dns", "192.0.2.1"]), "nameserver 192.0.2.1\nown\n");
        delete();
        site.nothing_left();
    }
}

#[test]
fn pasta_ends_with_the_container() {
    for site in Site::all() {
        // Not kept open by anybody, or this would wait.
        let args = site.run(&["-d", "--name", "c", "-p", "8080:80"], "exec sleep 600");
        let out = site.command().args(&args).output().unwrap();
        succeeded(&args, &out);
        let pids = site.pastas();
        let [pid] = pids[..] else { panic!("{pids:?}") };
        for number in 0..3 {
            let open = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
            assert_eq!(open.to_str(), Some("/dev/null"));
        }
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert_eq!(groups, fs::read_to_string("/proc/self/cgroup").unwrap());
        site.ok(&["stop", "--time", "0", "c"]);
        // Its ports are free again before it is deleted.
        assert_eq!(site.pastas(), [0; 0]);
        site.ok(&["rm", "c"]);
        site.nothing_left();
    }
}

#[test]
fn a_killed_command_leaves_no_pasta_for_long() {
    for site in Site::all() {
        let args = site.run(&["--rm"], "echo begun; exec sleep 600");
        let mut child = site.command().args(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut word = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut word).unwrap();
        assert_eq!(site.pastas().len(), 1);
        // unshare and nsenter have become the command.
        child.kill().unwrap();
        child.wait().unwrap();
        within(30, "its end", || site.ok(&["list", "-q"]).is_empty());
        site.nothing_left();
        site.start(&[], "exec sleep 600");
        let folder = site.user.as_ref().map_or(site.store.path().to_path_buf(), User::store);
        let text = fs::read(folder.join("shipimg/containers/c/state.json")).unwrap();
        let keeper = serde_json::from_slice::<Value>(&text).unwrap()["keeper"]["pid"].as_i64().unwrap();
        let keeper = rustix::process::Pid::from_raw(i32::try_from(keeper).unwrap()).unwrap();
        rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
        within(30, "its end", || site.state()["status"] == "stopped");
        site.ok(&["rm", "c"]);
        site.nothing_left();
    }
}

/// One that was killed before it knew pasta's process finds it by its arguments.
#[test]
fn a_pasta_that_nobody_knows() {
    for site in Site::all() {
        site.start(&[], "exec sleep 600");
        let folder = site.user.as_ref().map_or(site.store.path().to_path_buf(), User::store);
        let path = folder.join("shipimg/containers/c/state.json");
        let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(state["network"]["pasta"]["process"]["pid"], site.pastas()[0]);
        state["network"]["pasta"]["process"] = Value::Null;
        fs::write(&path, state.to_string()).unwrap();
        site.ok(&["delete", "--force", "c"]);
        site.nothing_left();
    }
}

/// A user namespace of the container's own owns its network namespace.
#[test]
fn a_user_namespace_of_its_own() {
    let (bundle, host) = (Bundle::new("grep -c eth0 /proc/net/dev"), Host::new());
    host.run(&["ip", "route", "add", "default", "via", ROUTER]);
    bundle.change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 700_000, "size": 65536}]);
        (c["linux"]["uidMappings"], c["linux"]["gidMappings"]) = (map.clone(), map);
        c["annotations"] = json!({"org.shipimg.network": "{\"mode\": \"pasta\"}"});
    });
    ok("chown", &["-R", "700000:700000", bundle.rootfs().to_str().unwrap()]);
    ok("chmod", &["755", bundle.store.path().to_str().unwrap()]);
    let args = ["run", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id];
    assert_eq!(host.ok(&bundle.store, &args), "1\n");
    assert_eq!(host.processes("pasta"), [0; 0]);
}

#[test]
fn without_pasta_and_with_a_broken_one() {
    for site in [Site::new(Some(User::single())), Site::new(None)] {
        let folder = site.root.parent().unwrap().join("programs");
        fs::create_dir(&folder).unwrap();
        for program in ["nsenter", "mount"] {
            symlink(Path::new("/usr/bin").join(program), folder.join(program)).unwrap();
        }
        let refused = || {
            let args = site.run(&["--rm"], "true");
            let out = collect(site.command().env("PATH", &folder).args(&args));
            site.nothing_left();
            failed(125, &args, &out)
        };
        assert!(refused().ends_with("error: program pasta not found\n"), "{}", refused());
        let fake = folder.join("pasta");
        fs::write(&fake, "#!/bin/sh\necho it is broken >&2; exit 3\n").unwrap();
        ok("chmod", &["755", fake.to_str().unwrap()]);
        let text = refused();
        assert!(
            text.contains("error: pasta --quiet --config-net ") && text.contains(": it is broken"),
            "{text}"
        );
    }
}
