//! shipimg: root filesystems from registries, archives and Debian, and one street to run them.
//!
//! ```text
//! registry ─┐
//! archive  ─┼→ store (blobs) → layer → rootfs → bundle → run → verify
//! debian   ─┘                                     ▲
//!                               recipe decides what goes in
//! ```
//!
//! | rank | room | holds |
//! |---|---|---|
//! | – | [`error`] | the kinds of failure; any room may import it |
//! | 0 | [`sys`] | syscalls, `unsafe`, external programs |
//! | 0 | [`oci`] | digests, references, descriptors, manifests, configs |
//! | 1 | [`store`] | an OCI image layout on disk |
//! | 2 | [`disk`] | filesystem images: size, format, populate |
//! | 3 | [`debian`] | archives, signatures, dependencies, packages |
//! | 8 | [`cli`] | one file per command |
//!
//! A room imports rooms of lower rank only; `tests/rooms.rs` holds that.

pub mod cli;
pub mod debian;
pub mod disk;
pub mod error;
pub mod oci;
pub mod store;
pub mod sys;
