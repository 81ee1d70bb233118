//! Whether this machine runs programs of an architecture.
//!
//! Its own; what its kernel runs beside that (i386 on amd64, arm on arm64: tried with the
//! smallest program that there is); and what `binfmt_misc` hands to an emulator that needs nothing of
//! the root (flag `F`: opened when the entry was made).

use super::bootstrap::host_arch;
use super::{Error, Result};
use crate::sys::program;
use std::path::Path;

/// # Errors
/// [`Error::Foreign`] where it does not.
pub(super) fn check(arch: &str) -> Result<()> {
    let emulated = || emulates(Path::new("/proc/sys/fs/binfmt_misc"), arch);
    if arch == host_arch() || kernel_runs(arch) || emulated() {
        return Ok(());
    }
    Err(Error::Foreign { arch: arch.to_string() })
}

fn kernel_runs(arch: &str) -> bool {
    // exit(0): eax 1, ebx 0, int 0x80; r7 1, r0 0, svc 0.
    let (machine, code): (u8, &[u8]) = match (host_arch(), arch) {
        ("amd64", "i386") => (3, &[0x31, 0xc0, 0x40, 0x31, 0xdb, 0xcd, 0x80]),
        ("arm64", "armhf" | "armel") => (40, &[1, 0x70, 0xa0, 0xe3, 0, 0, 0xa0, 0xe3, 0, 0, 0, 0xef]),
        _ => return false,
    };
    program::runs(&elf(machine, code)).unwrap_or(false)
}

/// A 32-bit program of these instructions (elf(5)): a header, one segment that holds it all.
fn elf(machine: u8, code: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 52 + 32;
    const ADDRESS: u32 = 0x10000;
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0];
    // Version, entry, program headers, section headers, flags (EABI 5 for arm).
    let flags = if machine == 40 { 0x0500_0000 } else { 0 };
    let size = HEADERS + u32::try_from(code.len()).unwrap_or(0);
    let mut words = |words: &[u32]| words.iter().for_each(|w| file.extend(w.to_le_bytes()));
    words(&[1, ADDRESS + HEADERS, 52, 0, flags]);
    // Sizes of this header and of a program header, one of those, no sections.
    words(&[0x0020_0034, 1, 0]);
    // PT_LOAD, readable and executable.
    words(&[1, 0, ADDRESS, ADDRESS, size, size, 5, ADDRESS]);
    file.extend(code);
    file
}

/// Whether an entry below `binfmt` is enabled for `arch` and has its emulator open.
fn emulates(binfmt: &Path, arch: &str) -> bool {
    let name = match arch {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "armhf" | "armel" => "arm",
        "ppc64el" => "ppc64le",
        "loong64" => "loongarch64",
        other => other,
    };
    let entry = std::fs::read_to_string(binfmt.join(format!("qemu-{name}"))).unwrap_or_default();
    let flags = entry.lines().find_map(|l| l.strip_prefix("flags: "));
    entry.lines().next() == Some("enabled") && flags.is_some_and(|f| f.contains('F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_binfmt() {
        let dir = tempfile::tempdir().unwrap();
        let entry = dir.path().join("qemu-aarch64");
        for (text, runs) in [
            ("enabled\ninterpreter /usr/libexec/qemu\nflags: POCF\noffset 0\n", true),
            ("enabled\ninterpreter /usr/libexec/qemu\nflags: OC\n", false),
            ("disabled\ninterpreter /usr/libexec/qemu\nflags: F\n", false),
        ] {
            std::fs::write(&entry, text).unwrap();
            assert_eq!(emulates(dir.path(), "arm64"), runs, "{text}");
            assert!(!emulates(dir.path(), "riscv64"));
        }
    }

    #[test]
    fn tries_the_kernel() {
        check(host_arch()).unwrap();
        assert!(matches!(check("vax"), Err(Error::Foreign { .. })));
        #[cfg(target_arch = "x86_64")]
        assert!(!program::runs(&elf(40, &[1, 0x70, 0xa0, 0xe3])).unwrap_or(false));
    }
}
