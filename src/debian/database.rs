//! dpkg's database, written as `dpkg --unpack` would leave it (dpkg(1), "FILES").
//!
//! ```text
//! var/lib/dpkg/status             every package `install ok unpacked`, conffiles `newconffile`
//! var/lib/dpkg/info/NAME.*        list of files, all members of the control archive but control
//! var/lib/dpkg/triggers/File      file triggers: `PATH PACKAGE[/noawait]`
//! var/lib/dpkg/triggers/TRIGGER   named triggers: `PACKAGE[/noawait]`
//! ```
//!
//! Packages marked `Multi-Arch: same` have `NAME:ARCH` in place of the name. dpkg itself
//! writes all else, and this in its own order, when it configures the packages.

use super::control::{field, fields};
use super::unpack::{Job, Unpacked, conffiles};
use super::{Error, Result};
use crate::sys::dir::Dir;
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::Path;

/// The name that dpkg's files use for a package.
pub(super) fn info_name(package: &Job) -> String {
    let same = field(&package.control.paragraph, "Multi-Arch").is_some_and(|m| m == "same");
    let arch = field(&package.control.paragraph, "Architecture").unwrap_or_default();
    if same { format!("{}:{arch}", package.name) } else { package.name.clone() }
}

/// Begins the database below `root`, with `packages`.
///
/// # Errors
/// [`Error::Sys`], [`Error::Io`].
pub(super) fn write(root: &Dir, packages: &[Unpacked]) -> Result<()> {
    let dpkg = make(root, "var/lib/dpkg")?;
    let info = make(root, "var/lib/dpkg/info")?;
    make(root, "var/lib/dpkg/updates")?;
    put(&info, "format", 0o644, b"1\n")?;
    put(&dpkg, "available", 0o644, b"")?;
    put(&dpkg, "cmethopt", 0o644, b"apt apt\n")?;
    add(root, packages)
}

/// Adds `packages` to it.
///
/// # Errors
/// As of [`write`].
pub(super) fn add(root: &Dir, packages: &[Unpacked]) -> Result<()> {
    let dpkg = make(root, "var/lib/dpkg")?;
    let info = make(root, "var/lib/dpkg/info")?;
    let triggers = make(root, "var/lib/dpkg/triggers")?;
    let mut status = read(&dpkg, "status")?;
    for Unpacked { job, list } in packages {
        let name = info_name(job);
        put(&info, &format!("{name}.list"), 0o644, lines(list).as_bytes())?;
        for (member, mode, bytes) in &job.control.files {
            put(&info, &format!("{name}.{member}"), *mode, bytes)?;
        }
        status.push_str(&stanza(job));
    }
    put(&dpkg, "status", 0o644, status.as_bytes())?;
    for (file, more) in interests(packages.iter().map(|p| p.job)) {
        let text = read(&triggers, &file)? + &more;
        put(&triggers, &file, 0o644, text.as_bytes())?;
    }
    Ok(())
}

/// Takes a file out of the list of a package that lost it to another one.
///
/// # Errors
/// As of [`write`].
pub(super) fn lose(root: &Dir, package: &Job, path: &Path) -> Result<()> {
    let info = make(root, "var/lib/dpkg/info")?;
    let (name, gone) = (format!("{}.list", info_name(package)), format!("/{}", path.display()));
    let list = read(&info, &name)?;
    let left: Vec<String> = list.lines().filter(|line| *line != gone).map(str::to_string).collect();
    put(&info, &name, 0o644, lines(&left).as_bytes())
}

/// Which file triggers some paths set off (deb-triggers(5)).
///
/// # Errors
/// As of [`write`].
pub(super) fn set_off(root: &Dir, packages: &[Unpacked]) -> Result<BTreeSet<String>> {
    let interests = read(&make(root, "var/lib/dpkg/triggers")?, "File")?;
    let paths = interests.lines().filter_map(|line| line.split_whitespace().next());
    let below =
        |path: &str, trigger| path.strip_prefix(trigger).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    let lists = || packages.iter().flat_map(|package| &package.list);
    Ok(paths.filter(|trigger| lists().any(|path| below(path, *trigger))).map(str::to_string).collect())
}

fn lines(list: &[String]) -> String {
    list.iter().fold(String::new(), |text, line| text + line + "\n")
}

/// The text of a file of dpkg's, empty where there is none.
pub(super) fn read(dir: &Dir, name: &str) -> Result<String> {
    if dir.stat(OsStr::new(name))?.is_none() {
        return Ok(String::new());
    }
    let mut text = String::new();
    let path = dir.path().join(name);
    dir.file(OsStr::new(name))?.read_to_string(&mut text).map_err(|e| Error::io("read", &path, e))?;
    Ok(text)
}

/// A package's paragraph of the status file.
fn stanza(package: &Job) -> String {
    let mut text = format!("Package: {}\nStatus: install ok unpacked\n", package.name);
    for (name, value) in fields(&package.control.paragraph) {
        if !name.eq_ignore_ascii_case("Package") && !name.eq_ignore_ascii_case("Status") {
            let _ = writeln!(text, "{name}: {value}");
        }
    }
    let conffiles = conffiles(&package.control);
    if !conffiles.is_empty() {
        text.push_str("Conffiles:\n");
        for path in conffiles {
            let _ = writeln!(text, " /{} newconffile", path.display());
        }
    }
    text + "\n"
}

/// The files of `triggers/`: who is interested in what (deb-triggers(5)).
fn interests<'a>(packages: impl Iterator<Item = &'a Job>) -> BTreeMap<String, String> {
    let mut files = BTreeMap::from([("File".to_string(), String::new())]);
    for package in packages {
        let text = package.control.file("triggers");
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let (Some(directive), Some(trigger)) = (words.next(), words.next()) else { continue };
            let suffix = match directive {
                "interest" | "interest-await" => "",
                "interest-noawait" => "/noawait",
                _ => continue,
            };
            // dpkg(1) writes the architecture for Multi-Arch: same only.
            let who = info_name(package);
            if trigger.starts_with('/') {
                let _ = writeln!(files.entry("File".to_string()).or_default(), "{trigger} {who}{suffix}");
            } else if !trigger.contains('/') && trigger != "." && trigger != ".." {
                let _ = writeln!(files.entry(trigger.to_string()).or_default(), "{who}{suffix}");
            }
        }
    }
    files
}

/// Opens a directory of the root, made where it is missing.
pub(super) fn make(root: &Dir, path: &str) -> Result<Dir> {
    let mut at = root.again()?;
    let mut so_far = std::path::PathBuf::new();
    for name in Path::new(path) {
        match at.mkdir(name) {
            Ok(()) => at.chmod(name, 0o755)?,
            Err(e) if e.errno() == Some(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        so_far.push(name);
        at = root.in_root(&so_far)?;
    }
    Ok(at)
}

/// Writes a new file in place of what has its name.
pub(super) fn put(dir: &Dir, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    dir.remove(OsStr::new(name))?;
    let mut file = dir.create(OsStr::new(name))?;
    let path = dir.path().join(name);
    file.write_all(bytes).map_err(|e| Error::io("write", &path, e))?;
    fchmod(&file, Mode::from_raw_mode(mode)).map_err(|e| Error::io("chmod", &path, e.into()))
}

#[cfg(test)]
mod tests {
    use super::super::deb::Control;
    use super::super::unpack::tests::job;
    use super::*;

    #[test]
    fn writes_what_dpkg_reads() {
        let file = |name: &str, text: &str| (name.to_string(), 0o644, text.as_bytes().to_vec());
        let mut package = job("x", "", &[]);
        package.control = Control {
            paragraph:
                "Package: x\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\nDescription: d\n long\n .\n"
                    .to_string(),
            files: vec![
                file("conffiles", "/etc/x\nremove-on-upgrade /etc/old\n"),
                file("triggers", "interest-noawait /usr/share/x # c\ninterest t\nactivate u\n"),
            ],
        };
        assert_eq!(
            stanza(&package),
            "Package: x\nStatus: install ok unpacked\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\n\
             Description: d\n long\n .\nConffiles:\n /etc/x newconffile\n\n"
        );
        let interests = interests([&package].into_iter());
        assert_eq!(interests["File"], "/usr/share/x x:amd64/noawait\n");
        assert_eq!(interests["t"], "x:amd64\n");
        assert_eq!(interests.len(), 2);
    }

    #[test]
    fn adds_to_what_is_there() {
        let tmp = tempfile::tempdir().unwrap();
        let root = Dir::open(tmp.path()).unwrap();
        let triggers = |text: &str| vec![("triggers".to_string(), 0o644, text.as_bytes().to_vec())];
        let [mut a, b] = [job("a", "Package: a\n", &[]), job("b", "Package: b\n", &[])];
        a.control.files = triggers("interest-noawait /usr/share/x\ninterest /usr/share/y\n");
        let list = |paths: &[&str]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
        write(&root, &[Unpacked { job: &a, list: list(&["/f", "/g"]) }]).unwrap();
        let later = [Unpacked { job: &b, list: list(&["/usr/share/x/f", "/usr/share/yes"]) }];
        add(&root, &later).unwrap();
        lose(&root, &a, Path::new("f")).unwrap();
        let read = |name: &str| read(&root.in_root(Path::new("var/lib/dpkg")).unwrap(), name).unwrap();
        assert_eq!(read("status").matches("Status: install ok unpacked\n").count(), 2);
        let info = root.in_root(Path::new("var/lib/dpkg/info")).unwrap();
        assert_eq!(super::read(&info, "a.list").unwrap(), "/g\n");
        assert_eq!(set_off(&root, &later).unwrap(), BTreeSet::from(["/usr/share/x".to_string()]));
    }
}
