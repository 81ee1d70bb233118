//! One request over HTTP/1.1 (RFC 9112) and its answer, read up to a limit.

use super::check::Http;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};

/// The most bytes of head, and of body, that are read.
const MOST_HEAD: u64 = 64 << 10;
const MOST_BODY: u64 = 16 << 20;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// By names in small letters.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// Asks over `stream`, whose timeouts are set.
///
/// # Errors
/// What the stream fails with; `InvalidData` where the answer is none of HTTP, or has too much.
pub(super) fn ask(mut stream: impl Read + Write, request: &Http) -> io::Result<Answer> {
    let Http { method, path, host, .. } = request;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: shipimg\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )?;
    stream.flush()?;
    read(&mut BufReader::new(stream), method == "HEAD")
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read(stream: &mut impl BufRead, without_body: bool) -> io::Result<Answer> {
    let mut head = stream.by_ref().take(MOST_HEAD);
    let mut line = || -> io::Result<String> {
        let mut bytes = Vec::new();
        head.read_until(b'\n', &mut bytes)?;
        if bytes.pop() != Some(b'\n') {
            return Err(malformed("the answer ends before its head does, or that is too long"));
        }
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_string())
    };
    let (status, headers) = loop {
        let first = line()?;
        let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
        let status: u16 =
            status.and_then(|s| s.parse().ok()).ok_or_else(|| malformed("the answer is not HTTP"))?;
        let mut headers = BTreeMap::new();
        loop {
            let line = line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
            }
        }
        // What is meant to be told meanwhile (RFC 9110, "Informational 1xx").
        if status != 101 && status / 100 == 1 {
            continue;
        }
        break (status, headers);
    };
    let chunked =
        headers.get("transfer-encoding").is_some_and(|v: &String| v.eq_ignore_ascii_case("chunked"));
    let length = headers.get("content-length").and_then(|v: &String| v.parse::<u64>().ok());
    let body = if without_body || matches!(status, 204 | 304) {
        Vec::new()
    } else if chunked {
        chunks(stream)?
    } else {
        let mut body = Vec::new();
        let most = length.unwrap_or(u64::MAX).min(MOST_BODY);
        stream.take(most).read_to_end(&mut body)?;
        if length.is_some_and(|length| length.min(MOST_BODY) > body.len() as u64) {
            return Err(malformed("the answer ends before its body does"));
        }
        body
    };
    Ok(Answer { status, headers, body })
}

/// A body in chunks (RFC 9112, 7.1).
fn chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        stream.by_ref().take(1024).read_until(b'\n', &mut line)?;
        let text = String::from_utf8_lossy(&line);
        let digits = text.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| malformed("a chunk without its size"))?;
        let room = MOST_BODY.saturating_sub(body.len() as u64);
        if size == 0 || room == 0 {
            return Ok(body);
        }
        let read = stream.by_ref().take(size.min(room)).read_to_end(&mut body)? as u64;
        if read < size.min(room) {
            return Err(malformed("the answer ends in a chunk"));
        }
        if read == size {
            stream.by_ref().take(2).read_until(b'\n', &mut line)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<(u16, String), String> {
        let found = read(&mut text.as_bytes(), false).map_err(|e| e.to_string())?;
        Ok((found.status, String::from_utf8(found.body).unwrap()))
    }

    #[test]
    fn answers() {
        for (text, want) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello world", Ok((200, "hello"))),
            ("HTTP/1.0 404 Not Found\r\n\r\nno", Ok((404, "no"))),
            ("HTTP/1.1 200\n\nx", Ok((200, "x"))),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 x\r\n\r\n", Ok((201, ""))),
            ("HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", Ok((204, ""))),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
                Ok((200, "abc0123456789")),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", Err("ends in a chunk")),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", Err("without its size")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Err("before its body")),
            ("SSH-2.0-OpenSSH\r\n\r\n", Err("not HTTP")),
            ("HTTP/1.1 200 OK\r\nA: b", Err("before its head")),
            ("", Err("before its head")),
        ] {
            match (answer(text), want) {
                (Ok((status, body)), Ok(want)) => assert_eq!((status, body.as_str()), want, "{text}"),
                (Err(e), Err(want)) => assert!(e.contains(want), "{text}: {e}"),
                (got, want) => panic!("{text}: {got:?}, wanted {want:?}"),
            }
        }
        let endless = "HTTP/1.1 200 OK\r\n".to_string() + &"a".repeat(1 << 20);
        assert!(answer(&endless).is_err());
    }
}
