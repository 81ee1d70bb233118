//! Reports as other programs read them, and as people do.

use super::report::{Outcome, Report, Verdict, plain};
use serde_json::{Value, json};
use std::fmt::Write;
use std::str::FromStr;

/// A form of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Text,
    /// The [`Report`] itself.
    Json,
    /// `JUnit` XML, as Jenkins and others read it.
    Junit,
    /// The Test Anything Protocol, version 14.
    Tap,
    /// The Static Analysis Results Interchange Format, version 2.1.0.
    Sarif,
    /// A table in Markdown.
    Markdown,
    /// Annotations of GitHub's workflows.
    Github,
}

/// What writes a report.
type Writer = fn(&Report) -> String;

/// All of them, by name.
const FORMATS: [(&str, Format, Writer); 7] = [
    ("text", Format::Text, text),
    ("json", Format::Json, json),
    ("junit", Format::Junit, junit),
    ("tap", Format::Tap, tap),
    ("sarif", Format::Sarif, sarif),
    ("markdown", Format::Markdown, markdown),
    ("github", Format::Github, github),
];

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = FORMATS.iter().find(|(known, ..)| *known == name).map(|(_, format, _)| *format);
        let known = FORMATS.map(|(name, ..)| name).join(", ");
        found.ok_or_else(|| format!("unknown form of reports {name:?}: wanted one of {known}"))
    }
}

impl Format {
    /// The report in this form, with a newline at its end.
    #[must_use]
    pub fn write(self, report: &Report) -> String {
        FORMATS
            .iter()
            .find(|(_, format, _)| *format == self)
            .map_or_else(String::new, |(.., write)| write(report))
    }
}

fn place(verdict: &Verdict) -> String {
    verdict.place.as_ref().map(|place| plain(&place.to_string())).unwrap_or_default()
}

fn summary(report: &Report) -> String {
    let count = |outcome| report.count(outcome);
    let (failed, errors) = (count(Outcome::Failed), count(Outcome::Error));
    let kept = report.verdicts.iter().filter(|v| v.kept.is_some()).count();
    let mut text = format!("{} passed, {failed} failed", count(Outcome::Passed));
    for (number, what) in [(errors, "could not be checked"), (kept, "kept from before")] {
        if number > 0 {
            let _ = write!(text, ", {number} {what}");
        }
    }
    text
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for verdict in &report.verdicts {
        let _ = write!(out, "{:6} {}", verdict.outcome.to_string(), plain(&verdict.name));
        match &verdict.kept {
            Some(when) => drop(write!(out, " (kept from {when})")),
            None => drop(write!(out, " ({:.1} s)", verdict.seconds)),
        }
        out.push('\n');
        for line in verdict.lines() {
            let _ = writeln!(out, "       {line}");
        }
        if verdict.outcome != Outcome::Passed && verdict.place.is_some() {
            let _ = writeln!(out, "       checked by {}", place(verdict));
        }
    }
    let _ = writeln!(out, "{}: {}", plain(&report.target), summary(report));
    out
}

fn json(report: &Report) -> String {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    if let Value::Object(keys) = &mut value {
        keys.insert("passed".to_string(), report.passed().into());
    }
    format!("{value:#}\n")
}

/// Text in XML, where most control characters cannot be.
fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn junit(report: &Report) -> String {
    let (failed, errors) = (report.count(Outcome::Failed), report.count(Outcome::Error));
    let counts = format!(
        "tests=\"{}\" failures=\"{failed}\" errors=\"{errors}\" time=\"{:.3}\"",
        report.verdicts.len(),
        report.seconds()
    );
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n<testsuite name=\"{}\" {counts}>\n",
        xml(&report.target)
    );
    for v in &report.verdicts {
        let _ = write!(
            out,
            "<testcase name=\"{}\" classname=\"{}\" time=\"{:.3}\"",
            xml(&v.name),
            v.kind,
            v.seconds
        );
        if let Some(place) = &v.place {
            let _ = write!(out, " file=\"{}\" line=\"{}\"", xml(&place.file.to_string_lossy()), place.line);
        }
        let tag = match v.outcome {
            Outcome::Passed => {
                out.push_str("/>\n");
                continue;
            }
            Outcome::Failed => "failure",
            Outcome::Error => "error",
        };
        let lines = v.lines();
        let first = lines.first().map(|l| xml(l)).unwrap_or_default();
        let _ =
            writeln!(out, ">\n<{tag} message=\"{first}\">{}</{tag}>\n</testcase>", xml(&lines.join("\n")));
    }
    out.push_str("</testsuite>\n</testsuites>\n");
    out
}

fn tap(report: &Report) -> String {
    let mut out = format!("TAP version 14\n1..{}\n", report.verdicts.len());
    for (i, v) in report.verdicts.iter().enumerate() {
        let not = if v.outcome == Outcome::Passed { "" } else { "not " };
        let name = plain(&v.name).replace('\\', "\\\\").replace('#', "\\#");
        let _ = writeln!(out, "{not}ok {} - {name}", i + 1);
        if v.outcome != Outcome::Passed {
            // Strings of JSON are strings of YAML.
            let _ = writeln!(
                out,
                "  ---\n  severity: {}\n  message: {}",
                v.outcome,
                Value::from(v.lines().join("\n"))
            );
            if v.place.is_some() {
                let _ = writeln!(out, "  at: {}", Value::from(place(v)));
            }
            out.push_str("  ...\n");
        }
    }
    out
}

fn sarif(report: &Report) -> String {
    let wrong = || report.verdicts.iter().filter(|v| v.outcome != Outcome::Passed);
    let mut kinds: Vec<&str> = wrong().map(|v| v.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let results = wrong().map(|v| {
        let mut result = json!({"ruleId": v.kind, "level": "error",
            "message": {"text": format!("{}: {}", v.name, v.lines().join("\n"))}});
        let mut location = json!({"logicalLocations": [{"fullyQualifiedName": report.target}]});
        if let Some(place) = &v.place {
            let file = uri(&place.file.to_string_lossy());
            location["physicalLocation"] =
                json!({"artifactLocation": {"uri": file}, "region": {"startLine": place.line}});
        }
        result["locations"] = json!([location]);
        result
    });
    let rules: Vec<Value> = kinds.iter().map(|kind| json!({"id": kind})).collect();
    let driver = json!({"name": "shipimg", "version": env!("CARGO_PKG_VERSION"), "rules": rules});
    let run = json!({"tool": {"driver": driver}, "results": results.collect::<Vec<_>>()});
    let schema = "https://json.schemastore.org/sarif-2.1.0.json";
    format!("{:#}\n", json!({"$schema": schema, "version": "2.1.0", "runs": [run]}))
}

/// A path as a reference (RFC 3986).
fn uri(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn markdown(report: &Report) -> String {
    let cell = |text: &str| {
        let mut out = String::new();
        for c in text.chars() {
            match c {
                '\n' => out.push_str("<br>"),
                '<' => out.push_str("&lt;"),
                '&' => out.push_str("&amp;"),
                '|' | '`' | '*' | '_' | '[' | ']' | '\\' => out.extend(['\\', c]),
                c => out.push(c),
            }
        }
        out
    };
    let mut out = format!("### {}\n\n{}\n\n", cell(&plain(&report.target)), summary(report));
    out.push_str("| | check | found | where |\n|---|---|---|---|\n");
    for v in &report.verdicts {
        let found = cell(&v.lines().join("\n"));
        let _ =
            writeln!(out, "| {} | {} | {found} | {} |", v.outcome, cell(&plain(&v.name)), cell(&place(v)));
    }
    out
}

fn github(report: &Report) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for v in report.verdicts.iter().filter(|v| v.outcome != Outcome::Passed) {
        out.push_str("::error ");
        if let Some(place) = &v.place {
            let _ =
                write!(out, "file={},line={},", property(&plain(&place.file.to_string_lossy())), place.line);
        }
        let _ = writeln!(out, "title={}::{}", property(&plain(&v.name)), data(&v.lines().join("\n")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::report::Finding;
    use super::super::written::Place;
    use super::*;

    fn report() -> Report {
        let verdict = |name: &str, outcome, findings, line| Verdict {
            name: name.to_string(),
            kind: "file".to_string(),
            outcome,
            findings,
            place: Some(Place { file: "a b:c.toml".into(), line }),
            seconds: 0.25,
            kept: None,
        };
        let two = vec![Finding::new("mode <a> & \"b\"", "x|y\u{1b}[31m"), Finding::new("c", "d")];
        Report {
            target: "img:1".to_string(),
            digest: None,
            verdicts: vec![
                verdict("fine", Outcome::Passed, Vec::new(), 1),
                verdict("bad # 100%", Outcome::Failed, two, 2),
                verdict("odd", Outcome::Error, vec![Finding::new("odd", "cannot")], 3),
            ],
        }
    }

    #[test]
    fn forms() {
        for (format, parts) in [
            (
                Format::Text,
                &[
                    "passed fine (0.2 s)\n",
                    "failed bad # 100% (0.2 s)\n       wanted mode",
                    "img:1: 1 passed, 1 failed, 1 could not be checked\n",
                ][..],
            ),
            (
                Format::Junit,
                &[
                    "tests=\"3\" failures=\"1\" errors=\"1\" time=\"0.750\"",
                    "message=\"wanted mode &lt;a&gt; &amp; &quot;b&quot;, found x|y\\u{1b}[31m\"",
                    "wanted c, found d</failure>",
                    "<error message=\"cannot\">",
                ],
            ),
            (
                Format::Tap,
                &[
                    "TAP version 14\n1..3\nok 1 - fine\nnot ok 2 - bad \\# 100%\n  ---\n",
                    "  at: \"a b:c.toml:2\"\n  ...\n",
                ],
            ),
            (
                Format::Markdown,
                &[
                    "| failed | bad # 100% | wanted mode &lt;a> &amp; \"b\", found x\\|y\\\\u{1b}\\[31m<br>wanted c",
                ],
            ),
            (
                Format::Github,
                &[
                    "::error file=a b%3Ac.toml,line=2,title=bad # 100%25::wanted mode <a> & \"b\", found",
                    "%0Awanted c, found d\n",
                ],
            ),
            (Format::Sarif, &["\"uri\": \"a%20b%3Ac.toml\"", "\"startLine\": 3", "\"version\": \"2.1.0\""]),
            (Format::Json, &["\"passed\": false", "\"outcome\": \"error\""]),
        ] {
            let got = format.write(&report());
            for part in parts {
                assert!(got.contains(part), "{format:?}: {part}\n{got}");
            }
            assert!(!got.contains('\u{1b}'), "{got}");
        }
        hostile(FORMATS.map(|(_, format, _)| format));
        let back: Report =
            serde_json::from_str(&Format::Json.write(&report()).replace("\"passed\": false", "\"x\": 0"))
                .unwrap();
        assert_eq!(back.count(Outcome::Failed), 1);
        for (name, format, _) in FORMATS {
            assert_eq!(name.parse(), Ok(format));
        }
        assert!("xml".parse::<Format>().is_err());
    }

    /// Names, places and findings that try to be more than text.
    fn hostile(formats: [Format; 7]) {
        const TEXT: &str =
            "]]>\n::error::x\r\n| a |\u{1b}[31m\u{202e}##[set-output name=a]b --> `<b>`\n  ...\nok 9";
        let verdict = Verdict {
            name: TEXT.to_string(),
            kind: "file".to_string(),
            outcome: Outcome::Failed,
            findings: vec![Finding::new(TEXT, TEXT)],
            place: Some(Place { file: TEXT.into(), line: 1 }),
            seconds: 0.0,
            kept: None,
        };
        let report = Report { target: TEXT.to_string(), digest: None, verdicts: vec![verdict] };
        for format in formats {
            let got = format.write(&report);
            let of_lines = !matches!(format, Format::Json | Format::Sarif);
            assert!(!got.contains(['\u{1b}', '\r']), "{format:?}: {got}");
            let marked_up = matches!(format, Format::Junit | Format::Markdown);
            assert!(!marked_up || !got.contains("<b>") && !got.contains("]]>"), "{format:?}: {got}");
            assert!(!of_lines || format == Format::Junit || !got.contains('\u{202e}'), "{format:?}: {got}");
            for line in got.lines() {
                assert!(
                    format == Format::Github || !line.trim_start().starts_with("::"),
                    "{format:?}: {got}"
                );
                assert!(!line.trim_start().starts_with("ok 9"), "{format:?}: {got}");
            }
            assert!(format != Format::Github || got.lines().count() == 1, "{got}");
            assert!(!matches!(format, Format::Text | Format::Github) || !got.contains("##["), "{got}");
        }
        let table = Format::Markdown.write(&report);
        assert_eq!(table.lines().count(), 7, "a title, a summary, a head, a row: {table}");
    }
}
