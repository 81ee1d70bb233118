//! `InRelease`: who signed it, what it promises.
//!
//! The text is taken from inside the cleartext signature (RFC 9580, section 7) and from
//! nowhere else, so that nothing around it can be mistaken for signed. Which signatures
//! count is told in [`super::keyring`]. Indexes are named by path, size and SHA-256.

use super::control::field;
use super::keyring::Keyring;
use super::{Error, Result};
use pgp::composed::CleartextSignedMessage;
use pgp::types::Timestamp;
use std::collections::HashMap;
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
