//! A listener on the loopback interface: each connection on a thread of its own.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A running listener; ended with the value.
pub struct Listener {
    port: u16,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on a free port; `serve` gets each connection, and a flag that says that the end has come.
    /// A client that goes away is no failure.
    pub fn start(
        serve: impl Fn(TcpStream, &AtomicBool) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (end, serve) = (Arc::new(AtomicBool::new(false)), Arc::new(serve));
        let thread_end = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if thread_end.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), serve, end) = (stream, Arc::clone(&serve), Arc::clone(&thread_end)) else {
                    continue;
                };
                std::thread::spawn(move || {
                    let _ = serve(stream, &end);
                });
            }
        });
        Self { port, end, thread: Some(thread) }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
