//! apt's lists in a root: the Release files of a lock and the indexes that they promise, as
//! `apt-get update` would have left them.
//!
//! A lock knows the hash of a Release file, not the file. It is kept beside the packages when it is
//! read for a lock; else it is fetched, and has to be the same one.

use super::bootstrap::Request;
use super::database::{make, put};
use super::fetch::{Fetcher, Hashing};
use super::lock::{Lock, Locked};
use super::release::{Promise, parse};
use super::sources::{Line, Repo};
use super::{Error, Result, index};
use crate::oci::Digest;
use crate::sys::dir::Dir;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where apt has them.
const LISTS: &str = "var/lib/apt/lists";

fn kept(cache: &Path, sha256: &str) -> PathBuf {
    cache.join(format!("{sha256}.release"))
}

/// Keeps a Release file in `cache`. That it is lost costs a download.
pub(super) fn keep_release(cache: &Path, sha256: &str, bytes: &[u8]) {
    if let Err(e) = std::fs::write(kept(cache, sha256), bytes) {
        tracing::debug!("{}: {e}", cache.display());
    }
}

/// A list and its name.
pub(super) type List = (String, Content);

/// What is in a list.
pub(super) enum Content {
    Release(Vec<u8>),
    /// An index that is kept in this file.
    Index(PathBuf, Promise),
}

/// The lists of `lock` for a root whose apt knows the archives by its own sources.list; those of flat
/// archives are left out. What is not in `cache` is fetched.
///
/// # Errors
/// [`Error::Release`] where the archive has another Release file by now; those of [`index::kept`].
pub(super) fn load(request: &Request, lock: &Lock, fetcher: &Fetcher, cache: &Path) -> Result<Vec<List>> {
    let mut lists = Vec::new();
    for (line, uri, suite, components) in lock.sources_list().lines().filter_map(source) {
        let fits = |r: &&Locked| r.suite == suite && r.components == components;
        let mut fitting = lock.releases.iter().filter(fits);
        let exact = fitting.clone().find(|r| r.uri == uri);
        let locked = exact.or_else(|| fitting.next()).ok_or_else(|| Error::Release {
            url: line.to_string(),
            reason: "the lock has no Release file of it".to_string(),
        })?;
        let here = request.archive.repos.iter().filter(|r| r.suites.contains(&suite));
        let addresses = std::iter::once(&*locked.uri).chain(here.flat_map(Repo::addresses));
        let dists: Vec<_> = addresses.map(|uri| format!("{uri}/dists/{suite}")).collect();
        let bytes = release(&dists, locked, fetcher, cache)?;
        // Of these bytes the lock tells the hash: who signed them was looked at when it was made.
        let parsed = parse(&bytes, None, &dists[0], None)?;
        let name = |rest: &str| list_name(&format!("{uri}/dists/{suite}/{rest}"));
        for component in &locked.components {
            let path = format!("{component}/binary-{}/Packages", request.arch);
            let (file, promise) = index::kept(fetcher, &parsed, &dists, &path, cache)?;
            lists.push((name(&path), Content::Index(file, promise)));
        }
        let signed = bytes.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----");
        lists.push((name(if signed { "InRelease" } else { "Release" }), Content::Release(bytes)));
    }
    Ok(lists)
}

/// Puts the lists into `root`, where it has apt; indexes are compared once more with what was promised.
///
/// # Errors
/// [`Error::Mismatch`], [`Error::Io`], [`Error::Sys`].
pub(super) fn write(root: &Dir, lists: &[List]) -> Result<()> {
    if root.in_root(Path::new("etc/apt")).is_err() {
        return Ok(());
    }
    let folder = make(root, LISTS)?;
    for (name, content) in lists {
        match content {
            Content::Release(bytes) => put(&folder, name, 0o644, bytes)?,
            Content::Index(kept, promise) => {
                let open = File::open(kept).map_err(|e| Error::io("open", kept, e))?;
                let mut reader = Hashing::new(open);
                let mut file = folder.create(OsStr::new(name))?;
                std::io::copy(&mut reader, &mut file).map_err(|e| Error::io("copy", kept, e))?;
                reader.compare(promise, name)?;
                folder.chmod(OsStr::new(name), 0o644)?;
            }
        }
    }
    Ok(())
}

/// Address, suite and components of a line of a sources.list, which is given first; none of a flat
/// archive.
fn source(line: &str) -> Option<(&str, String, String, Vec<String>)> {
    let mut repo = Line::read(line)?.repo;
    let suite = repo.suites.pop().filter(|suite| !suite.ends_with('/'))?;
    Some((line, repo.uri, suite, repo.components))
}

/// The bytes of a Release file of a lock.
fn release(dists: &[String], locked: &Locked, fetcher: &Fetcher, cache: &Path) -> Result<Vec<u8>> {
    let is_it = |bytes: &Vec<u8>| Digest::of(bytes).hex() == locked.sha256;
    if let Some(bytes) = std::fs::read(kept(cache, &locked.sha256)).ok().filter(is_it) {
        return Ok(bytes);
    }
    let mut failed = None;
    for url in dists.iter().flat_map(|dist| ["InRelease", "Release"].map(|name| format!("{dist}/{name}"))) {
        match fetcher.small(&url) {
            Ok(Some(bytes)) if is_it(&bytes) => {
                keep_release(cache, &locked.sha256, &bytes);
                return Ok(bytes);
            }
            Ok(_) => {}
            Err(e) => failed = Some(e),
        }
    }
    let reason = "it is another one than the lock's, of which apt was to have the lists".to_string();
    Err(failed.unwrap_or_else(|| Error::Release { url: format!("{}/InRelease", dists[0]), reason }))
}

/// How apt names the list of an address: without scheme and user, with `_` for `/`, and what could be
/// mistaken as in `%5f` (`URItoFileName` in apt's `strutl.cc`).
fn list_name(uri: &str) -> String {
    let rest = uri.split_once("://").map_or_else(|| uri.split_once(':').map_or(uri, |(_, r)| r), |(_, r)| r);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let mut name = String::new();
    for c in format!("{host}/{path}").chars() {
        match c {
            '/' => name.push('_'),
            c if r#"\|{}[]<>"^~_=!@#$%^&*"#.contains(c) || c <= ' ' || c as u32 >= 0x7f => {
                let mut bytes = [0; 4];
                name.extend(c.encode_utf8(&mut bytes).bytes().map(|b| format!("%{b:02x}")));
            }
            c => name.push(c),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_lists() {
        for (uri, want) in [
            ("http://deb.example/debian/dists/sid/InRelease", "deb.example_debian_dists_sid_InRelease"),
            ("http://u:p@h:80/a_b/~c", "h:80_a%5fb_%7ec"),
            ("file:/srv/debian/dists/x", "_srv_debian_dists_x"),
            ("file:///srv", "_srv"),
        ] {
            assert_eq!(list_name(uri), want, "{uri}");
        }
    }

    #[test]
    fn lines_of_sources() {
        let line = "deb [trusted=yes signed-by=/a] http://h/d/ sid main contrib";
        assert_eq!(
            source(line),
            Some((line, "http://h/d".into(), "sid".into(), vec!["main".into(), "contrib".into()]))
        );
        assert_eq!(source("deb http://h/d ./"), None);
        assert_eq!(source("deb-src http://h/d sid main"), None);
    }
}
