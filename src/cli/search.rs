//! `shipimg search`: repositories by name, in Docker Hub and in registries with a catalogue.

use super::table::{self, Format};
use super::transfer::Network;
use super::{Context, Result, printable};
use crate::oci::Reference;
use crate::registry::{self, Config, Found};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

/// How many characters of a description are shown.
const DESCRIPTION: usize = 50;

/// Arguments of `search`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to look for; localhost:5000/app looks in that registry
    #[arg(value_name = "TERM")]
    term: String,
    /// Look in this registry; repeatable [default: those of registries.conf, else docker.io]
    #[arg(long, value_name = "HOST")]
    registry: Vec<String>,
    /// Only what fits: is-official=BOOL, stars=LEAST; repeatable
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Print so many of each registry at most
    #[arg(long, value_name = "COUNT", default_value_t = 25)]
    limit: usize,
    #[command(flatten)]
    network: Network,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Official(bool),
    Stars(u64),
}

impl FromStr for Filter {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text.split_once('=') {
            Some(("is-official", value)) => {
                value.parse().map(Self::Official).map_err(|_| "wanted is-official=true or =false")
            }
            Some(("stars", value)) => value.parse().map(Self::Stars).map_err(|_| "wanted stars=NUMBER"),
            _ => Err("wanted is-official=BOOL or stars=NUMBER"),
        }
    }
}

impl Filter {
    fn fits(&self, found: &Found) -> bool {
        match self {
            Self::Official(wanted) => found.official == *wanted,
            Self::Stars(least) => found.stars >= *least,
        }
    }
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        let options = self.network.options(&context.limits);
        let config = Config::load()?;
        let (registries, term) = match self.term.split_once('/') {
            Some((host, term)) if Reference::names_registry(&self.term) => (vec![host], term),
            _ if self.registry.is_empty() => (config.search_list(), self.term.as_str()),
            _ => (self.registry.iter().map(String::as_str).collect(), self.term.as_str()),
        };
        let keep = |found: &Found| self.filter.iter().all(|f| f.fits(found));
        let mut found = Vec::new();
        for registry in registries {
            found.extend(registry::search(registry, term, self.limit, &keep, &options)?);
        }
        let mut out = std::io::stdout().lock();
        if self.format == Format::Json {
            let rows: Vec<Value> = found.iter().map(json).collect();
            writeln!(out, "{:#}", Value::from(rows))?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<[String; 4]> = found.iter().map(cells).collect();
        table::print(&mut out, ["NAME", "STARS", "OFFICIAL", "DESCRIPTION"], &rows)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn json(found: &Found) -> Value {
    json!({
        "name": format!("{}/{}", found.registry, found.repository),
        "description": found.description,
        "stars": found.stars,
        "official": found.official,
    })
}

fn cells(found: &Found) -> [String; 4] {
    [
        printable(&format!("{}/{}", found.registry, found.repository)),
        found.stars.to_string(),
        if found.official { "yes" } else { "" }.to_string(),
        printable(&found.description).chars().take(DESCRIPTION).collect(),
    ]
}

#[cfg(test)]
mod tests {
    use super::Filter;

    #[test]
    fn filters() {
        for (text, want) in [
            ("is-official=true", Some(Filter::Official(true))),
            ("stars=3", Some(Filter::Stars(3))),
            ("stars=-1", None),
            ("is-official", None),
            ("is-automated=true", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }
}
