//! Networks of containers, on hosts and in a world that are network namespaces of the test's own.

use crate::common::bundle::busybox;
use crate::common::netns::{HOST, Host, WORLD, inside};
use crate::common::user::User;
use crate::common::{TestStore, bin, collect, ok};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

/// A host, and a store on it with a root filesystem.
struct Site {
    host: Host,
    store: TestStore,
    root: PathBuf,
}

impl Site {
    fn new() -> Self {
        let store = TestStore::new();
        let root = store.path().join("root");
        busybox(&root);
        Self { host: Host::new(), store, root }
    }

    fn root(&self) -> &str {
        self.root.to_str().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        self.host.ok(&self.store, args)
    }

    /// Runs a throw-away container that must succeed; gives its standard output.
    fn run(&self, options: &[&str], script: &str) -> String {
        self.ok(&[&["run", "--cap-add", "NET_RAW"], options, &[self.root(), "sh", "-c", script]].concat())
    }

    /// Runs a container that must be refused; gives its standard error.
    fn refused(&self, options: &[&str]) -> String {
        let command = [self.root(), "true"];
        self.host.fails(&self.store, 125, &[&["run"], options, &command].concat())
    }

    /// Starts the container `name`, which goes on after the command.
    fn start(&self, name: &str, options: &[&str], script: &str) {
        let create = ["bundle", "create", self.root(), name, "--driver", "overlay", "--cap-add", "NET_RAW"];
        self.ok(&[&create, options, &["--", "sh", "-c", script]].concat());
        self.ok(&["run", "-d", name]);
    }

    /// What a command prints in a running container.
    fn exec(&self, name: &str, script: &str) -> String {
        self.ok(&["exec", name, "sh", "-c", script])
    }

    fn delete(&self, name: &str) {
        self.ok(&["delete", "--force", name]);
    }

    /// What the runner was asked for and has given.
    fn network(&self, name: &str) -> Value {
        let state: Value = serde_json::from_str(&self.ok(&["state", name])).unwrap();
        serde_json::from_str(state["annotations"]["org.shipimg.network"].as_str().unwrap()).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let list = self.host.output(&self.store, &["list", "-q"]);
        for name in String::from_utf8_lossy(&list.stdout).lines() {
            self.host.output(&self.store, &["delete", "--force", name]);
        }
    }
}

/// A server that says a word to each who connects.
fn server(word: &str) -> String {
    format!("nc -ll -p 80 -e echo {word} & sleep 600")
}

/// What a TCP server says; tried until it listens.
fn said(address: &str) -> String {
    let mut text = String::new();
    for _ in 0..200 {
        if let Ok(mut stream) = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5))
        {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            if stream.read_to_string(&mut text).is_ok() && !text.is_empty() {
                return text;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{address} says nothing");
}

/// Sends something by UDP from `client` to `address`, and back from `server`, where it arrives.
pub fn by_udp(client: &UdpSocket, address: &str, server: &UdpSocket) {
    for socket in [client, server] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let mut buffer = [0; 16];
    client.send_to(b"hello", address).unwrap();
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..length], from).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.to_string().as_str()), (&b"hello"[..], address));
}

/// In a container: what the server at the address says.
fn ask(address: &str, port: u16) -> String {
    format!("for i in $(seq 100); do nc -w 2 {address} {port} </dev/null && exit; sleep 0.1; done; echo none")
}

#[test]
fn containers_find_each_other_and_the_world() {
    let site = Site::new();
    let before = site.host.inventory();
    site.start("web", &["--net", "bridge", "--hostname", "www"], &server("web"));
    let hosts = site.exec("web", "cat /etc/hosts; cat /etc/hostname");
    assert!(hosts.contains("10.129.0.2\twww web\n") && hosts.ends_with("\nwww\n"), "{hosts}");
    let seen = site.run(
        &["--net", "bridge", "--name", "client"],
        &format!("ping -c 1 -W 5 web; ping -c 1 -W 5 www; ip route; {}", ask("web", 80)),
    );
    assert_eq!(seen.matches("1 packets received").count(), 2, "{seen}");
    assert!(seen.contains("default via 10.129.0.1 dev eth0") && seen.ends_with("\nweb\n"), "{seen}");
    // Who comes later is known to who was there before, and forgotten when it goes.
    site.start("late", &["--net", "bridge"], "sleep 600");
    let seen = site.exec("web", "ping -c 1 -W 5 late; cat /etc/hosts");
    assert!(seen.contains("1 packets received") && seen.contains("10.129.0.3\tlate\n"), "{seen}");
    // The world sees the host.
    let (listening, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let peer = scope.spawn(|| {
            site.host.outside(|| {
                let listener = TcpListener::bind((WORLD, 7000)).unwrap();
                listening.send(()).unwrap();
                let (mut stream, peer) = listener.accept().unwrap();
                stream.write_all(b"world\n").unwrap();
                peer.ip().to_string()
            })
        });
        wait.recv().unwrap();
        assert_eq!(site.exec("late", &ask(WORLD, 7000)), "world\n");
        assert_eq!(peer.join().unwrap(), HOST);
    });
    site.delete("late");
    let hosts = site.exec("web", "cat /etc/hosts");
    assert!(!hosts.contains("late") && hosts.contains("www web"), "{hosts}");
    site.delete("web");
    assert_eq!(site.host.inventory(), before);
}

#[test]
fn published_ports() {
    let site = Site::new();
    let before = site.host.inventory();
    let ports = ["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "5300-5301:53-54/udp", "-p", "80"];
    site.start("web", &[&["--net", "bridge"], &ports[..]].concat(), &server("web"));
    let free = site.network("web")["publish"][4]["host"].as_u64().unwrap();
    assert!(free > 0);
    for port in [8080, free] {
        assert_eq!(site.host.outside(|| said(&format!("{HOST}:{port}"))), "web\n");
        assert_eq!(site.host.here(|| said(&format!("127.0.0.1:{port}"))), "web\n");
        assert_eq!(site.host.here(|| said(&format!("{HOST}:{port}"))), "web\n");
    }
    assert_eq!(site.host.here(|| said("127.0.0.1:8081")), "web\n");
    let bind = |port: u16| UdpSocket::bind(("0.0.0.0", port)).unwrap();
    let state: Value = serde_json::from_str(&site.ok(&["state", "web"])).unwrap();
    let server = inside(&format!("/proc/{}/ns/net", state["pid"]), || bind(54));
    by_udp(&site.host.outside(|| bind(0)), &format!("{HOST}:5301"), &server);
    by_udp(&site.host.here(|| bind(0)), "127.0.0.1:5301", &server);
    // Not for others: what is published to one address.
    let closed = |port: u16| site.host.outside(|| TcpStream::connect((HOST, port)).is_err());
    assert!(closed(8081) && closed(80));
    // From another container and from itself, by the host's port.
    assert_eq!(site.run(&["--net", "bridge"], &ask(HOST, 8080)), "web\n");
    assert_eq!(site.run(&["--net", "bridge"], &ask("10.129.0.1", 8080)), "web\n");
    assert_eq!(site.exec("web", &ask(HOST, 8080)), "web\n");
    // A port has one owner.
    for (port, owner) in [
        ("8080:81", "container web"),
        ("127.0.0.1:8080:80", "container web"),
        ("5301:1/udp", "container web"),
    ] {
        let said = site.refused(&["--net", "bridge", "-p", port]);
        assert!(said.contains(owner) && said.contains("port"), "{said}");
    }
    site.ok(&["run", "--net", "bridge", "-p", "8080:80/udp", site.root(), "true"]);
    site.host.here(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = site.refused(&["--net", "bridge", "-p", &format!("{port}:80")]);
        assert!(said.contains("a process of the host"), "{said}");
    });
    site.delete("web");
    assert_eq!(site.host.inventory(), before);
}

#[test]
fn the_hosts_own_ports_stay_its_own() {
    let site = Site::new();
    let script = "ip link set lo down 2>/dev/null; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.0/8 via 10.129.0.1; \
                  echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet; timeout 2 nc 127.0.0.1 7001 </dev/null; echo end";
    site.host.here(|| {
        let listener = TcpListener::bind("127.0.0.1:7001").unwrap();
        listener.set_nonblocking(true).unwrap();
        let options = ["--net", "bridge", "--cap-add", "ALL", "--seccomp", "unconfined"];
        let seen = site.run(&options, &format!("mount -o remount,rw /proc/sys; {script}"));
        assert_eq!(seen, "end\n");
        assert!(listener.accept().is_err(), "a container reaches what listens on the host's loopback");
    });
}

#[test]
fn addresses_are_given_and_refused() {
    let site = Site::new();
    let before = site.host.inventory();
    let options =
        ["--net", "bridge", "--subnet", "10.7.0.0/24", "--ip", "10.7.0.9", "--mac", "02:00:00:00:00:09"];
    let seen = site.run(&options, "ip addr show eth0");
    assert!(seen.contains("inet 10.7.0.9/24") && seen.contains("02:00:00:00:00:09"), "{seen}");
    let seen = site.run(&["--net", "bridge"], "ip addr show eth0");
    assert!(seen.contains("inet 10.129.0.2/16"), "the subnet went with the last container: {seen}");
    site.start("fixed", &options, "sleep 600");
    assert_eq!(site.network("fixed")["ip"], "10.7.0.9");
    for (options, said) in [
        (&["--ip", "10.7.0.9"][..], "address 10.7.0.9 is taken by container fixed"),
        (&["--mac", "02:00:00:00:00:09"], "taken by container fixed"),
        (&["--ip", "10.129.0.9"], "10.129.0.9 is none for a container in its subnet 10.7.0.0/24"),
        (&["--subnet", "10.8.0.0/24"], "it has the subnet 10.7.0.0/24"),
    ] {
        let text = site.refused(&[&["--net", "bridge"], options].concat());
        assert!(text.contains(said), "{text}");
    }
    let seen = site.run(&["--net", "bridge"], "ip addr show eth0");
    assert!(seen.contains("inet 10.7.0.2/24"), "{seen}");
    site.delete("fixed");
    let text = site.refused(&["--net", "bridge", "--subnet", "198.51.0.0/16"]);
    assert!(text.contains("meets 198.51.100.1/24 of up0"), "{text}");
    // From the environment.
    let mut command = site.host.command(&site.store);
    command.env("SHIPIMG_SUBNET", "10.9.0.0/24").args(["run", "--net", "bridge", site.root(), "ip", "addr"]);
    assert!(String::from_utf8_lossy(&command.output().unwrap().stdout).contains("10.9.0.2/24"));
    assert_eq!(site.host.inventory(), before);
    // Somebody else's bridge is left alone.
    site.host.run(&["ip", "link", "add", "shipimg0", "type", "bridge"]);
    let text = site.refused(&["--net", "bridge"]);
    assert!(text.contains("was not made by shipimg"), "{text}");
    site.host.run(&["ip", "link", "show", "shipimg0"]);
}

#[test]
fn files_in_etc() {
    let site = Site::new();
    let outside = site.store.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    let etc = site.root.join("etc");
    symlink(&outside, etc.join("hosts")).unwrap();
    symlink("../run/nowhere/resolv.conf", etc.join("resolv.conf")).unwrap();
    let names =
        ["--dns", "192.0.2.1", "--dns", "192.0.2.2", "--dns-search", "a.org", "--dns-search", "b.org"];
    let hosts = ["--add-host", "db:10.1.2.3", "--add-host", "up:host-gateway"];
    let options = [&["--net", "bridge", "--name", "box"], &names[..], &hosts].concat();
    let seen = site.run(&options, "cat /etc/resolv.conf; cat /etc/hosts; echo more >>/etc/hosts");
    assert!(seen.starts_with("search a.org b.org\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"), "{seen}");
    assert!(seen.contains("10.1.2.3\tdb\n10.129.0.1\tup\n10.129.0.2\tbox\n"), "{seen}");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "mine");
    assert!(fs::symlink_metadata(etc.join("hosts")).unwrap().is_symlink());
    // Without a network of its own only what is asked for.
    let seen =
        site.run(&["--add-host", "db:10.1.2.3"], "cat /etc/hosts; cat /etc/hostname /etc/resolv.conf; echo");
    assert!(seen.contains("10.1.2.3\tdb\n") && !seen.contains("nameserver"), "{seen}");
    // A mount in the same place wins; a read-only root has the files all the same.
    fs::remove_file(etc.join("hosts")).unwrap();
    let volume = format!("{}:/etc/hosts:ro", outside.display());
    assert_eq!(site.run(&["--net", "bridge", "-v", &volume], "cat /etc/hosts"), "mine");
    let seen = site.run(
        &["--net", "bridge", "--read-only", "--name", "ro"],
        "cat /etc/hostname; touch /x || echo closed",
    );
    assert_eq!(seen, "ro\nclosed\n");
}

#[test]
fn networks_are_joined() {
    let site = Site::new();
    let before = site.host.inventory();
    site.start("web", &["--net", "bridge", "--add-host", "db:10.1.2.3"], &server("web"));
    let seen = site.run(
        &["--net", "container:web", "--name", "beside"],
        &format!("cat /etc/hosts /etc/hostname; {}", ask("127.0.0.1", 80)),
    );
    assert!(seen.contains("10.1.2.3\tdb\n10.129.0.2\tweb\n") && seen.ends_with("beside\nweb\n"), "{seen}");
    // A name for ip netns, from which others join.
    let name = format!("{}-lab", site.host.name());
    site.start("lab", &["--net", "bridge", "--netns-name", &name], "sleep 600");
    assert!(ok("ip", &["netns", "list"]).contains(&name));
    assert!(ok("ip", &["-n", &name, "addr"]).contains("10.129.0.3/16"));
    assert!(site.run(&["--net", &format!("ns:{name}")], "ip addr").contains("10.129.0.3/16"));
    let text = site.refused(&["--netns-name", &name]);
    assert!(text.contains("is taken by another network namespace"), "{text}");
    assert!(ok("ip", &["netns", "list"]).contains(&name), "the refused one took the name away");
    for name in ["lab", "web"] {
        site.delete(name);
    }
    assert!(!ok("ip", &["netns", "list"]).contains(&name));
    for net in ["none", "private"] {
        let there = site.run(&["--net", net, "--netns-name", &name], "ip link");
        assert!(there.contains("lo") && !ok("ip", &["netns", "list"]).contains(&name), "{there}");
    }
    site.start("gone", &[], "exit 0");
    let joins_gone =
        || site.host.output(&site.store, &["run", "--net", "container:gone", site.root(), "true"]);
    let refused = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        String::from_utf8_lossy(&joins_gone().stderr).contains("container not running: gone")
    });
    assert!(refused);
    assert_eq!(site.host.inventory(), before);
}

#[test]
fn hooks_see_the_finished_network() {
    let site = Site::new();
    site.ok(&[
        "bundle",
        "create",
        site.root(),
        "h",
        "--driver",
        "copy",
        "--net",
        "bridge",
        "-p",
        "8080:80",
        "--",
        "true",
    ]);
    let (seen, dir) = (site.store.path().join("seen"), site.store.path().join("shipimg/bundles/h"));
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter --net=/proc/$pid/ns/net ip -4 -br addr >{0}; \
         nsenter --net=/proc/$pid/ns/net ip route >>{0}; nft list ruleset >>{0}",
        seen.display()
    );
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]});
    fs::write(&path, config.to_string()).unwrap();
    site.ok(&["run", "h"]);
    let seen = fs::read_to_string(seen).unwrap();
    for part in ["eth0@", "10.129.0.2/16", "default via 10.129.0.1", "dport 8080 dnat to 10.129.0.2:80"] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
}

#[test]
fn what_others_do_to_a_bridge_and_to_hosts_files() {
    let site = Site::new();
    let before = site.host.inventory();
    site.start("own", &["--net", "bridge"], "sleep 600");
    site.exec("own", "echo 10.9.9.9 mine >/etc/hosts");
    site.start("kept", &["--net", "bridge", "-p", "8080:80"], "sleep 600");
    assert_eq!(site.exec("own", "cat /etc/hosts"), "10.9.9.9 mine\n");
    site.exec("kept", "sed '1i10.8.8.8 first' /etc/hosts >/tmp/h; cat /tmp/h >/etc/hosts");
    site.delete("own");
    let hosts = site.exec("kept", "cat /etc/hosts");
    assert!(hosts.starts_with("10.8.8.8 first\n") && !hosts.contains("own"), "{hosts}");
    // All rules flushed: the next container has them again. The bridge deleted: so has the next.
    site.host.run(&["nft", "flush", "ruleset"]);
    site.run(&["--net", "bridge"], "ping -c 1 -W 5 10.129.0.1");
    let rules = site.host.inventory();
    assert!(rules.contains("masquerade") && rules.matches("dport 8080").count() == 2, "{rules}");
    let text = site.refused(&["--net", "bridge", "-p", "8080:80"]);
    assert!(text.contains("container kept"), "{text}");
    site.host.run(&["ip", "link", "del", "shipimg0"]);
    site.delete("kept");
    let after = site.host.inventory();
    assert!(!after.contains("table ip shipimg") && !after.contains("ve-kept"), "{after}");
    site.run(&["--net", "bridge", "-p", "8080:80"], "ping -c 1 -W 5 10.129.0.1");
    // That packets were not passed on before went with the bridge.
    site.host.run(&["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"]);
    assert_eq!(site.host.inventory(), before);
}

#[test]
fn ordinary_users_have_files_and_no_bridge() {
    let user = User::new();
    let root = user.home().join("root");
    busybox(&root);
    user.give(&root);
    for (net, said) in [("bridge", "bridge shipimg0: it needs root"), ("pasta", "pasta")] {
        let out = user.output(&["run", "--net", net, root.to_str().unwrap(), "true"]);
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(125) && text.contains(said), "{text}");
    }
    let options = ["run", "--dns", "192.0.2.1", "--add-host", "db:10.1.2.3", root.to_str().unwrap()];
    for single in [&[][..], &["--single-id"]] {
        let script = ["cat", "/etc/resolv.conf", "/etc/hosts"];
        let seen = user.ok(&[single, &options, &script].concat());
        assert!(seen.contains("nameserver 192.0.2.1\n") && seen.contains("10.1.2.3\tdb\n"), "{seen}");
    }
}

#[test]
fn a_container_with_a_user_namespace_of_its_own() {
    let site = Site::new();
    let before = site.host.inventory();
    let script = "cat /proc/self/uid_map /etc/hosts; nc 10.129.0.1 9 -w 1; ip addr; ip route";
    let args = ["--driver", "copy", "--net", "bridge", "--", "sh", "-c", script];
    site.ok(&[&["bundle", "create", site.root(), "u"], &args[..]].concat());
    let path = site.store.path().join("shipimg/bundles/u/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for ids in ["uidMappings", "gidMappings"] {
        config["linux"][ids] = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
    }
    fs::write(&path, config.to_string()).unwrap();
    let seen = site.ok(&["run", "u"]);
    assert!(seen.contains("10.129.0.2\tu\n") && seen.contains("default via 10.129.0.1"), "{seen}");
    assert_eq!(site.host.inventory(), before);
}

#[test]
fn fifty_containers_at_once() {
    let site = Site::new();
    let before = site.host.inventory();
    let create = |name: &str| {
        site.ok(&[
            "bundle",
            "create",
            site.root(),
            name,
            "--driver",
            "overlay",
            "--net",
            "bridge",
            "-p",
            "80",
            "--",
            "sleep",
            "600",
        ])
    };
    let names: Vec<String> = (0..50).map(|n| format!("box{n}")).collect();
    for name in &names {
        create(name);
    }
    at_once(&site, &names, &["run", "-d"]);
    let mut addresses: Vec<String> = names.iter().map(|n| site.network(n)["ip"].to_string()).collect();
    let mut ports: Vec<u64> =
        names.iter().map(|n| site.network(n)["publish"][0]["host"].as_u64().unwrap()).collect();
    for count in [
        {
            addresses.sort();
            addresses.dedup();
            addresses.len()
        },
        {
            ports.sort_unstable();
            ports.dedup();
            ports.len()
        },
    ] {
        assert_eq!(count, 50);
    }
    for name in ["box0", "box49"] {
        let hosts = site.exec(name, "grep -c box /etc/hosts");
        assert_eq!(hosts, "50\n", "{name}");
    }
    assert!(
        site.exec("box7", "ping -c 1 -W 5 box42 || true; nc box42 1 || true; grep box42 /etc/hosts")
            .contains("box42")
    );
    at_once(&site, &names, &["delete", "--force"]);
    assert_eq!(site.host.inventory(), before);
}

/// Runs a command for each of the names, all at the same time.
fn at_once(site: &Site, names: &[String], command: &[&str]) {
    std::thread::scope(|scope| {
        for name in names {
            scope.spawn(|| site.ok(&[command, &[name]].concat()));
        }
    });
}

#[test]
fn a_killed_command_leaves_nothing_for_long() {
    let site = Site::new();
    let foreign =
        "add table ip other; add chain ip other c { type filter hook forward priority 0; policy accept; }";
    site.host.run(&["nft", foreign]);
    let before = site.host.inventory();
    assert!(before.contains("table ip other") && before.ends_with("0\n"), "{before}");
    let name = format!("{}-killed", site.host.name());
    let options = ["run", "--net", "bridge", "-p", "8080:80", "--netns-name", &name, "--name", "k"];
    let mut run = site.host.command(&site.store);
    let mut run = run.args(options).args([site.root(), "sleep", "600"]).spawn().unwrap();
    let there = || site.host.inventory();
    let mut tries = 0..1000;
    while !(there().contains("8080")
        && site.host.output(&site.store, &["exec", "k", "true"]).status.success())
    {
        assert!(tries.next().is_some());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(there().contains("shipimg0") && there().ends_with("1\n"));
    run.kill().unwrap();
    run.wait().unwrap();
    // The container ends with it, a moment later.
    while site.ok(&["list", "-q"]).contains('k') {
        assert!(tries.next().is_some());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(site.host.inventory(), before);
    assert!(!ok("ip", &["netns", "list"]).contains(&name));
    // A store that is gone with its containers: the next container on the bridge takes over.
    let other = TestStore::new();
    let mut run = site.host.command(&other);
    let mut run = run
        .args(["run", "--net", "bridge", "-p", "8080:80", "--name", "k"])
        .args([site.root(), "sleep", "600"])
        .spawn()
        .unwrap();
    while !there().contains("8080") {
        assert!(tries.next().is_some());
        std::thread::sleep(Duration::from_millis(10));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    // Its link goes with its namespace, which the kernel takes down a little later.
    while there().contains("ve-k-") && site.host.run(&["ip", "-br", "link"]).contains("ve-k-") {
        assert!(tries.next().is_some());
        std::thread::sleep(Duration::from_millis(10));
    }
    site.run(&["--net", "bridge", "-p", "8080:80"], "true");
    assert_eq!(site.host.inventory(), before);
}

#[test]
fn a_command_killed_at_any_moment() {
    let site = Site::new();
    let before = site.host.inventory();
    // Half-made: without its text, and with packets passed on already.
    let half = ["ip", "link", "add", "shipimg0", "address", "02:73:0a:81:00:01", "type", "bridge"];
    site.host.run(&half);
    site.run(&["--net", "bridge"], "ping -c 1 -W 5 10.129.0.1");
    assert_eq!(site.host.inventory(), before);
    site.host.run(&half);
    site.host.run(&["ip", "link", "set", "shipimg0", "alias", "shipimg - forward"]);
    site.host.run(&["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]);
    site.run(&["--net", "bridge"], "true");
    assert_eq!(site.host.inventory(), before);
    for delay in (0..160).step_by(4) {
        let mut run = site.host.command(&site.store);
        run.args(["run", "--net", "bridge", "-p", "8080:80", "--name", &format!("k{delay}")]);
        let mut run =
            run.args([site.root(), "sleep", "600"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        run.kill().unwrap();
        run.wait().unwrap();
    }
    let mut tries = 0..1000;
    while site.ok(&["list", "-q"]).contains('k') {
        assert!(tries.next().is_some());
        std::thread::sleep(Duration::from_millis(10));
    }
    site.run(&["--net", "bridge", "-p", "8080:80"], "ping -c 1 -W 5 10.129.0.1");
    assert_eq!(site.host.inventory(), before);
}

#[test]
fn stores_share_a_bridge_and_hosts_do_not() {
    let (one, two) = (Site::new(), Site::new());
    let before = [one.host.inventory(), two.host.inventory()];
    one.start("a", &["--net", "bridge"], &server("a"));
    two.start("b", &["--net", "bridge"], &server("b"));
    // Another store on the first host, by a relative path.
    let other = TestStore::new();
    let relative = |args: &[&str]| {
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", one.host.name())).current_dir(other.path());
        let out = collect(command.args([bin(), "--root", "."]).args(args));
        assert!(out.status.success(), "{out:?}");
    };
    let bundle = ["bundle", "create", one.root(), "c", "--driver", "copy", "--net", "bridge"];
    relative(&[&bundle[..], &["--", "sleep", "600"]].concat());
    relative(&["run", "-d", "c"]);
    one.start("late", &["--net", "bridge"], "sleep 600");
    let seen = one.host.ok(&other, &["exec", "c", "cat", "/etc/hosts"]);
    assert!(seen.contains("10.129.0.2\ta\n10.129.0.4\tlate\n") && !seen.contains("\tb\n"), "{seen}");
    assert!(one.exec("late", "cat /etc/hosts").contains("10.129.0.3\tc\n"));
    assert!(two.exec("b", "ip addr").contains("10.129.0.2/16"));
    one.host.ok(&other, &["delete", "--force", "c"]);
    one.delete("late");
    // A container that is deleted from another host's namespace goes all the same.
    two.host.ok(&one.store, &["delete", "--force", "a"]);
    two.delete("b");
    let seen = one.run(&["--net", "bridge", "-p", "8080:80"], "cat /etc/hosts");
    assert!(!seen.contains("\ta\n"), "{seen}");
    assert_eq!([one.host.inventory(), two.host.inventory()], before);
}

#[test]
fn without_nft_a_bridge_is_refused() {
    let site = Site::new();
    let empty = site.store.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = std::process::Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", site.host.name())).args(["unshare", "-m", "sh", "-c"]);
    let hide = format!("mount --bind {} /usr/sbin; exec \"$@\"", empty.display());
    command.args([&hide, "sh", bin(), "--root"]).arg(site.store.path());
    let out = command.args(["run", "--net", "bridge", site.root(), "true"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(125) && text.contains("program nft not found"), "{text}");
    assert!(!site.host.inventory().contains("shipimg0"));
}
