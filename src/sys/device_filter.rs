//! Which devices the processes of a cgroup v2 group may use: a small program for the
//! kernel's own machine (`bpf(2)`, `BPF_PROG_TYPE_CGROUP_DEVICE`), made from rules.
#![allow(unsafe_code)]

use super::{Call, Result};
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Allows or denies a kind of use of some devices; a later rule wins over an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether it allows.
    pub allow: bool,
    /// `c`, `b`, or `a` for all devices.
    pub kind: char,
    /// Major number, all where negative.
    pub major: i64,
    /// Minor number, all where negative.
    pub minor: i64,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

/// An instruction: code, registers (target in the low half), offset, immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND32: u8 = 0x54;
const SHIFT_RIGHT32: u8 = 0x74;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_UNLESS_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_BLOCK`, `BPF_DEVCG_DEV_CHAR`; `BPF_DEVCG_ACC_MKNOD`, `…_READ`, `…_WRITE`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const ACCESS: [(char, i32); 3] = [('m', 1), ('r', 2), ('w', 4)];

const fn op(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: target | source << 4, offset, immediate }
}

/// r2 = kind, r3 = access, r4 = major, r5 = minor; the rules from last to first, the first
/// that goes for a device and covers the access decides.
fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(AND32, 2, 0, 0, 0xffff),
        op(LOAD_WORD, 3, 1, 0, 0),
        op(SHIFT_RIGHT32, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
        if rule.kind == 'a' {
            return program;
        }
    }
    program.extend([op(MOVE, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    program
}

fn block(rule: &Rule) -> Vec<Instruction> {
    let verdict = [op(MOVE, 0, 0, 0, rule.allow.into()), op(EXIT, 0, 0, 0, 0)];
    if rule.kind == 'a' {
        return verdict.to_vec();
    }
    let kind = if rule.kind == 'b' { BLOCK } else { CHARACTER };
    let access = ACCESS.iter().filter(|(c, _)| rule.access.contains(*c)).fold(0, |bits, (_, b)| bits | b);
    // Each check skips the rest of the block where it does not hold; offsets are set last.
    let mut out = vec![op(JUMP_UNLESS_EQUAL, 2, 0, 0, kind)];
    if access != 7 {
        out.push(op(MOVE_REGISTER, 1, 3, 0, 0));
        out.push(op(AND32, 1, 0, 0, access));
        // An allowing rule must cover all of the access, a denying one any part of it.
        if rule.allow {
            out.push(op(JUMP_UNLESS_EQUAL_REGISTER, 1, 3, 0, 0));
        } else {
            out.push(op(0x15, 1, 0, 0, 0));
        }
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        if let Ok(number) = i32::try_from(number)
            && number >= 0
        {
            out.push(op(JUMP_UNLESS_EQUAL, register, 0, 0, number));
        }
    }
    out.extend(verdict);
    let length = out.len();
    for (index, instruction) in out.iter_mut().enumerate() {
        if [JUMP_UNLESS_EQUAL, JUMP_UNLESS_EQUAL_REGISTER, 0x15].contains(&instruction.code) {
            instruction.offset = i16::try_from(length - index - 1).unwrap_or(0);
        }
    }
    out
}

/// Attaches a program for `rules` to the cgroup folder that `group` is open on.
///
/// # Errors
/// The failed bpf(2) call: no such feature, no right.
pub fn attach(group: impl AsFd, rules: &[Rule]) -> Result<()> {
    let program = compile(rules);
    let license = c"Apache-2.0";
    // union bpf_attr for BPF_PROG_LOAD: type, count, instructions, licence, zeros.
    let mut load = [0u64; 16];
    load[0] = 15 | (program.len() as u64) << 32;
    load[1] = program.as_ptr() as u64;
    load[2] = license.as_ptr() as u64;
    let fd = bpf(5, &load).call(|| "bpf(PROG_LOAD)".to_string())?;
    // SAFETY: BPF_PROG_LOAD returned a fresh descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // For BPF_PROG_ATTACH: target, program, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI.
    let number = |fd: i32| u64::from(fd.unsigned_abs());
    let mut attach = [0u64; 16];
    attach[0] = number(group.as_fd().as_raw_fd()) | number(fd.as_raw_fd()) << 32;
    attach[1] = 6 | 2 << 32;
    bpf(8, &attach).map(drop).call(|| "bpf(PROG_ATTACH, cgroup devices)".to_string())
}

fn bpf(command: i32, attributes: &[u64; 16]) -> std::io::Result<i32> {
    // SAFETY: the kernel reads the attributes, whose size is passed, and what they point to,
    // which the caller keeps alive.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    if ret < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(i32::try_from(ret).unwrap_or(-1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does; `word` is access in the upper, kind in the lower half.
    fn run(program: &[Instruction], word: u32, major: u32, minor: u32) -> bool {
        let mut registers = [0u64; 11];
        let mut pc = 0usize;
        loop {
            let i = program[pc];
            pc += 1;
            let (target, source) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let immediate = u64::from(i.immediate.unsigned_abs());
            let skip = usize::try_from(i.offset).unwrap();
            match i.code {
                LOAD_WORD => registers[target] = u64::from([word, major, minor][skip / 4]),
                MOVE => registers[target] = immediate,
                MOVE_REGISTER => registers[target] = registers[source],
                AND32 => registers[target] &= immediate,
                SHIFT_RIGHT32 => registers[target] >>= immediate,
                JUMP_UNLESS_EQUAL if registers[target] != immediate => pc += skip,
                JUMP_UNLESS_EQUAL_REGISTER if registers[target] != registers[source] => pc += skip,
                0x15 if registers[target] == immediate => pc += skip,
                EXIT => return registers[0] == 1,
                _ => {}
            }
        }
    }

    #[test]
    fn later_rules_win() {
        let rule = |allow, kind, major, minor, access: &str| Rule {
            allow,
            kind,
            major,
            minor,
            access: access.to_string(),
        };
        let program = compile(&[
            rule(false, 'a', -1, -1, "rwm"),
            rule(true, 'c', 1, 3, "rwm"),
            rule(true, 'c', -1, -1, "m"),
            rule(true, 'b', 8, -1, "r"),
            rule(false, 'b', 8, 1, "w"),
        ]);
        let (character, block) = (2, 1);
        let (mknod, read, write) = (1 << 16, 2 << 16, 4 << 16);
        for (word, major, minor, allowed) in [
            (character | read | write, 1, 3, true),
            (character | read, 1, 4, false),
            (character | mknod, 1, 4, true),
            (character | mknod | read, 1, 4, false),
            (block | read, 8, 0, true),
            (block | read | write, 8, 0, false),
            (block | mknod, 8, 0, false),
            (block | read, 9, 0, false),
        ] {
            assert_eq!(run(&program, word, major, minor), allowed, "{word:x} {major}:{minor}");
        }
        assert!(run(&compile(&[rule(true, 'c', 1, 3, "r")]), character, 5, 5), "no rule, no denial");
    }
}
