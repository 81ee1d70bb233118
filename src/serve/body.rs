//! Bodies: a part of a file sent in pieces, and what a client sends.

use super::STALL;
use super::answer::{Code, Refusal};
use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use hyper::body::{Frame, SizeHint};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::task::{JoinHandle, spawn_blocking};

/// How many bytes are read and sent at once; two pieces are in memory.
const PIECE: u64 = 256 << 10;

/// How much of an unwanted body is read so that the client sees the answer.
const DRAIN: usize = 16 << 20;

/// The next piece on its way, and the file to read on from.
type Reading = JoinHandle<io::Result<(File, Vec<u8>)>>;

/// A part of a file, read ahead on blocking threads.
#[derive(Debug)]
pub struct FileBody {
    left: u64,
    next: Option<Reading>,
}

impl FileBody {
    /// `len` bytes of `file` from `start` on.
    pub fn new(mut file: File, start: u64, len: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start))?;
        let mut body = Self { left: len, next: None };
        body.read_on(file);
        Ok(body)
    }

    fn read_on(&mut self, mut file: File) {
        let want = self.left.min(PIECE);
        self.next = (want > 0).then(|| {
            spawn_blocking(move || {
                let mut piece = Vec::with_capacity(usize::try_from(want).unwrap_or(0));
                (&mut file).take(want).read_to_end(&mut piece)?;
                if (piece.len() as u64) < want {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok((file, piece))
            })
        });
    }
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let read = ready!(Pin::new(next).poll(cx)).map_err(io::Error::other).flatten();
        self.next = None;
        Poll::Ready(Some(read.map(|(file, piece)| {
            self.left -= piece.len() as u64;
            self.read_on(file);
            Frame::data(piece.into())
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The next bytes of what a client sends; none at its end.
pub async fn next(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        return match tokio::time::timeout(STALL, frame).await {
            Err(_) => {
                Err(Refusal::new(Code::BlobUploadInvalid, "the body stalled")
                    .status(StatusCode::REQUEST_TIMEOUT))
            }
            Ok(None) => Ok(None),
            Ok(Some(Err(e))) => {
                Err(Refusal::new(Code::BlobUploadInvalid, format!("the body broke off: {e}")))
            }
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Ok(Some(data)),
                Err(_) => continue,
            },
        };
    }
}

/// A whole body of at most `limit` bytes; none where it is longer.
pub async fn whole(mut body: Body, limit: u64) -> Result<Option<Vec<u8>>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(data) = next(&mut body).await? {
        if (bytes.len() + data.len()) as u64 > limit {
            drain(body).await;
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes))
}

/// Reads away a body that is not wanted: a client that still writes would not read the answer.
pub async fn drain(mut body: Body) {
    let mut left = DRAIN;
    while let Ok(Some(data)) = next(&mut body).await {
        left = left.saturating_sub(data.len());
        if left == 0 {
            return;
        }
    }
}
