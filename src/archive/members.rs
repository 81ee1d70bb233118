//! The members of a tar: where the content of each lies, by name. Nothing is extracted.
//!
//! Names are checked as those of a layer's entries are: none is absolute or has `..`. A link
//! leads to another member, by its target relative to its own folder, or nowhere. What two
//! readers of one archive could see differently is refused: sizes that contradict each other,
//! and, where an image is read from it, two members of one name.

use super::spool::Section;
use super::{Error, Result, Source};
use crate::layer::{self, Malformed};
use crate::tree::TreePath;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;

const BLOCK: u64 = 512;

/// How many members are looked at.
const MAX_MEMBERS: usize = 1_000_000;

/// The largest extended header, in bytes.
const MAX_EXTENDED: u64 = 1 << 20;

/// How many links may follow one another.
const MAX_LINKS: usize = 8;

#[derive(Debug)]
enum Member {
    /// A file: where its content is.
    File {
        at: u64,
        size: u64,
    },
    /// A link to another member; none where the target leads out of the archive.
    Link(Option<TreePath>),
    Other,
}

/// The members of an archive.
#[derive(Debug)]
pub(super) struct Members {
    archive: Section,
    named: HashMap<TreePath, Member>,
    /// A name that two members bear.
    twice: Option<TreePath>,
    /// Whether there are more than are looked at.
    more: bool,
}

/// The extended headers before a member.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Members {
    /// Reads all headers of the tar `archive`, which `source` is.
    pub(super) fn read(source: &Source, archive: Section) -> Result<Self> {
        let mut members = Self { archive, named: HashMap::new(), twice: None, more: false };
        let (mut at, mut extended) = (0, Extended::default());
        let end = members.archive.len();
        while at < end {
            let fail = |reason| Error::Tar { archive: source.to_string(), offset: at, reason };
            if members.named.len() == MAX_MEMBERS {
                members.more = true;
                break;
            }
            let Some(header) = members.header(at).map_err(fail)? else { break };
            let own = layer::number(&header.as_old().size, "size").map_err(fail)?;
            let flag = header.as_old().linkflag[0];
            let content = at + BLOCK;
            if matches!(flag, b'x' | b'g' | b'L' | b'K') {
                let text = members.extended(content, own).map_err(fail)?;
                extended.take(flag, text).map_err(fail)?;
                at = content + own + layer::padding(own);
                continue;
            }
            let all = std::mem::take(&mut extended);
            let size = layer::stored_size(own, all.size).map_err(fail)?;
            let raw = all.name.unwrap_or_else(|| header.path_bytes().into_owned());
            let name = TreePath::parse(&raw).map_err(|reason| Error::Name {
                archive: source.to_string(),
                name: raw.escape_ascii().to_string(),
                reason,
            })?;
            let content = members.after_map(&header, content).map_err(fail)?;
            let size = if matches!(flag, b'1'..=b'6') { 0 } else { size };
            let next = content.checked_add(size).and_then(|n| n.checked_add(layer::padding(size)));
            // The padding of the last member may be missing.
            at = next.filter(|_| content + size <= end).ok_or_else(|| fail(Malformed::Truncated))?;
            let target = || {
                all.link.clone().or_else(|| header.link_name_bytes().map(Cow::into_owned)).unwrap_or_default()
            };
            let member = match flag {
                b'1' => Member::Link(TreePath::parse_link(&target()).ok()),
                b'2' => Member::Link(resolve(&name, &target())),
                0 | b'0' | b'7' => Member::File { at: content, size },
                _ => Member::Other,
            };
            let is_directory = flag == b'5' || name.is_root();
            if members.named.insert(name.clone(), member).is_some() && !is_directory {
                members.twice.get_or_insert(name);
            }
        }
        Ok(members)
    }

    /// The header at `at`; none at the end mark.
    fn header(&self, at: u64) -> std::result::Result<Option<tar::Header>, Malformed> {
        let mut header = tar::Header::new_old();
        let mut section = self.archive.skip(at);
        section.read_exact(header.as_mut_bytes()).map_err(|_| Malformed::Truncated)?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let sum = |all: &[u8]| all.iter().map(|&b| u64::from(b)).sum::<u64>();
        let want = sum(&bytes[..148]) + 8 * u64::from(b' ') + sum(&bytes[156..]);
        match layer::number(&header.as_old().cksum, "checksum") {
            Ok(got) if got == want => Ok(Some(header)),
            _ => Err(Malformed::Checksum),
        }
    }

    fn extended(&self, at: u64, size: u64) -> std::result::Result<Vec<u8>, Malformed> {
        if size > MAX_EXTENDED {
            return Err(Malformed::LongExtended(size));
        }
        let mut bytes = Vec::new();
        let mut section = self.archive.part(at, size).ok_or(Malformed::Truncated)?;
        section.read_to_end(&mut bytes).map_err(|_| Malformed::Truncated)?;
        Ok(bytes)
    }

    /// Where the content begins: after the blocks of an old GNU sparse file's map.
    fn after_map(&self, header: &tar::Header, mut at: u64) -> std::result::Result<u64, Malformed> {
        let mut more =
            header.as_old().linkflag[0] == b'S' && header.as_gnu().is_some_and(|gnu| gnu.isextended[0] != 0);
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            let read = self.archive.skip(at).read_exact(block.as_mut_bytes());
            read.map_err(|_| Malformed::Truncated)?;
            more = block.is_extended();
            at += BLOCK;
        }
        Ok(at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// Whether there is a member of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        TreePath::parse(name.as_bytes()).is_ok_and(|name| self.named.contains_key(&name))
    }

    /// Whether there is a member below the folder `name`.
    pub(super) fn has_below(&self, name: &str) -> bool {
        let parsed = TreePath::parse(name.as_bytes());
        parsed.is_ok_and(|folder| self.named.keys().any(|path| path.is_within(&folder)))
    }

    /// The content of the member `name`, through links; none where there is no such file.
    pub(super) fn get(&self, name: &str) -> Option<Section> {
        let mut name = TreePath::parse(name.as_bytes()).ok()?;
        for _ in 0..MAX_LINKS {
            match self.named.get(&name)? {
                Member::File { at, size } => return self.archive.part(*at, *size),
                Member::Link(target) => name = target.clone()?,
                Member::Other => return None,
            }
        }
        None
    }

    /// Refuses what no archive of images may have.
    pub(super) fn check(&self, source: &Source) -> Result<()> {
        let archive = source.to_string();
        if self.more {
            return Err(Error::Members { archive, most: MAX_MEMBERS });
        }
        let twice = self.twice.clone();
        twice.map_or(Ok(()), |name| Err(Error::Twice { archive, name }))
    }
}

impl Extended {
    fn take(&mut self, flag: u8, mut text: Vec<u8>) -> std::result::Result<(), Malformed> {
        match flag {
            b'x' => {
                let records = layer::parse_pax(&text)?;
                self.name = records.path.or(self.name.take());
                self.link = records.linkpath.or(self.link.take());
                self.size = records.size.or(self.size);
            }
            b'L' | b'K' => {
                while text.last() == Some(&0) {
                    text.pop();
                }
                *(if flag == b'L' { &mut self.name } else { &mut self.link }) = Some(text);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Where the symbolic link `name` leads within the archive; none where it leads out.
fn resolve(name: &TreePath, target: &[u8]) -> Option<TreePath> {
    let (parent, _) = name.split()?;
    let mut parts: Vec<&[u8]> = parent.as_bytes().split(|&b| b == b'/').filter(|p| !p.is_empty()).collect();
    if target.first() == Some(&b'/') {
        return None;
    }
    for part in target.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    TreePath::parse(&parts.join(&b'/')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        let name = TreePath::parse(b"abc/layer.tar").unwrap();
        for (target, want) in [
            ("../def/layer.tar", Some("def/layer.tar")),
            ("../x.tar", Some("x.tar")),
            ("./y", Some("abc/y")),
            ("../../etc/passwd", None),
            ("/etc/passwd", None),
            ("..", None),
        ] {
            let got = resolve(&name, target.as_bytes());
            assert_eq!(got.as_ref().map(TreePath::as_bytes), want.map(str::as_bytes), "{target}");
        }
    }
}
