//! Words of a Dockerfile: quotes, and variables replaced ("Environment replacement" of the reference).

/// What is wrong.
pub(super) type Wrong = String;

/// How deep variables may stand in each other's defaults.
const MAX_DEPTH: usize = 32;

/// The length of the first word of `text`, with its quotes.
pub(super) fn first(text: &str, escape: char) -> usize {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (None | Some('"'), c) if c == escape => escaped = true,
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, c) if c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

/// The words of `text`, each as it was written.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let (mut rest, mut words) = (text.trim_start(), Vec::new());
    while !rest.is_empty() {
        let length = first(rest, escape);
        words.push(rest[..length].to_string());
        rest = rest[length..].trim_start();
    }
    words
}

/// What variables stand for.
pub(super) trait Values {
    /// The value of `name`, where it has one.
    fn value(&self, name: &str) -> Option<&str>;
}

/// What is done with a text.
pub(super) struct Expander<'a> {
    /// Variables.
    pub values: &'a dyn Values,
    /// The character that escapes.
    pub escape: char,
    /// Whether quotes are such, or characters as others: those of a here-document are.
    pub quotes: bool,
}

impl Expander<'_> {
    /// `text` with its variables replaced and its quotes taken away.
    pub fn expand(&self, text: &str) -> Result<String, Wrong> {
        let mut chars = text.chars().collect::<Vec<_>>().into_iter().peekable();
        self.until(&mut chars, None, 0)
    }

    /// Up to the end, or up to and with `end`.
    fn until(&self, chars: &mut Chars, end: Option<char>, depth: usize) -> Result<String, Wrong> {
        if depth > MAX_DEPTH {
            return Err("variables in variables too deep".into());
        }
        let (mut out, mut double) = (String::new(), false);
        while let Some(c) = chars.next() {
            match c {
                c if Some(c) == end && !double => return Ok(out),
                '\'' if self.quotes && !double => loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => out.push(c),
                        None => return Err("a ' without an end".into()),
                    }
                },
                '"' if self.quotes => double = !double,
                c if c == self.escape => match chars.next() {
                    // Where quotes mean something only these are escaped (sh(1)).
                    Some(next) if (double || !self.quotes) && !special(next, c, double) => {
                        out.extend([c, next]);
                    }
                    Some(next) => out.push(next),
                    None => out.push(c),
                },
                '$' => self.variable(chars, &mut out, depth)?,
                c => out.push(c),
            }
        }
        match (double, end) {
            (true, _) => Err("a \" without an end".into()),
            (_, Some(_)) => Err("a ${ without an end".into()),
            _ => Ok(out),
        }
    }

    /// What follows a `$`.
    fn variable(&self, chars: &mut Chars, out: &mut String, depth: usize) -> Result<(), Wrong> {
        let braces = chars.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            let digit = name.is_empty() && c.is_ascii_digit();
            name.push(c);
            if digit && !braces {
                break;
            }
        }
        if name.is_empty() {
            if braces {
                return Err("${ without a name".into());
            }
            out.push('$');
            return Ok(());
        }
        let value = self.values.value(&name);
        if !braces {
            out.push_str(value.unwrap_or_default());
            return Ok(());
        }
        let colon = chars.next_if_eq(&':').is_some();
        let has = value.is_some_and(|v| !colon || !v.is_empty());
        let word = |chars: &mut Chars| self.until(chars, Some('}'), depth + 1);
        match chars.next() {
            Some('}') if !colon => out.push_str(value.unwrap_or_default()),
            Some('-') => {
                let default = word(chars)?;
                out.push_str(if has { value.unwrap_or_default() } else { &default });
            }
            Some('+') => {
                let other = word(chars)?;
                out.push_str(if has { &other } else { "" });
            }
            Some('?') => {
                let message = word(chars)?;
                if !has {
                    let message = if message.is_empty() { "it is not set" } else { &message };
                    return Err(format!("{name}: {message}"));
                }
                out.push_str(value.unwrap_or_default());
            }
            Some(other) => {
                return Err(format!(
                    "${{{name}{}{other}…}}: of such only :-, :+ and :? are known",
                    if colon { ":" } else { "" }
                ));
            }
            None => return Err("a ${ without an end".into()),
        }
        Ok(())
    }
}

type Chars = std::iter::Peekable<std::vec::IntoIter<char>>;

/// Whether an escape before `next` stands for `next` alone.
fn special(next: char, escape: char, double: bool) -> bool {
    next == '$' || next == escape || double && next == '"'
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table;

    impl Values for Table {
        fn value(&self, name: &str) -> Option<&str> {
            [("a", "1"), ("empty", ""), ("dir", "/x y"), ("A_2", "two")]
                .into_iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v)
        }
    }

    fn expand(text: &str) -> Result<String, Wrong> {
        Expander { values: &Table, escape: '\\', quotes: true }.expand(text)
    }

    #[test]
    fn variables_are_replaced() {
        for (text, wanted) in [
            ("$a", "1"),
            ("${a}", "1"),
            ("$a/b${a}c", "1/b1c"),
            ("$A_2$none.", "two."),
            ("x${none}y", "xy"),
            ("${a:-d}", "1"),
            ("${none:-d}", "d"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${none-d}", "d"),
            ("${a:+d}", "d"),
            ("${none:+d}", ""),
            ("${empty:+d}", ""),
            ("${empty+d}", "d"),
            ("${none:-${a}${none:-z}}", "1z"),
            ("${none:-\"}\"}", "}"),
            ("${a:?no}", "1"),
            ("\\$a", "$a"),
            ("\\${a}", "${a}"),
            ("'$a'", "$a"),
            ("\"$a\"", "1"),
            ("\"\\$a \\\" \\x\"", "$a \" \\x"),
            ("a\\ b", "a b"),
            ("\"$dir\"/'z'", "/x y/z"),
            ("$", "$"),
            ("$.x $$a", "$.x $1"),
            ("$1a", "a"),
            ("end\\", "end\\"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(wanted), "{text}");
        }
        for (text, wanted) in [
            ("${a", "without an end"),
            ("${none:-x", "without an end"),
            ("'a", "' without"),
            ("\"a", "\" without"),
            ("${}", "without a name"),
            ("${a%x}", "${a%…}"),
            ("${a:}", "${a:}"),
            ("${none:?must be there}", "none: must be there"),
            (&"${x:-".repeat(100_000), "too deep"),
        ] {
            let e = expand(text).unwrap_err();
            assert!(e.contains(wanted), "{text:.40}: {e}");
        }
    }

    #[test]
    fn here_documents_keep_their_quotes() {
        let plain = Expander { values: &Table, escape: '\\', quotes: false };
        let text = "it's \"$a\" \\$a \\\\ \\n ${none:-'d'}\n";
        assert_eq!(plain.expand(text).as_deref(), Ok("it's \"1\" $a \\ \\n 'd'\n"));
        let other = Expander { values: &Table, escape: '`', quotes: true };
        assert_eq!(other.expand("C:\\$a `$a").as_deref(), Ok("C:\\1 $a"));
    }

    #[test]
    fn words_are_told_apart() {
        for (text, wanted) in [
            ("a b  c", &["a", "b", "c"][..]),
            ("a=\"b c\" d='e f'", &["a=\"b c\"", "d='e f'"]),
            ("a\\ b c", &["a\\ b", "c"]),
            ("\"a\\\" b\" c", &["\"a\\\" b\"", "c"]),
            ("  ", &[]),
        ] {
            assert_eq!(split(text, '\\'), wanted, "{text}");
        }
    }
}
