//! End-to-end tests: the real binary, a real registry server, the real kernel.
//!
//! They need root and the packages that `scripts/test` installs, and fail without them.

mod common;
mod hostile_run;
mod run;
mod store;
