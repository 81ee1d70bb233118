//! Package files: an ar(5) archive of `debian-binary`, `control.tar`, `data.tar` (deb(5)).
//!
//! Members are read where they lie, decompressed while they are read: xz, zstd, gzip or
//! plain. What does not follow the format is refused: another version, no control
//! archive, no control file in it, members that lead elsewhere.

use super::{Error, Result};
use liblzma::bufread::XzDecoder;
use liblzma::stream::IGNORE_CHECK;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// The largest control archive that is read into memory, in bytes (templates are the bulk).
const MAX_CONTROL: u64 = 64 << 20;

#[derive(Debug, Clone)]
struct Member {
    name: String,
    offset: u64,
    size: u64,
}

/// An open package file.
#[derive(Debug)]
pub struct Deb {
    file: File,
    name: String,
    control: Member,
    data: Member,
}

/// The control archive of a package.
#[derive(Debug)]
pub struct Control {
    /// The `control` file.
    pub paragraph: String,
    /// The other files: name, mode, content.
    pub files: Vec<(String, u32, Vec<u8>)>,
}

impl Control {
    /// The content of a control file, empty where there is none.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        let file = self.files.iter().find(|(n, _, _)| n == name);
        file.map(|(_, _, bytes)| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }
}

/// A stream of a member, decompressed.
pub type Stream = Box<dyn Read + Send>;

impl Deb {
    /// Reads the table of members; `name` is for messages.
    ///
    /// # Errors
    /// [`Error::Package`], [`Error::Io`].
    pub fn open(mut file: File, name: &str) -> Result<Self> {
        let bad = |reason: &str| Error::Package { name: name.to_string(), reason: reason.to_string() };
        let members = members(&mut file, name)?;
        if members.first().is_none_or(|m| m.name != "debian-binary") {
            return Err(bad("no debian-binary at the beginning"));
        }
        let mut version = String::new();
        part(&file, &members[0], name)?
            .take(64)
            .read_to_string(&mut version)
            .map_err(|e| Error::io("read", Path::new(name), e))?;
        if !version.starts_with("2.") {
            return Err(bad("not of format 2"));
        }
        let find = |prefix: &str| members.iter().find(|m| m.name.starts_with(prefix)).cloned();
        let control = find("control.tar").ok_or_else(|| bad("no control archive"))?;
        let data = find("data.tar").ok_or_else(|| bad("no data archive"))?;
        Ok(Self { file, name: name.to_string(), control, data })
    }

    /// Reads the control archive.
    ///
    /// # Errors
    /// [`Error::Package`].
    pub fn control(&self) -> Result<Control> {
        let bad = |reason: String| Error::Package { name: self.name.clone(), reason };
        let mut archive = tar::Archive::new(self.stream(&self.control)?.take(MAX_CONTROL));
        let mut paragraph = None;
        let mut files = Vec::new();
        for entry in archive.entries().map_err(|e| bad(e.to_string()))? {
            let mut entry = entry.map_err(|e| bad(e.to_string()))?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = inside(&entry.path_bytes()).map_err(&bad)?;
            let name = path.to_str().filter(|n| !n.contains('/') && !n.is_empty());
            let name = name.ok_or_else(|| bad(format!("control member {}", path.display())))?.to_string();
            let mode = entry.header().mode().map_err(|e| bad(e.to_string()))?;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|e| bad(e.to_string()))?;
            if name == "control" {
                paragraph =
                    Some(String::from_utf8(bytes).map_err(|_| bad("control is not UTF-8".to_string()))?);
            } else {
                files.push((name, mode & 0o7777, bytes));
            }
        }
        let paragraph = paragraph.ok_or_else(|| bad("no control file in the control archive".to_string()))?;
        Ok(Control { paragraph, files })
    }

    /// The data archive, a tar.
    ///
    /// # Errors
    /// [`Error::Package`] for a compression that is not known.
    pub fn data(&self) -> Result<Stream> {
        self.stream(&self.data)
    }

    fn stream(&self, member: &Member) -> Result<Stream> {
        let raw = BufReader::with_capacity(64 << 10, part(&self.file, member, &self.name)?);
        let extension = member.name.split_once(".tar").map(|(_, e)| e).unwrap_or_default();
        Ok(match extension {
            "" => Box::new(raw),
            ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
            ".xz" => {
                // The whole file's hash was compared before.
                let decoder = liblzma::stream::Stream::new_stream_decoder(u64::MAX, IGNORE_CHECK);
                let decoder =
                    decoder.map_err(|e| Error::io("decompress", Path::new(&self.name), e.into()))?;
                Box::new(XzDecoder::new_stream(raw, decoder))
            }
            ".zst" => {
                let decoder = zstd::stream::read::Decoder::with_buffer(raw);
                Box::new(decoder.map_err(|e| Error::io("decompress", Path::new(&self.name), e))?)
            }
            other => {
                let reason = format!("compression {other} is not known");
                return Err(Error::Package { name: self.name.clone(), reason });
            }
        })
    }
}

/// One member's bytes. Each part has a file position of its own.
fn part(file: &File, member: &Member, name: &str) -> Result<impl Read + Send + use<>> {
    let file = file.try_clone().map_err(|e| Error::io("dup", Path::new(name), e))?;
    Ok(At { file, offset: member.offset }.take(member.size))
}

/// A file read from an offset on, by pread(2).
struct At {
    file: File,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = std::os::unix::fs::FileExt::read_at(&self.file, buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

fn members(file: &mut File, name: &str) -> Result<Vec<Member>> {
    let bad = |reason: &str| Error::Package { name: name.to_string(), reason: reason.to_string() };
    let io = |e| Error::io("read", Path::new(name), e);
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;
    file.rewind().map_err(io)?;
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(|_| bad("not an ar archive"))?;
    if &magic != b"!<arch>\n" {
        return Err(bad("not an ar archive"));
    }
    let mut members = Vec::new();
    let mut at = 8;
    while at + 60 <= length && members.len() < 16 {
        let mut header = [0; 60];
        file.seek(SeekFrom::Start(at)).map_err(io)?;
        file.read_exact(&mut header).map_err(io)?;
        let field = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).unwrap_or("").trim();
        let size = field(48..58).parse::<u64>().map_err(|_| bad("a member without a size"))?;
        let offset = at + 60;
        if &header[58..] != b"`\n" || offset + size > length {
            return Err(bad("truncated, or a member that is no ar member"));
        }
        members.push(Member { name: field(0..16).trim_end_matches('/').to_string(), offset, size });
        at = offset + size + size % 2;
    }
    Ok(members)
}

/// A member's path relative to the root, without `./`; refused where it leads elsewhere.
///
/// # Errors
/// Why, in words.
pub fn inside(bytes: &[u8]) -> std::result::Result<PathBuf, String> {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return Err(format!("member {} leads out of the root", path.display())),
        }
    }
    if bytes.contains(&0) || bytes.contains(&b'\n') {
        return Err(format!("member {} has an impossible name", path.display()));
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn ar(members: &[(&str, &[u8])]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"!<arch>\n").unwrap();
        for (name, bytes) in members {
            writeln!(file, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, bytes.len()).unwrap();
            file.write_all(bytes).unwrap();
            if bytes.len() % 2 == 1 {
                file.write_all(b"\n").unwrap();
            }
        }
        file
    }

    fn tarball(name: &str, content: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn reads_and_refuses() {
        let control = tarball("./control", "Package: x\n");
        let data = tarball("./a", "hello");
        let binary: (&str, &[u8]) = ("debian-binary", b"2.0\n");
        let good = Deb::open(ar(&[binary, ("control.tar", &control), ("data.tar/", &data)]), "x").unwrap();
        assert_eq!(good.control().unwrap().paragraph, "Package: x\n");
        let entries = |deb: Deb| tar::Archive::new(deb.data().unwrap()).entries().unwrap().count();
        assert_eq!(entries(good), 1);
        let zst = zstd::encode_all(&data[..], 1).unwrap();
        let zst = Deb::open(ar(&[binary, ("control.tar", &control), ("data.tar.zst", &zst)]), "x").unwrap();
        assert_eq!(entries(zst), 1);
        let e = |members: &[(&str, &[u8])]| Deb::open(ar(members), "x").unwrap_err().to_string();
        assert!(e(&[binary, ("data.tar", &data)]).contains("no control archive"));
        assert!(e(&[binary, ("control.tar", &control)]).contains("no data archive"));
        assert!(e(&[("data.tar", &data)]).contains("debian-binary"));
        let empty = tarball("./md5sums", "");
        let none = Deb::open(ar(&[binary, ("control.tar", &empty), ("data.tar", &data)]), "x").unwrap();
        assert!(none.control().unwrap_err().to_string().contains("no control file"));
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(inside(b"./usr//bin/x").unwrap(), Path::new("usr/bin/x"));
        assert_eq!(inside(b"./").unwrap(), Path::new(""));
        for bad in [&b"../x"[..], b"./a/../../x", b"/etc/passwd", b"a\0b"] {
            assert!(inside(bad).is_err(), "{bad:?}");
        }
    }
}
