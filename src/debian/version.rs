//! Versions of Debian packages and their order (deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions: epoch, upstream version, revision.
///
/// A missing epoch is 0, a missing revision the empty string. Malformed versions have an
/// order too, so that an odd index never stops a build.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, rest_a) = epoch(a);
    let (epoch_b, rest_b) = epoch(b);
    let (upstream_a, revision_a) = rest_a.rsplit_once('-').unwrap_or((rest_a, ""));
    let (upstream_b, revision_b) = rest_b.rsplit_once('-').unwrap_or((rest_b, ""));
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| compare_part(upstream_a.as_bytes(), upstream_b.as_bytes()))
        .then_with(|| compare_part(revision_a.as_bytes(), revision_b.as_bytes()))
}

fn epoch(version: &str) -> (u64, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

/// The weight of a byte in the parts without digits: `~` before the end of the part, which
/// comes before letters, which come before all else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(b) if b.is_ascii_digit() => 0,
        Some(b) if b.is_ascii_alphabetic() => i32::from(*b),
        Some(b) => i32::from(*b) + 256,
    }
}

/// Compares alternating runs of non-digits (by weight) and digits (by number).
fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let digit = |s: &[u8]| s.first().is_some_and(u8::is_ascii_digit);
    while !a.is_empty() || !b.is_empty() {
        while (!a.is_empty() && !digit(a)) || (!b.is_empty() && !digit(b)) {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order != Ordering::Equal {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (number_a, rest_a) = number(a);
        let (number_b, rest_b) = number(b);
        let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

/// The leading digits without leading zeroes, and what follows them.
fn number(s: &[u8]) -> (&[u8], &[u8]) {
    let end = s.iter().position(|b| !b.is_ascii_digit()).unwrap_or(s.len());
    let (digits, rest) = s.split_at(end);
    let zeroes = digits.iter().take_while(|&&b| b == b'0').count();
    (&digits[zeroes..], rest)
}

/// How a version must relate to another (deb-control(5), "Depends").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `<<`
    Before,
    /// `<=`
    AtMost,
    /// `=`
    Equal,
    /// `>=`
    AtLeast,
    /// `>>`
    After,
}

impl Relation {
    /// Reads the operator; the deprecated `<` and `>` mean `<=` and `>=`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<<" => Self::Before,
            "<=" | "<" => Self::AtMost,
            "=" => Self::Equal,
            ">=" | ">" => Self::AtLeast,
            ">>" => Self::After,
            _ => return None,
        })
    }

    /// Whether `version` stands in this relation to `bound`.
    #[must_use]
    pub fn holds(self, version: &str, bound: &str) -> bool {
        self.admits(compare(version, bound))
    }

    /// Whether what compares so with a bound stands in this relation to it.
    #[must_use]
    pub const fn admits(self, order: Ordering) -> bool {
        match self {
            Self::Before => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::AtLeast => order.is_ge(),
            Self::After => order.is_gt(),
        }
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Before => "<<",
            Self::AtMost => "<=",
            Self::Equal => "=",
            Self::AtLeast => ">=",
            Self::After => ">>",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_versions() {
        // Ascending, equal ones on one line.
        let table: &[&[&str]] = &[
            &["0~~", "0~~-"],
            &["0~~a"],
            &["0~"],
            &["0", "00", "0-0", "0:0"],
            &["0a"],
            &["0+"],
            &["1.0~rc1-1"],
            &["1.0-1"],
            &["1.0-1+b1"],
            &["1.0-1+deb12u1"],
            &["1.0-1.1"],
            &["1.0-2"],
            &["1.0-10"],
            &["1.0+dfsg-1"],
            &["1.0.1-1"],
            &["1.2-3-4"],
            &["1.10"],
            &["20250101", "020250101"],
            &["1:0.1"],
            &["2:0"],
        ];
        for (i, row) in table.iter().enumerate() {
            for a in *row {
                for (j, other) in table.iter().enumerate() {
                    for b in *other {
                        assert_eq!(compare(a, b), i.cmp(&j), "{a} against {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn relations() {
        for (version, op, bound, holds) in [
            ("1.2", ">=", "1.2", true),
            ("1.2", ">>", "1.2", false),
            ("1.2~rc", "<<", "1.2", true),
            ("1.2", "=", "1.2-0", true),
            ("1.3", "<=", "1.2", false),
            ("1.2", "<", "1.2", true),
        ] {
            assert_eq!(Relation::parse(op).unwrap().holds(version, bound), holds, "{version} {op} {bound}");
        }
        assert!(Relation::parse("~").is_none());
    }
}
