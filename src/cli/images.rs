//! `shipimg images`: what the store holds.

use super::{Context, Result, printable};
use crate::oci::{Image, Platform};
use crate::store::{Entry, Store};
use indicatif::HumanBytes;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `images`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Print digests only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Format {
    /// Aligned columns
    Table,
    /// An array of objects
    Json,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let entries = store.entries()?;
        let mut out = std::io::stdout().lock();
        if self.quiet {
            for entry in entries {
                writeln!(out, "{}", entry.descriptor.digest)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let rows = entries.into_iter().map(|entry| Row::new(&store, entry));
        match self.format {
            Format::Json => {
                let rows: Vec<Value> = rows.map(|r| r.json()).collect();
                writeln!(out, "{:#}", Value::from(rows))?;
            }
            Format::Table => {
                let rows: Vec<[String; 5]> = rows.map(|r| r.cells()).collect();
                if !rows.is_empty() {
                    print_table(&mut out, ["NAME", "DIGEST", "PLATFORM", "SIZE", "CREATED"], &rows)?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

struct Row {
    entry: Entry,
    /// None where its documents are damaged or not there.
    image: Option<Image>,
}

impl Row {
    fn new(store: &Store, entry: Entry) -> Self {
        let image = store.image(&entry.descriptor, &Platform::host());
        let image = image.inspect_err(|e| tracing::warn!("{}: {e}", entry.descriptor.digest)).ok();
        Self { entry, image }
    }

    fn created(&self) -> Option<&str> {
        self.image.as_ref()?.config.created().as_deref()
    }

    fn json(&self) -> Value {
        json!({
            "name": self.entry.reference.as_ref().map(ToString::to_string),
            "digest": self.entry.descriptor.digest,
            "platform": self.image.as_ref().map(|i| i.platform().to_string()),
            "size": self.image.as_ref().map(Image::size),
            "created": self.created(),
        })
    }

    fn cells(&self) -> [String; 5] {
        let unknown = || "-".to_string();
        [
            self.entry.reference.as_ref().map_or_else(|| "<none>".to_string(), ToString::to_string),
            self.entry.descriptor.digest.short().to_string(),
            self.image.as_ref().map_or_else(unknown, |i| printable(&i.platform().to_string())),
            self.image.as_ref().map_or_else(unknown, |i| HumanBytes(i.size()).to_string()),
            self.created().map_or_else(unknown, |c| printable(c).chars().take(10).collect()),
        ]
    }
}

fn print_table(out: &mut impl Write, heads: [&str; 5], rows: &[[String; 5]]) -> std::io::Result<()> {
    let mut widths = heads.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heads = heads.map(str::to_string);
    for row in std::iter::once(&heads).chain(rows) {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("   ").trim_end())?;
    }
    Ok(())
}
