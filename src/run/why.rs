//! Why a program could not be executed, in more words than the kernel's one number.
//!
//! The file is looked at from inside the container, by its user's rights, after the failed
//! execve(2): the interpreter that a script's first line names, the loader that an ELF file
//! asks for, the machine that it is built for (execve(2), elf(5)). Only regular files are
//! opened and only their first bytes read; what is malformed explains nothing. Missing
//! libraries are the loader's to tell, which it does.

use crate::sys::inroot::Root;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;

/// How much of a file is looked at: room for the headers and for the longest `#!` line.
const HEAD: usize = 4096;
/// How far interpreters of interpreters are followed, as the kernel does.
const DEPTH: usize = 4;
/// How many program headers are looked at.
const MAX_HEADERS: usize = 64;

/// What a file is, to execve(2).
#[derive(Debug, PartialEq)]
enum Program<'a> {
    Empty,
    /// With the interpreter of the first line; empty where it names none.
    Script(&'a str),
    /// Built for this machine, with the place of the loader's path: offset and size.
    Elf {
        machine: u16,
        is_program: bool,
        loader: Option<(u64, u64)>,
    },
    Windows,
    Text,
    Other,
}

/// What can be said of the program at `path` beyond `errno`.
#[must_use]
pub fn explain(path: &Path, errno: Errno) -> Option<String> {
    look(path, errno, DEPTH)
}

fn look(path: &Path, errno: Errno, depth: usize) -> Option<String> {
    let file = open(path)?;
    let mut head = [0; HEAD];
    let length = rustix::io::pread(&file, &mut head, 0).ok()?;
    let through = |kind: &str, text: &str| -> Option<String> {
        let next = Path::new(text);
        Some(match rustix::fs::stat(next) {
            Err(_) if text.ends_with('\r') => {
                format!("its first line ends with CR LF, thus its {kind} would be {text:?}")
            }
            Err(e) => format!("its {kind} {text:?}: {}", super::process::text(e)),
            Ok(_) if errno == Errno::ACCESS && !is_executable(next) => {
                format!("its {kind} {text:?} is not executable")
            }
            Ok(_) if depth > 0 => format!("its {kind} {text:?}: {}", look(next, errno, depth - 1)?),
            Ok(_) => return None,
        })
    };
    match parse(&head[..length]) {
        Program::Script("") => Some("its first line is #! and nothing".to_string()),
        Program::Script(interpreter) => through("interpreter", interpreter),
        Program::Elf { machine, .. } if machine != HOST => {
            Some(format!("it is built for {}, this machine is {}", name(machine), name(HOST)))
        }
        Program::Elf { is_program: false, .. } => Some("it is an ELF file, but no program".to_string()),
        Program::Elf { loader: Some((offset, size)), .. } => {
            let mut text = vec![0; usize::try_from(size).ok().filter(|s| (2..=HEAD).contains(s))?];
            let read = rustix::io::pread(&file, &mut text[..], offset).ok()?;
            let text = text[..read].split(|b| *b == 0).next()?;
            through("loader", std::str::from_utf8(text).ok()?)
        }
        _ if errno != Errno::NOEXEC => None,
        Program::Elf { .. } => Some("it is damaged".to_string()),
        Program::Empty => Some("it is empty".to_string()),
        Program::Windows => Some("it is a program for Windows or DOS".to_string()),
        Program::Text => Some("it is text without a #! line".to_string()),
        Program::Other => Some("it is no program that this kernel knows".to_string()),
    }
}

/// Opens a regular file inside, never through a magic link; what else is there is not opened.
fn open(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).ok()?;
    let cwd = rustix::process::getcwd(Vec::new()).ok()?;
    let path = Path::new(cwd.to_str().ok()?).join(path);
    let root = Root::new(root);
    let is_file = |fd: &OwnedFd| {
        rustix::fs::fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile)
    };
    root.open(&path, OFlags::PATH).ok().filter(is_file)?;
    root.open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).ok().filter(is_file)
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

const HOST: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// The name of a machine by its number in ELF headers.
fn name(machine: u16) -> String {
    let known = match machine {
        3 => "i386",
        8 => "mips",
        20 => "ppc",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        258 => "loongarch",
        _ => return format!("machine {machine}"),
    };
    known.to_string()
}

fn parse(head: &[u8]) -> Program<'_> {
    if head.is_empty() {
        return Program::Empty;
    }
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
        let words = line.split(|b| matches!(b, b' ' | b'\t' | 0));
        let word = words.into_iter().find(|w| !w.is_empty()).unwrap_or_default();
        return std::str::from_utf8(word).map_or(Program::Other, Program::Script);
    }
    if head.starts_with(b"\x7fELF") {
        return elf(head).unwrap_or(Program::Elf { machine: HOST, is_program: true, loader: None });
    }
    if head.starts_with(b"MZ") {
        return Program::Windows;
    }
    let text = head.iter().all(|b| *b >= b' ' || b.is_ascii_whitespace());
    if text { Program::Text } else { Program::Other }
}

/// The header of an ELF file, of both sizes and both orders of bytes; none where it is cut off.
fn elf(head: &[u8]) -> Option<Program<'_>> {
    let (wide, big) = (*head.get(4)? == 2, *head.get(5)? == 2);
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(size)?)?;
        let push = |n: u64, b: &u8| n << 8 | u64::from(*b);
        Some(if big { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) })
    };
    let kind = number(16, 2)?;
    let machine = u16::try_from(number(18, 2)?).ok()?;
    let (start, size, count) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    let header = |index: u64| usize::try_from(start.checked_add(index * size)?).ok();
    let loader = (0..count).take(MAX_HEADERS).filter_map(header).find(|at| number(*at, 4) == Some(3));
    let loader = loader.and_then(|at| {
        if wide {
            number(at + 8, 8).zip(number(at + 32, 8))
        } else {
            number(at + 4, 4).zip(number(at + 16, 4))
        }
    });
    Some(Program::Elf { machine, is_program: matches!(kind, 2 | 3), loader })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_files() {
        for (head, kind) in [
            (&b""[..], Program::Empty),
            (b"#!/bin/sh\n", Program::Script("/bin/sh")),
            (b"#! \t/bin/sh -e\n", Program::Script("/bin/sh")),
            (b"#!/bin/sh\r\nx", Program::Script("/bin/sh\r")),
            (b"#!/bin/sh", Program::Script("/bin/sh")),
            (b"#!\nx", Program::Script("")),
            (b"#!\xff\n", Program::Other),
            (b"echo hello\n", Program::Text),
            (b"MZ\x90\0", Program::Windows),
            (b"\0\x01\x02", Program::Other),
            (b"\x7fELF", Program::Elf { machine: HOST, is_program: true, loader: None }),
        ] {
            assert_eq!(parse(head), kind, "{head:?}");
        }
    }

    #[test]
    fn headers_of_both_sizes_and_orders() {
        let mut wide = vec![0u8; 200];
        wide[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (wide[16], wide[18], wide[32], wide[54], wide[56]) = (3, 62, 64, 56, 2);
        (wide[64], wide[64 + 56], wide[64 + 56 + 8], wide[64 + 56 + 32]) = (1, 3, 190, 9);
        let wanted = Program::Elf { machine: 62, is_program: true, loader: Some((190, 9)) };
        assert_eq!(parse(&wide), wanted);
        let mut narrow = vec![0u8; 120];
        narrow[..6].copy_from_slice(b"\x7fELF\x01\x02");
        (narrow[17], narrow[19], narrow[31], narrow[43], narrow[45]) = (1, 8, 52, 32, 1);
        assert_eq!(parse(&narrow), Program::Elf { machine: 8, is_program: false, loader: None });
        // Numbers that lead nowhere.
        wide[32..40].fill(0xff);
        assert_eq!(parse(&wide), Program::Elf { machine: 62, is_program: true, loader: None });
        wide[56] = 0xff;
        assert_eq!(parse(&wide), Program::Elf { machine: 62, is_program: true, loader: None });
    }
}
