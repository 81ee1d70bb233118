//! `shipimg unshare`: a program in the user namespace in which the commands of an ordinary user
//! work, with the root filesystems of the store's bundles mounted: to look around and to delete.
//!
//! Root has no need of a namespace and gets none. The exit code is the program's; 125 where
//! shipimg failed, 126 where the program cannot be executed, 127 where it is not there.

use super::{Context, Error, Result};
use crate::bundle::{self, Bundle};
use crate::rootfs::{self, Access};
use crate::sys::{self, program};
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
            let mounted = match bundle.mount(Access::Write) {
                Err(bundle::Error::Rootfs(rootfs::Error::InUse { .. })) => bundle.mount(Access::Read),
                other => other,
            };
            if let Err(e) = mounted {
                tracing::warn!("bundle {}: {e}", bundle.name());
            }
        }
        let shell = || std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
        let mut words = self.command.into_iter();
        let program = words.next().unwrap_or_else(shell);
        let failed = program::replace(&program, words);
        let code = if matches!(failed, sys::Error::NoProgram { .. }) { 127 } else { 126 };
        super::report(&failed.into());
        Ok(ExitCode::from(code))
    }
}
