//! Which package a file belongs to, by the databases that are in the image.
//!
//! Databases name files as the packages had them: since `/bin` is a link to `/usr/bin`, the directories
//! of these names are resolved in the image.

use super::fold::{File, Folded};
use crate::packages::{self, Package, Source};
use crate::tree::TreePath;
use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;

/// How many directories are remembered with where they lie.
const REMEMBERED: usize = 1 << 16;

/// The packages of an image.
#[derive(Debug, Default)]
pub struct Packages {
    /// Sorted by name.
    pub list: Vec<Package>,
    /// What could not be read.
    pub notes: Vec<String>,
    /// Of each file its package, by its number in the list.
    pub owners: Vec<Option<usize>>,
}

impl Source for Folded {
    type Error = Infallible;

    fn has(&self, path: &str) -> bool {
        self.file(path).is_some()
    }

    fn content(&self, path: &str) -> Result<Option<Cow<'_, [u8]>>, Infallible> {
        Ok(self.file(path).and_then(|file| file.text.as_deref()).map(Cow::Borrowed))
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let folder = self.resolve(&TreePath::parse_link(folder.as_bytes()).unwrap_or_default());
        let name = |path: &TreePath| {
            path.split().filter(|(parent, _)| *parent == folder)?.1.to_str().map(str::to_string)
        };
        self.seen_within(&folder).filter_map(|(path, _)| name(path)).collect()
    }
}

impl Packages {
    /// The packages of the image. A file of several belongs to the first.
    #[must_use]
    pub fn new(image: &Folded) -> Self {
        // By path, of the hidden files too: their packages would have them.
        let mut owners: HashMap<&TreePath, Option<usize>> =
            image.files.iter().map(|f| (&*f.path, None)).collect();
        let mut real: HashMap<TreePath, TreePath> = HashMap::new();
        let key = |package: &Package| (package.name.clone(), package.architecture.clone());
        let mut each = |list: &[Package], number: usize, path: TreePath| {
            let Some((parent, name)) = path.split() else { return };
            if !real.contains_key(&parent) {
                if real.len() >= REMEMBERED {
                    real.clear();
                }
                real.insert(parent.clone(), image.resolve(&parent));
            }
            let Some(owner) = real.get(&parent).and_then(|real| owners.get_mut(&real.join(name))) else {
                return;
            };
            if owner.is_none_or(|other| key(&list[number]) < key(&list[other])) {
                *owner = Some(number);
            }
        };
        let Ok(found) = packages::Packages::with_files(image, &mut each);
        let mut order: Vec<usize> = (0..found.list.len()).collect();
        order.sort_by_cached_key(|&number| key(&found.list[number]));
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, &number)| places[number] = place);
        let owner = |file: &File| owners.get(&*file.path).copied().flatten().map(|number| places[number]);
        let mut notes: Vec<String> = found.unread.iter().map(ToString::to_string).collect();
        if image.has_led_too_far() {
            notes.push("links of directories lead too far: not all files are their packages'".to_string());
        }
        Self {
            owners: image.files.iter().map(owner).collect(),
            notes,
            list: order.into_iter().map(|number| found.list[number].clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fold::{Folded, Item, What};
    use super::*;

    /// An image of these files, with their content where it is one of a database, and these links.
    fn image(files: &[(&str, &str)], links: &[(&str, &str)]) -> Folded {
        let path = |p: &str| TreePath::parse_link(p.as_bytes()).unwrap();
        let file = |(p, text): &(&str, &str)| {
            let text = packages::is_database(&path(p)).then(|| text.as_bytes().into());
            Item { path: path(p), what: What::File { bytes: 1, sha256: None, text } }
        };
        let link =
            |(p, to): &(&str, &str)| Item { path: path(p), what: What::Symlink(to.as_bytes().to_vec()) };
        Folded::new(vec![files.iter().map(file).chain(links.iter().map(link)).collect()])
    }

    const STATUS: &str = "Package: b\nStatus: install ok installed\nVersion: 1-2\nArchitecture: amd64\n\n\
        Package: a\nStatus: install ok unpacked\nVersion: 2\nArchitecture: all\n";

    #[test]
    fn files_are_where_links_lead() {
        let all = [
            ("var/lib/dpkg/status", STATUS),
            ("var/lib/dpkg/info/b:amd64.list", "/.\n/bin\n/bin/x\n/lib/y\n/shared\n/loop/z\n"),
            ("var/lib/dpkg/info/a.list", "/usr/share/a\n/opt/l/z\n/shared\n"),
            ("usr/bin/x", ""),
            ("usr/lib/y", ""),
            ("srv/z", ""),
            ("shared", ""),
            ("usr/share/a", ""),
            ("etc/mine", ""),
        ];
        let links = [
            ("bin", "usr/bin"),
            ("lib", "/usr/lib"),
            ("opt/l", "../srv"),
            ("loop", "loop"),
            ("var/lib/rpm", ".."),
        ];
        let image = image(&all, &links);
        let packages = Packages::new(&image);
        let names: Vec<_> = packages.list.iter().map(|p| (p.name.as_str(), p.version.as_str())).collect();
        assert_eq!(names, [("a", "2"), ("b", "1-2")]);
        for (path, want) in [
            ("usr/bin/x", "b"),
            ("usr/lib/y", "b"),
            ("srv/z", "a"),
            // The first by name has it, whatever the order of the database.
            ("shared", "a"),
            ("usr/share/a", "a"),
            ("etc/mine", "-"),
        ] {
            let number = image.files.iter().position(|f| f.path.as_bytes() == path.as_bytes()).unwrap();
            let owner = packages.owners[number].map_or("-", |n| packages.list[n].name.as_str());
            assert_eq!(owner, want, "{path}");
        }
        assert!(packages.notes.is_empty(), "{:?}", packages.notes);
    }

    #[test]
    fn links_lead_so_far_and_no_further() {
        let round = "x/../".repeat(800) + "round";
        let list = (0..200_000).map(|n| format!("/round/{n}/f\n")).collect::<Vec<_>>().concat();
        let all = [("var/lib/dpkg/status", STATUS), ("var/lib/dpkg/info/a.list", &list), ("usr/f", "")];
        let packages = Packages::new(&image(&all, &[("round", &round)]));
        assert!(packages.notes[0].contains("lead too far"), "{:?}", packages.notes);
    }
}
