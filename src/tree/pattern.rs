//! Shell patterns: for whole texts, and for paths by their components.

/// Whether `text` matches the shell pattern: fnmatch(3) without flags, so that `*` and `?` match `/` too.
#[must_use]
pub fn fnmatch(pattern: &[u8], text: &[u8]) -> bool {
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

/// A pattern for paths: its components are shell patterns for those of a path, `**` is any number of them, but one at
/// least where the pattern ends so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Glob(Vec<Vec<u8>>);

impl Glob {
    /// The pattern in `text`. Slashes at both ends and double ones mean nothing.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        Self::of(components(text).map(<[u8]>::to_vec).collect())
    }

    /// The pattern of these components.
    #[must_use]
    pub const fn of(components: Vec<Vec<u8>>) -> Self {
        Self(components)
    }

    /// Whether the path as a whole is one of the pattern's.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.row(path).last() == Some(&true)
    }

    /// Whether the path, or a directory that it lies in, is one of the pattern's.
    #[must_use]
    pub fn matches_within(&self, path: &[u8]) -> bool {
        self.row(path).iter().skip(1).any(|fits| *fits)
    }

    /// Of each number of the path's first components, from none on, whether these are the pattern's.
    fn row(&self, path: &[u8]) -> Vec<bool> {
        let path: Vec<&[u8]> = components(path).collect();
        let mut fits = vec![false; path.len() + 1];
        fits[0] = true;
        for (number, part) in self.0.iter().enumerate() {
            let mut next = vec![false; path.len() + 1];
            if part == b"**" {
                // What ends so is what lies below, not the directory itself.
                let least = usize::from(number + 1 == self.0.len());
                let begin = fits.iter().position(|fits| *fits).unwrap_or(fits.len());
                next[(begin + least).min(fits.len())..].fill(true);
            } else {
                for (at, name) in path.iter().enumerate() {
                    next[at + 1] = fits[at] && fnmatch(part, name);
                }
            }
            fits = next;
        }
        fits
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty())
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
            assert_eq!(fnmatch(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn globs() {
        for (glob, path, whole, within) in [
            ("/var/log/**", "/var/log/a/b", true, true),
            ("/var/log/**", "/var/log", false, false),
            ("/var/*", "/var/a", true, true),
            ("/var/*", "/var/a/b", false, true),
            ("/**/x", "/x", true, true),
            ("/**/x", "/a/b/x", true, true),
            ("/**/x", "/a/bx", false, false),
            ("/a?c", "/abc", true, true),
            ("/a?c", "/a/c", false, false),
            ("/a.c", "/abc", false, false),
            ("/ä*", "/äb", true, true),
            ("/a[0-9]", "/a1", true, true),
            ("/usr/bin/[", "/usr/bin/[", true, true),
            ("a/**/z", "a/z", true, true),
            ("/", "/", true, false),
            ("/**", "/", false, false),
        ] {
            let (glob, path) = (Glob::new(glob.as_bytes()), path.as_bytes());
            assert_eq!((glob.matches(path), glob.matches_within(path)), (whole, within), "{glob:?} {path:?}");
        }
        assert!(Glob::new(b"/*").matches(b"/\xff\n"));
    }
}
