//! Memory: what is free given back to the system, and a word that processes share.

#![allow(unsafe_code)]

use super::{Call, Result};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

/// Of the shared mapping, in bytes; the kernel makes a page of it.
const SIZE: usize = size_of::<AtomicI32>();

/// Gives free memory of all arenas back to the system (`malloc_trim(3)`), after something
/// large of many small pieces is gone.
pub fn trim() {
    // SAFETY: malloc_trim takes no pointers and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A number that this process and those copied from it see alike.
#[derive(Debug)]
pub struct SharedWord {
    at: NonNull<AtomicI32>,
}

impl SharedWord {
    /// A new one.
    ///
    /// # Errors
    /// The failed mmap(2) call.
    pub fn new(value: i32) -> Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses a place where nothing is.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, access, kind, -1, 0) };
        let failed = at == libc::MAP_FAILED;
        let result = if failed { Err(std::io::Error::last_os_error()) } else { Ok(at.cast::<AtomicI32>()) };
        let at = result.and_then(|at| NonNull::new(at).ok_or_else(|| std::io::ErrorKind::OutOfMemory.into()));
        let word = Self { at: at.call(|| "mmap(shared)".to_string())? };
        word.set(value);
        Ok(word)
    }

    /// What it is now.
    #[must_use]
    pub fn get(&self) -> i32 {
        // SAFETY: a page that is mapped as long as the value is there, zero at first and aligned.
        unsafe { self.at.as_ref() }.load(Ordering::SeqCst)
    }

    /// Changes it for all.
    pub fn set(&self, value: i32) {
        // SAFETY: as in `get`.
        unsafe { self.at.as_ref() }.store(value, Ordering::SeqCst);
    }
}

impl Drop for SharedWord {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing refers to it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{exit_now, fork};

    #[test]
    fn a_copy_of_this_process_sees_it() {
        let word = SharedWord::new(1).unwrap();
        let Some(child) = fork().unwrap() else {
            word.set(word.get() + 1);
            exit_now(0)
        };
        rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap();
        assert_eq!(word.get(), 2);
    }
}
