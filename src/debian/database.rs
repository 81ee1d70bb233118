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
use super::unpack::{Unpacked, conffiles};
use super::{Error, Result};
use crate::sys::dir::Dir;
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// The name that dpkg's files use for a package.
pub(super) fn info_name(package: &Unpacked) -> String {
    let same = field(&package.control.paragraph, "Multi-Arch").is_some_and(|m| m == "same");
    let arch = field(&package.control.paragraph, "Architecture").unwrap_or_default();
    if same { format!("{}:{arch}", package.name) } else { package.name.clone() }
}

/// Writes the database of `packages` below `root`.
///
/// # Errors
/// [`Error::Sys`], [`Error::Io`].
pub(super) fn write(root: &Dir, packages: &[Unpacked]) -> Result<()> {
    let dpkg = make(root, "var/lib/dpkg")?;
    let info = make(root, "var/lib/dpkg/info")?;
    let triggers = make(root, "var/lib/dpkg/triggers")?;
    make(root, "var/lib/dpkg/updates")?;
    let mut status = String::new();
    for package in packages {
        let name = info_name(package);
        put(&info, &format!("{name}.list"), 0o644, lines(&package.list).as_bytes())?;
        for (member, mode, bytes) in &package.control.files {
            put(&info, &format!("{name}.{member}"), *mode, bytes)?;
        }
        status.push_str(&stanza(package));
    }
    put(&info, "format", 0o644, b"1\n")?;
    put(&dpkg, "status", 0o644, status.as_bytes())?;
    put(&dpkg, "available", 0o644, b"")?;
    put(&dpkg, "cmethopt", 0o644, b"apt apt\n")?;
    for (file, text) in interests(packages) {
        put(&triggers, &file, 0o644, text.as_bytes())?;
    }
    Ok(())
}

fn lines(list: &[String]) -> String {
    list.iter().fold(String::new(), |text, line| text + line + "\n")
}

/// A package's paragraph of the status file.
fn stanza(package: &Unpacked) -> String {
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
fn interests(packages: &[Unpacked]) -> BTreeMap<String, String> {
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
    use super::*;

    #[test]
    fn writes_what_dpkg_reads() {
        let file = |name: &str, text: &str| (name.to_string(), 0o644, text.as_bytes().to_vec());
        let package = Unpacked {
            name: "x".to_string(),
            control: Control {
                paragraph: "Package: x\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\nDescription: d\n long\n .\n"
                    .to_string(),
                files: vec![
                    file("conffiles", "/etc/x\nremove-on-upgrade /etc/old\n"),
                    file("triggers", "interest-noawait /usr/share/x # c\ninterest t\nactivate u\n"),
                ],
            },
            list: vec!["/.".to_string(), "/etc".to_string()],
        };
        assert_eq!(
            stanza(&package),
            "Package: x\nStatus: install ok unpacked\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\n\
             Description: d\n long\n .\nConffiles:\n /etc/x newconffile\n\n"
        );
        let interests = interests(&[package]);
        assert_eq!(interests["File"], "/usr/share/x x:amd64/noawait\n");
        assert_eq!(interests["t"], "x:amd64\n");
        assert_eq!(interests.len(), 2);
    }
}
