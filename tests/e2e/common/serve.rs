//! `shipimg serve` on a free port, and raw HTTP to talk to it.

use super::TestStore;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

/// A running server; ended with the value.
pub struct Served {
    child: Child,
    port: u16,
    url: String,
    /// What it says on standard error.
    pub stderr: std::fs::File,
}

impl Served {
    /// Serves `store` on a free port with these options more.
    pub fn start(store: &TestStore, args: &[&str]) -> Self {
        let stderr = tempfile::tempfile().unwrap();
        let mut child = store
            .command()
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_string();
        let port = url.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { child, port, url, stderr }
    }

    /// `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As it says itself.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a signal, waits; gives the exit status.
    pub fn end(&mut self, signal: rustix::process::Signal) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        self.child.wait().unwrap()
    }

    /// Peak resident memory so far, in KiB.
    pub fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// One request with a connection of its own.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let host = (!headers.iter().any(|(name, _)| *name == "Host")).then(|| ("Host", self.host()));
        let length = (!body.is_empty() || !matches!(method, "GET" | "HEAD"))
            .then(|| ("Content-Length", body.len().to_string()));
        let given = headers.iter().map(|(name, value)| (*name, (*value).to_string()));
        let lines: String =
            given.chain(host).chain(length).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        Answer::read(stream, method == "HEAD")
    }

    /// A bare connection.
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// GET.
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    /// HEAD.
    pub fn head(&self, path: &str) -> Answer {
        self.request("HEAD", path, &[], b"")
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], b"")
    }

    /// Starts an upload to `repository`; gives its location.
    pub fn upload(&self, repository: &str) -> String {
        let answer = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(answer.status, 202);
        answer.header("location").to_string()
    }

    /// Pushes a blob; gives its digest.
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = super::layout::sha256(bytes);
        let path = format!("{}?digest={digest}", self.upload(repository));
        assert_eq!(self.request("PUT", &path, &[], bytes).status, 201);
        digest
    }

    /// Pushes a document.
    pub fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        document: &[u8],
    ) -> Answer {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.request("PUT", &path, &[("Content-Type", media_type)], document)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads to the end of the connection.
    pub fn read(mut stream: impl Read, is_head: bool) -> Self {
        let mut bytes = Vec::new();
        // A server that closes early may reset the connection after its answer.
        let _ = stream.read_to_end(&mut bytes);
        let split = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer");
        let body = bytes.split_off(split + 4);
        let head = String::from_utf8(bytes).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|l| l.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
            .collect();
        let answer = Self { status, headers, body };
        if !is_head && !matches!(status, 204 | 304) {
            assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{answer:?}");
        }
        answer
    }

    /// A header that must be there.
    pub fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// A header.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The JSON document.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and error code, as `404 BLOB_UNKNOWN`.
    pub fn error(&self) -> String {
        format!("{} {}", self.status, self.json()["errors"][0]["code"].as_str().unwrap())
    }
}
