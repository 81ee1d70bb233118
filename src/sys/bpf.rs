//! Filters of system calls as the kernel takes them (seccomp(2), classic BPF).
//!
//! A filter checks the architecture, then finds the system call's number by a binary search
//! over ranges of equal outcome, so that its length hardly matters at run time.
//!
//! Written here and not with a crate: those at hand know one action beside the default,
//! profiles of containers have several.

use libc::sock_filter;

// The BPF instructions used; offsets into struct seccomp_data.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

/// The kernel's longest filter, in instructions.
const MAX_LENGTH: usize = 4096;
/// `AUDIT_ARCH_*` of this machine's own programs.
#[cfg(target_arch = "x86_64")]
pub const NATIVE: u32 = 0xC000_003E;
/// `AUDIT_ARCH_*` of this machine's own programs.
#[cfg(target_arch = "aarch64")]
pub const NATIVE: u32 = 0xC000_00B7;

/// What happens to one system call: conditional actions in order, then the final one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Where all the conditions hold, this word is returned.
    pub conditional: Vec<(Vec<Condition>, u32)>,
    /// Returned otherwise.
    pub last: u32,
}

/// A condition on an argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Condition {
    /// 0 to 5.
    pub index: u32,
    /// Which bits count.
    pub mask: u64,
    /// What they are compared with.
    pub value: u64,
    /// How.
    pub op: Op,
}

/// A comparison of 64 bits without sign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// =
    Equal,
    /// ≠
    NotEqual,
    /// >
    Greater,
    /// ≥
    GreaterEqual,
    /// <
    Less,
    /// ≤
    LessEqual,
}

impl From<u32> for Outcome {
    fn from(last: u32) -> Self {
        Self { conditional: Vec::new(), last }
    }
}

/// Outcomes by the first number that they go for, from those of single calls in ascending
/// order; `default` (`SECCOMP_RET_*`) is for all others.
pub fn ranges(calls: impl Iterator<Item = (u32, Outcome)>, default: u32) -> Vec<(u32, Outcome)> {
    let after = |(number, outcome)| [(number, outcome), (number + 1, default.into())];
    std::iter::once((0, default.into())).chain(calls.flat_map(after)).collect()
}

/// Compiles a filter: for each `AUDIT_ARCH_*` the ranges, ascending from 0, of which the later
/// one counts where two begin at one number; `otherwise` is for all other architectures.
/// None where it is longer than the kernel takes.
#[must_use]
pub fn compile(blocks: Vec<(u32, Vec<(u32, Outcome)>)>, otherwise: u32) -> Option<Vec<sock_filter>> {
    let mut program = vec![load(OFFSET_ARCH)];
    for (word, ranges) in blocks {
        let mut block = vec![load(OFFSET_NR)];
        search(&merged(ranges), &mut block);
        program.push(jump(EQUAL, word, 1, 0));
        program.push(sock_filter { code: JUMP, jt: 0, jf: 0, k: u32::try_from(block.len()).ok()? });
        program.append(&mut block);
    }
    program.push(ret(otherwise));
    (program.len() <= MAX_LENGTH).then_some(program)
}

/// Of entries for one number the later one counts; of equal neighbours the first.
fn merged(ranges: Vec<(u32, Outcome)>) -> Vec<(u32, Outcome)> {
    let mut out: Vec<(u32, Outcome)> = Vec::with_capacity(ranges.len());
    for (number, outcome) in ranges {
        if out.last().is_some_and(|(n, _)| *n == number) {
            out.pop();
        }
        if out.last().is_none_or(|(_, o)| *o != outcome) {
            out.push((number, outcome));
        }
    }
    out
}

/// Writes a binary search for the range that the loaded number lies in.
fn search(ranges: &[(u32, Outcome)], out: &mut Vec<sock_filter>) {
    if let [(_, outcome)] = ranges {
        for (conditions, word) in &outcome.conditional {
            alternative(conditions, *word, out);
        }
        out.push(ret(outcome.last));
        return;
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let mut block = Vec::new();
    search(low, &mut block);
    let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
    out.push(jump(GREATER_EQUAL, high[0].0, 0, 1));
    out.push(sock_filter { code: JUMP, jt: 0, jf: 0, k: length });
    out.append(&mut block);
    search(high, out);
}

/// Returns `word` where all conditions hold, falls through otherwise.
fn alternative(conditions: &[Condition], word: u32, out: &mut Vec<sock_filter>) {
    let mut rest = vec![ret(word)];
    for condition in conditions.iter().rev() {
        let mut block = compare(*condition, u8::try_from(rest.len()).unwrap_or(u8::MAX));
        block.append(&mut rest);
        rest = block;
    }
    out.append(&mut rest);
}

/// Falls through where the condition holds, skips `skip` instructions otherwise.
/// Arguments have 64 bits, instructions 32: the upper half decides unless it is equal.
fn compare(c: Condition, skip: u8) -> Vec<sock_filter> {
    let offset = OFFSET_ARGS + 8 * c.index;
    let half = |offset, mask: u64| {
        let load = load(offset);
        let masked = sock_filter { code: AND, jt: 0, jf: 0, k: low(mask) };
        if low(mask) == u32::MAX { vec![load] } else { vec![load, masked] }
    };
    let (value_high, value_low) = (low(c.value >> 32), low(c.value));
    let lower = half(offset, c.mask);
    let below = u8::try_from(lower.len()).unwrap_or(0);
    let mut out = half(offset + 4, c.mask >> 32);
    match c.op {
        Op::Equal => out.push(jump(EQUAL, value_high, 0, below + 1 + skip)),
        Op::NotEqual => out.push(jump(EQUAL, value_high, 0, below + 1)),
        Op::Greater | Op::GreaterEqual => {
            out.push(jump(GREATER, value_high, below + 2, 0));
            out.push(jump(EQUAL, value_high, 0, below + 1 + skip));
        }
        Op::Less | Op::LessEqual => {
            out.push(jump(GREATER, value_high, below + 2 + skip, 0));
            out.push(jump(EQUAL, value_high, 0, below + 1));
        }
    }
    out.extend(lower);
    out.push(match c.op {
        Op::Equal => jump(EQUAL, value_low, 0, skip),
        Op::NotEqual => jump(EQUAL, value_low, skip, 0),
        Op::Greater => jump(GREATER, value_low, 0, skip),
        Op::GreaterEqual => jump(GREATER_EQUAL, value_low, 0, skip),
        Op::Less => jump(GREATER_EQUAL, value_low, skip, 0),
        Op::LessEqual => jump(GREATER, value_low, skip, 0),
    });
    out
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0)
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn ret(word: u32) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: word }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Runs a filter as the kernel does.
    pub fn run(program: &[sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(nr.to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend([0; 8]);
        for arg in args {
            data.extend(arg.to_ne_bytes());
        }
        let (mut acc, mut pc) = (0u32, 0usize);
        loop {
            let i = program[pc];
            pc += 1;
            let skip = |holds| if holds { usize::from(i.jt) } else { usize::from(i.jf) };
            match i.code {
                LOAD => acc = u32::from_ne_bytes(data[i.k as usize..i.k as usize + 4].try_into().unwrap()),
                AND => acc &= i.k,
                JUMP => pc += i.k as usize,
                EQUAL => pc += skip(acc == i.k),
                GREATER => pc += skip(acc > i.k),
                GREATER_EQUAL => pc += skip(acc >= i.k),
                RETURN => return i.k,
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn one_call_and_the_others() {
        let calls = [(3, Outcome::from(7)), (4, Outcome::from(7)), (9, Outcome::from(1))];
        let program = compile(vec![(NATIVE, ranges(calls.into_iter(), 0))], 5).unwrap();
        let results = [2, 3, 4, 5, 8, 9, 10, u32::MAX].map(|nr| run(&program, NATIVE, nr, [0; 6]));
        assert_eq!(results, [0, 7, 7, 0, 0, 1, 0, 0]);
        assert_eq!(run(&program, NATIVE + 1, 3, [0; 6]), 5);
        assert!(compile(vec![(NATIVE, ranges((0..4000).map(|n| (2 * n, 1.into())), 0))], 5).is_none());
    }
}
