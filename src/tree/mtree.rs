//! mtree manifests: a tree as text (mtree(5) of NetBSD and FreeBSD), read and written.
//!
//! What is written has one line per file with its full path, in order of the paths:
//!
//! ```text
//! #mtree v2.0
//! #: settled=1700000000.123456789
//! . type=dir uid=0 gid=0 mode=0755 time=1700000000.000000000
//! ./etc type=dir …
//! ./etc/passwd type=file uid=0 gid=0 mode=0644 size=10 time=… sha256digest=HEX
//! #: inode=1234 same=./etc/passwd xattr.user.note=BASE64
//! ```
//!
//! Names and link targets are bytes; those that are not plain are `\ooo`, octal, as vis(3) has it.
//! NetBSD's mtree refuses keywords that it does not know, and knows none for attributes: what has
//! none goes into a comment that begins with `#:` and belongs to the line before. `settled` is a
//! time after which no file had changed when the manifest was written.
//!
//! What is read is more: `/set`, `/unset`, continued lines, names in directories closed by `..`,
//! the synonyms of keywords, and attributes as gomtree and umoci write them. Unknown keywords are
//! passed over. Nothing here does I/O.

use super::diff::{Node, Tree};
use super::{Kind, Meta, Time, TreePath};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

/// How a comment begins that says more about the line before.
const MORE: &[u8] = b"#:";

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Malformed {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// A tree, and since when it has been as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The files.
    pub tree: Tree,
    /// No file had a later change of its inode when this was written.
    pub settled: Option<Time>,
}

impl Manifest {
    /// Writes it as text.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"#mtree v2.0\n")?;
        if let Some(t) = self.settled {
            writeln!(out, "#: settled={}", time_text(t))?;
        }
        for (path, node) in &self.tree {
            write_node(out, path, node)?;
        }
        Ok(())
    }

    /// Reads what [`Manifest::write`], mtree, gomtree or umoci have written.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::default();
        let mut rest = text;
        let mut at = 0;
        while !rest.is_empty() {
            at += 1;
            let first = at;
            let mut line = Cow::Borrowed(take_line(&mut rest));
            while line.ends_with(b"\\") && !line.starts_with(b"#") && !rest.is_empty() {
                at += 1;
                let mut joined = line.into_owned();
                joined.pop();
                joined.push(b' ');
                joined.extend_from_slice(take_line(&mut rest));
                line = joined.into();
            }
            reader.line(&line).map_err(|reason| Malformed { line: first, reason })?;
        }
        Ok(reader.manifest)
    }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    let line = &rest[..end];
    *rest = rest.get(end + 1..).unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn write_node(out: &mut dyn Write, path: &TreePath, node: &Node) -> io::Result<()> {
    let meta = &node.meta;
    let (what, own) = match &node.kind {
        Kind::File | Kind::Link(_) => {
            let digest = node.sha256.map_or_else(String::new, |d| format!(" sha256digest={}", hex(&d)));
            ("file", format!(" size={}{digest}", node.size))
        }
        Kind::Directory => ("dir", String::new()),
        Kind::Symlink(target) => ("link", format!(" link={}", encode(target))),
        Kind::Char(major, minor) => ("char", format!(" device=native,{major},{minor}")),
        Kind::Block(major, minor) => ("block", format!(" device=native,{major},{minor}")),
        Kind::Fifo => ("fifo", String::new()),
        Kind::Socket => ("socket", String::new()),
    };
    let (uid, gid, mode) = (meta.uid, meta.gid, meta.mode);
    let time = time_text(meta.mtime);
    writeln!(out, "{} type={what} uid={uid} gid={gid} mode=0{mode:o} time={time}{own}", name(path))?;
    let inode = node.inode.map(|i| format!(" inode={i}"));
    let same = node.same.as_ref().map(|s| format!(" same={}", name(s)));
    let xattrs = meta.xattrs.iter().map(|(n, v)| format!(" xattr.{}={}", encode(n), BASE64.encode(v)));
    let hidden: String = inode.into_iter().chain(same).chain(xattrs).collect();
    if hidden.is_empty() { Ok(()) } else { writeln!(out, "#:{hidden}") }
}

fn name(path: &TreePath) -> String {
    if path.is_root() { ".".to_string() } else { format!("./{}", encode(path.as_bytes())) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// Plain characters stay, all else is `\ooo`.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &b in bytes {
        if b.is_ascii_graphic() && !br"\#*?[=".contains(&b) {
            text.push(b.into());
        } else {
            let _ = write!(text, "\\{b:03o}");
        }
    }
    text
}

/// Undoes vis(3) in its styles `VIS_OCTAL`, `VIS_CSTYLE` and the default with `\M`.
fn decode(text: &[u8]) -> Result<Vec<u8>, String> {
    let bad = || format!("cannot read the name {:?}", text.escape_ascii().to_string());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&b, after)) = rest.split_first() {
        rest = after;
        if b != b'\\' {
            out.push(b);
            continue;
        }
        let (&c, after) = rest.split_first().ok_or_else(bad)?;
        let octal = rest.iter().take(3).take_while(|d| (b'0'..=b'7').contains(d)).count();
        if octal == 3 {
            let value = rest[..3].iter().fold(0u32, |v, d| v * 8 + u32::from(d - b'0'));
            out.push(u8::try_from(value).map_err(|_| bad())?);
            rest = &rest[3..];
            continue;
        }
        rest = after;
        match c {
            b'M' => {
                let (&how, after) = rest.split_first().ok_or_else(bad)?;
                let (&c, after) = after.split_first().ok_or_else(bad)?;
                rest = after;
                out.push(0x80 | if how == b'^' { control(c) } else { c });
            }
            b'^' => {
                let (&c, after) = rest.split_first().ok_or_else(bad)?;
                rest = after;
                out.push(control(c));
            }
            _ => out.push(match c {
                b'a' => 7,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b's' => b' ',
                b't' => b'\t',
                b'v' => 11,
                b'0' => 0,
                other => other,
            }),
        }
    }
    Ok(out)
}

const fn control(c: u8) -> u8 {
    if c == b'?' { 0x7f } else { c & 0x1f }
}

/// The seconds and, after the point, the nanoseconds that count from them.
fn time_text(time: Time) -> String {
    format!("{}.{:09}", time.seconds, time.nanos)
}

type Words = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Reader {
    manifest: Manifest,
    /// What `/set` has set.
    set: Words,
    /// The directory that names without a slash are in.
    dir: TreePath,
    /// Whether the root has been named.
    rooted: bool,
    last: Option<TreePath>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        let line = line.trim_ascii();
        if let Some(more) = line.strip_prefix(MORE) {
            return self.more(&words(more)?);
        }
        let (first, rest) = match line.iter().position(u8::is_ascii_whitespace) {
            Some(at) => (&line[..at], &line[at..]),
            None => (line, &b""[..]),
        };
        match first {
            b"" => Ok(()),
            b"/set" => {
                self.set.extend(words(rest)?);
                Ok(())
            }
            b"/unset" => {
                for word in rest.split(u8::is_ascii_whitespace) {
                    self.set.remove(word);
                }
                Ok(())
            }
            b".." => {
                self.dir = self.dir.split().map_or_else(TreePath::root, |(parent, _)| parent);
                Ok(())
            }
            _ if first.starts_with(b"#") => Ok(()),
            _ => self.entry(first, rest),
        }
    }

    fn entry(&mut self, first: &[u8], rest: &[u8]) -> Result<(), String> {
        let full = first.contains(&b'/');
        let decoded = decode(first)?;
        let path = if full || !self.rooted {
            TreePath::parse_link(&decoded)
        } else {
            // One component, whatever is in it.
            TreePath::parse_link(&[self.dir.as_bytes(), b"/", &decoded].concat())
        };
        let path = path.map_err(|e| e.to_string())?;
        self.rooted = true;
        let mut all = self.set.clone();
        all.extend(words(rest)?);
        let node = node(&all)?;
        if node.kind == Kind::Directory && !full {
            self.dir = path.clone();
        }
        self.last = Some(path.clone());
        self.manifest.tree.insert(path, node);
        Ok(())
    }

    fn more(&mut self, words: &Words) -> Result<(), String> {
        if let Some(settled) = words.get(&b"settled"[..]) {
            self.manifest.settled = Some(time(settled)?);
        }
        let Some(node) = self.last.as_ref().and_then(|p| self.manifest.tree.get_mut(p)) else {
            return Ok(());
        };
        if let Some(inode) = words.get(&b"inode"[..]) {
            node.inode = Some(number(inode, 10)?);
        }
        if let Some(same) = words.get(&b"same"[..]) {
            node.same = Some(TreePath::parse_link(&decode(same)?).map_err(|e| e.to_string())?);
        }
        for (name, value) in xattrs(words)? {
            add(&mut node.meta.xattrs, name, value)?;
        }
        Ok(())
    }
}

/// The words of one line, by key; of other keys than attributes the last of a kind counts.
fn words(text: &[u8]) -> Result<Words, String> {
    let mut found = Words::new();
    for word in text.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()) {
        let (key, value) = match word.iter().position(|&b| b == b'=') {
            Some(at) => (&word[..at], &word[at + 1..]),
            None => (word, &b""[..]),
        };
        if found.insert(key.to_vec(), value.to_vec()).is_some() && attribute(key).is_some() {
            return Err(format!("{} is given twice for one file", key.escape_ascii()));
        }
    }
    Ok(found)
}

/// The name of the attribute that the key stands for, encoded.
fn attribute(key: &[u8]) -> Option<&[u8]> {
    [&b"xattr."[..], b"xattrs."].iter().find_map(|p| key.strip_prefix(*p))
}

/// Adds an attribute; a file has each once.
fn add(all: &mut Attributes, name: Vec<u8>, value: Vec<u8>) -> Result<(), String> {
    if all.iter().any(|(n, _)| *n == name) {
        return Err(format!("attribute {} is given twice for one file", name.escape_ascii()));
    }
    all.push((name, value));
    Ok(())
}

/// Attributes, name and value.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

fn xattrs(words: &Words) -> Result<Attributes, String> {
    let mut found = Vec::new();
    for (key, value) in words {
        let Some(name) = attribute(key) else { continue };
        let value = BASE64.decode(value).map_err(|e| format!("attribute {}: {e}", name.escape_ascii()))?;
        add(&mut found, decode(name)?, value)?;
    }
    Ok(found)
}

fn node(words: &Words) -> Result<Node, String> {
    let get = |names: &[&str]| names.iter().find_map(|n| words.get(n.as_bytes()));
    let number_of = |names: &[&str], radix| get(names).map_or(Ok(0), |v| number(v, radix));
    let device = || get(&["device"]).map_or(Ok((0, 0)), |v| device(v));
    let kind = match get(&["type"]).map_or(&b"file"[..], Vec::as_slice) {
        b"file" => Kind::File,
        b"dir" => Kind::Directory,
        b"link" => Kind::Symlink(decode(get(&["link"]).map_or(&b""[..], Vec::as_slice))?),
        b"char" => device().map(|(a, b)| Kind::Char(a, b))?,
        b"block" => device().map(|(a, b)| Kind::Block(a, b))?,
        b"fifo" => Kind::Fifo,
        b"socket" => Kind::Socket,
        other => return Err(format!("unknown type {}", other.escape_ascii())),
    };
    let narrow = |n: u64| u32::try_from(n).map_err(|_| format!("{n} is out of range"));
    let size = if kind == Kind::File { number_of(&["size"], 10)? } else { 0 };
    let sha256 = get(&["sha256digest", "sha256"]).map(|v| digest(v)).transpose()?;
    let meta = Meta {
        mode: narrow(number_of(&["mode"], 8)?)? & 0o7777,
        uid: narrow(number_of(&["uid"], 10)?)?,
        gid: narrow(number_of(&["gid"], 10)?)?,
        mtime: get(&["time", "tar_time"]).map(|v| time(v)).transpose()?.unwrap_or_default(),
        xattrs: xattrs(words)?,
    };
    Ok(Node { kind, meta, size, sha256, same: None, inode: None })
}

fn number(text: &[u8], radix: u32) -> Result<u64, String> {
    let number = std::str::from_utf8(text).ok().and_then(|t| u64::from_str_radix(t, radix).ok());
    number.ok_or_else(|| format!("{:?} is no number", text.escape_ascii().to_string()))
}

fn time(text: &[u8]) -> Result<Time, String> {
    let bad = || format!("{:?} is no time", text.escape_ascii().to_string());
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    let (seconds, nanos) = text.split_once('.').unwrap_or((text, "0"));
    let nanos = nanos.parse().ok().filter(|n| *n < 1_000_000_000).ok_or_else(bad)?;
    Ok(Time { seconds: seconds.parse().map_err(|_| bad())?, nanos })
}

/// `FORMAT,MAJOR,MINOR`, or the number that glibc makes of the two.
fn device(text: &[u8]) -> Result<(u32, u32), String> {
    let bad = || format!("{:?} is no device", text.escape_ascii().to_string());
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    let parse = |t: &str| match t.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).map_err(|_| bad()),
        None => t.parse().map_err(|_| bad()),
    };
    let narrow = |n: u64| u32::try_from(n).map_err(|_| bad());
    match text.split(',').collect::<Vec<_>>().as_slice() {
        [all] => {
            let all = parse(all)?;
            let major = (all >> 8 & 0xfff) | (all >> 32 & 0xffff_f000);
            Ok((narrow(major)?, narrow((all & 0xff) | (all >> 12 & 0xffff_ff00))?))
        }
        [.., major, minor] => Ok((narrow(parse(major)?)?, narrow(parse(minor)?)?)),
        [] => Err(bad()),
    }
}

fn digest(text: &[u8]) -> Result<[u8; 32], String> {
    let bad = || format!("{:?} is no SHA-256", text.escape_ascii().to_string());
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(bad());
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn at(dir: &TreePath, name: &[u8]) -> TreePath {
        dir.join(OsStr::from_bytes(name))
    }

    fn node_of(kind: Kind) -> Node {
        let meta = Meta {
            mode: 0o4755,
            uid: 3_000_000_000,
            gid: 2,
            mtime: Time { seconds: -5, nanos: 7 },
            xattrs: vec![(b"user.a b".to_vec(), b"\0=\n".to_vec())],
        };
        Node { kind, meta, size: 0, sha256: None, same: None, inode: Some(9) }
    }

    #[test]
    fn there_and_back() {
        let root = TreePath::root();
        let mut tree = Tree::from([(root.clone(), node_of(Kind::Directory))]);
        let odd: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
        let file = Node { size: 5, sha256: Some([0xab; 32]), ..node_of(Kind::File) };
        tree.insert(at(&root, &odd[..200]), file.clone());
        tree.insert(at(&root, b"z"), Node { same: Some(at(&root, &odd[..200])), ..file });
        tree.insert(at(&root, b"l"), node_of(Kind::Symlink(odd)));
        tree.insert(at(&root, b"c"), node_of(Kind::Char(5, 70_000)));
        tree.insert(at(&root, b"b"), node_of(Kind::Block(259, 1)));
        tree.insert(at(&root, b"d"), node_of(Kind::Directory));
        tree.insert(at(&at(&root, b"d"), b"..."), node_of(Kind::Fifo));
        let manifest = Manifest { tree, settled: Some(Time { seconds: 3, nanos: 4 }) };
        let mut text = Vec::new();
        manifest.write(&mut text).unwrap();
        let back = Manifest::parse(&text).unwrap();
        assert_eq!(back, manifest);
    }

    #[test]
    fn reads_what_others_write() {
        let text = b"# user: root\n/set type=file nlink=1 mode=0664 uid=0 gid=0\n\
            . type=dir mode=0755 tar_time=5.000000000\n\
            \x20   a\\040b size=2 \\\n   sha256=8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4\n\
            c type=char device=0x501\n n\\M^?\\\\\\#*[? size=1\n \\M-C\\M-) size=1\n\
            # d\nd type=dir mode=0755 xattr.user.note=YT1iIGM=\n e type=link link=x\\sy\n..\n\
            /unset mode\nz size=3\n..\n";
        let tree = Manifest::parse(text).unwrap().tree;
        let names: Vec<_> = tree.keys().map(ToString::to_string).collect();
        let want = ["/", "/a b", "/c", "/d", "/d/e", r"/n\xff\\#*[?", "/z", r"/\xc3\xa9"];
        assert_eq!(names, want);
        let get = |p: &str| &tree[&TreePath::parse_link(p.as_bytes()).unwrap()];
        assert_eq!(get("").meta.mtime.seconds, 5);
        assert_eq!((get("a b").size, get("a b").sha256.unwrap()[0]), (2, 0x8f));
        assert_eq!(get("c").kind, Kind::Char(5, 1));
        assert_eq!(get("d").meta.xattrs, [(b"user.note".to_vec(), b"a=b c".to_vec())]);
        assert_eq!(get("d/e").kind, Kind::Symlink(b"x y".to_vec()));
        assert_eq!((get("a b").meta.mode, get("z").meta.mode), (0o664, 0));
    }

    /// As `#:` lines, on the file's own line, by either keyword, and however the name is encoded.
    #[test]
    fn an_attribute_is_given_once() {
        for text in [
            &b"./a xattr.user.x=YQ== xattr.user.x=Yg=="[..],
            b"./a xattr.user.x=YQ== xattr.user.x=YQ==",
            b"./a xattr.user.x=YQ== xattrs.user.x=Yg==",
            b"./a xattr.user.x=YQ== xattr.user\\056x=Yg==",
            b"./a xattr.user.x=YQ==\n#: xattr.user.x=Yg==",
            b"./a\n#: xattr.user.x=YQ==\n#: xattr.user.x=Yg==",
        ] {
            let refused = Manifest::parse(text).unwrap_err();
            assert!(refused.reason.ends_with("user.x is given twice for one file"), "{refused}");
        }
        let text = b"/set xattr.user.x=YQ==\n./a xattr.user.x=Yg==\n./b xattr.user.y=Yg==\n";
        let tree = Manifest::parse(text).unwrap().tree;
        let values = |p: &[u8]| tree[&TreePath::parse_link(p).unwrap()].meta.xattrs.clone();
        assert_eq!(values(b"a"), [(b"user.x".to_vec(), b"b".to_vec())]);
        assert_eq!(values(b"b").len(), 2);
    }

    #[test]
    fn refuses() {
        for text in [
            &b"./a/../../b type=file"[..],
            b". type=dir\n ../b type=file",
            b"./a type=door",
            b"./a mode=9",
            b"./a uid=4294967296",
            b"./a sha256=12",
            b"./a time=x",
            b"./a time=1.1000000000",
            b"./a type=char device=x",
            b"./a\\",
            b"./a xattr.user.x=?",
        ] {
            assert!(Manifest::parse(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
