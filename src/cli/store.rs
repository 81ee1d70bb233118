//! `shipimg store init`: makes a store, on a btrfs of its own where wanted.

use super::{Context, Result};
use crate::store::{self, Store};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `store`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make an empty store; its folder (--root) must be empty or new
    Init {
        /// Keep it in this new file, which holds a btrfs and is mounted at the store's folder
        #[arg(long, value_name = "FILE")]
        btrfs_image: Option<PathBuf>,
        /// How large it can grow; space is taken as it is used
        #[arg(long, default_value = "20G", value_parser = super::mkimg::size, requires = "btrfs_image")]
        size: u64,
    },
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let Command::Init { btrfs_image, size } = &self.command;
        match btrfs_image {
            Some(image) => store::init_btrfs(&context.root, image, *size)?,
            None => store::check_empty(&context.root)?,
        }
        Store::open(&context.root)?;
        Ok(ExitCode::SUCCESS)
    }
}
