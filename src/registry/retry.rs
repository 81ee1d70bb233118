//! Pauses between tries.

use super::{Error, Result};
use crate::oci::rfc5322;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

/// How often one thing is tried before its error counts.
const TRIES: u32 = 5;
/// The first pause; each later one is twice as long.
const FIRST: Duration = Duration::from_millis(250);
/// The longest pause that a server may ask for.
const LONGEST: Duration = Duration::from_mins(1);

/// Counts failures without progress.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Sleeps where `error` may pass; gives it back where it does not, or has come too often,
    /// or the server wants a longer pause than a minute.
    pub(super) fn pause(&mut self, error: Error) -> Result<()> {
        self.failures += 1;
        let Some(pause) = self.length(&error) else { return Err(error) };
        tracing::debug!("{error}; next try in {} ms", pause.as_millis());
        std::thread::sleep(pause);
        Ok(())
    }

    /// Forgets the failures: something came.
    pub(super) fn progress(&mut self) {
        self.failures = 0;
    }

    fn length(&self, error: &Error) -> Option<Duration> {
        if !error.is_transient() || self.failures >= TRIES {
            return None;
        }
        let own = jitter(FIRST * 2_u32.pow(self.failures.saturating_sub(1)));
        match error {
            Error::Status { retry_after: Some(wanted), .. } => {
                (*wanted <= LONGEST).then(|| (*wanted).max(own))
            }
            _ => Some(own),
        }
    }
}

/// What a Retry-After asks for: seconds, or a date (RFC 9110, 10.2.3); nothing for one that is past.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(rfc5322(value)?.duration_since(now).unwrap_or_default())
}

/// Between three and five quarters of `d`, so that many clients do not come back at once.
fn jitter(d: Duration) -> Duration {
    let random = u32::from(RandomState::new().build_hasher().finish().to_le_bytes()[0]);
    d * 3 / 4 + d / 2 * random / 255
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn status(code: u16, retry_after: Option<u64>) -> Error {
        Error::Status {
            host: "h".into(),
            status: reqwest::StatusCode::from_u16(code).unwrap(),
            message: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn dates_and_seconds() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        for (value, want) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:49:06 GMT", Some(0)),
            ("Thu, 29 Feb 1996 00:00:00 GMT", Some(825_552_000 - 784_111_747)),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nev 1994 08:49:37 GMT", None),
            ("Sun, 0 Nov 1994 08:49:37 GMT", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), want.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn lengths() {
        let pause = |failures, e: &Error| Backoff { failures }.length(e);
        for (failures, base) in [(1, 250), (2, 500), (4, 2000)] {
            let p = pause(failures, &status(503, None)).unwrap().as_millis();
            assert!(p >= base * 3 / 4 && p <= base * 5 / 4, "{failures}: {p}");
        }
        assert_eq!(pause(1, &status(429, Some(7))), Some(Duration::from_secs(7)));
        assert_eq!(pause(1, &status(429, Some(61))), None);
        assert_eq!(pause(5, &status(503, None)), None);
        assert_eq!(pause(1, &status(404, None)), None);
    }
}
