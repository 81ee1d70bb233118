//! `shipimg inspect`: one image, of the store or at its registry, as JSON.

use super::transfer::{Network, Selection};
use super::{Context, Result};
use crate::oci::{self, Image, Name};
use crate::transfer::{self, FromRegistry, FromStore, Platforms, Source};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image in the store: its name, the end of it, or its digest's first digits
    #[arg(value_name = "IMAGE")]
    name: Name,
    /// Print the manifest or index as it is
    #[arg(long)]
    raw: bool,
    /// Look at the registry, and pull nothing
    #[arg(long)]
    remote: bool,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    network: Network,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        if self.remote {
            let (reference, source) =
                FromRegistry::find(self.name.as_str(), &self.network.options(&context.limits))?;
            return self.show(context, &source, Some(&reference.to_string()));
        }
        let store = context.store()?;
        let entry = store.find(&self.name)?;
        let reference = entry.reference.as_ref().map(ToString::to_string);
        self.show(context, &FromStore::new(&store, entry), reference.as_deref())
    }

    fn show(&self, context: &Context, source: &dyn Source, reference: Option<&str>) -> Result<ExitCode> {
        let mut out = std::io::stdout().lock();
        if self.raw {
            out.write_all(&source.root()?.bytes)?;
            out.flush()?;
            return Ok(ExitCode::SUCCESS);
        }
        let platforms = self.selection.platforms(Platforms::Host);
        let (image, config) = transfer::look(source, &platforms, &context.limits)?;
        let config: Value = serde_json::from_slice(&config)
            .map_err(|source| oci::Error::Json { what: "configuration", source })?;
        writeln!(out, "{:#}", describe(reference, &image, &config))?;
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
