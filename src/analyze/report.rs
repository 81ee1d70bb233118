//! Sums over the files of an image.

use super::directories::{self, Directories, Directory};
use super::fold::{Fate, File, Folded};
use super::packages::Packages;
use super::read::Listing;
use crate::oci::Image;
use crate::packages::Package;
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Files together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Sum {
    /// Bytes of their contents.
    pub bytes: u64,
    /// How many there are.
    pub files: u64,
    /// Bytes of contents that are waste; of layers they are among `bytes`, of directories and packages
    /// those of hidden files are not.
    pub waste: u64,
}

impl Sum {
    pub(super) fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files += other.files;
        self.waste = self.waste.saturating_add(other.waste);
    }

    /// What a file adds to the sum of its layer.
    fn in_layer(file: &File) -> Self {
        let waste = if file.fate == Fate::Kept { 0 } else { file.bytes };
        Self { bytes: file.bytes, files: 1, waste }
    }

    /// What a file adds to what the image has.
    fn in_image(file: &File) -> Self {
        let all = Self::in_layer(file);
        if file.fate.is_seen() { all } else { Self { bytes: 0, files: 0, ..all } }
    }
}

/// A layer.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRow {
    /// Digest of its blob; none of a folder.
    pub digest: Option<String>,
    /// Digest of its tar; none of a folder.
    pub diff_id: Option<String>,
    /// Bytes of its blob, as compressed.
    pub size: Option<u64>,
    /// Bytes of its tar.
    pub tar: Option<u64>,
    /// Its files.
    #[serde(flatten)]
    pub sum: Sum,
    /// When it was made.
    pub created: Option<String>,
    /// What made it.
    pub created_by: Option<String>,
    /// What its maker says.
    pub comment: Option<String>,
}

/// What an image is made of.
#[derive(Debug)]
pub struct Report {
    /// What it is called.
    pub name: String,
    /// Digest of its manifest; none of a folder.
    pub digest: Option<String>,
    /// What it runs on; none of a folder.
    pub platform: Option<String>,
    /// Bytes of all blobs; none of a folder.
    pub size: Option<u64>,
    /// All files.
    pub total: Sum,
    /// The layers, the lowest first.
    pub layers: Vec<LayerRow>,
    /// The directories in which there are files, each behind the one that it lies in.
    pub directories: Vec<Directory>,
    /// The packages, by name, with their files.
    pub packages: Vec<(Package, Sum)>,
    /// Files of no package.
    pub loose: Sum,
    /// The regular files of all layers.
    pub files: Vec<File>,
    /// Of each file its directory and its package, by their numbers.
    pub places: Vec<(usize, Option<usize>)>,
    /// What is not known.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn of_image(name: &str, image: &Image, listings: Vec<Listing>, whole: bool) -> Self {
        let mut steps = image.config.history().iter().flatten().filter(|h| h.empty_layer() != Some(true));
        let row = |(layer, listing): (&crate::oci::Layer, &Listing)| {
            let step = steps.next();
            LayerRow {
                digest: Some(layer.descriptor.digest.to_string()),
                diff_id: Some(layer.diff_id.to_string()),
                size: Some(layer.descriptor.size),
                tar: listing.tar,
                sum: Sum::default(),
                created: step.and_then(|s| s.created().clone()),
                created_by: step.and_then(|s| s.created_by().clone()),
                comment: step.and_then(|s| s.comment().clone()),
            }
        };
        let layers = image.layers.iter().zip(&listings).map(row).collect();
        let mut report = Self::new(name, layers, listings);
        report.digest = Some(image.descriptor.digest.to_string());
        report.platform = Some(image.platform().to_string());
        report.size = Some(image.size());
        if !whole {
            report.notes.push("the databases of packages are too large to be read".to_string());
        }
        report
    }

    pub(super) fn of_folder(name: &str, listing: Listing) -> Self {
        Self::new(name, vec![LayerRow::default()], vec![listing])
    }

    fn new(name: &str, mut layers: Vec<LayerRow>, listings: Vec<Listing>) -> Self {
        let folded = Folded::new(listings.into_iter().map(|l| l.items).collect());
        let packages = Packages::new(&folded);
        let mut files = folded.into_files();
        let mut directories = Directories::default();
        let (mut total, mut loose) = (Sum::default(), Sum::default());
        let mut sums = vec![Sum::default(); packages.list.len()];
        let mut places = Vec::with_capacity(files.len());
        for (file, owner) in files.iter_mut().zip(packages.owners) {
            file.text = None;
            layers[file.layer].sum.add(Sum::in_layer(file));
            let sum = Sum::in_image(file);
            total.add(sum);
            owner.map_or(&mut loose, |n| &mut sums[n]).add(sum);
            places.push((directories.add(&file.path, sum), owner));
        }
        Self {
            name: name.to_string(),
            digest: None,
            platform: None,
            size: None,
            total,
            layers,
            directories: directories.summed(),
            packages: packages.list.into_iter().zip(sums).collect(),
            loose,
            files,
            places,
            notes: packages.notes,
        }
    }

    /// The path of the directory of this number.
    #[must_use]
    pub fn directory(&self, number: usize) -> String {
        directories::path(&self.directories, number).to_string()
    }

    /// Files that are waste, the largest first, with their numbers.
    #[must_use]
    pub fn wasted(&self) -> Vec<(usize, &File)> {
        let wasted = self.files.iter().enumerate().filter(|(_, f)| f.fate != Fate::Kept && f.bytes > 0);
        let mut wasted: Vec<_> = wasted.collect();
        wasted.sort_by(|(_, a), (_, b)| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        wasted
    }

    /// What became of a file, in words.
    #[must_use]
    pub fn reason(&self, file: &File) -> String {
        let by = |what: &str, layer: usize| {
            let own = layer == file.layer;
            if own { format!("{what} in its own layer") } else { format!("{what} by layer {}", layer + 1) }
        };
        match file.fate {
            Fate::Kept => String::new(),
            Fate::Deleted(layer) => by("deleted", layer),
            Fate::Replaced(layer) => by("replaced", layer),
            Fate::Rewritten(layer) => by("written again, with the same content,", layer),
            Fate::Repeated(first) => {
                self.files.get(first).map_or(String::new(), |f| format!("the same as {}", f.path))
            }
        }
    }
}

/// Rows of JSON, each made when it is written.
pub(super) struct Rows<F>(pub(super) F);

impl<I, F> Serialize for Rows<F>
where
    F: Fn() -> I,
    I: Iterator,
    I::Item: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

#[derive(serde::Serialize)]
struct DirectoryJson {
    path: String,
    #[serde(flatten)]
    sum: Sum,
}

#[derive(serde::Serialize)]
struct PackageJson<'a> {
    name: &'a str,
    version: &'a str,
    architecture: &'a str,
    licence: Option<&'a str>,
    manager: &'a str,
    #[serde(flatten)]
    sum: Sum,
}

#[derive(serde::Serialize)]
struct FileJson<'a> {
    path: String,
    bytes: u64,
    layer: usize,
    package: Option<&'a str>,
    fate: &'a str,
    #[serde(rename = "byLayer")]
    by_layer: Option<usize>,
    #[serde(rename = "sameAs")]
    same_as: Option<String>,
}

impl Report {
    fn file_json(&self, number: usize) -> FileJson<'_> {
        let (file, (_, package)) = (&self.files[number], self.places[number]);
        let by_layer = match file.fate {
            Fate::Deleted(layer) | Fate::Replaced(layer) | Fate::Rewritten(layer) => Some(layer),
            Fate::Kept | Fate::Repeated(_) => None,
        };
        let same_as = match file.fate {
            Fate::Repeated(first) => self.files.get(first).map(|f| f.path.to_string()),
            _ => None,
        };
        let package = package.map(|n| self.packages[n].0.name.as_str());
        let (path, fate) = (file.path.to_string(), file.fate.name());
        FileJson { path, bytes: file.bytes, layer: file.layer, package, fate, by_layer, same_as }
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let directory = |n: usize| DirectoryJson { path: self.directory(n), sum: self.directories[n].sum };
        let mut object = serializer.serialize_struct("Report", 12)?;
        object.serialize_field("name", &self.name)?;
        object.serialize_field("digest", &self.digest)?;
        object.serialize_field("platform", &self.platform)?;
        object.serialize_field("size", &self.size)?;
        object.serialize_field("bytes", &self.total.bytes)?;
        object.serialize_field("fileCount", &self.total.files)?;
        object.serialize_field("waste", &self.total.waste)?;
        object.serialize_field("notes", &self.notes)?;
        object.serialize_field("layers", &self.layers)?;
        object.serialize_field("directories", &Rows(|| (0..self.directories.len()).map(directory)))?;
        object.serialize_field(
            "packages",
            &Rows(|| self.packages.iter().map(|(package, sum)| package.json(*sum))),
        )?;
        object.serialize_field("noPackage", &self.loose)?;
        object.serialize_field("files", &Rows(|| (0..self.files.len()).map(|n| self.file_json(n))))?;
        object.end()
    }
}

impl Package {
    fn json(&self, sum: Sum) -> PackageJson<'_> {
        PackageJson {
            name: &self.name,
            version: &self.version,
            architecture: &self.architecture,
            licence: self.licence.as_deref(),
            manager: self.manager.name(),
            sum,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::fold::{Item, What};
    use super::*;
    use crate::tree::TreePath;

    /// A report of layers of files: path, bytes, content.
    pub fn report(layers: &[&[(&str, u64, u8)]]) -> Report {
        let item = |(path, bytes, content): &(&str, u64, u8)| {
            let path = TreePath::parse_link(path.as_bytes()).unwrap();
            let what = match content {
                0 => What::Whiteout,
                _ => What::File { bytes: *bytes, sha256: Some([*content; 32]), text: None },
            };
            Item { path, what }
        };
        let listing = |l: &&[(&str, u64, u8)]| Listing { items: l.iter().map(item).collect(), tar: Some(0) };
        let rows = (0..layers.len())
            .map(|n| LayerRow { diff_id: Some(format!("sha256:{n}")), ..LayerRow::default() });
        Report::new("x", rows.collect(), layers.iter().map(listing).collect())
    }

    #[test]
    fn sums() {
        let report = report(&[
            &[("a/b/one", 10, 1), ("a/b/two", 20, 2), ("a/three", 40, 3), ("four", 80, 1)],
            &[("a/b/two", 0, 0), ("a/three", 5, 4), ("c/five", 7, 4)],
        ]);
        let layers: Vec<_> = report.layers.iter().map(|l| (l.sum.bytes, l.sum.files, l.sum.waste)).collect();
        // Of the first: two is deleted, three replaced, four is what one is. Of the second five is three.
        assert_eq!(layers, [(150, 4, 140), (12, 2, 7)]);
        let rows = report.directories.iter().enumerate();
        let rows: Vec<_> =
            rows.map(|(n, d)| (report.directory(n), d.sum.bytes, d.sum.files, d.sum.waste)).collect();
        assert_eq!(
            rows,
            [
                ("/".to_string(), 102, 4, 147),
                ("/a".to_string(), 15, 2, 60),
                ("/a/b".to_string(), 10, 1, 20),
                ("/c".to_string(), 7, 1, 7),
            ]
        );
        assert_eq!(report.total, report.directories[0].sum);
        assert_eq!(report.loose, report.total);
        let wasted: Vec<_> = report.wasted().into_iter().map(|(_, f)| report.reason(f)).collect();
        assert_eq!(
            wasted,
            ["the same as /a/b/one", "replaced by layer 2", "deleted by layer 2", "the same as /a/three"]
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["files"][1]["fate"], "deleted");
        assert_eq!(
            (&json["files"][1]["byLayer"], &json["files"][3]["sameAs"]),
            (&1.into(), &"/a/b/one".into())
        );
        assert_eq!(json["layers"][0]["waste"], 140);
    }
}
