//! Shell patterns for paths.

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
}
