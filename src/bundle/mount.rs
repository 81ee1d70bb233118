//! Mounts as people write them: `--volume`, `--mount` and `--tmpfs`, as docker and podman have them.

use crate::sys::dir::Dir;
use oci_spec::runtime::{Mount, MountBuilder};
use rustix::fs::FileType;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// Options that a mount may have, as fstab(5) and runtime-spec name them.
const COMMON: [&str; 13] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "atime",
    "relatime",
    "nosymfollow",
    "symfollow",
];
const PROPAGATION: [&str; 8] =
    ["shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"];
/// The option by which the files of a volume become the container's user's.
const OWN: &str = "U";
/// What a tmpfs takes beyond those (tmpfs(5)); these have a value.
const TMPFS_VALUES: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge"];

/// `SRC:DST[:OPTION,…]`, a bind mount. `ro` is for mounts below too; `U` gives the files to the
/// container's user; `z` and `Z` are for hosts with `SELinux` and refused there.
///
/// # Errors
/// What is wrong with the text.
pub fn volume(text: &str) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts[..] {
        [source, destination] => (source, destination, ""),
        [source, destination, options] => (source, destination, options),
        _ => return Err("wanted SRC:DST[:OPTIONS]".to_string()),
    };
    if !source.contains('/') {
        return Err(format!("{source:?} is no path, and volumes by name are not there: ./{source}"));
    }
    bind(source, destination, options.split(',').filter(|o| !o.is_empty()), true)
}

/// `DST[:OPTION,…]`, a tmpfs: `nosuid,nodev,noexec` unless told otherwise.
///
/// # Errors
/// What is wrong with the text.
pub fn tmpfs(text: &str) -> Result<Mount, String> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    in_memory(destination, options.split(',').filter(|o| !o.is_empty()).map(String::from))
}

/// `type=bind|tmpfs|devpts|mqueue,KEY=VALUE,…`.
///
/// # Errors
/// What is wrong with the text.
pub fn mount(text: &str) -> Result<Mount, String> {
    let (mut kind, mut source, mut destination) = ("", None, None);
    let (mut options, mut recursive) = (Vec::new(), true);
    for word in text.split(',') {
        let (key, value) = word.split_once('=').map_or((word, None), |(k, v)| (k, Some(v)));
        let wanted = || value.filter(|v| !v.is_empty()).ok_or_else(|| format!("{key} wants a value"));
        let truth = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("{key} is true or false, not {other:?}")),
        };
        match key {
            "type" => kind = wanted()?,
            "source" | "src" => source = Some(wanted()?),
            "target" | "destination" | "dst" => destination = Some(wanted()?),
            "readonly" | "ro" | "rw" => {
                options.push(if truth()? == (key != "rw") { "ro" } else { "rw" }.to_string());
            }
            "bind-propagation" => options.push(wanted()?.to_string()),
            "bind-nonrecursive" => recursive = !truth()?,
            "tmpfs-size" => options.push(format!("size={}", wanted()?)),
            "tmpfs-mode" => options.push(format!("mode={}", wanted()?)),
            "relabel" => options.push(if wanted()? == "private" { "Z" } else { "z" }.to_string()),
            "chown" | OWN => {
                if truth()? {
                    options.push(OWN.to_string());
                }
            }
            "tmpcopyup" if truth()? => options.push(key.to_string()),
            "tmpcopyup" | "notmpcopyup" | "consistency" => {}
            _ => options.push(word.to_string()),
        }
    }
    let destination = destination.ok_or("wanted destination=DIR")?;
    match (kind, source) {
        ("bind", Some(source)) => bind(source, destination, options.iter().map(String::as_str), recursive),
        ("bind", None) => Err("a bind mount wants source=PATH".to_string()),
        (_, Some(_)) => Err(format!("type={kind} takes no source")),
        ("tmpfs", None) => in_memory(destination, options.into_iter()),
        ("devpts", None) => {
            let usual = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
            made(destination, "devpts", usual.map(String::from).into_iter().chain(options).collect())
        }
        ("mqueue", None) => {
            let usual = ["nosuid", "nodev", "noexec"].map(String::from);
            made(destination, "mqueue", usual.into_iter().chain(options).collect())
        }
        ("", _) => Err("wanted type=bind, tmpfs, devpts or mqueue".to_string()),
        (other, _) => Err(format!("type {other:?} is not one of bind, tmpfs, devpts, mqueue")),
    }
}

/// The mount as config.json has it.
#[must_use]
pub fn plain(mount: &Mount) -> Mount {
    let options = mount.options().iter().flatten().filter(|o| *o != OWN).cloned().collect();
    let mut mount = mount.clone();
    mount.set_options(Some(options));
    mount
}

/// Gives the source of `mount` with all below it to a user and a group, where that is asked
/// for. Links are not followed, what is mounted below stays as it is.
///
/// # Errors
/// The first failed call.
pub fn give(mount: &Mount, uid: u32, gid: u32) -> super::Result<()> {
    let asked = mount.options().iter().flatten().any(|o| o == OWN);
    let Some(source) = mount.source().as_deref().filter(|_| asked) else { return Ok(()) };
    let real = super::io_error("resolve", source, source.canonicalize())?;
    let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
        let (option, reason) = ("--volume", "the host's / is not given away");
        return Err(super::Error::Setting { option, value: source.display().to_string(), reason });
    };
    let parent = Dir::open(parent)?;
    if !real.is_dir() {
        return Ok(parent.chown(name, uid, gid)?);
    }
    let device = parent.below(Path::new(name))?.stat_self()?.st_dev;
    let mut folders = vec![PathBuf::from(name)];
    while let Some(folder) = folders.pop() {
        let dir = parent.below(&folder)?;
        if dir.stat_self()?.st_dev != device {
            continue;
        }
        dir.chown(OsStr::new("."), uid, gid)?;
        for (name, kind) in dir.list()? {
            if kind == FileType::Directory {
                folders.push(folder.join(name));
            } else {
                dir.chown(&name, uid, gid)?;
            }
        }
    }
    Ok(())
}

fn bind<'a>(
    source: &str,
    destination: &str,
    words: impl Iterator<Item = &'a str>,
    recursive: bool,
) -> Result<Mount, String> {
    let path = std::path::absolute(source).map_err(|e| format!("{source:?}: {e}"))?;
    if !path.exists() {
        return Err(format!("{} does not exist", path.display()));
    }
    let mut options = vec![if recursive { "rbind" } else { "bind" }.to_string()];
    let mut propagates = false;
    for word in words {
        match word {
            "rbind" | "bind" => options[0] = word.to_string(),
            // For mounts below too; runtimes that know no `rro` have the `ro`.
            "ro" => options.extend(["ro", "rro"].map(String::from)),
            OWN => options.push(word.to_string()),
            "z" | "Z" if !Path::new("/sys/fs/selinux/enforce").exists() => {}
            _ if COMMON.contains(&word) => options.push(word.to_string()),
            _ if PROPAGATION.contains(&word) => {
                propagates = true;
                options.push(word.to_string());
            }
            _ => return Err(format!("option {word:?} of a bind mount is not known here")),
        }
    }
    if !propagates {
        options.push("rprivate".to_string());
    }
    let mount = MountBuilder::default().destination(clean(destination)?).typ("bind").source(path);
    mount.options(options).build().map_err(|e| e.to_string())
}

fn in_memory(destination: &str, words: impl Iterator<Item = String>) -> Result<Mount, String> {
    let mut options = ["nosuid", "nodev", "noexec"].map(String::from).to_vec();
    for word in words {
        let known = match word.split_once('=') {
            Some((key, value)) => TMPFS_VALUES.contains(&key) && !value.is_empty(),
            None => {
                ["tmpcopyup", "rprivate", "private"].contains(&word.as_str())
                    || COMMON.contains(&word.as_str())
            }
        };
        if !known {
            return Err(format!("option {word:?} of a tmpfs is not known here"));
        }
        options.retain(|o| o.strip_prefix("no") != Some(word.as_str()));
        options.push(word);
    }
    made(destination, "tmpfs", options)
}

fn made(destination: &str, kind: &str, options: Vec<String>) -> Result<Mount, String> {
    let mount = MountBuilder::default().destination(clean(destination)?).typ(kind).source(kind);
    mount.options(options).build().map_err(|e| e.to_string())
}

/// A path inside: absolute, without `..`, and not the root itself.
///
/// # Errors
/// What is wrong with it.
pub fn clean(path: &str) -> Result<PathBuf, String> {
    let leads_out = Path::new(path).components().any(|c| c == Component::ParentDir);
    if !path.starts_with('/') || leads_out || path.contains('\0') {
        return Err(format!("{path:?} is not an absolute path without .."));
    }
    let path: PathBuf = Path::new(path).components().collect();
    if path == Path::new("/") { Err("/ is the root filesystem's".to_string()) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(mount: &Mount) -> String {
        let (options, source) = (mount.options().clone().unwrap(), mount.source().clone().unwrap());
        let kind = mount.typ().clone().unwrap();
        format!("{kind} {} {} {}", source.display(), mount.destination().display(), options.join(","))
    }

    #[test]
    fn what_people_write() {
        type Parse = fn(&str) -> Result<Mount, String>;
        for (parse, text, wanted) in [
            (volume as Parse, "/etc:/x", "bind /etc /x rbind,rprivate"),
            (volume, "/etc:/x/./y/:ro,z", "bind /etc /x/y rbind,ro,rro,rprivate"),
            (volume, "/etc:/x:rslave,nosuid,bind", "bind /etc /x bind,rslave,nosuid"),
            (volume, "/etc:/x:U", "bind /etc /x rbind,U,rprivate"),
            (mount, "type=bind,src=/etc,dst=/x,chown=true", "bind /etc /x rbind,U,rprivate"),
            (tmpfs, "/t", "tmpfs tmpfs /t nosuid,nodev,noexec"),
            (tmpfs, "/t:size=1m,exec,mode=700", "tmpfs tmpfs /t nosuid,nodev,size=1m,exec,mode=700"),
            (mount, "type=bind,src=/etc,dst=/x,ro", "bind /etc /x rbind,ro,rro,rprivate"),
            (mount, "type=bind,source=/etc,target=/x,readonly=false", "bind /etc /x rbind,rw,rprivate"),
            (
                mount,
                "type=bind,source=/etc,destination=/x,bind-propagation=rshared,bind-nonrecursive",
                "bind /etc /x bind,rshared",
            ),
            (
                mount,
                "type=tmpfs,destination=/t,tmpfs-size=4k,tmpfs-mode=1777",
                "tmpfs tmpfs /t nosuid,nodev,noexec,size=4k,mode=1777",
            ),
            (mount, "type=mqueue,dst=/q", "mqueue mqueue /q nosuid,nodev,noexec"),
        ] {
            assert_eq!(parse(text).map(|m| shown(&m)).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        type Parse = fn(&str) -> Result<Mount, String>;
        for (parse, text, said) in [
            (volume as Parse, "/etc", "wanted SRC:DST"),
            (volume, "data:/x", "volumes by name"),
            (volume, "/no/such/folder:/x", "/no/such/folder does not exist"),
            (volume, "/etc:x", "absolute path"),
            (volume, "/etc:/x/../y", "absolute path"),
            (volume, "/etc:/", "the root filesystem's"),
            (volume, "/etc:/x:fast", "\"fast\""),
            (tmpfs, "t", "absolute path"),
            (tmpfs, "/t:size=", "size="),
            (tmpfs, "/t:rbind", "rbind"),
            (mount, "type=bind,dst=/x", "source=PATH"),
            (mount, "type=tmpfs,src=/etc,dst=/x", "takes no source"),
            (mount, "type=volume,dst=/x", "\"volume\""),
            (mount, "dst=/x", "wanted type="),
            (mount, "type=tmpfs", "destination=DIR"),
            (mount, "type=bind,src=/etc,dst=/x,ro=maybe", "maybe"),
        ] {
            let e = parse(text).map(|m| shown(&m)).unwrap_err();
            assert!(e.contains(said), "{text}: {e}");
        }
    }
}
