//! What can go: a plan, made from what the store holds and what must stay, then its execution.
//!
//! Roots are the entries that stay, what leases hold, and what the caller adds. An index leads
//! to manifests, a manifest to its configuration, its layers and its subject; a referrer, which
//! names a subject, stays by an entry of its own. Manifests of an index that are not there are
//! no fault: one platform was pulled. A document that is damaged stops the plan, since it is
//! unknown what it leads to, and so does one above the limit of documents, which is not read.
//!
//! [`Store::survey`] looks without a lock, for a plan to show; [`Store::pruning`] holds the
//! lock until the value goes, and must be planned anew. Names go first, then documents and the
//! rest, so that a process killed in between leaves only blobs that nothing names.

use super::{Entry, Error, Result, Store, io_error, list};
use crate::oci::{Descriptor, Digest, Image, Name, Platform};
use rustix::fs::FlockOperation;
use serde::Deserialize;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What may go beyond the entries that are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What only the dropped entries led to.
    Dropped,
    /// All blobs that nothing leads to, partial downloads, damaged blobs that were set aside.
    All,
}

/// A file that can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waste {
    /// Where it lies.
    pub path: PathBuf,
    /// What it takes on disk, in bytes.
    pub size: u64,
}

/// What will be removed.
#[derive(Debug, Default)]
pub struct Plan {
    /// Names.
    pub entries: Vec<Entry>,
    /// Blobs that nothing leads to, the smallest first.
    pub blobs: Vec<(Digest, Waste)>,
    /// Partial downloads that nobody goes on with, and damaged blobs.
    pub partials: Vec<Waste>,
    /// Results of steps that are kept no longer.
    pub results: Vec<PathBuf>,
    /// Directories of steps that were not used for long.
    pub caches: Vec<PathBuf>,
    /// Leases of killed processes.
    leases: Vec<PathBuf>,
}

impl Plan {
    /// What the blobs and partial downloads take on disk, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blobs.iter().map(|(_, w)| w).chain(&self.partials).map(|w| w.size).sum()
    }
}

/// The store as a plan needs it.
#[derive(Debug)]
pub struct Survey {
    store: Store,
    entries: Vec<Entry>,
    held: Vec<Digest>,
    dead: Vec<PathBuf>,
    lock: Option<File>,
}

impl Store {
    /// Looks at the store, for a plan that is only shown.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Layout`].
    pub fn survey(&self) -> Result<Survey> {
        let (held, dead) = self.held()?;
        Ok(Survey { store: self.clone(), entries: self.entries()?, held, dead, lock: None })
    }

    /// The same under the lock: nothing is held or named anew until the value goes.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Layout`], [`Error::Sys`].
    pub fn pruning(&self) -> Result<Survey> {
        let lock = self.lock(FlockOperation::LockExclusive)?;
        Ok(Survey { lock: Some(lock), ..self.survey()? })
    }

    /// When the image got its name, or where that is not known, came into the store.
    #[must_use]
    pub fn named_at(&self, entry: &Entry) -> SystemTime {
        let came = || fs::metadata(self.blob_path(&entry.descriptor.digest)).and_then(|m| m.modified());
        entry.tagged.or_else(|| came().ok()).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The image whose manifest has this digest; none where it is not there, or is an index's.
    ///
    /// # Errors
    /// Those of [`Store::image`].
    pub fn image_of(&self, manifest: &Digest) -> Result<Option<Image>> {
        let Some(links) = self.links(manifest)? else { return Ok(None) };
        if links.manifests.is_some() {
            return Ok(None);
        }
        let size = fs::metadata(self.blob_path(manifest)).map_or(0, |m| m.len());
        self.image(&Descriptor::new("", manifest.clone(), size), &Platform::host()).map(Some)
    }

    /// All blobs.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn blobs(&self) -> Result<Vec<(Digest, Waste)>> {
        let mut blobs = Vec::new();
        for folder in list(&self.root().join("blobs"))? {
            let algorithm = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for path in list(&folder)? {
                let hex = path.file_name().unwrap_or_default().to_string_lossy();
                // What is no blob is somebody else's.
                let Ok(digest) = format!("{algorithm}:{hex}").parse() else { continue };
                if let Some(waste) = waste(path)? {
                    blobs.push((digest, waste));
                }
            }
        }
        Ok(blobs)
    }

    /// Fails where a manifest, or a blob that it names, is not there. Of an index only the
    /// document itself is asked for.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::Io`].
    pub fn check_whole(&self, descriptor: &Descriptor) -> Result<()> {
        let missing =
            |digest: &Digest| Error::NoBlob { digest: digest.clone(), root: self.root().to_path_buf() };
        if !self.has(descriptor)? {
            return Err(missing(&descriptor.digest));
        }
        let Some(links) = self.links(&descriptor.digest)? else { return Ok(()) };
        for leaf in links.leaves() {
            if leaf.urls.is_none() && !self.blob_path(&leaf.digest).is_file() {
                return Err(missing(&leaf.digest));
            }
        }
        Ok(())
    }

    /// What the document `digest` is a referrer of; none where it is none or not there.
    ///
    /// # Errors
    /// [`Error::Verify`] where it is damaged, [`Error::Io`].
    pub fn subject(&self, digest: &Digest) -> Result<Option<Digest>> {
        Ok(self.links(digest)?.and_then(|l| l.subject).map(|s| s.digest))
    }

    /// What the document `digest` leads to; none where it is not there or is no document.
    pub(super) fn links(&self, digest: &Digest) -> Result<Option<Links>> {
        let path = self.blob_path(digest);
        let mut file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => io_error("open", &path, file)?,
        };
        let size = io_error("stat", &path, file.metadata())?.len();
        // What is held may be a layer of any size.
        if self.limits().check_document(size).is_err() && !io_error("read", &path, may_be_object(&mut file))?
        {
            return Ok(None);
        }
        let bytes = self.document(&Descriptor::new("", digest.clone(), size))?;
        let is_object = bytes.trim_ascii_start().starts_with(b"{");
        Ok(is_object.then(|| serde_json::from_slice(&bytes).ok()).flatten())
    }
}

/// Whether what begins so may be an object in JSON: a brace, maybe after space.
fn may_be_object(start: &mut impl Read) -> io::Result<bool> {
    let mut bytes = [0; 512];
    let n = start.read(&mut bytes)?;
    let first = bytes[..n].iter().find(|b| !b.is_ascii_whitespace());
    Ok(first.map_or(n == bytes.len(), |b| *b == b'{'))
}

/// What a document leads to; fields of manifests and indexes alike, since what is kept for an
/// ambiguous one does no harm.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Links {
    config: Option<Link>,
    layers: Option<Vec<Link>>,
    blobs: Option<Vec<Link>>,
    manifests: Option<Vec<Link>>,
    subject: Option<Link>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Link {
    #[serde(default)]
    media_type: String,
    pub digest: Digest,
    #[serde(default)]
    pub size: u64,
    pub urls: Option<Vec<String>>,
}

impl Link {
    /// Without what is not read.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest.clone(), self.size)
    }
}

impl Links {
    /// Configuration and layers.
    pub fn leaves(&self) -> impl Iterator<Item = &Link> {
        self.config.iter().chain(self.layers.iter().flatten()).chain(self.blobs.iter().flatten())
    }

    /// Manifests of an index.
    pub fn members(&self) -> impl Iterator<Item = &Link> {
        self.manifests.iter().flatten()
    }

    /// Manifests of an index, the subject of a referrer.
    pub fn documents(&self) -> impl Iterator<Item = &Link> {
        self.members().chain(&self.subject)
    }
}

impl Survey {
    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The image that `name` means.
    ///
    /// # Errors
    /// Those of [`Store::find`].
    pub fn find(&self, name: &Name) -> Result<Entry> {
        self.store.find_in(&self.entries, name)
    }

    /// What running commands hold.
    #[must_use]
    pub fn held(&self) -> &[Digest] {
        &self.held
    }

    /// The manifests and indexes that these lead to, themselves included, where they are there.
    ///
    /// # Errors
    /// Those of [`Store::document`], [`Error::TooLarge`] too.
    pub fn documents(&self, roots: impl IntoIterator<Item = Digest>) -> Result<HashSet<Digest>> {
        let mut seen = HashSet::new();
        let mut todo: Vec<Digest> = roots.into_iter().collect();
        while let Some(digest) = todo.pop() {
            if let Some(links) = self.store.links(&digest)?
                && seen.insert(digest)
            {
                todo.extend(links.documents().map(|l| l.digest.clone()).filter(|d| !seen.contains(d)));
            }
        }
        Ok(seen)
    }

    /// What goes where the entries go that `drop` says; `keep` are more digests that stay with
    /// what they lead to.
    ///
    /// # Errors
    /// [`Error::Verify`] where a document is damaged, [`Error::TooLarge`], [`Error::Io`].
    pub fn plan(&self, scope: Scope, drop: impl Fn(&Entry) -> bool, keep: &[Digest]) -> Result<Plan> {
        let (gone, stay): (Vec<&Entry>, Vec<&Entry>) = self.entries.iter().partition(|e| drop(e));
        let links = |d: &Digest| self.store.links(d);
        let roots = stay.iter().flat_map(|e| e.digests()).chain(&self.held).chain(keep);
        let kept = reach(roots.cloned(), &mut |d| links(d))?;
        let mut plan = Plan { entries: gone.into_iter().cloned().collect(), ..Plan::default() };
        let unneeded = match scope {
            Scope::All => self.store.blobs()?,
            Scope::Dropped => {
                // What a damaged document led to cannot be told; it stays until a prune.
                let mut lenient = |d: &Digest| Ok::<_, Error>(links(d).unwrap_or(None));
                let roots = plan.entries.iter().flat_map(Entry::digests).cloned();
                let mut blobs = Vec::new();
                for digest in reach(roots, &mut lenient)? {
                    let found = waste(self.store.blob_path(&digest))?;
                    blobs.extend(found.map(|w| (digest, w)));
                }
                blobs
            }
        };
        plan.blobs = unneeded.into_iter().filter(|(d, _)| !kept.contains(d)).collect();
        plan.blobs.sort_by(|(a, x), (b, y)| (x.size, a).cmp(&(y.size, b)));
        if scope == Scope::All {
            plan.partials = self.partials()?;
            plan.leases.clone_from(&self.dead);
        }
        Ok(plan)
    }

    fn partials(&self) -> Result<Vec<Waste>> {
        let shipimg = self.store.root().join("shipimg");
        let held: HashSet<String> = self.held.iter().map(|d| d.to_string().replace(':', "-")).collect();
        let is_held = |p: &PathBuf| held.contains(&*p.file_name().unwrap_or_default().to_string_lossy());
        let ingest = list(&shipimg.join("ingest"))?.into_iter().filter(|p| !is_held(p) && is_free(p));
        let others = list(&shipimg.join("damaged"))?.into_iter().chain(self.orphans()?);
        ingest.chain(others).filter_map(|p| waste(p).transpose()).collect()
    }

    /// Files that were to replace `index.json` and the like; their writers hold the lock.
    fn orphans(&self) -> Result<Vec<PathBuf>> {
        if self.lock.is_none() {
            return Ok(Vec::new());
        }
        let root = self.store.root();
        let files = list(root)?.into_iter().chain(list(&root.join("shipimg"))?);
        let is_new = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".new-"));
        Ok(files.filter(is_new).collect())
    }

    /// Removes what the plan, made by this survey, says.
    ///
    /// # Errors
    /// [`Error::Io`]; what was removed by then is gone, and the next prune goes on.
    pub fn apply(&self, plan: &Plan) -> Result<()> {
        self.store.drop_entries(&plan.entries)?;
        self.store.forget(&plan.blobs.iter().map(|(d, _)| d).collect())?;
        plan.blobs.iter().try_for_each(|(d, _)| self.store.drop_verdicts(d))?;
        let blobs = plan.blobs.iter().map(|(_, w)| &w.path);
        for path in plan.results.iter().chain(blobs).chain(&plan.leases) {
            remove(path)?;
        }
        plan.caches.iter().try_for_each(|folder| super::caches::remove(folder))?;
        for Waste { path, .. } in &plan.partials {
            // Somebody may have gone on with it meanwhile.
            if is_free(path) {
                remove(path)?;
            }
        }
        Ok(())
    }
}

/// What the file takes on disk; none where it is gone, or is no file.
fn waste(path: PathBuf) -> Result<Option<Waste>> {
    match fs::symlink_metadata(&path) {
        Ok(m) if m.is_file() => Ok(Some(Waste { path, size: m.blocks() * 512 })),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => io_error("stat", &path, Err(e)),
    }
}

/// Whether nobody has locked the file.
fn is_free(path: &PathBuf) -> bool {
    File::open(path)
        .is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => io_error("remove", path, removed),
    }
}

/// All that `roots` lead to, themselves included. Each document is read once.
fn reach<E>(
    roots: impl Iterator<Item = Digest>,
    links: &mut dyn FnMut(&Digest) -> std::result::Result<Option<Links>, E>,
) -> std::result::Result<HashSet<Digest>, E> {
    let (mut documents, mut leaves) = (HashSet::new(), HashSet::new());
    let mut todo: Vec<Digest> = roots.collect();
    while let Some(digest) = todo.pop() {
        if documents.contains(&digest) {
            continue;
        }
        if let Some(links) = links(&digest)? {
            todo.extend(links.documents().map(|l| l.digest.clone()));
            leaves.extend(links.leaves().map(|l| l.digest.clone()));
        }
        documents.insert(digest);
    }
    documents.extend(leaves);
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[test]
    fn what_roots_lead_to() {
        let d = |name: &str| json!({"digest": digest(name), "size": 1});
        let graph: BTreeMap<&str, serde_json::Value> = [
            ("one", json!({"config": d("c1"), "layers": [d("base"), d("l1")]})),
            ("two", json!({"config": d("c2"), "layers": [d("base"), d("l2")]})),
            ("index", json!({"manifests": [d("one"), d("absent")]})),
            ("loop", json!({"manifests": [d("loop"), d("two")]})),
            ("signature", json!({"config": d("empty"), "layers": [d("sig")], "subject": d("two")})),
            ("both", json!({"manifests": [d("one")], "config": d("c2"), "layers": [d("two")]})),
        ]
        .into();
        let names = ["absent", "base", "c1", "c2", "empty", "l1", "l2", "sig"];
        let all: Vec<&str> = graph.keys().copied().chain(names).collect();
        let links = |digest: &Digest| -> std::result::Result<Option<Links>, ()> {
            let found = graph.iter().find(|(name, _)| Digest::of(name.as_bytes()) == *digest);
            Ok(found.map(|(_, v)| serde_json::from_value(v.clone()).unwrap()))
        };
        for (roots, want) in [
            (&[][..], ""),
            (&["l1"], "l1"),
            (&["one"], "one base c1 l1"),
            (&["one", "two"], "one two base c1 c2 l1 l2"),
            (&["index"], "index one absent base c1 l1"),
            (&["loop"], "loop two base c2 l2"),
            (&["signature"], "signature two base c2 empty l2 sig"),
            // A layer that is a manifest elsewhere is walked when it is reached as one.
            (&["both"], "both one two base c1 c2 l1"),
            (&["both", "two"], "both one two base c1 c2 l1 l2"),
        ] {
            let got = reach(roots.iter().map(|r| digest(r)), &mut { links }).unwrap();
            let got: Vec<&str> = all.iter().copied().filter(|n| got.contains(&digest(n))).collect();
            let (mut got, mut want) = (got, want.split_whitespace().collect::<Vec<_>>());
            got.sort_unstable();
            want.sort_unstable();
            assert_eq!(got, want, "{roots:?}");
        }
    }

    fn image(store: &Store, name: &str, layers: &[&str]) -> Descriptor {
        let layers: Vec<_> =
            layers.iter().map(|l| store.put(media_type::LAYER, l.as_bytes()).unwrap()).collect();
        let config = store.put(media_type::CONFIG, name.as_bytes()).unwrap();
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        store.put(media_type::MANIFEST, manifest.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn removes_what_nothing_needs() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let one = image(&store, "one", &["base", "l1"]);
        let two = image(&store, "two", &["base", "l2"]);
        let loose = image(&store, "loose", &["base", "l3"]);
        store.tag(&"one".parse().unwrap(), &one).unwrap();
        store.tag(&"two".parse().unwrap(), &two).unwrap();
        let has = |d: &Digest| store.blob_path(d).exists();
        let partial = dir.path().join("shipimg/ingest/sha256-x");
        fs::write(&partial, "x").unwrap();
        let lease = store.lease().unwrap();
        lease.hold(&loose.digest).unwrap();

        let run = |scope, drop: &dyn Fn(&Entry) -> bool| {
            let shown = store.survey().unwrap().plan(scope, drop, &[]).unwrap();
            let survey = store.pruning().unwrap();
            let plan = survey.plan(scope, drop, &[]).unwrap();
            assert_eq!(plan.blobs, shown.blobs);
            survey.apply(&plan).unwrap();
            plan
        };
        assert!(run(Scope::All, &|_| false).blobs.is_empty());
        assert!(!partial.exists() && has(&digest("l3")), "a lease holds what its manifest names");
        drop(lease);
        let plan = run(Scope::Dropped, &|e| e.descriptor.digest == two.digest);
        assert_eq!((plan.entries.len(), plan.blobs.len()), (1, 3));
        assert!(has(&digest("base")) && !has(&digest("l2")) && has(&loose.digest));
        assert_eq!(run(Scope::All, &|_| false).blobs.len(), 3);
        assert!(!has(&loose.digest) && has(&digest("l1")));
        store.tag(&"again".parse().unwrap(), &loose).unwrap_err();
        assert_eq!(store.entries().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_manifest_stops_the_plan_until_its_image_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let one = image(&store, "one", &["l1"]);
        store.tag(&"one".parse().unwrap(), &one).unwrap();
        let path = store.blob_path(&one.digest);
        let mut text = fs::read(&path).unwrap();
        text[5] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, text).unwrap();
        let survey = store.pruning().unwrap();
        assert!(matches!(survey.plan(Scope::All, |_| false, &[]), Err(Error::Verify(_))));
        assert_eq!(survey.plan(Scope::All, |_| true, &[]).unwrap().blobs.len(), 3);
    }
}
