//! Copy steps: files put into a root, which is another's and not trusted.

use super::context::{self, Directory, DockerCopy, Found};
use super::inputs::{split, with_libraries};
use super::plan::Step;
use super::types::Copy;
use super::{Error, Result};
use crate::bundle::users;
use crate::layer::{self, Modes, Owner, Placing, TarWriter, WriteOptions};
use crate::oci::Compression;
use crate::store::Limits;
use crate::sys::Call;
use crate::sys::dir::Dir;
use crate::sys::userns::UserIds;
use crate::tree::{Kind, Meta, Time, TreePath};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is copied: a name in a directory, or with `.` all that is in one.
struct Source {
    dir: Dir,
    name: OsString,
    stat: Stat,
}

/// Does a copy step into `root`, from beside the recipe or out of the root `from`. Limits are those of tars that
/// are unpacked.
pub(super) fn copy(
    copy: &Copy,
    step: &Step,
    from: Option<&Path>,
    root: &Path,
    (options, limits): (&WriteOptions, &Limits),
) -> Result<()> {
    let mut options = options.clone();
    let shape = &mut options.shape;
    if from.is_none() {
        shape.time = Some(step.time);
    }
    if let Some(owner) = &copy.owner {
        let ids = users::of_root(root, owner)?;
        shape.owner = Some((ids.uid, ids.gid));
    }
    if let Some(mode) = copy.bits() {
        shape.modes = if copy.docker.is_some() { Modes::All(mode) } else { Modes::Files(mode) };
    }
    let target = Dir::open(root)?;
    if let Some(text) = &copy.content {
        let path = Path::new(&copy.to);
        let dir = made(&target, path.parent().unwrap_or(Path::new("/")), &options, step.time)?;
        let (uid, gid) = options.shape.owner.unwrap_or((0, 0));
        let mode = if let Modes::Files(mode) | Modes::All(mode) = options.shape.modes { mode } else { 0o644 };
        let meta = Meta { mode, uid, gid, mtime: at(step.time), ..Meta::default() };
        return place(&dir, path.file_name().unwrap_or_default(), &Kind::File, &meta, text.as_bytes());
    }
    if let Some(docker) = &copy.docker {
        let other = Dir::open(from.unwrap_or(&docker.context))?;
        return as_docker(copy, docker, &other, &target, (&options, limits), step.time);
    }
    if !copy.program.is_empty() {
        return programs(copy, &target, &options, step.time);
    }
    let folder = copy.to.ends_with('/') || copy.from.len() > 1;
    let other = from.map(Dir::open).transpose()?;
    for path in &copy.from {
        let source = source(path, step, other.as_ref())?;
        let all = source.name == OsStr::new(".");
        let own = (!all).then_some(source.name.as_os_str());
        put(&source, &options, place_in(&target, Path::new(&copy.to), folder, own), step.time)?;
    }
    Ok(())
}

/// Does COPY or ADD of a Dockerfile: of folders goes what is in them, files go into the folder `to` where it is one.
fn as_docker(
    copy: &Copy,
    docker: &DockerCopy,
    from: &Dir,
    target: &Dir,
    (options, limits): (&WriteOptions, &Limits),
    time: i64,
) -> Result<()> {
    let to = Path::new(&copy.to);
    let sources = copy.from.iter().map(|pattern| context::find(from, pattern, docker));
    let sources: Vec<_> = sources.collect::<layer::Result<Vec<_>>>()?.into_iter().flatten().collect();
    if sources.is_empty() {
        return Ok(context::missing(&copy.from.join(" "), docker)?);
    }
    let folder = copy.to.ends_with('/') || sources.len() > 1;
    for found in sources {
        let options = found.options(options);
        if docker.unpack && !found.is_dir() {
            // What is in a tar keeps its owners.
            let owner = options.shape.owner.filter(|_| copy.owner.is_some());
            let owner = owner.map_or_else(|| placing().owner, |(u, g)| Owner::One(u, g));
            if unpacked(&found, to, target, &Placing { owner, limits: *limits }, time)? {
                continue;
            }
        }
        let own = (!found.is_dir()).then_some(found.called.as_os_str());
        let source = Source { dir: found.dir, name: found.name, stat: found.stat };
        put(&source, &options, place_in(target, to, folder, own), time)?;
    }
    Ok(())
}

/// Unpacks a tar into the folder `to`; whether it is one.
fn unpacked(found: &Found, to: &Path, target: &Dir, placing: &Placing, time: i64) -> Result<bool> {
    let Some((file, _)) = found.dir.regular(&found.name)? else { return Ok(false) };
    let tar = context::tar_in(&file).call(|| format!("read({})", found.called.display()))?;
    let Some((tar, compression)) = tar else { return Ok(false) };
    let mut options = WriteOptions::default();
    if let Owner::One(uid, gid) = placing.owner {
        options.shape.owner = Some((uid, gid));
    }
    let dir = made(target, to, &options, time)?;
    layer::place(tar, compression, &dir, placing)?;
    Ok(true)
}

/// Makes a directory where it is missing.
pub(super) fn make_directory(directory: &Directory, root: &Path, time: i64) -> Result<()> {
    let owner = directory.owner.as_ref().map(|owner| users::of_root(root, owner)).transpose()?;
    let mut options = WriteOptions::default();
    options.shape.owner = owner.map(|ids| (ids.uid, ids.gid));
    made(&Dir::open(root)?, Path::new(&directory.path), &options, time).map(drop)
}

/// Finds what is copied: beside the recipe, or in the root `other`.
fn source(path: &str, step: &Step, other: Option<&Dir>) -> Result<Source> {
    let (dir, name) = match other {
        None => split(&step.place.beside(path))?,
        Some(root) => {
            let path = Path::new(path);
            let whole = path.as_os_str().as_bytes();
            match path.file_name() {
                Some(name) if !whole.ends_with(b"/") && !whole.ends_with(b"/.") => {
                    (root.in_root(path.parent().unwrap_or(Path::new("/")))?, name.to_os_string())
                }
                _ => (root.in_root(path)?, ".".into()),
            }
        }
    };
    match dir.stat(&name)? {
        Some(stat) => Ok(Source { dir, name, stat }),
        None => Ok(Err(Errno::NOENT).call(|| format!("stat({path})"))?),
    }
}

/// Where something goes: a directory of a root and a name in it; without a name into the directory itself.
#[derive(Clone, Copy)]
struct Target<'a> {
    root: &'a Dir,
    into: &'a Path,
    name: Option<&'a OsStr>,
}

/// Where what is copied to `to` goes: what is in a folder, which has no `own` name, into the folder `to`; a file
/// or a folder into it, where it is to be or is a `folder`, or under its name.
fn place_in<'a>(root: &'a Dir, to: &'a Path, folder: bool, own: Option<&'a OsStr>) -> Target<'a> {
    let (into, name) = if own.is_none() || folder || root.in_root(to).is_ok() {
        (to, own)
    } else {
        (to.parent().unwrap_or(Path::new("/")), to.file_name())
    };
    Target { root, into, name }
}

/// Puts `source` where it goes; all that is in it where that has no name. Directories that are made for it are of
/// `time`.
fn put(source: &Source, options: &WriteOptions, target: Target, time: i64) -> Result<()> {
    let Target { root, into, name } = target;
    let dir = made(root, into, options, time)?;
    let target = name.map_or_else(|| Ok(TreePath::root()), one)?;
    let is_dir = FileType::from_raw_mode(source.stat.st_mode).is_dir();
    if name.is_none() && !is_dir {
        return Ok(Err(Errno::NOTDIR).call(|| format!("open({})", source.dir.path().display()))?);
    }
    let mut options = options.clone();
    // A directory that is there stays as it is.
    options.shape.bare = name.is_none();
    layer::copy_into((&source.dir, &source.name), &options, (&dir, &target), &placing())?;
    Ok(())
}

fn placing() -> Placing {
    Placing { owner: Owner::Kept(UserIds::default()), limits: Limits::none() }
}

const fn at(seconds: i64) -> Time {
    Time { seconds, nanos: 0 }
}

fn one(name: &OsStr) -> Result<TreePath> {
    TreePath::parse(name.as_bytes()).map_err(|_| Error::Name { name: name.to_os_string() })
}

/// Opens the directory `path` of `root`; what is missing of it is made.
fn made(root: &Dir, path: &Path, options: &WriteOptions, time: i64) -> Result<Dir> {
    if let Ok(dir) = root.in_root(path) {
        return Ok(dir);
    }
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        let above = made(root, parent, options, time)?;
        if above.stat(name)?.is_none() {
            directory(&above, name, options.shape.owner.unwrap_or((0, 0)), time)?;
        }
    }
    Ok(root.in_root(path)?)
}

/// Makes the directory `name` with mode 0755.
pub(super) fn directory(dir: &Dir, name: &OsStr, (uid, gid): (u32, u32), time: i64) -> Result<()> {
    let meta = Meta { mode: 0o755, uid, gid, mtime: at(time), ..Meta::default() };
    place(dir, name, &Kind::Directory, &meta, &[])
}

/// Puts a file into `dir`, in place of what has the name. Whose it is, is kept also where this user cannot
/// give it away.
pub(super) fn place(dir: &Dir, name: &OsStr, kind: &Kind, meta: &Meta, content: &[u8]) -> Result<()> {
    let mut tar = TarWriter::new(Vec::new());
    let written = tar.entry(&one(name)?, kind, meta, content.len() as u64);
    let tar = written.and_then(|()| tar.write_all(content)).and_then(|()| tar.finish());
    let tar = tar.map_err(layer::Error::Output)?;
    layer::place(tar.as_slice(), Compression::None, dir, &placing())?;
    Ok(())
}

/// Copies programs of this machine into the folder `to`, or to where they lie here, and their libraries to where
/// these do.
fn programs(copy: &Copy, root: &Dir, options: &WriteOptions, time: i64) -> Result<()> {
    for program in &copy.program {
        let files = with_libraries(program)?;
        for file in files {
            // What links lead to has the name that it is looked for by.
            let real = file.canonicalize().map_err(|source| Error::Read { path: file.clone(), source })?;
            let (dir, name) = split(&real)?;
            let Some(stat) = dir.stat(&name)? else { continue };
            let (into, own) = match (file.parent(), file.file_name()) {
                (Some(parent), Some(own)) if copy.to == "/" || !is_program(program, &file) => (parent, own),
                (_, Some(own)) => (Path::new(&copy.to), own),
                _ => continue,
            };
            put(&Source { dir, name, stat }, options, Target { root, into, name: Some(own) }, time)?;
        }
    }
    Ok(())
}

fn is_program(program: &str, file: &Path) -> bool {
    file.file_name() == Path::new(program).file_name()
}
