//! Pauses between tries.

use super::{Error, Result};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    let date = Duration::from_secs(http_date(value)?);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(date.saturating_sub(now))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that servers write.
fn http_date(text: &str) -> Option<u64> {
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let mut words = rest.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|d| (1..=31).contains(d))?;
    let name = words.next()?;
    let month = months.iter().position(|m| *m == name)? as u64;
    let year: u64 = words.next()?.parse().ok().filter(|y| (1970..=9999).contains(y))?;
    let mut clock = words.next()?.split(':').map(|n| n.parse::<u64>().ok().filter(|n| *n <= 60));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Days since 1970, with years that begin in March (H. Hinnant, "chrono-compatible date algorithms").
    let (y, m) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((days - 719_468) * 86400 + hour * 3600 + minute * 60 + second)
}

/// Between three and five quarters of `d`, so that many clients do not come back at once.
fn jitter(d: Duration) -> Duration {
    let random = u32::from(RandomState::new().build_hasher().finish().to_le_bytes()[0]);
    d * 3 / 4 + d / 2 * random / 255
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
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
