//! Which paths of packages are left out: dpkg's `path-exclude` and `path-include` (dpkg(1)).
//!
//! Each rule is a shell pattern for the whole path, in which `*` and `?` match `/` too. The
//! last rule that matches decides; a path that none matches is taken. A directory or link that is
//! excluded stays where an included path may lie below it, as far as the included pattern's
//! part before its first wildcard tells: too many rather than one too few. Lists of
//! packages' files name excluded paths too, as dpkg's do.

use std::fmt::Write as _;

/// Rules, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    include: bool,
    pattern: String,
}

impl Filters {
    /// Adds a rule for paths that are taken.
    pub fn include(&mut self, pattern: &str) {
        self.rules.push(Rule { include: true, pattern: pattern.to_string() });
    }

    /// Adds a rule for paths that are left out.
    pub fn exclude(&mut self, pattern: &str) {
        self.rules.push(Rule { include: false, pattern: pattern.to_string() });
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the absolute `path` is left out. `holder` is one that others may lie below: a
    /// directory, or a link.
    #[must_use]
    pub fn skips(&self, path: &str, holder: bool) -> bool {
        let last = self.rules.iter().rev().find(|r| matches(r.pattern.as_bytes(), path.as_bytes()));
        last.is_some_and(|r| !r.include) && !(holder && self.rules.iter().any(|r| r.may_hold(path)))
    }

    /// The rules as a configuration file of dpkg.
    #[must_use]
    pub fn config(&self) -> String {
        self.rules.iter().fold(String::new(), |mut text, rule| {
            let _ =
                writeln!(text, "path-{}={}", if rule.include { "include" } else { "exclude" }, rule.pattern);
            text
        })
    }
}

impl Rule {
    fn may_hold(&self, path: &str) -> bool {
        let end = self.pattern.find(['*', '?', '[', '\\']).unwrap_or(self.pattern.len());
        let fixed = &self.pattern[..end];
        let (below, above) =
            (path.starts_with(fixed.trim_end_matches('/')), fixed.starts_with(&format!("{path}/")));
        self.include && (below || above)
    }
}

/// fnmatch(3) without flags.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on after a failure: behind the last `*`, which then takes one byte more.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(length) = one(&pattern[p..], text[t]) {
            (p, t) = (p + length, t + 1);
        } else if let Some((after, taken)) = star {
            star = Some((after, taken + 1));
            (p, t) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// The length of the pattern's first element where that matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (escaped == byte).then_some(2),
        [b'[', ref rest @ ..] => match bracket(rest, byte) {
            Some((length, fits)) => fits.then_some(length + 1),
            None => (byte == b'[').then_some(1),
        },
        [literal, ..] => (literal == byte).then_some(1),
        [] => None,
    }
}

/// The length of a bracket expression behind its `[`, and whether it matches; none where it has
/// no end.
fn bracket(rest: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let (start, mut fits) = (usize::from(negated), false);
    let mut at = start;
    loop {
        match rest[at..] {
            [b']', ..] if at > start => return Some((at + 1, fits != negated)),
            [low, b'-', high, ..] if high != b']' => {
                fits |= (low..=high).contains(&byte);
                at += 3;
            }
            [b'\\', literal, ..] => {
                fits |= literal == byte;
                at += 2;
            }
            [literal, ..] => {
                fits |= literal == byte;
                at += 1;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("/usr/share/doc/*", "/usr/share/doc/a/b", true),
            ("/usr/share/doc/*", "/usr/share/doc", false),
            ("/usr/*/copyright", "/usr/share/doc/a/copyright", true),
            ("*a*b*c", "xaybzc", true),
            ("*a*b*c", "xaybz", false),
            ("/?/[a-c]/[!a-c]", "/x/b/d", true),
            ("/?/[a-c]/[!a-c]", "/x/b/b", false),
            ("[]x]", "]", true),
            ("[x-]", "-", true),
            ("[x", "[x", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("a", "", false),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn the_last_rule_decides() {
        let mut filters = Filters::default();
        assert!(filters.is_empty() && !filters.skips("/usr", true));
        filters.exclude("/usr/share/doc/*");
        filters.include("/usr/share/doc/*/copyright");
        filters.exclude("/usr/share/doc/b/copyright");
        for (path, holder, skipped) in [
            ("/usr/share/doc", true, false),
            ("/usr/share/doc/a", true, false),
            ("/usr/share/doc/a/copyright", false, false),
            ("/usr/share/doc/a/changelog", false, true),
            ("/usr/share/doc/b/copyright", false, true),
            ("/usr/share/man", true, false),
        ] {
            assert_eq!(filters.skips(path, holder), skipped, "{path}");
        }
        assert!(
            filters.config().starts_with("path-exclude=/usr/share/doc/*\npath-include=/usr/share/doc/*/c")
        );
        let mut exact = Filters::default();
        exact.exclude("/usr/*");
        exact.include("/usr/share/x/y");
        let taken = ["/usr/share", "/usr/share/x", "/usr/share/x/y"];
        assert!(taken.iter().all(|p| !exact.skips(p, true)));
        assert!(exact.skips("/usr/lib", true) && exact.skips("/usr/share/x/z", false));
    }
}
