//! Variables in a recipe's texts: `${var:NAME}` and `${env:NAME}`.

use super::suggest;
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong, and the byte where.
pub(super) type Wrong = (usize, String);

/// The variables of the environment that a file declares; its own variables are added to `vars`.
pub(super) fn own_variables(
    table: &DeTable,
    vars: &mut BTreeMap<String, String>,
) -> std::result::Result<BTreeMap<String, String>, Wrong> {
    let texts = |key: &str| {
        let entries = table.get(key).and_then(|v| v.get_ref().as_table()).into_iter().flatten();
        entries.filter_map(|(name, value)| {
            Some((name.get_ref().to_string(), value.get_ref().as_str()?.to_string(), value.span().start))
        })
    };
    let env = texts("env").map(|(name, default, _)| {
        let value = std::env::var(&name).unwrap_or(default);
        (name, value)
    });
    let env: BTreeMap<_, _> = env.collect();
    for (name, value, at) in texts("vars") {
        let value =
            Variables { vars: &BTreeMap::new(), env: &env }.expand(&value).map_err(|reason| (at, reason))?;
        vars.entry(name).or_insert(value);
    }
    Ok(env)
}

/// Variables and their values.
pub(super) struct Variables<'a> {
    pub vars: &'a BTreeMap<String, String>,
    pub env: &'a BTreeMap<String, String>,
}

impl Variables<'_> {
    /// Puts them into all texts of `table`, but for what is below the keys `except`.
    pub(super) fn fill(&self, table: &mut DeTable, except: &[&str]) -> std::result::Result<(), Wrong> {
        let mut values = table.iter_mut().filter(|(key, _)| !except.contains(&&**key.get_ref()));
        values.try_for_each(|(_, value)| self.fill_value(value))
    }

    fn fill_value(&self, value: &mut Spanned<DeValue>) -> std::result::Result<(), Wrong> {
        let at = value.span().start;
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => {
                *text = self.expand(text).map_err(|reason| (at, reason))?.into();
                Ok(())
            }
            DeValue::Array(list) => list.iter_mut().try_for_each(|v| self.fill_value(v)),
            DeValue::Table(table) => self.fill(table, &[]),
            _ => Ok(()),
        }
    }

    /// `${var:NAME}` and `${env:NAME}` as what they stand for, `$${` as `${`; all other is as it was.
    fn expand(&self, text: &str) -> std::result::Result<String, String> {
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let tail = &rest[at + 2..];
            let word = tail.split_once('}').map(|(word, _)| word);
            if out.ends_with('$') {
                out.push('{');
                rest = tail;
                continue;
            }
            let known = [("var:", self.vars, "[vars]"), ("env:", self.env, "[env]")];
            let named = known.into_iter().find_map(|(prefix, table, place)| {
                let name = word?.strip_prefix(prefix).filter(|n| is_name(n))?;
                Some((name, table, place))
            });
            let Some((name, table, place)) = named else {
                out.push_str("${");
                rest = tail;
                continue;
            };
            let value = table.get(name).ok_or_else(|| {
                let known: Vec<&str> = table.keys().map(String::as_str).collect();
                format!("no variable {name} in {place}{}", suggest(name, &known))
            })?;
            out.push_str(value);
            rest = &tail[name.len() + 5..];
        }
        Ok(out + rest)
    }
}

fn is_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
