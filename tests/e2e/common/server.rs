//! A small HTTP server in the test's process: one function answers everything.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

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
    port: u16,
    log: Arc<Mutex<Vec<Asked>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server; `answer` answers, or with `None` closes the connection.
    pub fn start(answer: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (log, end) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (thread_log, thread_end, answer) = (Arc::clone(&log), Arc::clone(&end), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if thread_end.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), log, answer) = (stream, Arc::clone(&thread_log), Arc::clone(&answer)) else {
                    continue;
                };
                std::thread::spawn(move || {
                    // A client that goes away is no failure of the server.
                    let _ = serve(stream, &log, &*answer);
                });
            }
        });
        Self { port, log, end, thread: Some(thread) }
    }

    /// `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The requests whose path contains `part`.
    pub fn asked(&self, part: &str) -> Vec<Asked> {
        self.log.lock().unwrap().iter().filter(|r| r.path.contains(part)).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(JoinHandle::join);
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
