//! `.dockerignore`: which files of a context no instruction sees ("Build context" of docker's documentation).

use crate::tree::Glob;
use std::path::{Component, Path};

/// The rules of a `.dockerignore`; the last one that fits counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ignore(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    /// Whether what fits is taken in again (`!`).
    back: bool,
}

impl Ignore {
    /// Reads the rules.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines();
        let rules = lines.filter(|line| !line.starts_with('#')).filter_map(|line| {
            let line = line.trim();
            let (back, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            let mut parts: Vec<Vec<u8>> = Vec::new();
            for part in Path::new(pattern).components() {
                match part {
                    Component::Normal(part) => parts.push(part.as_encoded_bytes().to_vec()),
                    Component::ParentDir => drop(parts.pop()),
                    _ => {}
                }
            }
            (!parts.is_empty()).then(|| Rule { glob: Glob::of(parts), back })
        });
        Self(rules.collect())
    }

    /// Whether the file or folder `path` of the context is left out, by itself or with a folder above it.
    #[must_use]
    pub fn skips(&self, path: &str) -> bool {
        let last = self.0.iter().rev().find(|rule| rule.glob.matches_within(path.as_bytes()));
        last.is_some_and(|rule| !rule.back)
    }

    /// Whether something below a folder that is left out may be taken in again.
    #[must_use]
    pub fn takes_back(&self) -> bool {
        self.0.iter().any(|rule| rule.back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_counts() {
        for (rules, left_out, kept) in [
            ("*.md", &["a.md"][..], &["a.txt", "d/a.md"][..]),
            ("**/*.md", &["a.md", "d/a.md", "d/e/a.md"], &["a.mdx"]),
            ("*/temp*", &["a/temp", "a/temps/x"], &["temp", "a/b/temp"]),
            ("temp?", &["tempa"], &["temp", "tempab"]),
            ("/build/", &["build", "build/x/y"], &["x/build"]),
            ("*.md\n!README.md", &["a.md"], &["README.md"]),
            ("!README.md\n*.md", &["README.md"], &[]),
            ("*\n!src\nsrc/*.o", &["x", "src/a.o"], &["src", "src/a.c", "src/d/b.o"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a", "z"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "b"]),
            ("**", &["a", "a/b"], &[]),
            ("# x\n\n  \n./y/../z\n", &["z"], &["y", "# x"]),
            ("..", &[], &["a"]),
        ] {
            let ignore = Ignore::parse(rules);
            for path in left_out {
                assert!(ignore.skips(path), "{rules:?} {path}");
            }
            for path in kept {
                assert!(!ignore.skips(path), "{rules:?} {path}");
            }
        }
    }
}
