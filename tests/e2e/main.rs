//! End-to-end tests: the real binary, a real registry server, the real kernel.
//!
//! They need root and the packages that `scripts/test` installs, and fail without them.

mod common;
mod faults;
mod hostile_content;
mod pull;
mod store;
