//! `process.ioPriority`, `process.scheduler` and `process.execCPUAffinity` in the kernel's numbers.

use super::{Error, Result, spec::Scheduler};
use crate::sys::Call;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The number of an I/O priority class (`ioprio_set(2)`).
#[must_use]
pub fn io_class(name: &str) -> Option<u32> {
    match name {
        "IOPRIO_CLASS_RT" => Some(1),
        "IOPRIO_CLASS_BE" => Some(2),
        "IOPRIO_CLASS_IDLE" => Some(3),
        _ => None,
    }
}

/// A scheduling policy as `sched_setattr(2)` takes it.
///
/// # Errors
/// [`Error::Invalid`] for a name that is none, a nice value out of range.
pub fn scheduler(s: &Scheduler) -> Result<libc::sched_attr> {
    let invalid = |what: &str| {
        Err(Error::Invalid { field: "process.scheduler".into(), reason: format!("{what} is not known") })
    };
    let sched_policy = match s.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return invalid(&format!("policy {other:?}")),
    };
    if !(-20..=19).contains(&s.nice) {
        return invalid(&format!("nice {}", s.nice));
    }
    let mut sched_flags = 0;
    for flag in &s.flags {
        sched_flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return invalid(&format!("flag {other:?}")),
        };
    }
    Ok(libc::sched_attr {
        size: 0,
        sched_policy,
        sched_flags,
        sched_nice: s.nice,
        sched_priority: s.priority,
        sched_runtime: s.runtime,
        sched_deadline: s.deadline,
        sched_period: s.period,
    })
}

/// Reads a list of processors, as `0-3,7`; none where it is empty.
///
/// # Errors
/// [`Error::Invalid`].
pub fn processors(list: &str) -> Result<Option<CpuSet>> {
    if list.is_empty() {
        return Ok(None);
    }
    let mut set = CpuSet::new();
    for range in list.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        match (from.trim().parse::<usize>(), to.trim().parse::<usize>()) {
            (Ok(from), Ok(to)) if from <= to && to < CpuSet::MAX_CPU => (from..=to).for_each(|n| set.set(n)),
            _ => {
                let reason = format!("{list:?} is no list of processors");
                return Err(Error::Invalid { field: "process.execCPUAffinity".into(), reason });
            }
        }
    }
    Ok(Some(set))
}

/// Has this process run on the processors of `list` only; on all where it is empty. Which of
/// them count is up to the control groups.
///
/// # Errors
/// As [`processors`]; the failed call.
pub fn run_on(list: &str) -> Result<()> {
    let all = || {
        let mut set = CpuSet::new();
        (0..CpuSet::MAX_CPU).for_each(|n| set.set(n));
        set
    };
    let set = processors(list)?.unwrap_or_else(all);
    Ok(sched_setaffinity(None, &set).call(|| format!("sched_setaffinity({list})"))?)
}
