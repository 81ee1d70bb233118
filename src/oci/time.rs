//! Times as configurations and states write them (RFC 3339), and as headers do (RFC 5322).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time since 1970 as RFC 3339 has it, UTC; days to a date by H. Hinnant's `civil_from_days`.
#[must_use]
pub fn rfc3339(seconds: u64, nanos: u32) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Reads `Sat, 11 Jul 2026 10:16:37 UTC` (RFC 5322 with a zone of `UTC`, `GMT` or `+0000`), which
/// HTTP writes too (RFC 9110, section 5.6.7).
#[must_use]
pub fn rfc5322(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_once(',')?.1.split_whitespace().collect();
    let [day, month, year, clock, "UTC" | "GMT" | "+0000"] = words[..] else { return None };
    let month = MONTHS.iter().position(|m| *m == month)? as u64 + 1;
    let (day, year) = (day.parse::<u64>().ok()?, year.parse::<u64>().ok()?);
    let clock: Vec<u64> = clock.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hours, minutes, seconds] = clock[..] else { return None };
    since_epoch([year, month, day], [hours, minutes, seconds]).map(|s| UNIX_EPOCH + Duration::from_secs(s))
}

/// A text that is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time of at most a hundred years, wanted as 500ms, 30s, 1m30s, 12h, 7d or 2w")]
pub struct NoSpan(String);

/// The longest span: it can be added to any clock, and its nanoseconds have 64 bits.
const LONGEST: u64 = 100 * 365 * 86_400_000;

/// Reads a span of time: numbers with `ms`, `s`, `m`, `h`, `d` or `w` behind each, which are added up; `0` by itself.
///
/// # Errors
/// [`NoSpan`].
pub fn span(text: &str) -> Result<Duration, NoSpan> {
    const UNITS: [(&str, u64); 6] =
        [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];
    let read = || {
        let (mut sum, mut rest) = (0_u64, text);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let number: u64 = rest[..digits].parse().ok()?;
            let (unit, factor) = UNITS.iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
            sum = number.checked_mul(*factor).and_then(|n| sum.checked_add(n))?;
            rest = &rest[digits + unit.len()..];
        }
        (!text.is_empty() && sum <= LONGEST).then(|| Duration::from_millis(sum))
    };
    let span = if text == "0" { Some(Duration::ZERO) } else { read() };
    span.ok_or_else(|| NoSpan(text.chars().take(100).collect()))
}

/// Reads `20260901T000000Z` (ISO 8601, basic format), which names the state of an archive.
#[must_use]
pub fn iso8601(text: &str) -> Option<SystemTime> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let digits = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(date, 8) || !digits(clock, 6) {
        return None;
    }
    let part = |text: &str, from: usize, to: usize| text[from..to].parse().ok();
    let date = [part(date, 0, 4)?, part(date, 4, 6)?, part(date, 6, 8)?];
    let clock = [part(clock, 0, 2)?, part(clock, 2, 4)?, part(clock, 4, 6)?];
    since_epoch(date, clock).map(|s| UNIX_EPOCH + Duration::from_secs(s))
}

/// The time `2026-01-31T12:00:00.5+01:00` (RFC 3339, section 5.6) in UTC, as [`rfc3339`] writes it.
#[must_use]
pub fn to_utc(text: &str) -> Option<String> {
    parse_rfc3339(text).map(|(seconds, nanos)| rfc3339(seconds, nanos))
}

/// Reads a time as RFC 3339 (section 5.6) writes it: seconds since 1970, and nanoseconds.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<(u64, u32)> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let numbers = |text: &str, separator: char| -> Option<[u64; 3]> {
        let parts: Vec<u64> = text.split(separator).map(str::parse).collect::<Result<_, _>>().ok()?;
        parts.try_into().ok()
    };
    let local = since_epoch(numbers(date, '-')?, numbers(clock, ':')?)?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let [hours, minutes, _] = numbers(&format!("{}:0", &zone[1..]), ':')?;
            i64::try_from(hours * 3600 + minutes * 60).ok()? * if zone.starts_with('-') { -1 } else { 1 }
        }
    };
    Some((local.checked_add_signed(-offset)?, digits.parse().ok()?))
}

/// Seconds since 1970 to a date (year, month, day) and a time of day; none where there is no such.
fn since_epoch([year, month, day]: [u64; 3], [hours, minutes, seconds]: [u64; 3]) -> Option<u64> {
    let in_range = hours < 24 && minutes < 60 && seconds <= 60 && (1..=31).contains(&day);
    if !in_range || !(1..=12).contains(&month) || !(1970..=9999).contains(&year) {
        return None;
    }
    // Days since 1970-03-01, years beginning in March so that the leap day is the last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some(days.checked_sub(719_468)? * 86_400 + hours * 3_600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, milliseconds) in [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("90m", Some(5_400_000)),
            ("12h", Some(43_200_000)),
            ("7d", Some(604_800_000)),
            ("2w1d", Some(1_296_000_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("1m30", None),
            ("1.5s", None),
            ("-1s", None),
            ("+1s", None),
            ("1 s", None),
            ("7é", None),
            ("101w1y", None),
            ("5300w", None),
            ("18446744073709551615w", None),
            ("99999999999999999999s", None),
        ] {
            let found = span(text).ok().map(|span| span.as_millis());
            assert_eq!(found, milliseconds, "{text}");
        }
    }

    #[test]
    fn to_utc_and_back() {
        for (text, utc) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000000Z"),
            ("2026-03-01T00:30:00.25+01:00", "2026-02-28T23:30:00.250000000Z"),
            ("2024-02-29t23:59:59-00:30", "2024-03-01T00:29:59.000000000Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(to_utc(text).as_deref(), Some(utc), "{text}");
        }
        assert_eq!(parse_rfc3339("2000-02-29T01:00:00.5+01:00"), Some((951_782_400, 500_000_000)));
        for bad in [
            "",
            "0001-01-01T00:00:00Z",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-13-31T12:00:00Z",
            "2026-01-31T1200Z",
            "2026-01-31T12:00:00+x",
        ] {
            assert_eq!(to_utc(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400, 5), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(rfc3339(1_735_689_599, 0), "2024-12-31T23:59:59.000000000Z");
    }

    #[test]
    fn dates_of_mail_and_http() {
        for (text, want) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
            ("Sat, 11 Jul 2026 10:16:37 UTC", Some(1_783_764_997)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("tomorrow", None),
            ("Sat, 11 Jul 2026 18446744073709551615:00:00 UTC", None),
            ("Sat, 11 Foo 2026 10:16:37 UTC", None),
        ] {
            let got = rfc5322(text).map(|t| t.duration_since(UNIX_EPOCH).unwrap().as_secs());
            assert_eq!(got, want, "{text}");
        }
    }
}
