//! Signals: names, masks, waiting for one as for a file (signalfd(2)).
#![allow(unsafe_code)]

use super::{Call, Result};
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::Pid;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// Names without `SIG`, by number, as kill(1) lists them for this architecture.
const NAMES: [(&str, i32); 32] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The number of the signal `text`: `15`, `TERM`, `SIGTERM`, `RTMIN+3`, in any case.
#[must_use]
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let number = libc::SIGRTMIN() + if offset.is_empty() { 0 } else { offset.parse().ok()? };
        return (number <= libc::SIGRTMAX()).then_some(number);
    }
    NAMES.iter().find(|(n, _)| *n == name).map(|(_, number)| *number)
}

/// Sends `signal` to the process of `pidfd` (`pidfd_send_signal(2)`).
///
/// # Errors
/// `ESRCH` where it has ended; `EINVAL` where there is no such signal.
pub fn send(pidfd: BorrowedFd, signal: i32) -> Result<()> {
    // SAFETY: no siginfo is passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    let result = if ret == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    result.call(|| format!("pidfd_send_signal({signal})"))
}

/// Sends `signal`, one that was received, to the child `pid` (kill(2)).
///
/// # Errors
/// `ESRCH` where it has ended.
pub fn send_to(pid: Pid, signal: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
    let result = if ret == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    result.call(|| format!("kill({pid:?}, {signal})"))
}

/// The signals that ask a program to end, and that are put off here.
const ENDING: [i32; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// The signal that came after [`put_off`]; 0 for none.
static PENDING: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32) {
    PENDING.store(signal, Ordering::Relaxed);
}

/// Puts off the first signal that asks this process to end, so that it can clean up: long work
/// looks at [`pending`] and gives up. The second one ends it. Signals that the caller ignores
/// stay ignored.
pub fn put_off() {
    for signal in ENDING {
        // SAFETY: the action is filled before it is used; the handler stores one atomic number.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            if action.sa_sigaction == libc::SIG_DFL {
                action.sa_sigaction = note as *const () as usize;
                action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
    }
}

/// Puts off the signal `number` as [`put_off`] does, where it asks this process to end; whether it does.
#[must_use]
pub fn put_off_one(number: i32) -> bool {
    let ends = ENDING.contains(&number);
    if ends {
        note(number);
    }
    ends
}

/// The signal that was put off.
#[must_use]
pub fn pending() -> Option<i32> {
    Some(PENDING.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// Ends this process by the signal that was put off; returns where none was.
pub fn give_in() {
    if let Some(signal) = pending() {
        // SAFETY: the default action of the signal, sent to this process.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}

/// What [`explain`] says at the end.
static LAST_WORDS: OnceLock<&'static str> = OnceLock::new();

extern "C" fn say_and_end(signal: i32) {
    let words = LAST_WORDS.get().copied().unwrap_or_default();
    // SAFETY: both calls are async-signal-safe; the string is static. SA_RESETHAND gave the
    // signal its default action back, which ends the process when the handler returns.
    unsafe {
        libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len());
        libc::raise(signal);
    }
}

/// Has `words` written to standard error when SIGINT ends this process, as it still does.
pub fn explain(words: &'static str) {
    if LAST_WORDS.set(words).is_ok() {
        // SAFETY: the action is filled before it is used; the handler is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGINT, std::ptr::null(), &raw mut action);
            if action.sa_sigaction == libc::SIG_DFL {
                action.sa_sigaction = say_and_end as *const () as usize;
                action.sa_flags = libc::SA_RESETHAND;
                libc::sigaction(libc::SIGINT, &raw const action, std::ptr::null_mut());
            }
        }
    }
}

/// All signals, blocked in this process and read from a descriptor instead.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks all signals that can be blocked.
    ///
    /// # Errors
    /// The failed signalfd(2) call.
    pub fn take() -> Result<Self> {
        // SAFETY: `set` is filled by sigfillset before it is read; all pointers outlive the calls.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT] {
                libc::sigdelset(&raw mut set, fault);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(std::io::Error::last_os_error()).call(|| "signalfd".to_string());
        }
        // SAFETY: signalfd returned a fresh descriptor.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal that has come; none where none has.
    #[must_use]
    pub fn next(&self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(n) if n == info.len() => i32::from_ne_bytes([info[0], info[1], info[2], info[3]]).into(),
            Ok(_) | Err(Errno::AGAIN | _) => None,
        }
    }

    /// To wait for signals with poll(2).
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        use rustix::fd::AsFd;
        self.fd.as_fd()
    }
}

/// Lets signals come as before [`Signals::take`]. One that has come meanwhile and was not asked for does what it
/// does.
pub fn unblock() {
    // SAFETY: an empty mask, which is filled before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Gives a fresh program the signals that it expects: nothing blocked, nothing ignored.
pub fn reset() {
    // SAFETY: default dispositions and an empty mask, set in a process with one thread.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    unblock();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names_and_numbers() {
        for (text, number) in [
            ("15", Some(15)),
            ("TERM", Some(15)),
            ("sigterm", Some(15)),
            ("SIGKILL", Some(9)),
            ("RTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("RTMIN+300", None),
            ("-1", None),
            ("1000", None),
            ("NOPE", None),
            ("", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }
}
