//! What a recipe takes from this machine: files beside it, programs with their libraries.
//!
//! The digest of files is that of the tar that they are in a layer, so that equal digests are equal
//! layers: neither owners nor times count, nor any permission but to execute.

use super::context::DockerCopy;
use super::read::{Action, Placed, Recipe};
use super::types::{Base, Copy, Run};
use super::{Error, Result, context};
use crate::layer::{self, Modes, Shape, TarWriter, WriteOptions};
use crate::oci::Digest;
use crate::store::Hashed;
use crate::sys::dir::Dir;
use crate::sys::{self, program};
use crate::tree::TreePath;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Digests by name; see [`name`].
pub type Inputs = BTreeMap<String, Digest>;

/// How files from beside a recipe are written.
pub(super) fn plain(exclude: &[String]) -> WriteOptions {
    let exclude = exclude.to_vec();
    let shape =
        Shape { time: Some(0), owner: Some((0, 0)), modes: Modes::Plain, exclude, ..Shape::default() };
    WriteOptions { shape, ..WriteOptions::default() }
}

/// The digests of all inputs of `recipe`.
///
/// # Errors
/// [`Error::Input`] for one that cannot be read.
pub fn inputs(recipe: &Recipe) -> Result<Inputs> {
    let mut found = Inputs::new();
    for stage in &recipe.stages {
        if let Base::Dir(dir) = &stage.base.value {
            let path = stage.base.place.beside(dir);
            let shape = Shape { time: Some(0), ..Shape::default() };
            let options = WriteOptions { shape, ..WriteOptions::default() };
            found.insert(name(recipe, &path), stage.base.place.input(digest(&path, &options))?);
        }
        for step in &stage.steps {
            for input in of_step(step) {
                found.insert(input.name(recipe), step.place.input(input.digest())?);
            }
        }
    }
    Ok(found)
}

/// The name of an input: its path from the recipe's folder, or what it is.
pub(super) fn name(recipe: &Recipe, path: &Path) -> String {
    let folder = recipe.file.parent().unwrap_or(Path::new(""));
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

/// An input of a step.
enum Input<'a> {
    /// Files beside the recipe, without those that match one of these patterns.
    Files(PathBuf, &'a [String]),
    /// What a pattern names in the context of a Dockerfile.
    Context(&'a str, &'a DockerCopy),
    /// A program of this machine.
    Program(&'a str),
}

/// The inputs of a step.
fn of_step(step: &Placed<Action>) -> Vec<Input<'_>> {
    match &step.value {
        Action::Copy(Copy { stage: None, image: None, docker: Some(docker), from, .. }) => {
            from.iter().map(|from| Input::Context(from, docker)).collect()
        }
        Action::Copy(Copy { stage: None, image: None, from, program, exclude, .. }) => {
            let files = from.iter().map(|from| Input::Files(step.place.beside(from), exclude));
            files.chain(program.iter().map(|program| Input::Program(program))).collect()
        }
        Action::Run(Run { script, inputs, bind, .. }) => {
            let files = script.iter().chain(inputs).map(|file| Input::Files(step.place.beside(file), &[]));
            let context = bind.iter().filter_map(|b| Some(Input::Context(&b.from, b.docker.as_ref()?)));
            files.chain(context).collect()
        }
        _ => Vec::new(),
    }
}

impl Input<'_> {
    fn name(&self, recipe: &Recipe) -> String {
        match self {
            Self::Files(path, _) => name(recipe, path),
            Self::Context(pattern, _) => (*pattern).to_string(),
            Self::Program(program) => format!("program {program}"),
        }
    }

    fn digest(&self) -> layer::Result<Digest> {
        match self {
            Self::Files(path, exclude) => digest(path, &plain(exclude)),
            Self::Context(pattern, docker) => context::digest(pattern, docker),
            Self::Program(program) => {
                let mut text = String::new();
                for file in with_libraries(program)? {
                    let _ = writeln!(text, "{} {}", file.display(), digest(&file, &plain(&[]))?);
                }
                Ok(Digest::of(text.as_bytes()))
            }
        }
    }
}

/// The names of a step's inputs.
pub(super) fn names(recipe: &Recipe, step: &Placed<Action>) -> Vec<String> {
    of_step(step).iter().map(|input| input.name(recipe)).collect()
}

/// The folder that `path` lies in and its name there; of one that ends in a slash itself and `.`.
pub(super) fn split(path: &Path) -> layer::Result<(Dir, OsString)> {
    let whole = path.as_os_str().as_bytes();
    if path.file_name().is_none() || whole.ends_with(b"/") || whole.ends_with(b"/.") {
        return Ok((Dir::open(path)?, ".".into()));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((Dir::open(parent)?, path.file_name().unwrap_or_default().to_os_string()))
}

fn digest(path: &Path, options: &WriteOptions) -> layer::Result<Digest> {
    let (dir, file) = split(path)?;
    if dir.stat(&file)?.is_none() {
        return Err(missing(path));
    }
    digest_at(&dir, &file, options)
}

/// The digest of the tar of the file `name` of `dir`, or of all that is in `dir` where that is `.`.
pub(super) fn digest_at(dir: &Dir, name: &OsStr, options: &WriteOptions) -> layer::Result<Digest> {
    let all = name == OsStr::new(".");
    let target = if all { TreePath::root() } else { TreePath::parse(b"x").unwrap_or_default() };
    let mut tar = TarWriter::new(Hashed::new(io::sink()));
    layer::write_at(dir, name, &target, &mut tar, options)?;
    let (_, digest, _) = tar.finish().map_err(layer::Error::Output)?.finish();
    Ok(digest)
}

/// A program of this machine, where `PATH` has it if it is no path, and all libraries that it needs,
/// with the links by which they are found.
pub(super) fn with_libraries(program: &str) -> layer::Result<BTreeSet<PathBuf>> {
    let found = if program.contains('/') {
        Some(PathBuf::from(program))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
    };
    let found = found.ok_or_else(|| missing(Path::new(program)))?;
    let mut files = BTreeSet::from([found.clone()]);
    // ldd(1) fails for programs that need none, and for scripts.
    let listed = program::output("ldd", &[found.as_os_str()]).unwrap_or_default();
    let words = listed.split(u8::is_ascii_whitespace).filter(|w| w.first() == Some(&b'/'));
    files.extend(words.map(|w| PathBuf::from(OsStr::from_bytes(w))));
    Ok(files)
}

fn missing(path: &Path) -> layer::Error {
    sys::Error::Syscall { call: format!("stat({})", path.display()), errno: Errno::NOENT }.into()
}

impl crate::verify::Place {
    fn input<T>(&self, result: layer::Result<T>) -> Result<T> {
        result.map_err(|source| Error::Input { place: self.clone(), source: Box::new(source) })
    }
}
