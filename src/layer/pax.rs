//! PAX records: `LENGTH KEY=VALUE\n`, read by their length, and written (pax(1), "pax Extended Header").

use super::acl;
use super::archive::{Malformed, Piece};
use crate::sys::xattr::Xattr;
use crate::tree::Time;

type Result<T> = std::result::Result<T, Malformed>;

/// The records that mean something here; an empty value takes a record back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) linkpath: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Sparse,
}

/// The records of a sparse file (GNU tar manual, "PAX Format, Versions 0.0, 0.1 and 1.0").
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) major: Option<u64>,
    pub(super) pieces: Vec<Piece>,
}

/// Reads all records.
pub(crate) fn parse(mut bytes: &[u8]) -> Result<Records> {
    let mut records = Records::default();
    let mut offset = None;
    while !bytes.is_empty() {
        // Some writers fill the block up with zeros.
        if bytes.iter().all(|&b| b == 0) {
            break;
        }
        let space = bytes.iter().position(|&b| b == b' ').ok_or(Malformed::Pax)?;
        let len = decimal(&bytes[..space]).and_then(|n| usize::try_from(n).ok()).ok_or(Malformed::Pax)?;
        if len < space + 3 || len > bytes.len() || bytes[len - 1] != b'\n' {
            return Err(Malformed::Pax);
        }
        let record = &bytes[space + 1..len - 1];
        let equals = record.iter().position(|&b| b == b'=').ok_or(Malformed::Pax)?;
        records.put(&record[..equals], &record[equals + 1..], &mut offset)?;
        bytes = &bytes[len..];
    }
    Ok(records)
}

impl Records {
    fn put(&mut self, key: &[u8], value: &[u8], offset: &mut Option<u64>) -> Result<()> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let number = |what| match value {
            b"" => Ok(None),
            _ => decimal(value).map(Some).ok_or(Malformed::Number(what)),
        };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.linkpath = text(),
            b"size" => self.size = number("size")?,
            b"uid" => self.uid = number("owner")?,
            b"gid" => self.gid = number("group")?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value)?) },
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number("size")?,
            b"GNU.sparse.major" => self.sparse.major = number("sparse version")?,
            b"GNU.sparse.offset" => *offset = number("sparse offset")?,
            b"GNU.sparse.numbytes" => {
                let len = number("sparse size")?.ok_or(Malformed::Sparse)?;
                self.sparse.pieces.push((offset.take().ok_or(Malformed::Sparse)?, len));
            }
            b"GNU.sparse.map" => self.sparse.pieces = map(value)?,
            b"SCHILY.acl.access" => self.list(b"system.posix_acl_access", value),
            b"SCHILY.acl.default" => self.list(b"system.posix_acl_default", value),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attribute(name, value.to_vec());
                }
            }
        }
        Ok(())
    }

    fn attribute(&mut self, name: &[u8], value: Vec<u8>) {
        self.xattrs.retain(|(n, _)| n != name);
        self.xattrs.push((name.to_vec(), value));
    }

    fn list(&mut self, name: &[u8], text: &[u8]) {
        match acl::value(text) {
            Some(value) => self.attribute(name, value),
            None if text.is_empty() => {}
            None => tracing::warn!("an access control list is left out: \"{}\"", text.escape_ascii()),
        }
    }
}

fn map(value: &[u8]) -> Result<Vec<Piece>> {
    let numbers: Option<Vec<u64>> = value.split(|&b| b == b',').map(decimal).collect();
    match numbers {
        _ if value.is_empty() => Ok(Vec::new()),
        Some(n) if n.len() % 2 == 0 => Ok(n.chunks_exact(2).map(|p| (p[0], p[1])).collect()),
        _ => Err(Malformed::Sparse),
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction; before 1970 the fraction counts on from the second below.
fn time(text: &[u8]) -> Result<Time> {
    let wrong = Malformed::Number("mtime");
    let (sign, digits) = text.strip_prefix(b"-").map_or((1, text), |t| (-1, t));
    let dot = digits.iter().position(|&b| b == b'.');
    let (whole, fraction) = dot.map_or((digits, &b""[..]), |i| (&digits[..i], &digits[i + 1..]));
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(wrong);
    }
    let digit = |i: usize| u32::from(fraction.get(i).map_or(0, |b| b - b'0'));
    let nanos = (0..9).fold(0, |sum, i| sum * 10 + digit(i));
    let whole = decimal(whole).and_then(|n| i64::try_from(n).ok()).ok_or(wrong)?;
    Ok(if sign < 0 && nanos > 0 {
        Time { seconds: -whole - 1, nanos: 1_000_000_000 - nanos }
    } else {
        Time { seconds: sign * whole, nanos }
    })
}

/// The records of an entry, and what its plain header can hold of them.
#[derive(Default)]
pub(super) struct Pax(pub(super) Vec<u8>);

impl Pax {
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let digits = |n: usize| n.to_string().len();
        let mut len = rest + digits(rest);
        if digits(len) > digits(rest) {
            len = rest + digits(len);
        }
        self.0.extend_from_slice(format!("{len} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    pub(super) fn text(&mut self, field: &mut [u8], key: &str, value: &[u8]) {
        if value.len() > field.len() {
            self.record(key.as_bytes(), value);
        }
        let n = value.len().min(field.len());
        field[..n].copy_from_slice(&value[..n]);
    }

    pub(super) fn number(&mut self, field: &mut [u8], key: &str, value: u64) {
        let digits = field.len() - 1;
        let fits = value >> (3 * digits) == 0;
        if !fits {
            self.record(key.as_bytes(), value.to_string().as_bytes());
        }
        let text = format!("{:0digits$o}\0", if fits { value } else { 0 });
        field.copy_from_slice(text.as_bytes());
    }

    pub(super) fn time(&mut self, field: &mut [u8], time: Time) {
        let whole = u64::try_from(time.seconds).ok().filter(|s| s >> 33 == 0);
        let text = match (whole, time.nanos) {
            (Some(_), 0) => None,
            (_, 0) => Some(time.seconds.to_string()),
            (_, nanos) if time.seconds < 0 => Some(format!(
                "-{}.{}",
                -(time.seconds + 1),
                format!("{:09}", 1_000_000_000 - nanos).trim_end_matches('0')
            )),
            (_, nanos) => Some(format!("{}.{}", time.seconds, format!("{nanos:09}").trim_end_matches('0'))),
        };
        if let Some(text) = text {
            self.record(b"mtime", text.as_bytes());
        }
        field.copy_from_slice(format!("{:011o}\0", whole.unwrap_or(0)).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_by_length() {
        let r = parse(b"31 SCHILY.xattr.user.x=a\nb\0c=d\n11 path=a\n\n12 uid=1000\n")
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(r.xattrs, [(b"user.x".to_vec(), b"a\nb\0c=d".to_vec())]);
        assert_eq!((r.path, r.uid), (Some(b"a\n".to_vec()), Some(1000)));
        assert_eq!(parse(b"10 path=a\n8 path=\n").unwrap().path, None);
        for bad in [&b"8 path=a\n"[..], b"99 path=a\n", b"path=a\n", b"10 path a\n", b"-1 path=a\n", b"5 a=b"]
        {
            assert_eq!(parse(bad), Err(Malformed::Pax), "{}", bad.escape_ascii());
        }
        assert_eq!(parse(b"11 size=-1\n"), Err(Malformed::Number("size")));
    }

    #[test]
    fn times_and_maps() {
        let t = |seconds, nanos| Ok(Time { seconds, nanos });
        assert_eq!(time(b"12"), t(12, 0));
        assert_eq!(time(b"12.5"), t(12, 500_000_000));
        assert_eq!(time(b"12.1234567899"), t(12, 123_456_789));
        assert_eq!(time(b"-1.25"), t(-2, 750_000_000));
        assert!(time(b"1.x").is_err() && time(b"").is_err());
        assert_eq!(map(b"0,5,10,5"), Ok(vec![(0, 5), (10, 5)]));
        assert_eq!(map(b"0,5,10"), Err(Malformed::Sparse));
        let r = parse(b"23 GNU.sparse.offset=1\n25 GNU.sparse.numbytes=2\n").unwrap();
        assert_eq!(r.sparse.pieces, [(1, 2)]);
    }
}
