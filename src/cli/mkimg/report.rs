//! What `mkimg` tells at its end.

use super::super::Result;
use super::super::phases::spelled;
use super::super::table::Format;
use crate::oci::Digest;
use crate::output::{Output, Written};
use indicatif::HumanBytes;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// What was made, of what, and how long it took.
pub(super) struct Report<'a> {
    /// The outputs and what is known of each.
    pub written: Vec<(&'a Output, Written)>,
    /// How many packages there are.
    pub packages: Option<usize>,
    /// The digest that tells the files of all outputs: of their tar, or of the image they are from.
    pub digest: &'a Digest,
    /// Addresses of archives of which nobody checked the signature.
    pub unsigned: Vec<String>,
    /// Each phase.
    pub phases: Vec<(&'static str, Duration)>,
}

impl Report<'_> {
    /// Tells it: people on standard error, programs on standard output.
    pub(super) fn tell(&self, format: Format) -> Result<()> {
        if format == Format::Json {
            writeln!(std::io::stdout(), "{:#}", self.json())?;
            return Ok(());
        }
        for (output, written) in &self.written {
            let size = written.size.map_or_else(String::new, |n| format!(" {}", HumanBytes(n)));
            let manifest = written.manifest.as_ref().map_or_else(String::new, |d| format!(" {d}"));
            say!("{output}:{size}{manifest}");
        }
        if !self.unsigned.is_empty() {
            say!("not signed, or not checked: {}", self.unsigned.join(", "));
        }
        let packages = self.packages.map_or_else(String::new, |n| format!("{n} packages, "));
        let total: f64 = self.phases.iter().map(|(_, time)| time.as_secs_f64()).sum();
        say!("{packages}files {}", self.digest);
        say!("{total:.1} s: {}", spelled(&self.phases));
        Ok(())
    }

    fn json(&self) -> Value {
        let outputs = self.written.iter().map(|(output, written)| {
            json!({"output": output.to_string(), "size": written.size, "manifest": written.manifest})
        });
        let phases =
            self.phases.iter().map(|(name, time)| json!({"phase": name, "seconds": time.as_secs_f64()}));
        json!({
            "outputs": outputs.collect::<Vec<_>>(),
            "packages": self.packages,
            "files": self.digest,
            "unsigned": self.unsigned,
            "phases": phases.collect::<Vec<_>>(),
        })
    }
}
