//! End-to-end tests: the real binary, a real registry server, the real kernel.
//!
//! They need root and the packages that `scripts/test` installs, and fail without them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::format_collect, reason = "tests fail by panic")]

mod common;
mod hostile_layers;
mod rootfs;
mod store;
mod unpack;
