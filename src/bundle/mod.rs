//! Bundles: a folder with a root filesystem and the `config.json` that says how to run it.

pub mod spec;
