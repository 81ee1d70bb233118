//! A small HTTP server in the test's process: one function answers everything.

use super::listener::Listener;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

/// One request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub head: String,
    pub body: Vec<u8>,
}

impl Asked {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| {
            let (key, value) = l.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A status line's rest, header lines, body.
pub type Reply = (&'static str, Vec<String>, Vec<u8>);

/// A reply of JSON.
pub fn json(body: &str) -> Reply {
    ("200 OK", vec!["Content-Type: application/json".into()], body.into())
}

/// A running server; ended with the value.
pub struct Server {
    listener: Listener,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Starts a server; `answer` answers, or with `None` closes the connection.
    pub fn start(answer: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        Self { listener: Listener::start(move |stream, _| serve(stream, &kept, &answer)), log }
    }

    /// `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.listener.port())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// The requests whose path contains `part`.
    pub fn asked(&self, part: &str) -> Vec<Asked> {
        self.log.lock().unwrap().iter().filter(|r| r.path.contains(part)).cloned().collect()
    }
}

fn serve(
    mut client: TcpStream,
    log: &Mutex<Vec<Asked>>,
    answer: &(dyn Fn(&Asked) -> Option<Reply> + Send + Sync),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ').map(ToString::to_string);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut asked = Asked { method, path, head, body: Vec::new() };
    let length = asked.header("content-length").map_or(0, |l| l.parse().unwrap_or(0));
    let mut body = vec![0; length];
    client.read_exact(&mut body)?;
    asked.body = body;
    log.lock().unwrap().push(asked.clone());
    let Some((status, headers, body)) = answer(&asked) else { return Ok(()) };
    let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes())?;
    if asked.method == "HEAD" { Ok(()) } else { client.write_all(&body) }
}
