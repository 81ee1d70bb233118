//! From an archive to all its packages: Release files, then indexes, all in parallel.

use super::control::{Package, Universe, packages};
use super::fetch::{Fetcher, check_bytes};
use super::release::{Keyring, Promise, Release, parse};
use super::sources::{Archive, Repo};
use super::{Error, Result};
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

/// How an index may be compressed, the best first.
const FORMS: [&str; 3] = [".xz", ".gz", ""];

/// Loads the packages of all suites of `archive` for `arch`; `cache` keeps the indexes.
///
/// # Errors
/// [`Error::NoSuite`], those of [`parse`] and of [`Fetcher`].
pub(super) fn load(
    fetcher: &Fetcher,
    archive: &Archive,
    arch: &str,
    check_valid_until: bool,
    cache: &Path,
) -> Result<Universe> {
    let now = check_valid_until.then(SystemTime::now);
    let suites: Vec<(&Repo, &str)> =
        archive.repos.iter().flat_map(|r| r.suites.iter().map(move |s| (r, s.as_str()))).collect();
    let all = std::thread::scope(|scope| {
        let load =
            |(repo, suite)| scope.spawn(move || suite_packages(fetcher, repo, suite, arch, now, cache));
        let threads: Vec<_> = suites.into_iter().map(load).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>>>()
    })?;
    Ok(Universe::new(all.into_iter().flatten()))
}

fn suite_packages(
    fetcher: &Fetcher,
    repo: &Repo,
    suite: &str,
    arch: &str,
    now: Option<SystemTime>,
    cache: &Path,
) -> Result<Vec<Package>> {
    let keyring = Keyring::open(&repo.signed_by)?;
    let dist = format!("{}/dists/{suite}", repo.uri);
    let url = format!("{dist}/InRelease");
    let bytes = fetcher
        .small(&url)?
        .ok_or_else(|| Error::NoSuite { suite: suite.to_string(), uri: repo.uri.clone() })?;
    let release = parse(&bytes, &keyring, &url, now)?;
    if release.codename != suite && release.suite != suite {
        let reason = format!("it is for suite {} ({}), not {suite}", release.suite, release.codename);
        return Err(Error::Release { url, reason });
    }
    let mut all = Vec::new();
    for component in &repo.components {
        let path = format!("{component}/binary-{arch}/Packages");
        let text = index(fetcher, &release, &dist, &path, cache)?;
        all.extend(packages(&text, &repo.uri));
    }
    Ok(all)
}

/// The text of an index. It is kept uncompressed, under the hash that the Release file
/// gives for that, and verified when it is read again.
fn index(fetcher: &Fetcher, release: &Release, dist: &str, path: &str, cache: &Path) -> Result<String> {
    let url = format!("{dist}/{path}");
    let missing = || Error::Release { url: format!("{dist}/InRelease"), reason: format!("it has no {path}") };
    let plain = release.files.get(path);
    let kept = plain.map(|p| cache.join(format!("{}.index", p.sha256)));
    if let (Some(plain), Some(kept)) = (plain, &kept)
        && let Ok(bytes) = std::fs::read(kept)
        && check_bytes(&bytes, plain, &url).is_ok()
    {
        return text(bytes, &url);
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
    let compressed = std::fs::read(&packed).map_err(|e| Error::io("read", &packed, e))?;
    let _ = std::fs::remove_file(&packed);
    check_bytes(&compressed, promise, &address)?;
    let bytes = expand(form, compressed, plain, &address)?;
    if let Some(kept) = kept {
        // A lost copy costs a download and is no failure of this one.
        if let Err(e) = publish(&kept, &bytes) {
            tracing::debug!("{}: {e}", kept.display());
        }
    }
    text(bytes, &url)
}

fn text(bytes: Vec<u8>, url: &str) -> Result<String> {
    String::from_utf8(bytes)
        .map_err(|_| Error::Release { url: url.to_string(), reason: "not UTF-8".to_string() })
}

/// Decompresses; no further than the size that the Release file gives, where it gives one.
fn expand(form: &str, compressed: Vec<u8>, plain: Option<&Promise>, name: &str) -> Result<Vec<u8>> {
    const MAX: u64 = 1 << 30;
    let limit = plain.map_or(MAX, |p| p.size);
    let mut bytes = Vec::with_capacity(usize::try_from(plain.map_or(0, |p| p.size.min(MAX))).unwrap_or(0));
    let broken = |e| Error::io("decompress", Path::new(name), e);
    match form {
        ".xz" => liblzma::read::XzDecoder::new(&compressed[..])
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(broken)?,
        ".gz" => flate2::read::MultiGzDecoder::new(&compressed[..])
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(broken)?,
        _ => return Ok(compressed),
    };
    if let Some(plain) = plain {
        check_bytes(&bytes, plain, name)?;
    }
    Ok(bytes)
}

fn publish(target: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(target.parent().unwrap_or(target))?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(target)?;
    Ok(())
}
