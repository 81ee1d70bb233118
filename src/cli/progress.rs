//! Progress of transfers on standard error: a bar per layer in a terminal, a line per
//! layer elsewhere.

use super::printable;
use crate::oci::{Descriptor, Digest};
use crate::registry::Event;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

/// Where progress goes.
pub struct Progress {
    mode: Mode,
}

enum Mode {
    Quiet,
    Lines,
    Bars { all: MultiProgress, bars: Mutex<HashMap<Digest, ProgressBar>> },
}

impl Progress {
    /// Bars, lines or, where `quiet`, nothing.
    pub fn new(quiet: bool) -> Self {
        let mode = if quiet {
            Mode::Quiet
        } else if std::io::stderr().is_terminal() {
            Mode::Bars { all: MultiProgress::new(), bars: Mutex::default() }
        } else {
            Mode::Lines
        };
        Self { mode }
    }

    /// Shows one event.
    pub fn show(&self, event: &Event<'_>) {
        match &self.mode {
            Mode::Quiet => {}
            Mode::Lines => line(event),
            Mode::Bars { all, bars } => {
                let mut bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
                let mut bar = |d: &Descriptor| {
                    bars.entry(d.digest.clone()).or_insert_with(|| all.add(new_bar(d))).clone()
                };
                match event {
                    Event::Present(d) => bar(d).finish_with_message("present"),
                    Event::Bytes(d, n) => bar(d).set_position(*n),
                    Event::Done(d) => bar(d).finish_with_message("done"),
                    Event::Retry(d, e) => bar(d).set_message(printable(&e.to_string())),
                }
            }
        }
    }

    /// Ends the bars, which stay to be seen.
    pub fn clear(&self) {
        if let Mode::Bars { bars, .. } = &self.mode {
            let bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
            for bar in bars.values() {
                bar.abandon();
            }
            if !bars.is_empty() {
                say!();
            }
        }
    }
}

fn new_bar(d: &Descriptor) -> ProgressBar {
    let template = "{prefix} {bar:20} {bytes}/{total_bytes} {binary_bytes_per_sec} {wide_msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(d.size).with_prefix(d.digest.short().to_string()).with_style(style)
}

fn line(event: &Event<'_>) {
    match event {
        Event::Bytes(..) => {}
        Event::Present(d) => say!("layer {} present", d.digest.short()),
        Event::Done(d) => say!("layer {} pulled, {}", d.digest.short(), HumanBytes(d.size)),
        Event::Retry(d, e) => {
            say!("layer {} goes on after: {}", d.digest.short(), printable(&e.to_string()));
        }
    }
}
