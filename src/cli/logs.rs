//! `shipimg logs`: what a container that `run --detach` has begun has printed. What it printed
//! to standard error goes to standard error.

use super::{Context, Result, events::interval};
use crate::oci::{rfc3339, to_utc};
use crate::run::{Entry, Query, Stream};
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    id: String,
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// The last so many lines only, or all
    #[arg(short = 'n', long, value_name = "N|all", value_parser = tail, default_value = "all")]
    tail: Tail,
    /// None before this time: RFC 3339, or so long ago as 10m
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// None from this time on
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// With the time of each line
    #[arg(short, long)]
    timestamps: bool,
}

/// How many lines; all where there is no number.
#[derive(Debug, Clone, Copy)]
struct Tail(Option<usize>);

fn tail(text: &str) -> std::result::Result<Tail, String> {
    if text == "all" {
        return Ok(Tail(None));
    }
    text.parse().map(|n| Tail(Some(n))).map_err(|_| "wanted a number or all".to_string())
}

/// A time as log entries have it.
fn time(text: &str) -> std::result::Result<String, String> {
    if let Ok(ago) = interval(text) {
        let then = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        let since = then.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        return Ok(rfc3339(since.as_secs(), since.subsec_nanos()));
    }
    to_utc(text)
        .ok_or_else(|| "wanted a time like 2026-01-31T12:00:00Z, or 10m for ten minutes ago".to_string())
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let container = context.runtime()?.get(&self.id)?;
        let query = Query {
            tail: self.tail.0,
            since: self.since.clone(),
            until: self.until.clone(),
            follow: self.follow,
        };
        container.logs(&query, &mut |entry| self.print(entry))?;
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, entry: &Entry) -> Result<()> {
        let time = if self.timestamps { format!("{} ", entry.time) } else { String::new() };
        match entry.stream {
            Stream::Stdout => write!(std::io::stdout(), "{time}{}", entry.log)?,
            Stream::Stderr => write!(std::io::stderr(), "{time}{}", entry.log)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times() {
        assert_eq!(
            super::time("2026-01-31T12:00:00+01:00").unwrap(),
            super::time("2026-01-31T11:00:00Z").unwrap()
        );
        assert!(super::time("1h").unwrap() < super::time("1m").unwrap());
        assert!(super::time("yesterday").is_err() && super::time("1960-01-01T00:00:00Z").is_err());
    }
}
