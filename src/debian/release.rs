//! `InRelease`, or `Release` with `Release.gpg`: who signed it, what it promises.
//!
//! The text of the former is taken from inside the cleartext signature (RFC 9580, section 7) and from
//! nowhere else, so that nothing around it can be mistaken for signed. Which signatures
//! count is told in [`super::keyring`]. Indexes are named by path, size and SHA-256.

use super::control::field;
use super::keyring::Keyring;
use super::{Error, Result};
use crate::oci::rfc5322;
use pgp::composed::{CleartextSignedMessage, Deserializable, DetachedSignature};
use pgp::packet::Signature;
use pgp::types::Timestamp;
use std::collections::HashMap;
use std::time::SystemTime;

/// An index as the Release file promises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
}

/// A verified Release file.
#[derive(Debug)]
pub struct Release {
    /// `Origin`, as `Debian` or `Ubuntu`.
    pub origin: String,
    /// `Codename`, as `bookworm`.
    pub codename: String,
    /// `Suite`, as `stable`.
    pub suite: String,
    /// Whether indexes are found under `by-hash/SHA256/` (`Acquire-By-Hash`).
    pub by_hash: bool,
    /// Whether its packages are taken without being asked for (no `NotAutomatic`).
    pub automatic: bool,
    /// `Date`, in seconds since 1970; 0 where it has none.
    pub date: i64,
    /// The indexes by path below the suite's folder.
    pub files: HashMap<String, Promise>,
    /// The fingerprint of the key that signed; none where nobody asked.
    pub signer: Option<String>,
}

/// Verifies and reads an `InRelease` file; `url` is for messages. Without a keyring anybody may
/// have signed it, or nobody. `valid_at` is compared with `Valid-Until`.
///
/// # Errors
/// [`Error::Unsigned`], [`Error::Untrusted`], [`Error::Expired`], [`Error::Release`].
pub fn parse(
    bytes: &[u8],
    keyring: Option<&Keyring>,
    url: &str,
    valid_at: Option<SystemTime>,
) -> Result<Release> {
    let unsigned = |reason: String| Error::Unsigned { url: url.to_string(), reason };
    if !bytes.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----") {
        if keyring.is_none() {
            return read(&text(bytes, url)?, None, url, valid_at);
        }
        return Err(unsigned("no cleartext signature".to_string()));
    }
    let (message, _) = CleartextSignedMessage::from_armor(bytes).map_err(|e| unsigned(e.to_string()))?;
    let text = message.signed_text();
    let who = signer(keyring, message.signatures(), text.as_bytes(), url)?;
    read(&text.replace("\r\n", "\n"), who, url, valid_at)
}

/// As [`parse`], of a `Release` file at `url` and the `Release.gpg` beside it.
///
/// # Errors
/// As [`parse`].
pub fn parse_detached(
    bytes: &[u8],
    signature: Option<&[u8]>,
    keyring: Option<&Keyring>,
    url: &str,
    valid_at: Option<SystemTime>,
) -> Result<Release> {
    let unsigned = |reason: String| Error::Unsigned { url: url.to_string(), reason };
    let mut who = None;
    if keyring.is_some() {
        let signature = signature.ok_or_else(|| unsigned("no InRelease and no Release.gpg".to_string()))?;
        let (parsed, _) =
            DetachedSignature::from_reader_many(signature).map_err(|e| unsigned(e.to_string()))?;
        let signatures: Vec<Signature> = parsed.flatten().map(|s| s.signature).collect();
        who = signer(keyring, &signatures, bytes, url)?;
    }
    read(&text(bytes, url)?, who, url, valid_at)
}

fn text(bytes: &[u8], url: &str) -> Result<String> {
    let bad = |_| Error::Release { url: url.to_string(), reason: "not UTF-8".to_string() };
    Ok(str::from_utf8(bytes).map_err(bad)?.replace("\r\n", "\n"))
}

/// Whose signature counts; none where no keyring says so.
fn signer(
    keyring: Option<&Keyring>,
    signatures: &[Signature],
    data: &[u8],
    url: &str,
) -> Result<Option<String>> {
    let Some(keyring) = keyring else { return Ok(None) };
    let now = Timestamp::try_from(SystemTime::now()).ok();
    let found = now.and_then(|now| keyring.signer(signatures, data, now));
    let untrusted = || Error::Untrusted { url: url.to_string(), keyring: keyring.name.clone() };
    found.map(Some).ok_or_else(untrusted)
}

fn read(text: &str, signer: Option<String>, url: &str, valid_at: Option<SystemTime>) -> Result<Release> {
    let get = |name: &str| field(text, name).unwrap_or_default();
    if let Some((now, until)) = valid_at.zip(field(text, "Valid-Until")) {
        let limit = rfc5322(&until).ok_or_else(|| Error::Release {
            url: url.to_string(),
            reason: format!("Valid-Until {until:?} is no date"),
        })?;
        if limit < now {
            return Err(Error::Expired { url: url.to_string(), until });
        }
    }
    let files = get("SHA256").lines().filter_map(promise).collect::<HashMap<_, _>>();
    if files.is_empty() {
        return Err(Error::Release { url: url.to_string(), reason: "no SHA256 field".to_string() });
    }
    Ok(Release {
        origin: get("Origin"),
        codename: get("Codename"),
        suite: get("Suite"),
        date: rfc5322(&get("Date"))
            .and_then(|d| d.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map_or(0, |d| d.as_secs().cast_signed()),
        by_hash: get("Acquire-By-Hash") == "yes",
        automatic: get("NotAutomatic") != "yes",
        files,
        signer,
    })
}

/// `HASH SIZE PATH`.
fn promise(line: &str) -> Option<(String, Promise)> {
    let mut words = line.split_whitespace();
    let (sha256, size, path) = (words.next()?, words.next()?, words.next()?.trim_start_matches("./"));
    let hex = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
    let promise = Promise { sha256: sha256.to_ascii_lowercase(), size: size.parse().ok()? };
    hex.then(|| (path.to_string(), promise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises() {
        let hash = "A".repeat(64);
        let (path, promise) = promise(&format!(" {hash} 12 main/x")).unwrap();
        assert_eq!((path.as_str(), promise.size, promise.sha256), ("main/x", 12, "a".repeat(64)));
        assert!(super::promise(" abc 12 x").is_none());
    }
}
