//! `linux.seccomp` of config.json, compiled to the kernel's filter (seccomp(2), classic BPF).
//!
//! For one call, conditional rules are tried in their order, then the unconditional one, then
//! the default. As other runtimes do, a call that is newer than all that the profile names
//! answers `ENOSYS` where the default is another errno, so that programs fall back to the
//! older call. Names that are not known are skipped. Calls of `SCMP_ACT_NOTIFY` are decided on
//! by an agent, see [`super::listener`].

use super::{Error, Result, spec};
use crate::sys::bpf::{self, Condition, Op, Outcome};
use libc::sock_filter;
use std::collections::BTreeMap;
use syscalls::{aarch64, arm, x86, x86_64};

/// A compiled filter with its flags.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Instructions.
    pub program: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u64,
    /// Whether an agent decides on some calls.
    pub notifies: bool,
}

/// Where x32's numbers begin; they share x86-64's architecture word.
const X32_BIT: u32 = 0x4000_0000;

type Lookup = fn(&str) -> Option<u32>;

/// Name, `AUDIT_ARCH_*`, number of a call by its name.
const ARCHITECTURES: [(&str, u32, Lookup); 4] = [
    ("SCMP_ARCH_X86_64", 0xC000_003E, |n| n.parse::<x86_64::Sysno>().ok().map(|s| s.id().unsigned_abs())),
    ("SCMP_ARCH_X86", 0x4000_0003, |n| n.parse::<x86::Sysno>().ok().map(|s| s.id().unsigned_abs())),
    ("SCMP_ARCH_AARCH64", 0xC000_00B7, |n| n.parse::<aarch64::Sysno>().ok().map(|s| s.id().unsigned_abs())),
    ("SCMP_ARCH_ARM", 0x4000_0028, |n| n.parse::<arm::Sysno>().ok().map(|s| s.id().unsigned_abs())),
];

#[cfg(target_arch = "x86_64")]
const NATIVE: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const NATIVE: &str = "SCMP_ARCH_AARCH64";

fn invalid(reason: String) -> Error {
    Error::Invalid { field: "linux.seccomp".into(), reason }
}

/// The word that the filter returns for an action.
fn action(name: &str, errno: Option<u32>) -> Result<u32> {
    if errno.is_some() && !matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") {
        return Err(invalid(format!("an error number with {name}, which has none")));
    }
    let errno = errno.unwrap_or(libc::EPERM.unsigned_abs()) & 0xffff;
    Ok(match name {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | errno,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | errno,
        "SCMP_ACT_NOTIFY" => libc::SECCOMP_RET_USER_NOTIF,
        other => return Err(invalid(format!("unknown action {other:?}"))),
    })
}

fn condition(arg: &spec::SyscallArg) -> Result<Condition> {
    if arg.index > 5 {
        return Err(invalid(format!("argument {} of a system call", arg.index)));
    }
    let (op, mask, value) = match arg.op.as_str() {
        "SCMP_CMP_EQ" => (Op::Equal, u64::MAX, arg.value),
        "SCMP_CMP_NE" => (Op::NotEqual, u64::MAX, arg.value),
        "SCMP_CMP_GT" => (Op::Greater, u64::MAX, arg.value),
        "SCMP_CMP_GE" => (Op::GreaterEqual, u64::MAX, arg.value),
        "SCMP_CMP_LT" => (Op::Less, u64::MAX, arg.value),
        "SCMP_CMP_LE" => (Op::LessEqual, u64::MAX, arg.value),
        "SCMP_CMP_MASKED_EQ" => (Op::Equal, arg.value, arg.value_two & arg.value),
        other => return Err(invalid(format!("unknown comparison {other:?}"))),
    };
    Ok(Condition { index: arg.index, mask, value, op })
}

impl Filter {
    /// Compiles a profile.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`].
    pub fn compile(profile: &spec::Seccomp) -> Result<Self> {
        let actions = profile.syscalls.iter().map(|rule| &rule.action).chain([&profile.default_action]);
        let notifies = actions.into_iter().any(|action| action == "SCMP_ACT_NOTIFY");
        let listens = !profile.listener_path.as_os_str().is_empty();
        if notifies && !listens {
            return Err(invalid("SCMP_ACT_NOTIFY needs a listenerPath".into()));
        }
        if !listens && !profile.listener_metadata.is_empty() {
            return Err(invalid("listenerMetadata without listenerPath".into()));
        }
        let default = action(&profile.default_action, profile.default_errno_ret)?;
        let native = [NATIVE.to_string()];
        let wanted = profile.architectures.iter().chain(&native);
        if let Some(name) = profile.architectures.iter().find(|name| !is_architecture(name)) {
            return Err(invalid(format!("unknown architecture {name:?}")));
        }
        let mut blocks = Vec::new();
        for (name, word, lookup) in ARCHITECTURES {
            if wanted.clone().any(|w| w == name) {
                blocks.push((word, ranges(profile, default, name, lookup)?));
            }
        }
        let program = bpf::compile(blocks, libc::SECCOMP_RET_KILL_PROCESS)
            .ok_or_else(|| invalid("more rules than the kernel takes".into()))?;
        // There is one thread only, and the kernel has these flags for one case each.
        let others = if notifies {
            libc::SECCOMP_FILTER_FLAG_TSYNC
        } else {
            libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        };
        Ok(Self { program, flags: flags(&profile.flags)? & !others, notifies })
    }
}

/// Whether libseccomp has it; those that are not this machine's need no rules.
fn is_architecture(name: &str) -> bool {
    let known = "X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 \
                 PARISC PARISC64 PPC PPC64 PPC64LE RISCV64 S390 S390X SH SHEB";
    name.strip_prefix("SCMP_ARCH_").is_some_and(|name| known.split(' ').any(|k| k == name))
}

fn flags(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |bits, name| {
        Ok(bits
            | match name.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC,
                "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
                other => return Err(invalid(format!("unknown flag {other:?}"))),
            })
    })
}

/// Outcomes by the first number that they go for, ascending from 0.
fn ranges(profile: &spec::Seccomp, default: u32, arch: &str, lookup: Lookup) -> Result<Vec<(u32, Outcome)>> {
    let mut calls: BTreeMap<u32, (Outcome, bool)> = BTreeMap::new();
    for rule in &profile.syscalls {
        let word = action(&rule.action, rule.errno_ret)?;
        if rule.names.is_empty() {
            return Err(invalid("a rule without names".into()));
        }
        let conditions = rule.args.iter().map(condition).collect::<Result<Vec<_>>>()?;
        for number in rule.names.iter().filter_map(|n| lookup(n)) {
            let fresh = || (Outcome::from(default), false);
            let (outcome, decided) = calls.entry(number).or_insert_with(fresh);
            if conditions.is_empty() {
                if !*decided {
                    (outcome.last, *decided) = (word, true);
                }
            } else if repeats(&conditions) {
                // Several conditions on one argument are alternatives, as libseccomp's users write them.
                outcome.conditional.extend(conditions.iter().map(|c| (vec![*c], word)));
            } else {
                outcome.conditional.push((conditions.clone(), word));
            }
        }
    }
    let newest = calls.keys().next_back().map_or(0, |n| n + 1);
    let calls = calls.into_iter().map(|(number, (outcome, _))| (number, outcome));
    let mut out = bpf::ranges(calls, default);
    let enosys = Outcome::from(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs());
    if default & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_ERRNO && newest > 1 {
        out.push((newest, enosys.clone()));
    }
    if arch == "SCMP_ARCH_X86_64" {
        out.push((X32_BIT, enosys));
    }
    Ok(out)
}

fn repeats(conditions: &[Condition]) -> bool {
    conditions.iter().enumerate().any(|(i, c)| conditions[..i].iter().any(|d| d.index == c.index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::bpf::tests::run as run_program;
    use serde_json::json;

    const X86_64: u32 = 0xC000_003E;

    fn run(filter: &Filter, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        run_program(&filter.program, arch, nr, args)
    }

    fn compile(profile: serde_json::Value) -> Result<Filter> {
        Filter::compile(&serde_json::from_value(profile).unwrap())
    }

    #[test]
    fn rules_defaults_and_newer_calls() {
        let filter = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"names": ["read", "write", "close_range", "not_a_call"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22}]}))
        .unwrap();
        let errno = |e: u32| libc::SECCOMP_RET_ERRNO | e;
        for (arch, nr, word) in [
            (X86_64, 0, libc::SECCOMP_RET_ALLOW),
            (X86_64, 1, libc::SECCOMP_RET_ALLOW),
            (X86_64, 2, errno(13)),
            (X86_64, 83, errno(22)),
            (X86_64, 436, libc::SECCOMP_RET_ALLOW),
            (X86_64, 437, errno(38)),
            (X86_64, X32_BIT, errno(38)),
            (0x4000_0003, 3, libc::SECCOMP_RET_ALLOW),
            (0x4000_0003, 0, errno(13)),
            (0xC000_00B7, 0, libc::SECCOMP_RET_KILL_PROCESS),
        ] {
            assert_eq!(run(&filter, arch, nr, [0; 6]), word, "{arch:x} {nr}");
        }
    }

    #[test]
    fn comparisons_of_64_bits() {
        let big = 5u64 << 32 | 7;
        for (op, value, two, holds, fails) in [
            ("EQ", big, 0u64, vec![big], vec![7, big + 1, 6 << 32 | 7]),
            ("NE", big, 0, vec![7, big + 1, 0], vec![big]),
            ("GT", big, 0, vec![big + 1, 6 << 32], vec![big, 7, 8, 4 << 32 | 9]),
            ("GE", big, 0, vec![big, 6 << 32], vec![big - 1, 8, 0]),
            ("LT", big, 0, vec![big - 1, 9, 0], vec![big, 6 << 32]),
            ("LE", big, 0, vec![big, 4 << 32 | 9], vec![big + 1, 6 << 32]),
            ("MASKED_EQ", 0x7e02_0000, 0, vec![0, 1, 1 << 40], vec![0x1000_0000, 0x2_0000]),
            ("MASKED_EQ", 3u64 << 32, 1u64 << 32, vec![1 << 32, 5 << 32 | 9], vec![0, 3 << 32]),
        ] {
            let filter = compile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
                "action": "SCMP_ACT_KILL", "args": [{"index": 1, "value": value, "valueTwo": two,
                "op": format!("SCMP_CMP_{op}")}]}]}))
            .unwrap();
            let killed =
                |v: u64| run(&filter, X86_64, 0, [9, v, 9, 9, 9, 9]) == libc::SECCOMP_RET_KILL_THREAD;
            assert!(holds.iter().all(|v| killed(*v)), "{op}");
            assert!(!fails.iter().any(|v| killed(*v)), "{op}");
        }
    }

    #[test]
    fn conditions_join_or_are_alternatives() {
        let arg = |index, value| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
        let rule = |args| json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args});
        let both = [rule(json!([arg(0, 1), arg(1, 2)])), rule(json!([arg(0, 8)]))];
        let filter = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": both})).unwrap();
        let allowed = |f: &Filter, a, b| run(f, X86_64, 135, [a, b, 0, 0, 0, 0]) == libc::SECCOMP_RET_ALLOW;
        assert!(allowed(&filter, 1, 2) && allowed(&filter, 8, 0));
        assert!(!allowed(&filter, 1, 3) && !allowed(&filter, 2, 2));
        let same = [rule(json!([arg(0, 1), arg(0, 2)]))];
        let filter = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": same})).unwrap();
        assert!(allowed(&filter, 1, 0) && allowed(&filter, 2, 0) && !allowed(&filter, 3, 0));
    }

    #[test]
    fn refuses() {
        for profile in [
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            json!({"defaultAction": "NOPE"}),
            json!({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]}),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_KILL"}]}),
            json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]}),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["NOPE"]}),
        ] {
            assert!(compile(profile.clone()).is_err(), "{profile}");
        }
    }
}
