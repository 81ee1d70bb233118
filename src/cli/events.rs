//! `shipimg events`: what a container uses, time and again, and when the kernel kills for want
//! of memory. Each event is a line of JSON in the form of runc's.

use super::{Context, Result};
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

/// A time, as `500ms`, `5s`, `1m`, `1h`.
///
/// # Errors
/// Anything else, and no time at all.
pub(super) fn interval(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let milliseconds = digits.parse::<u32>().map_or(0, |n| u64::from(n) * unit);
    if milliseconds == 0 {
        return Err("wanted a number with ms, s, m or h behind it".to_string());
    }
    Ok(Duration::from_millis(milliseconds))
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
        assert_eq!(interval("2m"), Ok(Duration::from_mins(2)));
        assert!(["", "5", "0s", "s", "-1s", "1d"].iter().all(|t| interval(t).is_err()));
    }
}
