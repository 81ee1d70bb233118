//! `shipimg unshare`: a program in the user namespace in which the commands of an ordinary user
//! work, with the root filesystems of the store's bundles mounted: to look around and to delete.
//!
//! `SHIPIMG_ROOT` is set for it, so that shipimg means the same store there. Root has no
//! need of a namespace and gets none.

use super::{Context, Error, Result};
use crate::bundle::Bundle;
use crate::sys::{Call, program};
use std::ffi::OsString;
use std::process::ExitCode;

/// Arguments of `unshare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Program and arguments [default: `$SHELL`]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        self.launch(context).map_err(|e| Error::Launch(Box::new(e)))
    }

    fn launch(self, context: &Context) -> Result<ExitCode> {
        for bundle in Bundle::all(&context.store()?)? {
            if let Err(e) = bundle.mount() {
                tracing::warn!("bundle {}: {e}", bundle.name());
            }
        }
        let shell = || std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
        let mut words = self.command.into_iter();
        let program = words.next().unwrap_or_else(shell);
        let root = std::path::absolute(&context.root).call(|| "getcwd".to_string())?;
        Err(program::replace(&program, words, [("SHIPIMG_ROOT", root.as_os_str())]).into())
    }
}
