//! `shipimg inspect`: one image of the store as JSON.

use super::{Context, Result};
use crate::oci::{self, Image, Name, Platform};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image in the store: its name, the end of it, or its digest's first digits
    #[arg(value_name = "IMAGE")]
    name: Name,
    /// Print the manifest as it is stored
    #[arg(long)]
    raw: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let entry = store.find(&self.name)?;
        let mut out = std::io::stdout().lock();
        if self.raw {
            out.write_all(&store.document(&entry.descriptor)?)?;
            out.flush()?;
            return Ok(ExitCode::SUCCESS);
        }
        let image = store.image(&entry.descriptor, &Platform::host())?;
        let config: Value = serde_json::from_slice(&store.document(&image.config_descriptor)?)
            .map_err(|source| oci::Error::Json { what: "configuration", source })?;
        let reference = entry.reference.map(|r| r.to_string());
        writeln!(out, "{:#}", describe(reference.as_deref(), &image, &config))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(reference: Option<&str>, image: &Image, config: &Value) -> Value {
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|l| {
            json!({
                "digest": l.descriptor.digest,
                "mediaType": l.descriptor.media_type,
                "size": l.descriptor.size,
                "diffId": l.diff_id,
            })
        })
        .collect();
    json!({
        "reference": reference,
        "digest": image.descriptor.digest,
        "mediaType": image.descriptor.media_type,
        "platform": image.platform().to_string(),
        "size": image.size(),
        "config": config,
        "layers": layers,
    })
}
