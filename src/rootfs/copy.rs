//! `copy`: a plain directory, for any filesystem and any source; nothing is mounted.

use super::{Access, Driver, Result, Rootfs, Source, area, image};
use crate::layer::{self, Options, copy_tree};
use crate::store::Store;
use std::path::Path;

pub(super) struct Copy;

impl Driver for Copy {
    fn create(&self, store: &Store, source: &Source, bundle: &Path, _: &mut Rootfs) -> Result<()> {
        let rootfs = bundle.join("rootfs");
        match source {
            Source::Image(image) => {
                layer::unpack(store, image, &rootfs, &Options::default())?;
            }
            Source::Directory(dir) => {
                area::make_dir(&rootfs)?;
                copy_tree(dir, &rootfs)?;
            }
            Source::File(file) => {
                let lower = bundle.join("lower");
                area::make_dir(&lower)?;
                let mounted = image::mount_file(file, &lower)?;
                area::make_dir(&rootfs)?;
                copy_tree(&lower, &rootfs)?;
                mounted.close()?;
                area::remove_dirs(bundle, &["lower"])?;
            }
        }
        Ok(())
    }

    fn mount(&self, _: &Rootfs, _: &Path, _: Access) -> Result<()> {
        Ok(())
    }

    fn remove(&self, bundle: &Path) -> Result<()> {
        area::remove_dirs(bundle, &["rootfs", "lower"])
    }
}
