//! `shipimg cp`: files into a container and out of it.

use super::{Context, Result, create, export, tidily};
use crate::layer::compression_of;
use crate::run::{Container, Copy, Status};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is wrong with the arguments of `cp`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container, or two.
    #[error("one of SRC and DST has to be CONTAINER:PATH, the other a path of this machine or -")]
    Sides,
}

/// Arguments of `cp`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to copy: CONTAINER:PATH, a path, or - for a tar on standard input
    #[arg(value_name = "SRC")]
    from: PathBuf,
    /// Where to: CONTAINER:PATH, a path, or - for a tar on standard output
    #[arg(value_name = "DST")]
    to: PathBuf,
    /// Keep owners, and what belongs to them: setuid and setgid, capabilities, devices
    #[arg(short, long)]
    archive: bool,
    /// Where SRC is a link, copy what it leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
}

/// An argument.
enum Side<'a> {
    Inside(&'a str, &'a Path),
    Here(&'a Path),
    Stream,
}

/// What stands before the first colon is a container, unless it has a slash in it or the path begins
/// with a dot.
fn side(argument: &Path) -> Side<'_> {
    let bytes = argument.as_os_str().as_bytes();
    let split = bytes.iter().position(|&b| b == b':').filter(|_| bytes[0] != b'.');
    let id = split.and_then(|at| std::str::from_utf8(&bytes[..at]).ok().map(|id| (id, at + 1)));
    match id.filter(|(id, _)| !id.is_empty() && !id.contains('/')) {
        Some((id, rest)) => Side::Inside(id, Path::new(OsStr::from_bytes(&bytes[rest..]))),
        None if bytes == b"-" => Side::Stream,
        None => Side::Here(argument),
    }
}

impl Args {
    /// The container's name.
    pub(super) fn container(&self) -> Option<&str> {
        [&self.from, &self.to].into_iter().find_map(|argument| match side(argument) {
            Side::Inside(id, _) => Some(id),
            _ => None,
        })
    }

    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        // What is half-made is taken away.
        tidily(|| self.copy(context))
    }

    fn copy(&self, context: &Context) -> Result<()> {
        let copy = Copy { follow: self.follow_link, archive: self.archive };
        let found = |id| container(context, id);
        match (side(&self.from), side(&self.to)) {
            (Side::Here(from), Side::Inside(id, to)) => copy.into_container(from, &found(id)?, to)?,
            (Side::Inside(id, from), Side::Here(to)) => copy.out_of_container(&found(id)?, from, to)?,
            (Side::Stream, Side::Inside(id, to)) => {
                let container = found(id)?;
                let (start, rest) = begin(io::stdin())?;
                let tar = (io::Cursor::new(start.clone()).chain(rest), compression_of(&start));
                copy.from_tar(tar, &container, to, context.limits)?;
            }
            (Side::Inside(id, from), Side::Stream) => {
                export::archive_target(Path::new("-"))?;
                copy.as_tar(&found(id)?, from, io::BufWriter::new(io::stdout()))?;
            }
            _ => return Err(Error::Sides.into()),
        }
        Ok(())
    }
}

/// The container `id`, its root filesystem mounted where that has stopped.
fn container(context: &Context, id: &str) -> Result<Container> {
    let container = context.runtime()?.get(id)?;
    let (state, status) = container.status()?;
    if status == Status::Stopped {
        create::mount(&state.bundle)?;
    }
    Ok(container)
}

/// The first bytes of a stream, by which its form is known, and the rest.
fn begin(stream: impl Read + Send) -> io::Result<(Vec<u8>, impl Read + Send)> {
    let mut stream = io::BufReader::with_capacity(64 << 10, stream);
    let mut start = Vec::new();
    stream.by_ref().take(4).read_to_end(&mut start)?;
    Ok((start, stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        for (argument, id, path) in [
            ("c:/etc", Some("c"), "/etc"),
            ("c:", Some("c"), ""),
            ("c:a:b", Some("c"), "a:b"),
            ("./c:/etc", None, "./c:/etc"),
            ("/c:/etc", None, "/c:/etc"),
            ("d/c:x", None, "d/c:x"),
            (".c:x", None, ".c:x"),
            (":x", None, ":x"),
            ("x", None, "x"),
        ] {
            match side(Path::new(argument)) {
                Side::Inside(found, inside) => assert_eq!((Some(found), inside), (id, Path::new(path))),
                Side::Here(here) => assert_eq!((None, here), (id, Path::new(path))),
                Side::Stream => panic!("{argument}"),
            }
        }
        assert!(matches!(side(Path::new("-")), Side::Stream));
    }
}
