//! `InRelease`: who signed it, what it promises.
//!
//! The text is taken from inside the cleartext signature (RFC 9580, section 7) and from
//! nowhere else, so that nothing around it can be mistaken for signed. A signature counts
//! when a key of the keyring made it: a primary key or a bound signing subkey, neither
//! revoked, with SHA-256 or better. Indexes are named by path, size and SHA-256.

use super::control::field;
use super::{Error, Result};
use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PublicKey, Signature, SignatureType};
use pgp::types::KeyDetails;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    /// The indexes by path below the suite's folder.
    pub files: HashMap<String, Promise>,
    /// The fingerprint of the key that signed.
    pub signer: String,
}

/// Public keys.
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
    name: String,
}

impl Keyring {
    /// Reads keyring files, binary or armoured.
    ///
    /// # Errors
    /// [`Error::NoKeyring`] for one that is missing, [`Error::Keyring`] for one that holds no key.
    pub fn open(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let mut keys = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let bytes = std::fs::read(path).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => Error::NoKeyring { path: path.to_path_buf() },
                _ => Error::io("read", path, e),
            })?;
            let bad = || Error::Keyring { path: path.to_path_buf() };
            let (parsed, _) = SignedPublicKey::from_reader_many(&bytes[..]).map_err(|_| bad())?;
            let before = keys.len();
            keys.extend(parsed.flatten());
            if keys.len() == before {
                return Err(bad());
            }
        }
        let name = paths.iter().map(|p| p.as_ref().display().to_string()).collect::<Vec<_>>().join(", ");
        Ok(Self { keys, name })
    }

    /// The fingerprint of the key that made one of the signatures of `message`.
    fn signer(&self, message: &CleartextSignedMessage) -> Option<String> {
        let text = message.signed_text();
        let strong = |s: &&Signature| {
            let hash = s.hash_alg();
            matches!(hash, Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512))
        };
        message
            .signatures()
            .iter()
            .filter(strong)
            .find_map(|s| self.keys.iter().find_map(|key| signed_by(key, s, text.as_bytes())))
    }
}

/// The fingerprint of `key` or of its subkey where that made `signature` over `data`.
fn signed_by(key: &SignedPublicKey, signature: &Signature, data: &[u8]) -> Option<String> {
    let primary = &key.primary_key;
    let revoked = |s: &Signature| s.typ() == Some(SignatureType::KeyRevocation);
    if key.details.revocation_signatures.iter().any(revoked) {
        return None;
    }
    if signature.verify(primary, data).is_ok() {
        return Some(primary.fingerprint().to_string());
    }
    let signed = |s: &&SignedPublicSubKey| signature.verify(&s.key, data).is_ok();
    let subkey = key.public_subkeys.iter().find(signed)?;
    may_sign(subkey, primary).then(|| subkey.key.fingerprint().to_string())
}

/// Whether the primary key has bound the subkey for signing, the subkey agreed, and neither
/// took that back (RFC 9580, section 5.2.1).
fn may_sign(subkey: &SignedPublicSubKey, primary: &PublicKey) -> bool {
    let revoked = |s: &Signature| s.typ() == Some(SignatureType::SubkeyRevocation);
    let agreed = |s: &Signature| {
        s.embedded_signature().is_some_and(|e| e.verify_primary_key_binding(&subkey.key, primary).is_ok())
    };
    let binds = |s: &Signature| {
        s.key_flags().sign() && s.verify_subkey_binding(primary, &subkey.key).is_ok() && agreed(s)
    };
    !subkey.signatures.iter().any(revoked) && subkey.signatures.iter().any(binds)
}

/// Verifies and reads an `InRelease` file; `url` is for messages. `now` is compared with
/// `Valid-Until`, unless it is `None`.
///
/// # Errors
/// [`Error::Unsigned`], [`Error::Untrusted`], [`Error::Expired`], [`Error::Release`].
pub fn parse(bytes: &[u8], keyring: &Keyring, url: &str, now: Option<SystemTime>) -> Result<Release> {
    let unsigned = |reason: String| Error::Unsigned { url: url.to_string(), reason };
    if !bytes.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----") {
        return Err(unsigned("no cleartext signature".to_string()));
    }
    let (message, _) = CleartextSignedMessage::from_armor(bytes).map_err(|e| unsigned(e.to_string()))?;
    let signer = keyring
        .signer(&message)
        .ok_or_else(|| Error::Untrusted { url: url.to_string(), keyring: keyring.name.clone() })?;
    let text = message.signed_text().replace("\r\n", "\n");
    let get = |name: &str| field(&text, name).unwrap_or_default();
    if let (Some(now), Some(until)) = (now, field(&text, "Valid-Until")) {
        let limit = date(&until).ok_or_else(|| Error::Release {
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
        by_hash: get("Acquire-By-Hash") == "yes",
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

/// Reads `Sat, 11 Jul 2026 10:16:37 UTC` (RFC 5322 with a zone of `UTC`, `GMT` or `+0000`).
fn date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_once(',')?.1.split_whitespace().collect();
    let [day, month, year, clock, "UTC" | "GMT" | "+0000"] = words[..] else { return None };
    let month = MONTHS.iter().position(|m| *m == month)? as u64 + 1;
    let (day, year) = (day.parse::<u64>().ok()?, year.parse::<u64>().ok()?);
    let clock: Vec<u64> = clock.split(':').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    let [hours, minutes, seconds] = clock[..] else { return None };
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-03-01, years beginning in March so that the leap day is the last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let since_epoch = days.checked_sub(719_468)? * 86_400 + hours * 3_600 + minutes * 60 + seconds;
    Some(UNIX_EPOCH + Duration::from_secs(since_epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, want) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
            ("Sat, 11 Jul 2026 10:16:37 UTC", Some(1_783_764_997)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("tomorrow", None),
            ("Sat, 11 Foo 2026 10:16:37 UTC", None),
        ] {
            let got = date(text).map(|t| t.duration_since(UNIX_EPOCH).unwrap().as_secs());
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn promises() {
        let hash = "A".repeat(64);
        let (path, promise) = promise(&format!(" {hash} 12 main/x")).unwrap();
        assert_eq!((path.as_str(), promise.size, promise.sha256), ("main/x", 12, "a".repeat(64)));
        assert!(super::promise(" abc 12 x").is_none());
    }
}
