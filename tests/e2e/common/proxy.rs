//! A proxy in front of a registry that injects faults, and remembers what it was asked.

use super::listener::Listener;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What one request was.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub body: String,
    /// How many requests for the same path came before.
    pub before: usize,
}

/// What happens to the answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing.
    None,
    /// The connection is closed after so many bytes of the body.
    Truncate(usize),
    /// The connection is reset after so many bytes of the body.
    Reset(usize),
    /// Nothing more comes after so many bytes of the body.
    Stall(usize),
    /// The body comes byte by byte, ten in a second.
    Trickle,
    /// So many bytes of the body come twenty times in a second.
    Slow(usize),
    /// The registry never sees the Range.
    IgnoreRange,
    /// The Content-Range is this one.
    ContentRange(&'static str),
    /// One byte of the body is another one.
    Corrupt,
    /// The registry sees so many bytes of the request's body, then both connections are closed.
    CutUpload(usize),
    /// The registry is not asked, and the client gets no answer.
    Silent,
    /// The answer's Docker-Content-Digest is that of other content.
    OtherDigest,
    /// The registry is not asked: status line, header lines, body.
    Answer(&'static str, Vec<String>, String),
}

/// A status without a body.
pub fn status(line: &'static str, headers: &[&str]) -> Fault {
    Fault::Answer(line, headers.iter().map(ToString::to_string).collect(), String::new())
}

type Decide = dyn Fn(&Request) -> Fault + Send + Sync;

/// A running proxy; ended with the value.
pub struct Proxy {
    listener: Listener,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Proxy {
    /// Starts a proxy to 127.0.0.1:`upstream`; `decide` says what happens to each request.
    pub fn start(upstream: u16, decide: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        Self {
            listener: Listener::start(move |stream, end| serve(stream, upstream, &kept, &decide, end)),
            log,
        }
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
    pub fn requests(&self, part: &str) -> Vec<Request> {
        self.log.lock().unwrap().iter().filter(|r| r.path.contains(part)).cloned().collect()
    }
}

fn serve(
    mut client: TcpStream,
    upstream: u16,
    log: &Mutex<Vec<Request>>,
    decide: &Decide,
    end: &AtomicBool,
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
    let header = |name: &str| {
        head.lines().find_map(|l| {
            let (key, value) = l.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_string())
        })
    };
    let mut sent = vec![0; header("content-length").map_or(0, |l| l.parse().unwrap_or(0))];
    client.read_exact(&mut sent)?;
    let mut words = head.split(' ').map(ToString::to_string);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let request = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|r| r.path == path).count();
        let body = String::from_utf8_lossy(&sent).into_owned();
        let (range, authorization) = (header("range"), header("authorization"));
        log.push(Request { method, path, range, authorization, body, before });
        log.last().unwrap().clone()
    };
    let fault = decide(&request);
    if let Fault::Answer(line, headers, body) = &fault {
        let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {line}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        return client.write_all(text.as_bytes());
    }
    if let Fault::Silent = fault {
        wait(end);
        return Ok(());
    }
    let keep = |l: &&str| {
        let lower = l.to_ascii_lowercase();
        let range = matches!(fault, Fault::IgnoreRange) && lower.starts_with("range:");
        !l.is_empty() && !range && !lower.starts_with("connection:")
    };
    let forwarded: Vec<&str> = head.split("\r\n").filter(keep).collect();
    let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
    server.write_all(format!("{}\r\nConnection: close\r\n\r\n", forwarded.join("\r\n")).as_bytes())?;
    if let Fault::CutUpload(n) = fault {
        server.write_all(&sent[..n.min(sent.len())])?;
        // The registry takes what came before it sees the end.
        std::thread::sleep(Duration::from_millis(200));
        return Ok(());
    }
    server.write_all(&sent)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |p| p + 4);
    let mut body = answer.split_off(split);
    let mut head = String::from_utf8_lossy(&answer).into_owned();
    match fault {
        Fault::ContentRange(range) => head = with_header(&head, "Content-Range", range),
        Fault::OtherDigest => {
            let other = format!("sha256:{}", "0".repeat(64));
            head = with_header(&head, "Docker-Content-Digest", &other);
        }
        Fault::Corrupt => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        _ => {}
    }
    client.write_all(head.as_bytes())?;
    match fault {
        Fault::Truncate(n) => client.write_all(&body[..n]),
        Fault::Stall(n) => {
            client.write_all(&body[..n])?;
            wait(end);
            Ok(())
        }
        Fault::Reset(n) => {
            client.write_all(&body[..n])?;
            // What was sent has to arrive before the reset throws it away.
            std::thread::sleep(Duration::from_millis(200));
            rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
            Ok(())
        }
        Fault::Trickle => slowly(&mut client, &body, 1, Duration::from_millis(100), end),
        Fault::Slow(n) => slowly(&mut client, &body, n, Duration::from_millis(50), end),
        _ => {
            client.write_all(&body)?;
            client.shutdown(Shutdown::Write)
        }
    }
}

fn slowly(
    client: &mut TcpStream,
    body: &[u8],
    n: usize,
    pause: Duration,
    end: &AtomicBool,
) -> std::io::Result<()> {
    for part in body.chunks(n) {
        if end.load(Ordering::SeqCst) {
            break;
        }
        client.write_all(part)?;
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Waits for the end of the proxy.
fn wait(end: &AtomicBool) {
    while !end.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An answer's head with another value for a header that it has.
fn with_header(head: &str, name: &str, value: &str) -> String {
    let changed = |l: &str| match l.split_once(':') {
        Some((key, _)) if key.eq_ignore_ascii_case(name) => format!("{name}: {value}\r\n"),
        _ => format!("{l}\r\n"),
    };
    head.lines().map(changed).collect()
}
