//! `shipimg doctor`: tries what the commands need of this host, and says what helps.
//!
//! Nothing is judged by a version: each row comes from doing the thing once. Mounts,
//! namespaces and interfaces lie in children that end at once, files in a scratch folder of
//! the store (or of /tmp, where there is no store to write to), which goes with this command.

mod rows;

use super::table::{self, Format};
use super::{Context, Result};
use crate::error::Kind;
use crate::sys::signal;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How well a thing works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Limited,
    Missing,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        }
    }
}

/// What a trial found.
struct Row {
    what: &'static str,
    state: State,
    /// What was seen, or failed.
    detail: String,
    /// The commands that it touches.
    commands: &'static str,
    /// A command that may help.
    remedy: Option<String>,
    /// Whether hardly a command works without it.
    basic: bool,
}

impl Row {
    /// A row of a trial: ok, or missing with what failed.
    fn new(
        what: &'static str,
        commands: &'static str,
        tried: std::result::Result<(), impl std::fmt::Display>,
        remedy: &str,
    ) -> Self {
        let (state, detail) = match tried {
            Ok(()) => (State::Ok, String::new()),
            Err(e) => (State::Missing, e.to_string()),
        };
        let remedy = (state != State::Ok && !remedy.is_empty()).then(|| remedy.to_string());
        Self { what, state, detail, commands, remedy, basic: false }
    }

    /// Says `detail` where all is well.
    fn seen(mut self, detail: impl Into<String>) -> Self {
        if self.state == State::Ok {
            self.detail = detail.into();
        }
        self
    }

    /// Where it is missing, something else does: it is only limited.
    fn not_needed(mut self) -> Self {
        if self.state == State::Missing {
            self.state = State::Limited;
        }
        self
    }

    /// Of an ordinary user, whose commands take `other` for it.
    fn for_root(mut self, other: &str) -> Self {
        if self.state != State::Ok {
            self.detail = format!("for root alone, other users have: {other}");
            self.remedy = None;
        }
        self
    }

    fn basic(mut self) -> Self {
        self.basic = true;
        self
    }

    fn json(&self) -> Value {
        json!({"what": self.what, "state": self.state.name(), "detail": self.detail,
            "commands": self.commands.split(", ").collect::<Vec<_>>(), "remedy": self.remedy,
            "basic": self.basic})
    }

    fn cells(&self) -> [String; 4] {
        [self.what.into(), self.state.name().into(), self.commands.into(), super::printable(&self.detail)]
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        // What was begun is taken down before a signal ends this.
        signal::put_off();
        let rows = rows::all(&context.root);
        signal::give_in();
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => {
                let rows: Vec<Value> = rows.iter().map(Row::json).collect();
                writeln!(out, "{:#}", Value::from(rows))?;
            }
            Format::Table => {
                let cells: Vec<_> = rows.iter().map(Row::cells).collect();
                table::print(&mut out, ["WHAT", "STATE", "FOR", "SEEN"], &cells)?;
                let remedies = rows.iter().filter_map(|r| Some((r.what, r.remedy.as_ref()?)));
                for (i, (what, remedy)) in remedies.enumerate() {
                    writeln!(out, "{}{what}: {remedy}", if i == 0 { "\n" } else { "" })?;
                }
            }
        }
        if rows.iter().any(|r| r.basic && r.state == State::Missing) {
            return Ok(ExitCode::from(Kind::Unsupported.exit_code()));
        }
        Ok(ExitCode::SUCCESS)
    }
}
