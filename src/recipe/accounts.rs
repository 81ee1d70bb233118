//! Groups and users, added to `/etc/group`, `/etc/passwd` and, where they are there, their shadows
//! (passwd(5), group(5), shadow(5)). Native: no program of the root runs, and there need be none.

use super::files::{directory, place};
use super::plan::Step;
use super::types::{Group, User};
use super::{Error, Result};
use crate::layer;
use crate::sys::Call;
use crate::sys::dir::Dir;
use crate::tree::{Kind, Meta, Time};
use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

/// The largest of these files that is read, in bytes.
const MAX: u64 = 4 << 20;

/// A file of lines with fields between colons.
struct Lines {
    name: &'static str,
    text: String,
    there: bool,
    meta: Meta,
}

impl Lines {
    fn read(etc: &Dir, name: &'static str, meta: Meta) -> Result<Self> {
        let file = OsStr::new(name);
        let Some(found) = layer::meta(etc, file)? else {
            return Ok(Self { name, text: String::new(), there: false, meta });
        };
        let opened = etc.regular(file)?;
        let odd = || Error::Accounts { file: name, reason: "no regular file".into() };
        let mut bytes = Vec::new();
        let (file, _) = opened.ok_or_else(odd)?;
        file.take(MAX + 1).read_to_end(&mut bytes).call(|| format!("read(etc/{name})"))?;
        let text = String::from_utf8(bytes).ok().filter(|t| t.len() as u64 <= MAX);
        let text =
            text.ok_or_else(|| Error::Accounts { file: name, reason: "not UTF-8, or too large".into() })?;
        Ok(Self { name, text, there: true, meta: Meta { mtime: meta.mtime, ..found } })
    }

    fn fields(&self) -> impl Iterator<Item = Vec<&str>> {
        self.text.lines().map(|line| line.split(':').collect())
    }

    /// The numbers that are taken: the third field.
    fn number(&self, wanted: Option<u32>, system: bool) -> Result<u32> {
        let taken: Vec<u32> = self.fields().filter_map(|f| f.get(2)?.parse().ok()).collect();
        match wanted {
            Some(number) if taken.contains(&number) => {
                Err(Error::Accounts { file: self.name, reason: format!("{number} is taken") })
            }
            Some(number) => Ok(number),
            None => {
                let mut range = if system { 100..1000 } else { 1000..60000 };
                let free = range.find(|number| !taken.contains(number));
                free.ok_or_else(|| Error::Accounts { file: self.name, reason: "no free number".into() })
            }
        }
    }

    fn find(&self, name: &str) -> Option<Vec<&str>> {
        self.fields().find(|f| f.first() == Some(&name))
    }

    fn push(&mut self, line: &str) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text += line;
        self.text.push('\n');
    }

    fn write(&self, etc: &Dir) -> Result<()> {
        place(etc, OsStr::new(self.name), &Kind::File, &self.meta, self.text.as_bytes())
    }
}

/// Owner, mode and time of such a file that is new.
fn new(mode: u32, time: i64) -> Meta {
    Meta { mode, mtime: Time { seconds: time, nanos: 0 }, ..Meta::default() }
}

/// `/etc` of a root, made where it is missing.
fn etc(root: &Path, time: i64) -> Result<Dir> {
    let top = Dir::open(root)?;
    if top.stat(OsStr::new("etc"))?.is_none() {
        directory(&top, OsStr::new("etc"), (0, 0), time)?;
    }
    Ok(top.in_root(Path::new("/etc"))?)
}

/// Adds a group.
pub(super) fn group(root: &Path, group: &Group, step: &Step) -> Result<()> {
    let etc = etc(root, step.time)?;
    let mut groups = Lines::read(&etc, "group", new(0o644, step.time))?;
    if groups.find(&group.name).is_some() {
        return Err(step.place.error(format!("a group {} is there already", group.name)));
    }
    let gid = groups.number(group.gid, group.system)?;
    add_group(&etc, &mut groups, &group.name, gid, step)?;
    groups.write(&etc)
}

fn add_group(etc: &Dir, groups: &mut Lines, name: &str, gid: u32, step: &Step) -> Result<()> {
    groups.push(&format!("{name}:x:{gid}:"));
    let mut shadow = Lines::read(etc, "gshadow", new(0o640, step.time))?;
    if shadow.there {
        shadow.push(&format!("{name}:!::"));
        shadow.write(etc)?;
    }
    Ok(())
}

/// Adds a user.
pub(super) fn user(root: &Path, user: &User, step: &Step) -> Result<()> {
    let etc = etc(root, step.time)?;
    let (mut users, mut groups) = (
        Lines::read(&etc, "passwd", new(0o644, step.time))?,
        Lines::read(&etc, "group", new(0o644, step.time))?,
    );
    if users.find(&user.name).is_some() {
        return Err(step.place.error(format!("a user {} is there already", user.name)));
    }
    let uid = users.number(user.uid, user.system)?;
    let gid = primary(&etc, &mut groups, user, uid, step)?;
    for name in &user.groups {
        join(&mut groups, name, &user.name).map_err(|reason| step.place.error(reason))?;
    }
    let given = user.home.clone();
    let home = given.clone().unwrap_or_else(|| {
        if user.system { "/nonexistent".to_string() } else { format!("/home/{}", user.name) }
    });
    let shell = user.shell.as_deref().unwrap_or(if user.system { "/usr/sbin/nologin" } else { "/bin/sh" });
    let fields = [&user.comment, &home, shell];
    if fields.iter().any(|f| f.contains([':', '\n'])) || !home.starts_with('/') {
        return Err(step.place.error("home is an absolute path; no colon in home, shell and comment"));
    }
    users.push(&format!("{}:x:{uid}:{gid}:{}:{home}:{shell}", user.name, user.comment));
    let mut shadow = Lines::read(&etc, "shadow", new(0o640, step.time))?;
    if shadow.there {
        shadow.push(&format!("{}:!:{}:0:99999:7:::", user.name, step.time / 86400));
        shadow.write(&etc)?;
    }
    users.write(&etc)?;
    groups.write(&etc)?;
    if given.is_some() || !user.system {
        home_of(&Dir::open(root)?, Path::new(&home), (uid, gid), step.time)?;
    }
    Ok(())
}

/// The number of a user's first group, which is made where none is given.
fn primary(etc: &Dir, groups: &mut Lines, user: &User, uid: u32, step: &Step) -> Result<u32> {
    if let Some(group) = &user.group {
        let known = groups.find(group).and_then(|f| f.get(2)?.parse().ok());
        let number = known.or_else(|| group.parse().ok());
        return number.ok_or_else(|| step.place.error(format!("no group {group}")));
    }
    if let Some(gid) = groups.find(&user.name).and_then(|f| f.get(2)?.parse().ok()) {
        return Ok(gid);
    }
    let gid = groups.number(Some(uid), user.system).or_else(|_| groups.number(None, user.system))?;
    add_group(etc, groups, &user.name, gid, step)?;
    Ok(gid)
}

/// Makes a user a member of a group.
fn join(groups: &mut Lines, group: &str, user: &str) -> std::result::Result<(), String> {
    let mut found = false;
    let lines = groups.text.lines().map(|line| {
        if line.split(':').next() != Some(group) {
            return line.to_string();
        }
        found = true;
        let comma = if line.ends_with(':') { "" } else { "," };
        format!("{line}{comma}{user}")
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    groups.text = text;
    if found { Ok(()) } else { Err(format!("no group {group}")) }
}

/// Makes a home directory where nothing is, and those above it, which are root's.
fn home_of(root: &Dir, path: &Path, owner: (u32, u32), time: i64) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    if root.in_root(path).is_ok() {
        return Ok(());
    }
    home_of(root, parent, (0, 0), time)?;
    directory(&root.in_root(parent)?, name, owner, time)
}
