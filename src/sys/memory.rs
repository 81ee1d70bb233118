//! The allocator: memory that is free given back to the system.

#![allow(unsafe_code)]

/// Gives free memory of all arenas back to the system (`malloc_trim(3)`), after something
/// large of many small pieces is gone.
pub fn trim() {
    // SAFETY: malloc_trim takes no pointers and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
