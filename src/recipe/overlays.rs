//! Overlays over images: in them steps work, and files of images are looked at.
//!
//! What is written into one lies in the store, or in memory where the store's filesystem cannot hold it. That is
//! found out once, before the first one, and said where it is not usual; the layers that come out are the same.

use super::Result;
use crate::bundle::{Bundle, Origin, Settings};
use crate::oci::Image;
use crate::rootfs::{self, Changes};
use crate::store::Store;
use crate::sys::mount::filesystem_of;
use std::cell::Cell;

/// How overlays are made.
#[derive(Debug, Clone, Default)]
pub struct Overlays {
    changes: Cell<Option<Changes>>,
}

impl Overlays {
    /// Where what is written lies.
    pub(super) fn changes(&self, store: &Store) -> Result<Changes> {
        if let Some(changes) = self.changes.get() {
            return Ok(changes);
        }
        let changes = rootfs::changes(store).map_err(crate::bundle::Error::from)?;
        if changes == Changes::Memory {
            let filesystem = filesystem_of(store.root()).unwrap_or_else(|| "another filesystem".to_string());
            tracing::warn!(
                "steps keep what they change in memory: {} lies on {filesystem}, which holds no overlay",
                store.root().display()
            );
        }
        self.changes.set(Some(changes));
        Ok(changes)
    }

    /// One over an image, in a bundle of this process's that begins with `name`.
    pub(super) fn over(
        &self,
        image: Image,
        store: &Store,
        name: &str,
        settings: &Settings,
    ) -> Result<Bundle> {
        let origin = Origin::Image(None, Box::new(image));
        let name = format!("{name}-{}", std::process::id());
        Ok(Bundle::overlaid(store, &name, &origin, self.changes(store)?, settings)?)
    }
}
