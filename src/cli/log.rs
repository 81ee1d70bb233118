//! Messages for who calls shipimg as an OCI runtime: conmon, containerd and CRI-O name a file
//! and read from it why a command failed.
//!
//! One line a message, in the form that runc's have: `{"level":"error","msg":…,"time":…}`, or
//! `time="…" level=error msg="…"`. Errors go to standard error as well.

use super::{Error, Result};
use crate::oci::rfc3339;
use crate::run;
use std::fmt;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// Options before the command, as runc has them.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options for callers of OCI runtimes, before the command")]
pub struct Options {
    /// File that takes warnings and errors
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Form of its lines
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    log_format: Format,
    /// Tell more
    #[arg(long)]
    debug: bool,
    /// Have systemd make control groups
    #[arg(long)]
    pub systemd_cgroup: bool,
}

/// Form of a line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

impl Format {
    fn line(self, level: &str, message: &str) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let time = rfc3339(now.as_secs(), now.subsec_nanos());
        match self {
            Self::Text => format!("time={time:?} level={level} msg={message:?}\n"),
            Self::Json => {
                format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": time}))
            }
        }
    }
}

/// The file of `--log`, open.
#[derive(Debug)]
pub struct Log {
    file: File,
    format: Format,
}

impl Options {
    /// Opens the log, and has warnings written to it, or to standard error where there is none.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn begin(&self) -> Result<Option<Log>> {
        let filter = EnvFilter::try_from_env("SHIPIMG_LOG");
        let filter = filter.unwrap_or_else(|_| if self.debug { "debug" } else { "warn" }.into());
        let common = tracing_subscriber::fmt().with_env_filter(filter);
        let Some(path) = &self.log else {
            let colours =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            common.with_writer(std::io::stderr).with_ansi(colours).without_time().with_target(false).init();
            return Ok(None);
        };
        let open = || File::options().append(true).create(true).open(path);
        let error = |source| Error::Run(run::Error::Io { action: "open", path: path.clone(), source });
        let log = Log { file: open().map_err(error)?, format: self.log_format };
        let file = log.file.try_clone().map_err(error)?;
        common.event_format(self.log_format).with_writer(Appended(file)).init();
        Ok(Some(log))
    }
}

impl Log {
    /// Adds why the command failed. A log that is full is no reason to fail.
    pub fn error(&self, error: &Error) {
        let _ = (&self.file).write_all(self.format.line("error", &error.to_string()).as_bytes());
    }
}

/// A file as a sink of messages, each with one write(2).
struct Appended(File);

impl<'a> MakeWriter<'a> for Appended {
    type Writer = &'a File;

    fn make_writer(&'a self) -> &'a File {
        &self.0
    }
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<S, N>, mut out: Writer, event: &Event) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        let mut message = String::new();
        context.format_fields(Writer::new(&mut message), event)?;
        out.write_str(&self.line(level, &message))
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn lines() {
        let text = Format::Text.line("error", "no \"x\"\n");
        assert!(
            text.starts_with("time=\"20") && text.ends_with("Z\" level=error msg=\"no \\\"x\\\"\\n\"\n"),
            "{text}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&Format::Json.line("error", "no \"x\"\n")).unwrap();
        assert_eq!((&json["level"], &json["msg"]), (&"error".into(), &"no \"x\"\n".into()));
        assert!(json["time"].as_str().unwrap().ends_with('Z'));
    }
}
