//! `shipimg df`: what the store takes on disk, and what of it can go.

use super::prune;
use super::sweep::Removal;
use super::table::{self, Format};
use super::{Context, Result};
use crate::store::{Area, Usage};
use indicatif::HumanBytes;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `df`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// One kind of things; sizes are bytes on disk.
struct Row {
    what: &'static str,
    count: usize,
    size: u64,
    /// What `prune` removes.
    prune: u64,
    /// What `prune --all` removes.
    prune_all: u64,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let rows = rows(context)?;
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => {
                let rows: Vec<Value> = rows.iter().map(Row::json).collect();
                writeln!(out, "{:#}", Value::from(rows))?;
            }
            Format::Table => {
                let cells: Vec<_> = rows.iter().map(Row::cells).collect();
                table::print(&mut out, ["WHAT", "COUNT", "SIZE", "PRUNE", "PRUNE --ALL"], &cells)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn rows(context: &Context) -> Result<Vec<Row>> {
    let store = context.store()?;
    let survey = store.survey()?;
    let prune = prune::removal(context, &store, &survey, false, None)?;
    let all = prune::removal(context, &store, &survey, true, None)?;
    let blobs = |r: &Removal| r.plan.blobs.iter().map(|(_, w)| w.size).sum();
    let partials = |r: &Removal| r.plan.partials.iter().map(|w| w.size).sum();
    let shipimg = store.root().join("shipimg");
    let mut usage = Usage::default();
    // What a folder holds: its entries but for locks, and all bytes.
    let mut folder = |what, name: &str, prune, prune_all| -> Result<Row> {
        let dir = shipimg.join(name);
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let count = entries.filter(|e| e.file_name() != "lock").count();
        Ok(Row { what, count, size: usage.of(&dir)?, prune, prune_all })
    };
    let layers = folder("unpacked layers", Area::Layers.name(), prune.layers_size(), all.layers_size())?;
    let rest = [
        folder("bundles", Area::Bundles.name(), 0, 0)?,
        folder("containers", Area::Containers.name(), 0, 0)?,
        folder("packages", Area::Packages.name(), 0, 0)?,
        folder("caches of steps", Area::Caches.name(), 0, 0)?,
        folder("partial downloads", "ingest", partials(&prune), partials(&all))?,
        folder("damaged blobs", "damaged", 0, 0)?,
        folder("work in progress", "tmp", 0, 0)?,
    ];
    let here = store.blobs()?;
    let size = here.iter().map(|(_, w)| w.size).sum();
    let blobs = Row { what: "blobs", count: here.len(), size, prune: blobs(&prune), prune_all: blobs(&all) };
    Ok([blobs, layers].into_iter().chain(rest).collect())
}

impl Row {
    fn json(&self) -> Value {
        json!({"what": self.what, "count": self.count, "size": self.size,
            "prune": self.prune, "pruneAll": self.prune_all})
    }

    fn cells(&self) -> [String; 5] {
        let size = |n: u64| HumanBytes(n).to_string();
        [
            self.what.to_string(),
            self.count.to_string(),
            size(self.size),
            size(self.prune),
            size(self.prune_all),
        ]
    }
}
