//! Which packages an image has, and which of its files are theirs: what the databases say that lie in it.
//!
//! | database | packages | their files |
//! |---|---|---|
//! | `var/lib/dpkg/status` | paragraphs that are installed | `var/lib/dpkg/info/NAME[:ARCH].list` |
//! | `var/lib/dpkg/status.d/NAME` | a paragraph each (distroless images) | `NAME.md5sums` beside it |
//! | `lib/apk/db/installed` | records of `P:` `V:` `A:` `L:` | `F:` a directory, `R:` a file in it |
//! | `usr/lib/sysimage/rpm/rpmdb.sqlite` | a header each | in the header |
//!
//! Where the bytes of a database come from is a [`Source`]'s. They are hostile: what is read of them is
//! bounded by [`MOST_DATABASE`], what is told of files by their names' bytes together. A database that
//! is there and cannot be read, or not to its end, is [`Unread`]; what was read of it counts.
//! Files are named as they were packed: where directories of these names are links, it is for the caller
//! to follow them. What dpkg-divert(1) moved is named as it is now.

mod apk;
mod dpkg;
mod rpm;
mod sqlite;

pub use sqlite::Error as SqliteError;

use crate::debian::version;
use crate::error::Kind;
use crate::tree::TreePath;
use std::borrow::Cow;
use std::cmp::Ordering;

/// The most bytes of one file of a database that are read.
pub const MOST_DATABASE: u64 = 256 << 20;
/// The most bytes of names of files that are told, with 32 for each.
const MOST_NAMES: usize = 512 << 20;
/// The most packages that are told.
const MOST_PACKAGES: usize = 1 << 18;

/// Who looks after packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manager {
    /// dpkg(1).
    #[default]
    Dpkg,
    /// apk(8).
    Apk,
    /// rpm(8).
    Rpm,
}

impl Manager {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dpkg => "dpkg",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
        }
    }

    /// Compares the version of a package with another one: as Debian orders versions, those of apk too, or
    /// as rpm does.
    #[must_use]
    pub fn compare(self, a: &str, b: &str) -> Ordering {
        match self {
            Self::Dpkg | Self::Apk => version::compare(a, b),
            Self::Rpm => rpm::compare(a, b),
        }
    }
}

/// A package of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version; of rpm `[EPOCH:]VERSION-RELEASE`.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// Its licences, where they are known.
    pub licence: Option<String>,
    /// Whose database names it.
    pub manager: Manager,
    /// Whether it was installed to the end: dpkg has files of some that were not.
    pub configured: bool,
}

/// A database of which not all packages are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not all packages are known of /{path}: {damage}")]
pub struct Unread {
    /// Its path.
    pub path: String,
    /// Why.
    #[source]
    pub damage: Damage,
}

/// Why a database is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// rpm has written it in this format.
    #[error("it is {0}'s, and of the databases of rpm only those of SQLite are read")]
    Format(&'static str),
    /// What must be undone before it is read is not: nobody closed it.
    #[error("a transaction in it was not ended, and would have to be undone")]
    Journal,
    /// It is too large, or has holes, or lies elsewhere.
    #[error("it cannot be held, being too large, with holes, or behind a link")]
    Held,
    /// It is damaged.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// What describes a package is damaged.
    #[error("the header of a package in it is damaged")]
    Header,
    /// There is more of it than can be.
    #[error("it has more packages or files than are read")]
    Many,
}

impl Unread {
    /// The kind of failure.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match &self.damage {
            Damage::Format(_) | Damage::Sqlite(SqliteError::Unsupported(_)) => Kind::Unsupported,
            _ => Kind::Integrity,
        }
    }
}

/// Where the files of databases lie. Paths are relative to the root of the image; links in them are followed,
/// and lead nowhere else.
pub trait Source {
    /// What goes wrong when they are read.
    type Error;

    /// Whether there is a regular file of this name.
    fn has(&self, path: &str) -> bool;

    /// The content of that file; none where it cannot be held, or there is no such file.
    ///
    /// # Errors
    /// Those of the source.
    fn content(&self, path: &str) -> Result<Option<Cow<'_, [u8]>>, Self::Error>;

    /// The names of the regular files in this directory.
    fn names(&self, folder: &str) -> Vec<String>;
}

/// What databases say.
#[derive(Debug, Default)]
pub struct Packages {
    /// In the order of the databases.
    pub list: Vec<Package>,
    /// Databases of which not all is known.
    pub unread: Vec<Unread>,
}

impl Packages {
    /// The packages, without their licences.
    ///
    /// # Errors
    /// Those of the source.
    pub fn installed<S: Source>(source: &S) -> Result<Self, S::Error> {
        Reader::read(source, None)
    }

    /// The packages, and to `each` of their files, which some have in common, and directories: the number
    /// of the package in the list, and the path.
    ///
    /// # Errors
    /// Those of the source.
    pub fn with_files<S: Source>(
        source: &S,
        each: &mut dyn FnMut(&[Package], usize, TreePath),
    ) -> Result<Self, S::Error> {
        Reader::read(source, Some(each))
    }
}

/// To whom files are told.
type Each<'e> = &'e mut dyn FnMut(&[Package], usize, TreePath);

/// Databases being read.
struct Reader<'s, 'e, S> {
    source: &'s S,
    each: Option<Each<'e>>,
    found: Packages,
    /// Bytes of names that may still be told.
    left: usize,
}

impl<'s, 'e, S: Source> Reader<'s, 'e, S> {
    fn read(source: &'s S, each: Option<Each<'e>>) -> Result<Packages, S::Error> {
        let mut reader = Self { source, each, found: Packages::default(), left: MOST_NAMES };
        dpkg::read(&mut reader)?;
        apk::read(&mut reader)?;
        rpm::read(&mut reader)?;
        Ok(reader.found)
    }

    /// Whether files and licences are asked for.
    const fn wants_files(&self) -> bool {
        self.each.is_some()
    }

    /// A file of a database as text; empty where there is none.
    fn text(&mut self, path: &str) -> Result<Cow<'s, str>, S::Error> {
        let source = self.source;
        let content = source.content(path)?.filter(|bytes| bytes.len() as u64 <= MOST_DATABASE);
        if content.is_none() && source.has(path) {
            self.unread(path, Damage::Held);
        }
        Ok(match content.unwrap_or_default() {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }

    fn unread(&mut self, path: &str, damage: Damage) {
        // Of one folder one is enough.
        let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_string());
        let same = |other: &Unread| other.damage == damage && folder(&other.path) == folder(path);
        if !self.found.unread.iter().any(same) {
            self.found.unread.push(Unread { path: path.to_string(), damage });
        }
    }

    /// Takes a package of the database `path`, with its files.
    fn add<I: Iterator<Item = TreePath>>(&mut self, path: &str, package: Package, files: impl FnOnce() -> I) {
        if self.found.list.len() >= MOST_PACKAGES {
            return self.unread(path, Damage::Many);
        }
        self.found.list.push(package);
        let number = self.found.list.len() - 1;
        let Some(each) = &mut self.each else { return };
        for file in files() {
            let Some(left) = self.left.checked_sub(file.as_bytes().len() + 32) else {
                return self.unread(path, Damage::Many);
            };
            self.left = left;
            each(&self.found.list, number, file);
        }
    }
}

/// Whether `path` is a file of a database that is read.
#[must_use]
pub fn is_database(path: &TreePath) -> bool {
    let Ok(path) = str::from_utf8(path.as_bytes()) else { return false };
    dpkg::is_database(path) || apk::PATHS.contains(&path) || rpm::is_database(path)
}

#[cfg(test)]
mod tests;
