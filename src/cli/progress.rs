//! Progress of transfers on standard error: a bar per blob and a total on a terminal, plain
//! lines elsewhere, or one JSON object a line.

use super::printable;
use crate::oci::{Descriptor, Digest};
use crate::transfer::Event;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a JSON line tells how far a blob has come.
const JSON_PAUSE: Duration = Duration::from_millis(250);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// Bars on a terminal, lines elsewhere
    Auto,
    /// A line for each blob
    Plain,
    /// A JSON object for each step
    Json,
    /// Nothing
    None,
}

/// Where progress goes.
pub struct Progress {
    mode: Mode,
}

enum Mode {
    Quiet,
    Lines,
    Json(Mutex<HashMap<Digest, Instant>>),
    Bars(Mutex<Bars>),
}

#[derive(Default)]
struct Bars {
    all: MultiProgress,
    total: Option<ProgressBar>,
    blobs: HashMap<Digest, ProgressBar>,
}

impl Progress {
    /// Progress in this style.
    pub fn new(style: Style) -> Self {
        let mode = match style {
            Style::None => Mode::Quiet,
            Style::Json => Mode::Json(Mutex::default()),
            Style::Auto if std::io::stderr().is_terminal() => Mode::Bars(Mutex::default()),
            Style::Auto | Style::Plain => Mode::Lines,
        };
        Self { mode }
    }

    /// Shows one event.
    pub fn show(&self, event: &Event<'_>) {
        match &self.mode {
            Mode::Quiet => {}
            Mode::Lines => line(event),
            Mode::Json(last) => json_line(event, &mut last.lock().unwrap_or_else(PoisonError::into_inner)),
            Mode::Bars(bars) => bars.lock().unwrap_or_else(PoisonError::into_inner).show(event),
        }
    }

    /// Ends the bars, which stay to be seen.
    pub fn clear(&self) {
        if let Mode::Bars(bars) = &self.mode {
            let bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
            for bar in bars.blobs.values().chain(&bars.total) {
                bar.abandon();
            }
            if bars.total.is_some() || !bars.blobs.is_empty() {
                say!();
            }
        }
    }
}

impl Bars {
    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Plan(blobs, bytes) if *blobs > 1 => {
                let bar = ProgressBar::new(*bytes).with_prefix(format!("{:12}", "total")).with_style(style());
                self.total = Some(self.all.add(bar));
            }
            Event::Plan(..) => {}
            Event::Present(d) => self.end(d, "present"),
            Event::Bytes(d, n) => {
                let bar = self.bar(d);
                self.advance(&bar, *n);
            }
            Event::Done(d) => self.end(d, "done"),
            Event::Retry(d, e) => self.bar(d).set_message(printable(&e.to_string())),
        }
    }

    fn bar(&mut self, d: &Descriptor) -> ProgressBar {
        let Self { all, total, blobs } = self;
        let make = || {
            let bar = ProgressBar::new(d.size).with_prefix(d.digest.short().to_string()).with_style(style());
            match total {
                Some(total) => all.insert_before(total, bar),
                None => all.add(bar),
            }
        };
        blobs.entry(d.digest.clone()).or_insert_with(make).clone()
    }

    fn advance(&self, bar: &ProgressBar, to: u64) {
        if let Some(total) = &self.total {
            total.inc(to.saturating_sub(bar.position()));
        }
        bar.set_position(to);
    }

    fn end(&mut self, d: &Descriptor, message: &'static str) {
        let bar = self.bar(d);
        self.advance(&bar, d.size);
        bar.finish_with_message(message);
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix} {bar:20} {bytes}/{total_bytes} {binary_bytes_per_sec} {wide_msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn line(event: &Event<'_>) {
    match event {
        Event::Plan(..) | Event::Bytes(..) => {}
        Event::Present(d) => say!("blob {} present", d.digest.short()),
        Event::Done(d) => say!("blob {} copied, {}", d.digest.short(), HumanBytes(d.size)),
        Event::Retry(d, e) => {
            say!("blob {} goes on after: {}", d.digest.short(), printable(&e.to_string()));
        }
    }
}

/// The shape is documented in docs/json.md.
fn json_line(event: &Event<'_>, last: &mut HashMap<Digest, Instant>) {
    let blob = |status: &str, d: &Descriptor, offset: u64| json!({"status": status, "digest": d.digest, "mediaType": d.media_type, "size": d.size, "offset": offset});
    let value = match event {
        Event::Plan(blobs, bytes) => json!({"status": "plan", "blobs": blobs, "size": bytes}),
        Event::Present(d) => blob("present", d, d.size),
        Event::Done(d) => blob("done", d, d.size),
        Event::Bytes(d, n) => {
            if last.get(&d.digest).is_some_and(|at| at.elapsed() < JSON_PAUSE) {
                return;
            }
            last.insert(d.digest.clone(), Instant::now());
            blob("transfer", d, *n)
        }
        Event::Retry(d, e) => {
            let mut value = blob("retry", d, 0);
            value["error"] = e.to_string().into();
            value
        }
    };
    say!("{value}");
}
