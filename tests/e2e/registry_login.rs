//! Logging in: htpasswd over TLS, a token server, credential helpers.

use crate::common::layout::{Blob, Layout};
use crate::common::registry::Registry;
use crate::common::server::{Server, json};
use crate::common::tls::{Authority, Home, htpasswd};
use crate::common::{collect, describe, ok};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

const USERS: [(&str, &str); 2] = [("ann", "secret:1"), ("team", "other")];

/// A registry over TLS that knows [`USERS`], a home that trusts it, and its files.
fn secured() -> (Registry, Home, Authority, tempfile::TempDir) {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let registry =
        Registry::start_with(&format!("{}{}", authority.https("server"), htpasswd(dir.path(), &USERS)));
    let home = Home::new();
    let ca = home.path(&format!("certs.d/{}/ca.crt", registry.host()));
    std::fs::copy(authority.path("ca.crt"), ca).unwrap();
    (registry, home, authority, dir)
}

fn fill(registry: &Registry, name: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    layout.add(name, &[Blob::gzip(b"one")], &json!({}));
    let reference = format!("{}/{name}", registry.host());
    let (from, to) = (format!("oci:{}:{name}", dir.path().display()), format!("docker://{reference}"));
    let tls = "--dest-tls-verify=false";
    ok("skopeo", &["copy", "-q", "--insecure-policy", "--dest-creds=ann:secret:1", tls, &from, &to]);
    reference
}

/// Gives the password on standard input.
fn login(home: &Home, args: &[&str], password: &str) -> std::process::Output {
    let mut child = home
        .command()
        .args(["login", "--password-stdin"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn in_and_out_over_tls() {
    let (registry, home, _authority, _dir) = secured();
    let host = registry.host();
    let reference = fill(&registry, "team/app:1");
    let e = home.fails(8, &["pull", &reference]);
    assert!(e.contains("401"), "{e}");
    assert_eq!(login(&home, &["--username", "ann", &host], "wrong").status.code(), Some(8));
    assert!(!home.auth_file().exists());
    home.fails(10, &["login", "--get-login", &host]);

    let out = login(&home, &["--username", "ann", "--format", "json", &host], "secret:1");
    assert!(out.status.success(), "{}", describe("login", &[""], &out));
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(said, json!({"registry": host, "user": "ann", "file": home.auth_file(), "helper": null}));
    assert_eq!(std::fs::metadata(home.auth_file()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(home.ok(&["login", "--get-login", &host]), "ann\n");
    home.ok(&["pull", &reference]);
    assert_eq!(home.ok(&["tags", &format!("{host}/team/app")]), "1\n");
    // skopeo reads the same file.
    let file = home.auth_file().display().to_string();
    assert_eq!(ok("skopeo", &["login", "--authfile", &file, "--get-login", &host]).trim(), "ann");

    // Another user for a namespace.
    let team = format!("{host}/team");
    assert!(login(&home, &["-u", "team", &team], "other").status.success());
    assert_eq!(home.ok(&["login", "--get-login", &team]), "team\n");
    assert_eq!(home.ok(&["login", "--get-login", &host]), "ann\n");
    home.ok(&["pull", &reference]);
    home.ok(&["logout", &team]);
    home.fails(10, &["logout", &team]);
    home.ok(&["logout", "--all"]);
    home.fails(8, &["tags", &format!("{host}/team/app")]);
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let home = Home::new();
    let mut command = home.command();
    // A session of its own has no terminal.
    let out = collect(&mut {
        let mut setsid = std::process::Command::new("setsid");
        setsid.arg("-w").arg(command.get_program()).args(["login", "localhost:1"]);
        command.stdin(Stdio::null());
        setsid
    });
    assert_eq!(out.status.code(), Some(2), "{}", describe("login", &[""], &out));
    assert!(String::from_utf8_lossy(&out.stderr).contains("--password-stdin"));
}

/// Breaks the question for the password off; prints the exit code and the terminal's settings.
const BREAK_OFF: &str = r#"
import os, pty, sys, termios
pid, tty = pty.fork()
if pid == 0:
    shell = "trap : INT; \"$@\"; echo code $?; stty -a"
    os.execvp("sh", ["sh", "-c", shell, "sh"] + sys.argv[1:])
seen = b""
while b"Password: " not in seen:
    seen += os.read(tty, 100)
while termios.tcgetattr(tty)[3] & termios.ECHO:
    pass
os.write(tty, b"\x03")
try:
    while more := os.read(tty, 1000):
        seen += more
except OSError:
    pass
print(seen.decode())
"#;

#[test]
fn an_interrupted_question_leaves_a_terminal_that_echoes() {
    let args = ["20", "python3", "-c", BREAK_OFF, crate::common::bin(), "login", "-u", "ann", "localhost:1"];
    let seen = crate::common::ok("timeout", &args);
    assert!(seen.contains("code 130") && seen.contains(" echo ") && !seen.contains("-echo "), "{seen}");
}

#[test]
fn a_credential_helper_keeps_and_forgets() {
    let (registry, home, _authority, dir) = secured();
    let host = registry.host();
    let reference = fill(&registry, "app:1");
    let (helper, kept) = (dir.path().join("docker-credential-test"), dir.path().join("kept"));
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat >{0};;\nerase) cat >/dev/null; rm {0};;\nget) cat >/dev/null\n\
         [ -e {0} ] && exec cat {0}; echo credentials not found in native keychain; exit 1;;\nesac\n",
        kept.display()
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, json!({"credHelpers": {&host: "test"}, "mine": 1}).to_string()).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let run = |args: &[&str]| {
        let mut command = home.command();
        command.env("PATH", &path).env("REGISTRY_AUTH_FILE", &file);
        collect(command.args(args))
    };
    let good = |args: &[&str]| {
        let out = run(args);
        assert!(out.status.success(), "{}", describe("shipimg", args, &out));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let said = good(&["login", "-u", "ann", "-p", "secret:1", &host]);
    assert!(said.contains("docker-credential-test"), "{said}");
    let stored: Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    assert_eq!(stored, json!({"ServerURL": host, "Username": "ann", "Secret": "secret:1"}));
    assert!(!std::fs::read_to_string(&file).unwrap().contains("auths"));
    good(&["pull", &reference]);
    good(&["logout", &host]);
    assert!(!kept.exists());
    assert_eq!(run(&["logout", &host]).status.code(), Some(10));
}

/// A registry that wants tokens, its token server in the same place: the token is the scopes.
fn token_registry(users: &'static [&'static str]) -> Server {
    Server::start(move |asked| {
        let host = asked.header("host").unwrap_or_default().to_string();
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        if path == "/token" {
            let known = asked.header("authorization").is_none_or(|a| users.contains(&a));
            let scopes: Vec<&str> = query.split('&').filter_map(|p| p.strip_prefix("scope=")).collect();
            return Some(if known {
                json(&json!({"token": format!("t+{}", scopes.join("+"))}).to_string())
            } else {
                ("401 Unauthorized", Vec::new(), Vec::new())
            });
        }
        let parts: Vec<&str> = path.split('/').collect();
        let wanted: Vec<String> = match (asked.method.as_str(), parts.get(2)) {
            (_, None | Some(&"")) => Vec::new(),
            ("GET" | "HEAD", Some(name)) => vec![format!("repository:{name}:pull")],
            (_, Some(name)) => {
                let from = query.split('&').find_map(|p| p.strip_prefix("from="));
                let from = from.map(|f| format!("repository:{f}:pull"));
                [Some(format!("repository:{name}:pull,push")), from].into_iter().flatten().collect()
            }
        };
        let has = asked.header("authorization").unwrap_or_default().replace("%3A", ":").replace("%2C", ",");
        let enough = has.starts_with("Bearer ")
            && wanted
                .iter()
                .all(|w| has[7..].split('+').any(|h| h == w || h == w.replace("pull", "pull,push")));
        Some(if enough {
            match asked.method.as_str() {
                "POST" => ("201 Created", vec!["Location: /v2/done".into()], Vec::new()),
                _ => json(r#"{"tags": ["1"]}"#),
            }
        } else {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"{}\"",
                wanted.join(" ")
            );
            ("401 Unauthorized", vec![challenge], Vec::new())
        })
    })
}

#[test]
fn tokens_are_kept_per_scope_and_grow() {
    use shipimg::oci::Descriptor;
    use shipimg::registry::{Options, Remote};
    let server = token_registry(&[]);
    let connect = |name: &str| {
        Remote::connect(&format!("{}/{name}", server.host()).parse().unwrap(), &Options::default()).unwrap()
    };
    let (a, b) = (connect("a"), connect("b"));
    for _ in 0..3 {
        a.tags(9).unwrap();
        b.tags(9).unwrap();
    }
    assert_eq!(server.asked("/token").len(), 2, "one for each repository");
    let blob = Descriptor::of("application/octet-stream", b"x");
    assert!(b.mount_blob(&blob, "a").unwrap());
    assert!(b.mount_blob(&blob, "a").unwrap());
    b.tags(9).unwrap();
    let asked = server.asked("/token");
    assert_eq!(asked.len(), 3, "{asked:?}");
    let last = &asked[2].path;
    for scope in ["repository%3Aa%3Apull", "repository%3Ab%3Apull%2Cpush", "repository%3Ab%3Apull"] {
        assert!(last.contains(&format!("scope={scope}")), "{last}");
    }
}

#[test]
fn login_by_token_server() {
    // ann:secret
    let server = token_registry(&["Basic YW5uOnNlY3JldA=="]);
    let home = Home::new();
    assert_eq!(login(&home, &["-u", "ann", &server.host()], "wrong").status.code(), Some(8));
    assert!(login(&home, &["-u", "ann", &server.host()], "secret").status.success());
    assert_eq!(home.ok(&["tags", &format!("{}/a", server.host())]), "1\n");
    let token = server.asked("/token").pop().unwrap();
    assert_eq!(token.header("authorization"), Some("Basic YW5uOnNlY3JldA=="));
}
