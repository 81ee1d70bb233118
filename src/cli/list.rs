//! `shipimg list`: the containers, as a table or as JSON.

use super::table::Format;
use super::{Context, Result};
use crate::run::{State, Status};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// Names only
    #[arg(short, long)]
    quiet: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let runtime = context.runtime()?;
        let containers = runtime.list()?;
        let mut out = std::io::stdout().lock();
        if self.quiet {
            for (state, _) in &containers {
                writeln!(out, "{}", state.id)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let document = |(state, status): &(State, Status)| {
            let mut document = state.document(*status);
            document["owner"] = runtime.owner(&state.id).into();
            document
        };
        let documents: Vec<_> = containers.iter().map(document).collect();
        match self.format {
            Format::Json => writeln!(out, "{}", serde_json::Value::from(documents))?,
            Format::Table => {
                let longest = containers.iter().map(|(s, _)| s.id.len()).max().unwrap_or(0).max(2);
                let words: Vec<String> = containers.iter().map(|(s, status)| word(s, *status)).collect();
                let widest = words.iter().map(String::len).max().unwrap_or(0).max(8);
                writeln!(
                    out,
                    "{:longest$}  {:>7}  {:widest$}  {:30}  BUNDLE",
                    "ID", "PID", "STATUS", "CREATED"
                )?;
                for (((state, _), document), word) in containers.iter().zip(&documents).zip(&words) {
                    let (pid, bundle) = (document["pid"].to_string(), state.bundle.display());
                    writeln!(
                        out,
                        "{:longest$}  {pid:>7}  {word:widest$}  {:30}  {bundle}",
                        state.id, state.created
                    )?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The state, with the health of one that runs and the exit code of one that has stopped.
fn word(state: &State, status: Status) -> String {
    match (status, &state.health, state.exit) {
        (Status::Running, Some(health), _) => format!("{status} ({})", health.status),
        (Status::Stopped, _, Some(code)) => format!("{status} ({code})"),
        _ => status.to_string(),
    }
}
