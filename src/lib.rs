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
//! | 2 | [`disk`] | filesystem image files, disks that machines start from |
//! | 2 | [`serve`] | the store as a registry |
//! | 3 | [`debian`] | signed packages to a configured root |
//! | 3 | [`rootfs`] | root filesystems: copy, overlay, btrfs, image |
//! | 3 | [`archive`] | images in files and folders: docker-archive, OCI layout, `dir:` |
//! | 4 | [`bundle`] | image configurations as `config.json`; bundle folders |
//! | 4 | [`packages`] | what the databases of dpkg, apk and rpm in an image say |
//! | 4 | [`transfer`] | images between registries, archives and the store |
//! | 5 | [`analyze`] | what an image is made of, what it wastes, what is different between two |
//! | 5 | [`output`] | root filesystems as images, archives, folders |
//! | 5 | [`run`] | containers: create, start, exec, kill, delete |
//! | 6 | [`verify`] | checks of images, folders and running containers, and reports |
//! | 7 | [`recipe`] | TOML or a Dockerfile to a plan, and its execution |
//! | 8 | [`cli`] | one file per command |
//!
//! A room imports rooms of lower rank only; `tests/rooms.rs` holds that.
//!
//! ```
//! use shipimg::oci::{Platform, Reference};
//! use shipimg::transfer::{self, FromRegistry, Options, ToStore};
//! use shipimg::{rootfs::DriverKind, store::Store};
//!
//! fn bundle_of(name: &str) -> Result<(), Box<dyn std::error::Error>> {
//!     let store = Store::open(&Store::default_root())?;
//!     let (name, options): (Reference, _) = (name.parse()?, Options::default());
//!     let source = FromRegistry::connect(&name, &options.registry)?;
//!     let copied = transfer::copy(&source, &ToStore::new(&store, name), &options, &store, &|_| ())?;
//!     let image = store.image(&copied.root, &Platform::host())?;
//!     let origin = shipimg::bundle::Origin::Image(None, Box::new(image));
//!     let settings = shipimg::bundle::Settings::default();
//!     let bundle = shipimg::bundle::Bundle::create(&store, "demo", &origin, Some(DriverKind::Overlay), &settings)?;
//!     println!("{}", bundle.path().display());
//!     Ok(())
//! }
//! ```

pub mod analyze;
pub mod archive;
pub mod bundle;
pub mod cli;
pub mod debian;
pub mod disk;
pub mod error;
pub mod layer;
pub mod oci;
pub mod output;
pub mod packages;
pub mod recipe;
pub mod registry;
pub mod rootfs;
pub mod run;
pub mod serve;
pub mod store;
pub mod sys;
pub mod transfer;
pub mod tree;
pub mod verify;
