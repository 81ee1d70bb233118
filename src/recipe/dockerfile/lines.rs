//! The lines of a Dockerfile: parser directives, comments, continuations, here-documents, flags.
//!
//! The rules are those of the Dockerfile reference ("Format", "Parser directives", "Here-Documents"). What
//! comes out is instructions whose words are as they were written.

use super::words::{self, Wrong};

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of its first line, from 1.
    pub number: usize,
    /// Its name, in capitals.
    pub name: String,
    /// `--NAME` or `--NAME=VALUE` before the rest.
    pub flags: Vec<(String, Option<String>)>,
    /// All that follows, in one line.
    pub rest: String,
    /// Here-documents, in order.
    pub documents: Vec<Document>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Document {
    /// The word that ends it.
    pub name: String,
    /// Its text as it stands there.
    pub raw: String,
    /// Whether tabs before its lines do not count (`<<-`).
    pub tabs: bool,
    /// Whether variables in it are replaced: its word has no quotes.
    pub expand: bool,
}

impl Document {
    /// Its text.
    pub fn text(&self) -> String {
        if !self.tabs {
            return self.raw.clone();
        }
        self.raw.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// The instructions of `text`, and the character that escapes; what is wrong, with the line.
pub(super) fn read(text: &str) -> Result<(Vec<Line>, char), (usize, Wrong)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(at) = text.find('\0') {
        return Err((text[..at].matches('\n').count() + 1, "a NUL byte".into()));
    }
    let escape = directives(text)?;
    let mut lines = text.lines().zip(1..);
    let mut found = Vec::new();
    while let Some((first, number)) = lines.next() {
        if is_nothing(first) {
            continue;
        }
        let mut whole = String::new();
        let mut open = push(&mut whole, first.trim_start(), escape);
        while open {
            let Some((next, _)) = lines.next() else { break };
            if !is_nothing(next) {
                open = push(&mut whole, next, escape);
            }
        }
        let mut line = instruction(whole.trim(), number, escape).map_err(|e| (number, e))?;
        if ["RUN", "COPY", "ADD"].contains(&line.name.as_str()) && !line.rest.starts_with('[') {
            for word in words::split(&line.rest, escape) {
                let Some(mut document) = document(&word) else { continue };
                let missing = || (number, format!("the here-document {} has no end", document.name));
                loop {
                    let (text, _) = lines.next().ok_or_else(missing)?;
                    let end = if document.tabs { text.trim_start_matches('\t') } else { text };
                    if end == document.name {
                        break;
                    }
                    document.raw.push_str(text);
                    document.raw.push('\n');
                }
                line.documents.push(document);
            }
        }
        found.push(line);
    }
    Ok((found, escape))
}

/// A comment, or an empty line.
fn is_nothing(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// Adds a line; whether it goes on in the next.
fn push(whole: &mut String, line: &str, escape: char) -> bool {
    let end = line.trim_end_matches([' ', '\t']);
    let cut = end.strip_suffix(escape).filter(|before| !before.ends_with(escape));
    whole.push_str(cut.unwrap_or(line));
    cut.is_some()
}

/// The escape character of the directives at the top.
fn directives(text: &str) -> Result<char, (usize, Wrong)> {
    let mut escape = '\\';
    for (line, number) in text.lines().zip(1..) {
        let directive = line.trim().strip_prefix('#').and_then(|l| l.split_once('='));
        let Some((name, value)) = directive else { break };
        match name.trim().to_ascii_lowercase().as_str() {
            "escape" => {
                escape = match value.trim() {
                    "\\" => '\\',
                    "`" => '`',
                    other => return Err((number, format!("escape={other}: wanted \\ or `"))),
                };
            }
            "syntax" | "check" => {}
            _ => break,
        }
    }
    Ok(escape)
}

/// All instructions.
pub(super) const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn instruction(whole: &str, number: usize, escape: char) -> Result<Line, Wrong> {
    let (word, mut rest) = whole.split_once(char::is_whitespace).unwrap_or((whole, ""));
    let name = word.to_ascii_uppercase();
    if !NAMES.contains(&name.as_str()) {
        let shown: String = word.chars().take(40).collect();
        return Err(format!("no instruction {shown}{}", crate::recipe::suggest(&name, &NAMES)));
    }
    let mut flags = Vec::new();
    rest = rest.trim_start();
    while rest.starts_with("--") {
        let length = words::first(rest, escape);
        let flag = &rest[2..length];
        rest = rest[length..].trim_start();
        if flag.is_empty() {
            break;
        }
        let (name, value) = flag.split_once('=').map_or((flag, None), |(n, v)| (n, Some(v.to_string())));
        flags.push((name.to_string(), value));
    }
    if rest.is_empty() {
        return Err(format!("{name} wants more words"));
    }
    Ok(Line { number, name, flags, rest: rest.to_string(), documents: Vec::new() })
}

/// A here-document whose text comes, if `word` begins one: `[N]<<[-]NAME`.
fn document(word: &str) -> Option<Document> {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (tabs, word) = word.strip_prefix('-').map_or((false, word), |word| (true, word));
    let name: String = word.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    let fit = !name.is_empty() && !name.contains('<');
    fit.then(|| Document { expand: name == word, name, raw: String::new(), tabs })
}

/// The file name of a here-document, if `word` is one.
pub(super) fn is_document(word: &str) -> bool {
    document(word).is_some()
}
