//! From an archive to all its packages: Release files, then indexes, all in parallel.

use super::control::{Listed, Origin, Universe, packages};
use super::fetch::{Fetcher, Hashing, check};
use super::keyring::Keyring;
use super::lock::Locked;
use super::release::{Promise, Release, parse, parse_detached};
use super::sources::{Archive, Repo};
use super::threads::each;
use super::{Error, Result, lists};
use crate::error::Kind;
use crate::oci::Digest;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// How an index may be compressed, the best first.
const FORMS: [&str; 3] = [".xz", ".gz", ""];

/// Loads the packages of all suites of `archive` for `arch`, and which Release files promise them;
/// `cache` keeps the indexes.
///
/// # Errors
/// [`Error::NoSuite`], those of [`parse`], of [`parse_detached`] and of [`Fetcher`].
pub(super) fn load(
    fetcher: &Fetcher,
    archive: &Archive,
    arch: &str,
    check_valid_until: bool,
    cache: &Path,
) -> Result<(Universe, Vec<Locked>)> {
    let suites: Vec<(&Repo, &str)> =
        archive.repos.iter().flat_map(|r| r.suites.iter().map(move |s| (r, s.as_str()))).collect();
    let now = archive.snapshot.as_ref().map_or_else(SystemTime::now, |s| s.time);
    let valid_at = check_valid_until.then_some(now);
    let all = each(suites.len(), suites.len(), |i| {
        suite_packages(fetcher, suites[i].0, suites[i].1, arch, valid_at, cache)
    })?;
    let (releases, packages): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    Ok((Universe::new(packages.into_iter().flatten()), releases))
}

fn suite_packages(
    fetcher: &Fetcher,
    repo: &Repo,
    suite: &str,
    arch: &str,
    valid_at: Option<SystemTime>,
    cache: &Path,
) -> Result<(Locked, Vec<Listed>)> {
    let keyring = if repo.trusted { None } else { Some(Keyring::open(&repo.signed_by)?) };
    let (uri, release, bytes) = release(fetcher, repo, suite, keyring.as_ref(), valid_at)?;
    let sha256 = Digest::of(&bytes).hex().to_string();
    lists::keep_release(cache, &sha256, &bytes);
    let flat = suite.ends_with('/');
    if !flat && release.codename != suite && release.suite != suite {
        let reason = format!("it is for suite {} ({}), not {suite}", release.suite, release.codename);
        return Err(Error::Release { url: format!("{}/InRelease", dist(uri, suite)), reason });
    }
    let mut names: Vec<&str> = vec![suite, &release.codename, &release.suite];
    names.retain(|n| !n.is_empty());
    names.dedup();
    let origin = Arc::new(Origin {
        uri: uri.to_string(),
        suites: names.iter().map(ToString::to_string).collect(),
        automatic: release.automatic,
        signer: release.signer.clone(),
    });
    let mut dists = vec![dist(uri, suite)];
    dists.extend(repo.addresses().filter(|a| *a != uri).map(|a| dist(a, suite)));
    let locked = Locked {
        uri: uri.to_string(),
        suite: suite.to_string(),
        components: repo.components.clone(),
        date: release.date,
        sha256,
        signer: release.signer.clone(),
    };
    if flat {
        return Ok((locked, index(fetcher, &release, &dists, "Packages", &origin, cache)?));
    }
    let mut all = Vec::new();
    for component in &repo.components {
        let path = format!("{component}/binary-{arch}/Packages");
        all.extend(index(fetcher, &release, &dists, &path, &origin, cache)?);
    }
    Ok((locked, all))
}

/// The folder of a suite; that of a flat archive is named by the suite itself (sources.list(5)).
fn dist(uri: &str, suite: &str) -> String {
    match suite.strip_suffix('/') {
        None => format!("{uri}/dists/{suite}"),
        Some("" | ".") => uri.to_string(),
        Some(path) => format!("{uri}/{}", path.trim_start_matches("./")),
    }
}

/// The Release file of the first address that has one, that address, and the file as it is.
fn release<'r>(
    fetcher: &Fetcher,
    repo: &'r Repo,
    suite: &str,
    keyring: Option<&Keyring>,
    valid_at: Option<SystemTime>,
) -> Result<(&'r str, Release, Vec<u8>)> {
    let mut first = None;
    for uri in repo.addresses() {
        match release_at(fetcher, uri, suite, keyring, valid_at) {
            Err(e) if matches!(e.kind(), Kind::Network | Kind::Missing) => {
                tracing::debug!("{e}");
                first.get_or_insert(e);
            }
            found => {
                let (release, bytes) = found?;
                return Ok((uri, release, bytes));
            }
        }
    }
    Err(first.unwrap_or_else(|| Error::NoSuite { suite: suite.to_string(), uri: repo.uri.clone() }))
}

/// `InRelease`, or `Release` with `Release.gpg` where there is none, or `Release` alone where
/// nothing is verified.
fn release_at(
    fetcher: &Fetcher,
    uri: &str,
    suite: &str,
    keyring: Option<&Keyring>,
    valid_at: Option<SystemTime>,
) -> Result<(Release, Vec<u8>)> {
    let dist = dist(uri, suite);
    let (url, plain) = (format!("{dist}/InRelease"), format!("{dist}/Release"));
    if let Some(bytes) = fetcher.small(&url)? {
        return Ok((parse(&bytes, keyring, &url, valid_at)?, bytes));
    }
    let no_suite = || Error::NoSuite { suite: suite.to_string(), uri: uri.to_string() };
    let text = fetcher.small(&plain)?.ok_or_else(no_suite)?;
    let signature = match keyring {
        Some(_) => fetcher.small(&format!("{plain}.gpg"))?,
        None => None,
    };
    Ok((parse_detached(&text, signature.as_deref(), keyring, &plain, valid_at)?, text))
}

/// Where the index `path` of a suite, whose folder is at any of `dists`, is kept uncompressed, and what it is to be.
///
/// # Errors
/// Those of fetching it; [`Error::Release`] where nobody tells the hash of the uncompressed one.
pub(super) fn kept(
    fetcher: &Fetcher,
    release: &Release,
    dists: &[String],
    path: &str,
    cache: &Path,
) -> Result<(PathBuf, Promise)> {
    let unnamed =
        || Error::Release { url: format!("{}/InRelease", dists[0]), reason: format!("it has no {path}") };
    let promise = release.files.get(path).ok_or_else(unnamed)?;
    index(fetcher, release, dists, path, &Arc::new(Origin::default()), cache)?;
    Ok((keep(cache, promise), promise.clone()))
}

fn keep(cache: &Path, promise: &Promise) -> PathBuf {
    cache.join(format!("{}.index", promise.sha256))
}

/// The packages of an index. It is kept uncompressed, under the hash that the Release file
/// gives for that, and verified while it is read again.
fn index(
    fetcher: &Fetcher,
    release: &Release,
    dists: &[String],
    path: &str,
    origin: &Arc<Origin>,
    cache: &Path,
) -> Result<Vec<Listed>> {
    let dist = &dists[0];
    let url = format!("{dist}/{path}");
    let missing = || Error::Release { url: format!("{dist}/InRelease"), reason: format!("it has no {path}") };
    let plain = release.files.get(path);
    let kept = plain.map(|p| keep(cache, p));
    if let Some(kept) = &kept
        && let Ok(file) = File::open(kept)
        && let Ok(found) = read(&file, plain, &url, origin)
    {
        return Ok(found);
    }
    let found = FORMS.iter().find_map(|f| Some((*f, release.files.get(&format!("{path}{f}"))?)));
    let (form, promise) = found.ok_or_else(missing)?;
    let packed = cache.join(format!("{}{form}.packed", promise.sha256));
    let plainly = dists.iter().map(|dist| format!("{dist}/{path}{form}"));
    let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let by_hash = dists.iter().filter(|_| release.by_hash);
    let by_hash = by_hash.map(|dist| format!("{dist}/{folder}by-hash/SHA256/{}", promise.sha256));
    let addresses: Vec<String> = by_hash.chain(plainly).collect();
    fetcher.any(&addresses, promise, &packed, &|_| ())?;
    let address = &addresses[0];
    let mut compressed = File::open(&packed).map_err(|e| Error::io("open", &packed, e))?;
    let _ = std::fs::remove_file(&packed);
    check(&mut compressed, promise, address)?;
    let text = tempfile::NamedTempFile::new_in(cache).map_err(|e| Error::io("create a file in", cache, e))?;
    expand(form, compressed, plain, text.as_file())
        .and_then(|()| text.as_file().rewind())
        .map_err(|e| Error::io("decompress", Path::new(address), e))?;
    let packages = read(text.as_file(), plain, address, origin)?;
    if let Some(kept) = kept {
        // A lost copy costs a download and is no failure of this one.
        if let Err(e) = text.persist(&kept) {
            tracing::debug!("{}: {e}", kept.display());
        }
    }
    Ok(packages)
}

/// Reads an index; what it holds is given only when the whole of it is what was promised.
fn read(file: &File, plain: Option<&Promise>, name: &str, origin: &Arc<Origin>) -> Result<Vec<Listed>> {
    let mut reader = BufReader::with_capacity(256 << 10, Hashing::new(file));
    let found = packages(&mut reader, origin);
    if let Some(plain) = plain {
        std::io::copy(&mut reader, &mut std::io::sink())
            .map_err(|e| Error::io("read", Path::new(name), e))?;
        reader.into_inner().compare(plain, name)?;
    }
    found.map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => {
            Error::Release { url: name.to_string(), reason: "not UTF-8".to_string() }
        }
        _ => Error::io("read", Path::new(name), e),
    })
}

/// Decompresses; no further than one byte past the size that the Release file gives.
fn expand(form: &str, compressed: File, plain: Option<&Promise>, mut text: &File) -> std::io::Result<()> {
    const MAX: u64 = 1 << 30;
    let compressed = BufReader::with_capacity(256 << 10, compressed);
    let stream: Box<dyn Read> = match form {
        ".xz" => Box::new(liblzma::bufread::XzDecoder::new(compressed)),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(compressed)),
        _ => Box::new(compressed),
    };
    let limit = plain.map_or(MAX, |p| p.size) + 1;
    std::io::copy(&mut BufReader::with_capacity(256 << 10, stream).take(limit), &mut text).map(|_| ())
}
