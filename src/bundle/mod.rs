//! Bundles: a root filesystem and the `config.json` that says how to run it.

mod convert;
pub mod spec;
mod users;

pub use users::{Ids, resolve};

/// errors
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image's user cannot be resolved.
    #[error("user {text:?}: {reason}")]
    User {
        /// As the image writes it.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A path in the image's configuration leads elsewhere.
    #[error("the image's {field} {value:?} is not an absolute path without ..")]
    Config {
        /// The field of the image configuration.
        field: &'static str,
        /// Its value.
        value: String,
    },
}
/// result
pub type Result<T> = std::result::Result<T, Error>;
