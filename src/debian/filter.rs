//! Which paths of packages are left out: dpkg's `path-exclude` and `path-include` (dpkg(1)).
//!
//! Each rule is a shell pattern for the whole path, in which `*` and `?` match `/` too. The
//! last rule that matches decides; a path that none matches is taken. A directory or link that is
//! excluded stays where an included path may lie below it, as far as the included pattern's
//! part before its first wildcard tells: too many rather than one too few. Lists of
//! packages' files name excluded paths too, as dpkg's do.

use crate::tree::fnmatch;
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
        let last = self.rules.iter().rev().find(|r| fnmatch(r.pattern.as_bytes(), path.as_bytes()));
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

#[cfg(test)]
mod tests {
    use super::*;

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
