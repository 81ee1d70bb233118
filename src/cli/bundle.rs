//! `shipimg bundle`: named bundles of the store.

use super::pulling::{Found, Pulling};
use super::settings::Overrides;
use super::{Context, Result, target};
use crate::bundle::{Bundle, Origin};
use crate::store::Store;
use crate::transfer::Platforms;
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `bundle`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one lives, once")]
enum Command {
    /// Make a bundle from an image of the store, a filesystem image file or a folder
    Create(Box<Create>),
    /// List the bundles of the store
    List,
    /// Remove bundles with all that was written into them
    Delete {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// An image's name, a file as `bookworm.img`, or a folder
    source: String,
    /// Name of the bundle
    name: String,
    /// How the root filesystem is made: auto, copy, overlay, btrfs or image
    #[arg(long, default_value = "auto")]
    driver: String,
    #[command(flatten)]
    pulling: Pulling,
    #[command(flatten)]
    options: Overrides,
    /// Program and arguments instead of the image's
    #[arg(last = true)]
    args: Vec<String>,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        match &self.command {
            Command::Create(create) => create.run(context)?,
            Command::List => list(context)?,
            Command::Delete { names } => {
                let store = context.store()?;
                for name in names {
                    Bundle::open(&store, name)?.remove()?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    fn run(&self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let found = target::origin(&store, &self.source);
        let known = match &found {
            Ok(Origin::Image(name, _)) => Found::Image(name.as_ref()),
            Ok(_) => Found::Other,
            Err(e) => Found::failed(e),
        };
        let bundle = match self.pulling.wanted(&self.source, known) {
            Some(name) => self.pulling.fetch(&store, &name, Platforms::Host, |store, name, image| {
                self.make(store, &Origin::Image(Some(name.clone()), Box::new(image)))
            })?,
            None => self.make(&store, &found?)?,
        };
        writeln!(std::io::stdout(), "{}", bundle.path().display())?;
        Ok(())
    }

    fn make(&self, store: &Store, origin: &Origin) -> Result<Bundle> {
        let driver = target::driver(store, origin, &self.driver)?;
        let settings = self.options.settings(&self.args, false)?;
        Ok(Bundle::create(store, &self.name, origin, Some(driver), &settings)?)
    }
}

fn list(context: &Context) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<20} {:<8} FROM", "NAME", "DRIVER")?;
    for bundle in Bundle::all(&context.store()?)? {
        let driver = bundle.driver().map_or_else(String::new, |d| d.to_string());
        writeln!(out, "{:<20} {driver:<8} {}", bundle.name(), bundle.origin())?;
    }
    Ok(())
}
