//! Transient units of systemd: a few calls of its D-Bus interface `org.freedesktop.systemd1.Manager`
//! (org.freedesktop.systemd1(5), D-Bus specification).
//!
//! systemd itself listens for root at `/run/systemd/private`; no bus is needed for that.

use super::{Call, Error, Result};
use rustix::io::Errno;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SOCKET: &str = "/run/systemd/private";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `s`
    Text(String),
    /// `b`
    Flag(bool),
    /// `t`
    Number(u64),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

/// Name and value of a property.
pub type Property = (&'static str, Value);

/// A body or a header in the wire format, little endian.
#[derive(Debug, Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, n: usize) {
        self.align(4);
        self.0.extend(u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len());
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    /// An array whose elements begin at multiples of `alignment`.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let size = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[length..length + 4].copy_from_slice(&size.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Flag(flag) => {
                self.signature("b");
                self.u32(usize::from(*flag));
            }
            Value::Number(n) => {
                self.signature("t");
                self.align(8);
                self.0.extend(n.to_le_bytes());
            }
            Value::Numbers(list) => {
                self.signature("au");
                self.array(4, |w| list.iter().for_each(|n| w.0.extend(n.to_le_bytes())));
            }
            Value::Bytes(bytes) => {
                self.signature("ay");
                self.array(1, |w| w.0.extend(bytes));
            }
            Value::Pairs(pairs) => {
                self.signature("a(ss)");
                self.array(8, |w| {
                    for (first, second) in pairs {
                        w.align(8);
                        w.text(first);
                        w.text(second);
                    }
                });
            }
        }
    }

    /// `a(sv)`
    fn properties(&mut self, properties: &[Property]) {
        self.array(8, |w| {
            for (name, value) in properties {
                w.align(8);
                w.text(name);
                w.value(value);
            }
        });
    }

    /// A whole message that calls `method` of the manager.
    fn call(method: &str, signature: &str, body: &Self) -> Vec<u8> {
        let mut message = Self(vec![b'l', 1, 0, 1]);
        message.u32(body.0.len());
        message.u32(1);
        message.array(8, |w| {
            for (field, kind, text) in [
                (1, "o", "/org/freedesktop/systemd1"),
                (2, "s", "org.freedesktop.systemd1.Manager"),
                (3, "s", method),
                (6, "s", "org.freedesktop.systemd1"),
            ] {
                w.align(8);
                w.0.push(field);
                w.signature(kind);
                w.text(text);
            }
            w.align(8);
            w.0.push(8);
            w.signature("g");
            w.signature(signature);
        });
        message.align(8);
        message.0.extend(&body.0);
        message.0
    }
}

/// Whether systemd runs this machine.
#[must_use]
pub fn is_there() -> bool {
    std::path::Path::new(SOCKET).exists()
}

/// Starts the scope `name` (with `.scope`) around the processes of `properties`.
///
/// # Errors
/// systemd is not there, or what it answers.
pub fn start_scope(name: &str, properties: &[Property]) -> Result<()> {
    let mut body = Wire::default();
    body.text(name);
    body.text("replace");
    body.properties(properties);
    body.array(8, |_| ());
    manager("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)
}

/// Changes properties of a unit until it ends.
///
/// # Errors
/// As [`start_scope`].
pub fn set_properties(name: &str, properties: &[Property]) -> Result<()> {
    let mut body = Wire::default();
    body.text(name);
    body.u32(1);
    body.properties(properties);
    manager("SetUnitProperties", "sba(sv)", &body)
}

/// Stops a unit; does not wait for its end.
///
/// # Errors
/// As [`start_scope`].
pub fn stop(name: &str) -> Result<()> {
    let mut body = Wire::default();
    body.text(name);
    body.text("replace");
    manager("StopUnit", "ss", &body)
}

fn manager(method: &'static str, signature: &str, body: &Wire) -> Result<()> {
    let talk = || -> std::io::Result<Option<String>> {
        let mut stream = UnixStream::connect(SOCKET)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let id = rustix::process::geteuid().as_raw().to_string();
        // Each digit's code in hexadecimal.
        let hex: String = id.chars().flat_map(|digit| ['3', digit]).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 1000 {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        stream.write_all(&Wire::call(method, signature, body))?;
        loop {
            let (kind, text) = message(&mut stream)?;
            match kind {
                2 => return Ok(None),
                3 => return Ok(Some(text)),
                // A signal.
                _ => {}
            }
        }
    };
    let call = || format!("systemd {method}");
    match talk() {
        Ok(None) => Ok(()),
        Ok(Some(message)) => Err(Error::Refused { call: call(), message }),
        Err(e) => Err(Errno::from_io_error(&e).unwrap_or(Errno::PROTO)).call(call),
    }
}

/// Reads a message; gives its type, and what its body begins with where that is a text.
fn message(stream: &mut UnixStream) -> std::io::Result<(u8, String)> {
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed)?;
    let number = |at: usize| {
        let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        if fixed[0] == b'l' { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    };
    let (body, fields) = (number(4) as usize, number(12) as usize);
    if body > MAX_MESSAGE || fields > MAX_MESSAGE {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let start = fields.next_multiple_of(8);
    let mut rest = vec![0; start + body];
    stream.read_exact(&mut rest)?;
    let text = rest[start..].get(4..).unwrap_or_default();
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    Ok((fixed[1], String::from_utf8_lossy(text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_format() {
        let mut w = Wire::default();
        w.properties(&[("A", Value::Number(7)), ("Bc", Value::Numbers(vec![1])), ("D", Value::Flag(true))]);
        let expected: &[&[u8]] = &[
            &[68, 0, 0, 0, 0, 0, 0, 0],
            // "A", t, 7
            &[1, 0, 0, 0, b'A', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
            // "Bc", au, [1]
            &[2, 0, 0, 0, b'B', b'c', 0, 2, b'a', b'u', 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            // "D", b, true
            &[1, 0, 0, 0, b'D', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0],
        ];
        let mut expected = expected.concat();
        let size = u8::try_from(expected.len() - 8).unwrap();
        expected[0] = size;
        assert_eq!(w.0, expected);
        let mut pairs = Wire::default();
        pairs.value(&Value::Pairs(vec![("a".into(), "bc".into())]));
        let expected: &[&[u8]] = &[
            // a(ss), 15 bytes, from a multiple of eight on
            &[5, b'a', b'(', b's', b's', b')', 0, 0, 15, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, b'a', 0, 0, 0, 2, 0, 0, 0, b'b', b'c', 0],
        ];
        assert_eq!(pairs.0, expected.concat());
        let call = Wire::call("StopUnit", "ss", &w);
        assert_eq!(call.len() % 8, w.0.len() % 8);
        assert!(call.starts_with(&[b'l', 1, 0, 1, u8::try_from(w.0.len()).unwrap(), 0, 0, 0, 1, 0, 0, 0]));
    }
}
