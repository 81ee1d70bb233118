//! `shipimg images`: what the store holds.

use super::table::{self, Format};
use super::{Context, Result, printable};
use crate::oci::{Descriptor, Digest, Document, Platform};
use crate::store::{Entry, Store, Summary};
use crate::tree::fnmatch;
use indicatif::HumanBytes;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

/// Arguments of `images`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Print digests only
    #[arg(short, long)]
    quiet: bool,
    /// Only images that all of these hold for: reference=GLOB, dangling=BOOL, platform=OS/ARCH[/VARIANT]
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// In which order [default: as they were named]
    #[arg(long, value_enum)]
    sort: Option<Sort>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Sort {
    /// By name
    Name,
    /// The largest first
    Size,
    /// The newest first
    Created,
}

/// What a row must be.
#[derive(Debug, Clone)]
enum Filter {
    Reference(String),
    Dangling(bool),
    Platform(Platform),
}

/// A filter that is none.
#[derive(Debug, thiserror::Error)]
#[error("wanted reference=GLOB, dangling=true, dangling=false or platform=OS/ARCH[/VARIANT]")]
struct NoFilter;

impl FromStr for Filter {
    type Err = NoFilter;

    fn from_str(text: &str) -> std::result::Result<Self, NoFilter> {
        match text.split_once('=').ok_or(NoFilter)? {
            ("reference", glob) => Ok(Self::Reference(glob.to_string())),
            ("dangling", value) => value.parse().map(Self::Dangling).map_err(|_| NoFilter),
            ("platform", value) => value.parse().map(Self::Platform).map_err(|_| NoFilter),
            _ => Err(NoFilter),
        }
    }
}

impl Filter {
    fn fits(&self, row: &Row) -> bool {
        match self {
            Self::Reference(glob) => row.name.as_deref().is_some_and(|name| names(glob, name)),
            Self::Dangling(wanted) => row.name.is_none() == *wanted,
            Self::Platform(wanted) => {
                let have = row.platforms.iter().filter_map(|p| p.parse::<Platform>().ok());
                have.into_iter().any(|p| wanted.fits(&p).is_some())
            }
        }
    }
}

/// Whether `glob` is the whole name or its end, with or without the tag.
fn names(glob: &str, name: &str) -> bool {
    let starts = name.match_indices('/').map(|(i, _)| i + 1);
    std::iter::once(0).chain(starts).any(|start| {
        let end = &name[start..];
        let bare = end.rsplit_once(':').map_or(end, |(bare, _)| bare);
        fnmatch(glob.as_bytes(), end.as_bytes()) || fnmatch(glob.as_bytes(), bare.as_bytes())
    })
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        if self.quiet && self.filter.is_empty() && self.sort.is_none() {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            for entry in store.entries()? {
                writeln!(out, "{}", entry.descriptor.digest)?;
            }
            return Ok(out.flush().map(|()| ExitCode::SUCCESS)?);
        }
        let mut rows = rows(&store)?;
        rows.retain(|row| self.filter.iter().all(|f| f.fits(row)));
        match self.sort {
            None => {}
            Some(Sort::Name) => rows.sort_by(|a, b| a.name.cmp(&b.name)),
            Some(Sort::Size) => rows.sort_by_key(|r| Reverse(r.size)),
            Some(Sort::Created) => rows.sort_by(|a, b| b.created.cmp(&a.created)),
        }
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        match self.format {
            _ if self.quiet => {
                for row in rows {
                    writeln!(out, "{}", row.digest)?;
                }
            }
            Format::Json => {
                let rows: Vec<Value> = rows.iter().map(Row::json).collect();
                writeln!(out, "{:#}", Value::from(rows))?;
            }
            Format::Table => {
                let rows: Vec<_> = rows.iter().map(Row::cells).collect();
                let heads = ["NAME", "DIGEST", "PLATFORM", "SIZE", "SHARED", "CREATED"];
                table::print(&mut out, heads, &rows)?;
            }
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

struct Row {
    name: Option<String>,
    digest: Digest,
    /// Of what is there of it; none of an artifact.
    platforms: Vec<String>,
    /// None where its documents are damaged or not there.
    size: Option<u64>,
    shared: Option<u64>,
    created: Option<String>,
}

/// An entry and the manifests that are there of it.
struct Listed {
    entry: Entry,
    manifests: Vec<Descriptor>,
}

fn rows(store: &Store) -> Result<Vec<Row>> {
    let list = |entry: Entry| {
        let d = &entry.descriptor;
        let manifests = if d.is_index() { members(store, d) } else { vec![d.clone()] };
        Listed { entry, manifests }
    };
    let listed: Vec<Listed> = store.entries()?.into_iter().map(list).collect();
    let manifests: Vec<&Descriptor> = listed.iter().flat_map(|l| &l.manifests).collect();
    let summaries = store.summaries(&manifests, |digest, e| tracing::warn!("{digest}: {e}"))?;
    // By how many images a blob is used; names of one image are one.
    let mut users: HashMap<&Digest, u32> = HashMap::new();
    let mut seen = BTreeSet::new();
    for l in &listed {
        if seen.insert(&l.entry.descriptor.digest) {
            for (digest, _) in blobs(l, &summaries) {
                *users.entry(digest).or_default() += 1;
            }
        }
    }
    Ok(listed.iter().map(|l| row(l, &summaries, &users)).collect())
}

/// The manifests of an index that are there.
fn members(store: &Store, index: &Descriptor) -> Vec<Descriptor> {
    let parsed = store.document(index).map(|bytes| Document::parse(&bytes, &index.media_type));
    match parsed {
        Ok(Ok(Document::Index(i))) => {
            i.manifests.into_iter().filter(|d| !d.is_index() && store.has(d).unwrap_or(false)).collect()
        }
        Ok(Ok(Document::Manifest(_))) => Vec::new(),
        Ok(Err(e)) => {
            tracing::warn!("{}: {e}", index.digest);
            Vec::new()
        }
        Err(e) => {
            tracing::warn!("{}: {e}", index.digest);
            Vec::new()
        }
    }
}

/// The blobs of an image, each once, and their sizes.
fn blobs<'a>(listed: &'a Listed, summaries: &'a HashMap<Digest, Summary>) -> Vec<&'a (Digest, u64)> {
    let found = listed.manifests.iter().filter_map(|m| summaries.get(&m.digest));
    let mut blobs: Vec<_> = found.flat_map(|s| &s.blobs).collect();
    if listed.manifests.len() > 1 {
        blobs.sort_unstable();
        blobs.dedup_by(|a, b| a.0 == b.0);
    }
    blobs
}

fn row(l: &Listed, summaries: &HashMap<Digest, Summary>, users: &HashMap<&Digest, u32>) -> Row {
    let found: Vec<&Summary> = l.manifests.iter().filter_map(|m| summaries.get(&m.digest)).collect();
    let blobs = blobs(l, summaries);
    let sum = |least: u32| {
        let counted = blobs.iter().filter(|(d, _)| least < 2 || users.get(d).is_some_and(|n| *n >= least));
        counted.fold(0u64, |sum, (_, size)| sum.saturating_add(*size))
    };
    let own = if l.entry.descriptor.is_index() { l.entry.descriptor.size } else { 0 };
    Row {
        name: l.entry.reference.as_ref().map(ToString::to_string),
        digest: l.entry.descriptor.digest.clone(),
        platforms: found.iter().filter_map(|s| s.platform.clone()).collect(),
        size: (!found.is_empty()).then(|| sum(1).saturating_add(own)),
        shared: (!found.is_empty()).then(|| sum(2)),
        created: found.iter().filter_map(|s| s.created.clone()).max(),
    }
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "digest": self.digest,
            "platform": if let [one] = self.platforms.as_slice() { Some(one) } else { None },
            "platforms": self.platforms,
            "size": self.size,
            "sharedSize": self.shared,
            "created": self.created,
        })
    }

    fn cells(&self) -> [String; 6] {
        let size = |n: Option<u64>| n.map_or_else(|| "-".to_string(), |n| HumanBytes(n).to_string());
        [
            self.name.clone().unwrap_or_else(|| "<none>".to_string()),
            self.digest.short().to_string(),
            match self.platforms.as_slice() {
                [] => "-".to_string(),
                all => printable(&all.join(",")),
            },
            size(self.size),
            size(self.shared),
            self.created
                .as_deref()
                .map_or_else(|| "-".to_string(), |c| printable(c).chars().take(10).collect()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, name, fits) in [
            ("debian", "docker.io/library/debian:bookworm", true),
            ("debian:book*", "docker.io/library/debian:bookworm", true),
            ("deb?an", "docker.io/library/debian:bookworm", true),
            ("bian*", "docker.io/library/debian:bookworm", false),
            ("*/debian*", "docker.io/library/debian:bookworm", true),
            ("docker.io/*", "docker.io/library/debian:bookworm", true),
            ("alpine", "docker.io/library/debian:bookworm", false),
            ("*", "localhost:5000/a:b", true),
            ("", "localhost:5000/a:b", false),
            ("*a*a*a*a*a*b", "localhost:5000/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:c", false),
        ] {
            assert_eq!(names(glob, name), fits, "{glob} {name}");
        }
        for bad in ["", "x", "reference", "dangling=maybe", "platform=linux", "label=x"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
