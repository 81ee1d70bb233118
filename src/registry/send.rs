//! Request bodies that come from a reader, against a limit of time without progress.
//!
//! The client's own time limit spans a whole request, which for an upload says nothing. So a
//! thread sends, this one reads and watches: every piece that the connection takes is progress.
//! One that takes none for the stall period is given up, with its thread, whose connection
//! the kernel ends after the same time (`TCP_USER_TIMEOUT`).

use super::client::{Answer, Client, host_port};
use super::{Error, Result};
use reqwest::Url;
use reqwest::blocking::{Body, RequestBuilder, Response};
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// How much is read at once, in bytes.
const PIECE: usize = 128 << 10;
/// How many pieces may wait for the connection.
const WAITING: usize = 2;
/// How many stall periods the answer may take once the body is sent: a server may hash it.
const ANSWER: u32 = 4;
/// The client's own limit, which must not be in the way.
const NEVER: Duration = Duration::from_hours(24 * 7);

enum Event {
    Taken(usize),
    Sent(reqwest::Result<Response>),
}

/// Sends `request` with the next `length` bytes of `content`; `progress` is told how many of them
/// the connection has taken.
///
/// # Errors
/// [`Error::Content`], and those of the network. Any status is an answer.
pub(super) fn send(
    client: &Client,
    url: &Url,
    request: RequestBuilder,
    content: &mut dyn Read,
    length: u64,
    progress: &dyn Fn(u64),
) -> Result<Answer> {
    let (pieces, queue) = channel();
    let (events, happened) = channel();
    let reader = Pieces { queue, events: events.clone(), piece: io::Cursor::default(), left: length };
    let body = Body::sized(reader, length);
    let request = request.timeout(NEVER).body(body);
    std::thread::spawn(move || {
        // Nobody listens any more where it took too long.
        let _ = events.send(Event::Sent(request.send()));
    });
    let host = host_port(url);
    let (mut unread, mut waiting, mut sent) = (length, 0, 0);
    loop {
        while waiting < WAITING && unread > 0 {
            let most = usize::try_from(unread).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; most];
            let n = match content.read(&mut piece) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            let n = n.map_err(|source| Error::Content { host: host.clone(), source })?;
            piece.truncate(n);
            unread -= n as u64;
            waiting += 1;
            // Where the thread has ended, its last event says why.
            let _ = pieces.send(piece);
        }
        let stall = client.stall();
        match happened.recv_timeout(if waiting == 0 { stall * ANSWER } else { stall }) {
            Ok(Event::Taken(n)) => {
                waiting -= 1;
                sent += n as u64;
                progress(sent);
            }
            Ok(Event::Sent(result)) => return client.answer(url, result),
            Err(_) => return Err(Error::Stalled { host, stall }),
        }
    }
}

/// The sending thread's end of the pieces.
struct Pieces {
    queue: Receiver<Vec<u8>>,
    events: Sender<Event>,
    piece: io::Cursor<Vec<u8>>,
    left: u64,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        if self.left == 0 {
            return Ok(0);
        }
        if self.piece.get_ref().is_empty() {
            self.piece = io::Cursor::new(self.queue.recv().map_err(|_| gone())?);
        }
        let n = self.piece.read(buf)?;
        self.left -= n as u64;
        let size = self.piece.get_ref().len();
        if self.piece.position() == size as u64 {
            self.events.send(Event::Taken(size)).map_err(|_| gone())?;
            self.piece = io::Cursor::default();
        }
        Ok(n)
    }
}
