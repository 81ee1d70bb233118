//! Values that checks are written with: each is read once, from text.

use crate::bundle;
use crate::debian::version::Relation;
use crate::oci::{self, Digest};
use crate::packages::Manager;
use schemars::JsonSchema;
use serde::de::{self, Deserializer, IntoDeserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

/// The longest that anything may take.
const DAY: Duration = Duration::from_hours(24);
/// The most bytes of a compiled pattern.
const MOST_COMPILED: usize = 10 << 20;

/// A value that is written as text, and what it says. A whole number counts as its digits.
#[derive(Debug, Clone)]
pub struct Text<T> {
    text: String,
    value: T,
}

/// What [`Text`] can hold.
pub trait Written: Sized {
    /// Reads the text.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(text: &str) -> Result<Self, String>;
}

impl<T: Written> Text<T> {
    /// Reads `text`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        let value = T::read(&text)?;
        Ok(Self { text, value })
    }
}

impl<T> Deref for Text<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Text<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<T> Eq for Text<T> {}

impl<T> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<T> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, T: Written> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<T: Written> Visitor<'_> for Reader<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<T>, E> {
                Text::new(text).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text<T>, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text<T>, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

impl<T> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "integer"] })
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Several<T>(pub Vec<T>);

impl<T> Deref for Several<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize> Serialize for Several<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Several<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Several<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Several<T>, E> {
                T::deserialize(text.into_deserializer()).map(|one| Several(vec![one]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Several<T>, E> {
                T::deserialize(number.into_deserializer()).map(|one| Several(vec![one]))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Several<T>, E> {
                T::deserialize(number.into_deserializer()).map(|one| Several(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Several<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(Several(all))
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Several<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("SeveralOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// What a text is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "wanted text, { matches = \"REGEX\" } or false")]
pub enum Wanted {
    /// Exactly this.
    Is(String),
    /// Something that the pattern is found in.
    Matches {
        /// The pattern.
        matches: Text<Pattern>,
    },
    /// False: not there.
    Not(bool),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(text) => write!(f, "{text:?}"),
            Self::Matches { matches } => write!(f, "a match of {matches}"),
            Self::Not(_) => f.write_str("nothing"),
        }
    }
}

/// Texts by name.
pub type WantedTexts = BTreeMap<String, Wanted>;

/// Permission bits with set-uid, set-gid and sticky, in octal: `0644`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Written for Mode {
    fn read(text: &str) -> Result<Self, String> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|m| m & !0o7777 == 0 && !text.starts_with('+'));
        mode.map(Self).ok_or_else(|| format!("mode {text:?} is not octal, as \"0644\""))
    }
}

/// A number of bytes: `150M`, powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Written for Bytes {
    fn read(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(0));
        }
        bundle::size(text).and_then(|n| u64::try_from(n).map_err(|e| e.to_string())).map(Self)
    }
}

/// A span of time of at most a day: `500ms`, `10s`, `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Written for Span {
    fn read(text: &str) -> Result<Self, String> {
        let span = oci::span(text).map_err(|e| e.to_string())?;
        if span > DAY { Err(format!("{text:?} is more than a day")) } else { Ok(Self(span)) }
    }
}

/// A regular expression; `^` and `$` match at lines.
#[derive(Debug, Clone)]
pub struct Pattern(regex::bytes::Regex);

impl Pattern {
    /// Whether it is found in `text`.
    #[must_use]
    pub fn found_in(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

impl Written for Pattern {
    fn read(text: &str) -> Result<Self, String> {
        let built = regex::bytes::RegexBuilder::new(text).multi_line(true).size_limit(MOST_COMPILED).build();
        built.map(Self).map_err(|e| {
            let text = e.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string()
        })
    }
}

/// Paths from the root, by [`crate::tree::Glob`].
#[derive(Debug, Clone)]
pub struct Glob(crate::tree::Glob);

impl Glob {
    /// Whether it is the glob of the path `path`, which begins with `/`.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.matches(path)
    }
}

impl Written for Glob {
    fn read(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            Ok(Self(crate::tree::Glob::new(text.as_bytes())))
        } else {
            Err(format!("{text:?} does not begin with /"))
        }
    }
}

/// A SHA-256 in hexadecimal digits, with or without `sha256:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sha256(pub Digest);

impl Written for Sha256 {
    fn read(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        format!("sha256:{hex}").parse().map(Self).map_err(|e: oci::Error| e.to_string())
    }
}

/// A port and its protocol: `80`, `53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// UDP rather than TCP.
    pub udp: bool,
}

impl Written for Port {
    fn read(text: &str) -> Result<Self, String> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let udp = match protocol {
            "tcp" => Some(false),
            "udp" => Some(true),
            _ => None,
        };
        let number = number.parse().ok().filter(|n| *n > 0);
        let port = number.zip(udp).map(|(number, udp)| Self { number, udp });
        port.ok_or_else(|| format!("port {text:?} is not one as \"80\" or \"53/udp\""))
    }
}

/// A version: exactly `1.2-3`, or bounds with the signs of Debian's dependencies, as
/// `>= 1.2, << 2`; ordered as whoever looks after the package does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions(Vec<(Relation, String)>);

impl Versions {
    /// Whether `version`, of a package of `manager`'s, is one of them.
    #[must_use]
    pub fn has(&self, version: &str, manager: Manager) -> bool {
        self.0.iter().all(|(relation, bound)| relation.admits(manager.compare(version, bound)))
    }
}

impl Written for Versions {
    fn read(text: &str) -> Result<Self, String> {
        let one = |part: &str| {
            let version = part.trim().trim_start_matches(['<', '>', '=']);
            let sign = &part.trim()[..part.trim().len() - version.len()];
            let relation = if sign.is_empty() { Some(Relation::Equal) } else { Relation::parse(sign) };
            let version = version.trim();
            relation
                .filter(|_| !version.is_empty() && !version.contains(char::is_whitespace))
                .map(|relation| (relation, version.to_string()))
                .ok_or_else(|| format!("version {part:?} is not one as \"1.2-3\" or \">= 1.2, << 2\""))
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_or_refused() {
        fn reads<T: Written>(good: &[&str], bad: &[&str]) {
            for text in good {
                assert!(Text::<T>::new(*text).is_ok(), "{text}");
            }
            for text in bad {
                assert!(Text::<T>::new(*text).is_err(), "{text}");
            }
        }
        reads::<Mode>(&["0644", "4755", "0"], &["", "888", "100644", "+7", "rw"]);
        reads::<Bytes>(&["0", "150M", "7", "1g"], &["", "-1", "x", "99999999999t"]);
        reads::<Span>(&["500ms", "10s", "1m30s", "24h", "0"], &["", "3", "25h", "-1s", "99999999999999m"]);
        reads::<Pattern>(&["^web:", "a|b", ""], &["(", "a{1000}{1000}{1000}"]);
        reads::<Glob>(&["/", "/a/**", "/a[1]"], &["", "a/b"]);
        reads::<Port>(&["80", "53/udp", "1/tcp"], &["0", "70000", "80/sctp", "", "x"]);
        reads::<Versions>(&["1.2-3", ">= 1, << 2", "=1"], &["", ">=", "1 2", "=> 1"]);
        reads::<Sha256>(&[&"a".repeat(64), &format!("sha256:{}", "0".repeat(64))], &["", "abc", "../x"]);
    }

    #[test]
    fn versions() {
        for (bound, version, want) in [
            ("1.2-3", "1.2-3", true),
            ("1.2-3", "1.2-4", false),
            (">= 1.2, << 2", "1.10", true),
            (">= 1.2, << 2", "2", false),
            (">> 1", "1", false),
            ("<= 1:1", "2", true),
        ] {
            let versions = Text::<Versions>::new(bound).unwrap();
            assert_eq!(versions.has(version, Manager::Dpkg), want, "{bound} {version}");
        }
    }
}
