//! From an archive to all its packages: Release files, then indexes, all in parallel.

use super::control::{Listed, Origin, Universe, packages};
use super::fetch::{Fetcher, Hashing, check};
use super::keyring::Keyring;
use super::lock::Locked;
use super::release::{Promise, Release, parse};
use super::sources::{Archive, Repo};
use super::threads::each;
use super::{Error, Result};
use crate::oci::Digest;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// How an index may be compressed, the best first.
const FORMS: [&str; 3] = [".xz", ".gz", ""];

/// Loads the packages of all suites of `archive` for `arch`, and which Release files promise them;
/// `cache` keeps the indexes.
///
/// # Errors
/// [`Error::NoSuite`], those of [`parse`] and of [`Fetcher`].
pub(super) fn load(
    fetcher: &Fetcher,
    archive: &Archive,
    arch: &str,
    check_valid_until: bool,
    cache: &Path,
) -> Result<(Universe, Vec<Locked>)> {
    let suites: Vec<(&Repo, &str)> =
        archive.repos.iter().flat_map(|r| r.suites.iter().map(move |s| (r, s.as_str()))).collect();
    let all = each(suites.len(), suites.len(), |i| {
        suite_packages(fetcher, suites[i].0, suites[i].1, arch, check_valid_until, cache)
    })?;
    let (releases, packages): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    Ok((Universe::new(packages.into_iter().flatten()), releases))
}

fn suite_packages(
    fetcher: &Fetcher,
    repo: &Repo,
    suite: &str,
    arch: &str,
    check_valid_until: bool,
    cache: &Path,
) -> Result<(Locked, Vec<Listed>)> {
    let keyring = Keyring::open(&repo.signed_by)?;
    let dist = format!("{}/dists/{suite}", repo.uri);
    let url = format!("{dist}/InRelease");
    let bytes = fetcher
        .small(&url)?
        .ok_or_else(|| Error::NoSuite { suite: suite.to_string(), uri: repo.uri.clone() })?;
    let release = parse(&bytes, &keyring, &url, SystemTime::now(), check_valid_until)?;
    if release.codename != suite && release.suite != suite {
        let reason = format!("it is for suite {} ({}), not {suite}", release.suite, release.codename);
        return Err(Error::Release { url, reason });
    }
    let names = [suite, &release.codename, &release.suite];
    let origin = Arc::new(Origin {
        uri: repo.uri.clone(),
        suites: names.iter().filter(|n| !n.is_empty()).map(ToString::to_string).collect(),
        automatic: release.automatic,
    });
    let mut all = Vec::new();
    for component in &repo.components {
        let path = format!("{component}/binary-{arch}/Packages");
        all.extend(index(fetcher, &release, &dist, &path, &origin, cache)?);
    }
    let locked = Locked {
        uri: repo.uri.clone(),
        suite: suite.to_string(),
        components: repo.components.clone(),
        date: release.date,
        sha256: Digest::of(&bytes).hex().to_string(),
        signer: Some(release.signer),
    };
    Ok((locked, all))
}

/// The packages of an index. It is kept uncompressed, under the hash that the Release file
/// gives for that, and verified while it is read again.
fn index(
    fetcher: &Fetcher,
    release: &Release,
    dist: &str,
    path: &str,
    origin: &Arc<Origin>,
    cache: &Path,
) -> Result<Vec<Listed>> {
    let url = format!("{dist}/{path}");
    let missing = || Error::Release { url: format!("{dist}/InRelease"), reason: format!("it has no {path}") };
    let plain = release.files.get(path);
    let kept = plain.map(|p| cache.join(format!("{}.index", p.sha256)));
    if let Some(kept) = &kept
        && let Ok(file) = File::open(kept)
        && let Ok(found) = read(&file, plain, &url, origin)
    {
        return Ok(found);
    }
    let found = FORMS.iter().find_map(|f| Some((*f, release.files.get(&format!("{path}{f}"))?)));
    let (form, promise) = found.ok_or_else(missing)?;
    let packed = cache.join(format!("{}{form}.packed", promise.sha256));
    let address = if release.by_hash {
        let (folder, _) = url.rsplit_once('/').unwrap_or((&url, ""));
        format!("{folder}/by-hash/SHA256/{}", promise.sha256)
    } else {
        format!("{url}{form}")
    };
    fetcher.file(&address, promise, &packed, &|_| ())?;
    let mut compressed = File::open(&packed).map_err(|e| Error::io("open", &packed, e))?;
    let _ = std::fs::remove_file(&packed);
    check(&mut compressed, promise, &address)?;
    let text = tempfile::NamedTempFile::new_in(cache).map_err(|e| Error::io("create a file in", cache, e))?;
    expand(form, compressed, plain, text.as_file())
        .and_then(|()| text.as_file().rewind())
        .map_err(|e| Error::io("decompress", Path::new(&address), e))?;
    let packages = read(text.as_file(), plain, &address, origin)?;
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
