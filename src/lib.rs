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
//! | 0 | [`tree`] | files of a layer, their names, whiteouts |
//! | 1 | [`store`] | an OCI image layout on disk |
//! | 2 | [`registry`] | images from registries into the store |
//! | 2 | [`layer`] | compressed tar to entries, entries to a directory |
//! | 3 | [`rootfs`] | root filesystems: copy, overlay, btrfs, image |
//! | 4 | [`bundle`] | image configurations as `config.json` |
//! | 5 | [`run`] | containers: create, start, exec, kill, delete |
//! | 2 | [`disk`] | filesystem images: size, format, populate |
//! | 3 | [`debian`] | archives, signatures, dependencies, packages |
//! | 8 | [`cli`] | one file per command |
//!
//! A room imports rooms of lower rank only; `tests/rooms.rs` holds that.

pub mod bundle;
pub mod cli;
pub mod debian;
pub mod disk;
pub mod error;
pub mod layer;
pub mod oci;
pub mod recipe;
pub mod registry;
pub mod rootfs;
pub mod run;
pub mod store;
pub mod sys;
pub mod tree;
