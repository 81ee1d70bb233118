//! `shipimg history`: how an image was made, the newest step first.

use super::table::{self, Format};
use super::{Context, Result, printable};
use crate::oci::{Image, Name, Platform};
use indicatif::HumanBytes;
use serde_json::{Value, json};
use std::process::ExitCode;

/// How much of a command is shown without `--no-trunc`, in characters.
const WIDTH: usize = 45;

/// Arguments of `history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image in the store
    #[arg(value_name = "IMAGE")]
    name: Name,
    /// For which platform, as os/arch[/variant] [default: the host's]
    #[arg(long)]
    platform: Option<Platform>,
    /// Print whole commands
    #[arg(long)]
    no_trunc: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// One step.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    created: Option<String>,
    created_by: String,
    comment: String,
    /// Bytes of its layer as compressed; 0 where it made none.
    size: u64,
    layer: Option<String>,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let entry = store.find(&self.name)?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let steps = steps(&store.image(&entry.descriptor, &platform)?);
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => {
                let steps: Vec<Value> = steps.iter().map(Step::json).collect();
                std::io::Write::write_all(&mut out, format!("{:#}\n", Value::from(steps)).as_bytes())?;
            }
            Format::Table => {
                let rows: Vec<_> = steps.iter().map(|s| s.cells(self.no_trunc)).collect();
                table::print(&mut out, ["CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The steps of `image`, the newest first. Layers that the history says nothing of come last of all.
fn steps(image: &Image) -> Vec<Step> {
    let mut layers = image.layers.iter().map(|l| &l.descriptor);
    let mut steps: Vec<Step> = Vec::new();
    for entry in image.config.history().iter().flatten() {
        let layer = if entry.empty_layer() == Some(true) { None } else { layers.next() };
        steps.push(Step {
            created: entry.created().clone(),
            created_by: entry.created_by().clone().unwrap_or_default(),
            comment: entry.comment().clone().unwrap_or_default(),
            size: layer.map_or(0, |d| d.size),
            layer: layer.map(|d| d.digest.to_string()),
        });
    }
    let rest = layers.map(|d| Step { size: d.size, layer: Some(d.digest.to_string()), ..Step::default() });
    steps.extend(rest);
    steps.reverse();
    steps
}

impl Step {
    fn json(&self) -> Value {
        json!({"created": self.created, "createdBy": self.created_by, "size": self.size,
            "comment": self.comment, "layer": self.layer})
    }

    fn cells(&self, whole: bool) -> [String; 4] {
        let mut by = printable(&self.created_by);
        if !whole && by.chars().count() > WIDTH {
            by = by.chars().take(WIDTH - 1).chain(['…']).collect();
        }
        [
            self.created
                .as_deref()
                .map_or_else(|| "-".to_string(), |c| printable(c).chars().take(19).collect()),
            by,
            HumanBytes(self.size).to_string(),
            printable(&self.comment),
        ]
    }
}
