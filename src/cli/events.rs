//! `shipimg events`: what a container uses, time and again, and when the kernel kills for want
//! of memory. Each event is a line of JSON in the form of runc's.

use super::{Context, Result};
use crate::oci::span;
use crate::run::Container;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often the kernel's count of killed processes is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    id: String,
    /// Once, and no more
    #[arg(long)]
    stats: bool,
    /// Time from one to the next, as `500ms`, `5s`, `1m`
    #[arg(long, default_value = "5s", value_parser = interval, value_name = "TIME")]
    interval: Duration,
}

/// A time from one thing to the next.
///
/// # Errors
/// What is no time, and no time at all.
pub(super) fn interval(text: &str) -> std::result::Result<Duration, String> {
    let time = span(text).map_err(|e| e.to_string())?;
    if time.is_zero() { Err("wanted more than no time".to_string()) } else { Ok(time) }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let container = context.runtime()?.get(&self.id)?;
        let stats = |c: &Container| -> Result<()> {
            let event = json!({"type": "stats", "id": self.id, "data": c.stats()?});
            Ok(writeln!(std::io::stdout(), "{event}")?)
        };
        if self.stats {
            stats(&container)?;
            return Ok(ExitCode::SUCCESS);
        }
        container.processes()?;
        let (mut next, mut killed) = (Instant::now() + self.interval, container.oom_kills()?);
        loop {
            let wait = next.saturating_duration_since(Instant::now()).min(LOOK);
            let ended = container.ends_within(wait)?;
            // Gone with its groups where its `run` was quicker.
            let kills = container.oom_kills().unwrap_or(killed);
            for _ in killed..kills {
                writeln!(std::io::stdout(), "{}", json!({"type": "oom", "id": self.id}))?;
            }
            killed = kills;
            if ended {
                return Ok(ExitCode::SUCCESS);
            }
            if Instant::now() >= next {
                stats(&container)?;
                next += self.interval;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert!(["", "5", "0s", "0"].iter().all(|t| interval(t).is_err()));
    }
}
