//! `InRelease`: who signed it, what it promises.
//!
//! The text is taken from inside the cleartext signature (RFC 9580, section 7) and from
//! nowhere else, so that nothing around it can be mistaken for signed. Which signatures
//! count is told in [`super::keyring`]. Indexes are named by path, size and SHA-256.

use super::control::field;
use super::keyring::Keyring;
use super::{Error, Result};
use crate::oci::rfc5322;
use pgp::composed::CleartextSignedMessage;
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
    /// The fingerprint of the key that signed.
    pub signer: String,
}

/// Verifies and reads an `InRelease` file; `url` is for messages. `now` is compared with the
/// end of signatures and, where `check_valid_until` says so, with `Valid-Until`.
///
/// # Errors
/// [`Error::Unsigned`], [`Error::Untrusted`], [`Error::Expired`], [`Error::Release`].
pub fn parse(
    bytes: &[u8],
    keyring: &Keyring,
    url: &str,
    now: SystemTime,
    check_valid_until: bool,
) -> Result<Release> {
    let unsigned = |reason: String| Error::Unsigned { url: url.to_string(), reason };
    if !bytes.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----") {
        return Err(unsigned("no cleartext signature".to_string()));
    }
    let (message, _) = CleartextSignedMessage::from_armor(bytes).map_err(|e| unsigned(e.to_string()))?;
    let signer = Timestamp::try_from(now)
        .ok()
        .and_then(|now| keyring.signer(&message, now))
        .ok_or_else(|| Error::Untrusted { url: url.to_string(), keyring: keyring.name.clone() })?;
    let text = message.signed_text().replace("\r\n", "\n");
    let get = |name: &str| field(&text, name).unwrap_or_default();
    if check_valid_until && let Some(until) = field(&text, "Valid-Until") {
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
    let (sha256, size, path) = (words.next()?, words.next()?, words.next()?);
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
