//! Images that a command fetches where it needs them, in one pass with what it makes of them.

use super::progress::{Progress, Style};
use super::transfer::{Network, Wanted};
use super::{Error, Result};
use crate::oci::{Image, Reference};
use crate::store::{self, Store};
use crate::sys::signal;
use crate::transfer::{Options, Platforms, copy_along};

/// Whether an image is fetched.
#[derive(Debug, Clone, clap::Args)]
pub struct Pulling {
    /// Fetch the image from its registry while it is used: `missing` where the store does not have
    /// it, `always` to ask for what its name means now
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Never, default_missing_value = "missing",
          num_args = 0..=1, require_equals = true)]
    pull: When,
    /// Show no progress of a transfer
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    network: Network,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum When {
    /// Ask the registry
    Always,
    /// Ask it where the store does not have the image
    Missing,
    /// Take what the store has
    Never,
}

/// What a word means before anything is fetched.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// An image of the store, by its name if it has one.
    Image(Option<&'a Reference>),
    /// No image.
    Nothing,
    /// Something that is not fetched, or cannot be told.
    Other,
}

impl Found<'_> {
    /// By the failure to find something.
    pub fn failed(e: &Error) -> Self {
        if matches!(e, Error::Store(store::Error::NoImage { .. })) { Self::Nothing } else { Self::Other }
    }
}

impl Pulling {
    /// The name of the image to fetch for `word`; none where nothing is to be fetched.
    pub fn wanted(&self, word: &str, found: Found<'_>) -> Option<String> {
        match (self.pull, found) {
            (When::Never, _) | (When::Missing, Found::Image(_)) | (_, Found::Other) => None,
            (_, Found::Image(Some(name))) => Some(name.to_string()),
            (_, Found::Image(None) | Found::Nothing) => Some(word.to_string()),
        }
    }

    /// Fetches the image `name` and has `along` work on it as it comes.
    pub fn fetch<T>(
        &self,
        store: &Store,
        name: &str,
        platforms: Platforms,
        along: impl FnOnce(&Store, &Reference, Image) -> Result<T>,
    ) -> Result<T> {
        let registry = self.network.options(store.limits());
        let (reference, source) = name.parse::<Wanted>()?.find(&registry)?;
        let options = Options { platforms, registry, ..Options::default() };
        let progress = Progress::new(if self.quiet { Style::None } else { Style::Auto });
        let result = copy_along(
            &source,
            reference.clone(),
            &options,
            store,
            &|event| progress.show(&event),
            |store, image| {
                let made = along(store, &reference, image);
                if made.is_err() {
                    // A server that sends nothing is not waited for.
                    signal::give_in();
                }
                made
            },
        );
        progress.clear();
        result.map(|(_, made)| made)
    }
}
