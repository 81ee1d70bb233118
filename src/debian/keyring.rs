//! Whose signature counts (RFC 9580).
//!
//! A signature counts when a key of the keyring made it, with SHA-256 or better, and it has
//! not expired. The key is a primary key or a subkey that the primary key has bound for
//! signing; neither is revoked, and neither was made after the signature or had expired
//! when it was made. A key's lifetime is that of its newest self-signature, so that a
//! keyring with a prolonged key prolongs it here. A primary key without any self-signature
//! signs nothing.

use super::sources::is_distributions;
use super::{Error, Result};
use pgp::composed::{Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{Duration, KeyDetails, Tag, Timestamp};
use std::path::{Path, PathBuf};

/// Public keys.
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
    /// Its files, for messages.
    pub(super) name: String,
}

impl Keyring {
    /// Reads keyring files, binary or armoured.
    ///
    /// # Errors
    /// [`Error::NoKeyring`] for one that is missing, [`Error::Keyring`] for one that holds no key.
    pub fn open(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let mut keys = Vec::new();
        for path in paths {
            let path = existing(path.as_ref());
            let bytes = std::fs::read(&path).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => Error::NoKeyring { path: path.clone() },
                _ => Error::io("read", &path, e),
            })?;
            let bad = || Error::Keyring { path: path.clone() };
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

    /// The fingerprint of the key that made a signature of `data` that counts at `now`.
    pub(super) fn signer(&self, signatures: &[Signature], data: &[u8], now: Timestamp) -> Option<String> {
        let strong = |s: &&Signature| {
            let hash = s.hash_alg();
            matches!(hash, Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512))
        };
        let lives = |s: &&Signature| {
            s.created().is_some_and(|created| within(now, created, s.signature_expiration_time()))
        };
        let counting = signatures.iter().filter(strong).filter(lives);
        counting.into_iter().find_map(|s| self.keys.iter().find_map(|key| signed_by(key, s, data)))
    }
}

/// The keyring's file. Releases of a distribution name theirs differently (`.gpg`, `.pgp`): where
/// that of this name is missing, the other one counts.
fn existing(path: &Path) -> PathBuf {
    if path.exists() || !is_distributions(path) {
        return path.to_path_buf();
    }
    let others = ["gpg", "pgp", "asc"].map(|extension| path.with_extension(extension));
    others.into_iter().find(|p| p.exists()).unwrap_or_else(|| path.to_path_buf())
}

/// Whether `time` is in the lifetime that begins at `start`; no length and 0 are for ever.
fn within(time: Timestamp, start: Timestamp, length: Option<Duration>) -> bool {
    let age = time.as_secs().checked_sub(start.as_secs());
    let length = length.map(Duration::as_secs).filter(|l| *l > 0);
    age.is_some_and(|age| length.is_none_or(|length| age < length))
}

/// The fingerprint of `key` or of its subkey where that made `signature` over `data`.
fn signed_by(key: &SignedPublicKey, signature: &Signature, data: &[u8]) -> Option<String> {
    let at = signature.created()?;
    let primary = &key.primary_key;
    let lifetime = || {
        let own = newest(self_signatures(key))?;
        within(at, primary.created_at(), own.key_expiration_time()).then_some(())
    };
    if !key.details.revocation_signatures.is_empty() {
        return None;
    }
    if signature.verify(primary, data).is_ok() {
        return lifetime().map(|()| primary.fingerprint().to_string());
    }
    let signed = |s: &&SignedPublicSubKey| signature.verify(&s.key, data).is_ok();
    let subkey = key.public_subkeys.iter().find(signed)?;
    lifetime()?;
    may_sign(subkey, key, at).then(|| subkey.key.fingerprint().to_string())
}

/// What a primary key says of itself: on its own, and with its users' names.
fn self_signatures(key: &SignedPublicKey) -> impl Iterator<Item = &Signature> {
    let primary = &key.primary_key;
    let direct = key.details.direct_signatures.iter().filter(|s| s.verify_key(primary).is_ok());
    let named = key.details.users.iter().flat_map(move |user| {
        let own = |s: &&Signature| {
            s.typ() != Some(SignatureType::CertRevocation)
                && s.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        };
        user.signatures.iter().filter(own)
    });
    direct.chain(named)
}

fn newest<'s>(signatures: impl Iterator<Item = &'s Signature>) -> Option<&'s Signature> {
    signatures.max_by_key(|s| s.created())
}

/// Whether the primary key has bound the subkey for signing, the subkey agreed, and neither
/// took that back or let it end before `at` (RFC 9580, section 5.2.1).
fn may_sign(subkey: &SignedPublicSubKey, key: &SignedPublicKey, at: Timestamp) -> bool {
    let primary = &key.primary_key;
    let revoked = |s: &Signature| s.typ() == Some(SignatureType::SubkeyRevocation);
    let agreed = |s: &Signature| {
        s.embedded_signature().is_some_and(|e| e.verify_primary_key_binding(&subkey.key, primary).is_ok())
    };
    let binds = |s: &&Signature| s.verify_subkey_binding(primary, &subkey.key).is_ok();
    !subkey.signatures.iter().any(revoked)
        && newest(subkey.signatures.iter().filter(binds)).is_some_and(|s| {
            s.key_flags().sign() && agreed(s) && within(at, subkey.key.created_at(), s.key_expiration_time())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyrings_of_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("debian-archive-keyring.pgp"), "x").unwrap();
        std::fs::write(path("own.pgp"), "x").unwrap();
        for (asked, taken) in [
            ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp"),
            ("ubuntu-archive-keyring.gpg", "ubuntu-archive-keyring.gpg"),
            ("own.gpg", "own.gpg"),
        ] {
            assert_eq!(existing(&path(asked)), path(taken));
        }
    }

    #[test]
    fn lifetimes() {
        let t = Timestamp::from_secs;
        for (time, start, length, alive) in [
            (9, 10, None, false),
            (10, 10, None, true),
            (u32::MAX, 0, Some(0), true),
            (14, 10, Some(5), true),
            (15, 10, Some(5), false),
            (u32::MAX, u32::MAX - 1, Some(u32::MAX), true),
        ] {
            assert_eq!(within(t(time), t(start), length.map(Duration::from_secs)), alive, "{time} {start}");
        }
    }
}
