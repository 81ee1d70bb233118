//! Certificates by openssl, passwords by htpasswd, and a configuration folder that holds them.

use super::{TestStore, ok};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A CA with a server's and a client's certificate, all for localhost.
pub struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    /// Makes the keys and certificates.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = Self { dir };
        let path = |name: &str| made.path(name).display().to_string();
        std::fs::write(made.path("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let self_signed = |name: &str, more: &[&str]| {
            let (key, crt) = (path(&format!("{name}.key")), path(&format!("{name}.crt")));
            let mut args = vec!["req", "-x509", "-keyout", &key, "-out", &crt];
            args.extend(ec);
            args.extend(more);
            ok("openssl", &args);
        };
        self_signed("ca", &["-subj", "/CN=test ca"]);
        // What people make by hand: it calls itself a CA, and is the server's certificate.
        let names = "subjectAltName=DNS:localhost";
        self_signed("self", &["-subj", "/CN=localhost", "-addext", names]);
        let elsewhere = "subjectAltName=DNS:elsewhere.example";
        self_signed("elsewhere", &["-subj", "/CN=elsewhere.example", "-addext", elsewhere]);
        expired(&made, names);
        for name in ["server", "client"] {
            let (key, csr, crt) =
                (path(&format!("{name}.key")), path(&format!("{name}.csr")), path(&format!("{name}.crt")));
            let mut args = vec!["req", "-new", "-keyout", &key, "-out", &csr, "-subj", "/CN=localhost"];
            args.extend(&ec[..5]);
            ok("openssl", &args);
            let (ca, ca_key, names) = (path("ca.crt"), path("ca.key"), path("names"));
            let sign = ["x509", "-req", "-in", &csr, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
            ok("openssl", &[&sign[..], &["-out", &crt, "-days", "2", "-extfile", &names]].concat());
        }
        made
    }

    /// A file: `ca`, `server`, `client`, `self`, `old`, `elsewhere`, each `.crt` and `.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The registry's configuration for https with the certificate `name`.
    pub fn https(&self, name: &str) -> String {
        let path = |end: &str| self.path(&format!("{name}.{end}")).display().to_string();
        format!("  tls: {{certificate: {}, key: {}}}\n", path("crt"), path("key"))
    }
}

/// A self-signed certificate whose time is over, which takes openssl's larger tool.
fn expired(authority: &Authority, names: &str) {
    let path = |name: &str| authority.path(name).display().to_string();
    let config = format!(
        "[ca]\ndefault_ca=d\n[d]\ndatabase={0}\nserial={1}\nnew_certs_dir={2}\ndefault_md=sha256\npolicy=p\n\
         [p]\ncommonName=supplied\n[v3]\nbasicConstraints=critical,CA:TRUE\n{names}\n",
        path("db"),
        path("serial"),
        authority.dir.path().display()
    );
    for (name, text) in [("ca.cnf", config.as_str()), ("db", ""), ("serial", "01\n")] {
        std::fs::write(authority.path(name), text).unwrap();
    }
    let (key, csr, crt, cnf) = (path("old.key"), path("old.csr"), path("old.crt"), path("ca.cnf"));
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    ok(
        "openssl",
        &[&["req", "-new", "-keyout", &key, "-out", &csr, "-subj", "/CN=localhost"], &ec[..]].concat(),
    );
    let dates = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z", "-extensions", "v3"];
    let sign = ["ca", "-selfsign", "-batch", "-config", &cnf, "-in", &csr, "-keyfile", &key, "-out", &crt];
    ok("openssl", &[&sign[..], &dates].concat());
}

/// The registry's configuration for the users `user:password`, kept in `dir`.
pub fn htpasswd(dir: &Path, users: &[(&str, &str)]) -> String {
    let file = dir.join("htpasswd");
    let lines: String =
        users.iter().map(|(u, p)| ok("htpasswd", &["-nbB", u, p]).trim().to_string() + "\n").collect();
    std::fs::write(&file, lines).unwrap();
    format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display())
}

/// A user's configuration folder, and commands that see it and nothing of this machine's.
pub struct Home {
    dir: tempfile::TempDir,
    store: TestStore,
}

impl Home {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), store: TestStore::in_memory() }
    }

    /// A path below the configuration's `containers`, its folder made.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("config/containers").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Writes a file there.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The file of credentials that `login` writes.
    pub fn auth_file(&self) -> PathBuf {
        self.dir.path().join("run/containers/auth.json")
    }

    /// `shipimg`, to add arguments to.
    pub fn command(&self) -> Command {
        let mut command = self.store.command();
        for name in ["REGISTRY_AUTH_FILE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env("XDG_RUNTIME_DIR", self.dir.path().join("run"))
            .env("DOCKER_CONFIG", self.dir.path().join("docker"));
        command
    }

    /// Runs shipimg, which must succeed; gives its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let out = super::collect(self.command().args(args));
        assert!(out.status.success(), "{}", super::describe("shipimg", args, &out));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Runs shipimg, which must fail with exit code `code`; gives standard error.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let out = super::collect(self.command().args(args));
        assert_eq!(out.status.code(), Some(code), "{}", super::describe("shipimg", args, &out));
        String::from_utf8_lossy(&out.stderr).into_owned()
    }
}
