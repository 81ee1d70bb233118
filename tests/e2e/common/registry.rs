//! Debian's `docker-registry` on a free port of the loopback interface.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

/// A running registry server with storage of its own; ended with the value.
pub struct Registry {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Registry {
    /// Starts a server over plain http without authentication.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a server; `extra` is YAML to add to its configuration, indented by nothing.
    pub fn start_with(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n{extra}",
            dir.path().join("data").display()
        );
        std::fs::File::create(&config).unwrap().write_all(text.as_bytes()).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry; scripts/test installs it");
        let registry = Self { child, port, dir };
        super::within(20, "docker-registry", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        registry
    }

    /// `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it stores its blobs.
    pub fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Copies the image `name` of an OCI layout into the registry by skopeo; gives its reference.
    pub fn fill(&self, layout: &super::layout::Layout, name: &str) -> String {
        let reference = format!("{}/{name}", self.host());
        let source = format!("oci:{}:{name}", layout.path().display());
        super::ok(
            "skopeo",
            &[
                "copy",
                "-q",
                "--insecure-policy",
                "--dest-tls-verify=false",
                &source,
                &format!("docker://{reference}"),
            ],
        );
        reference
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
