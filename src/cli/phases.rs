//! Phases of a long command: bars on a terminal, plain lines elsewhere, times at the end.

use super::printable;
use crate::debian;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The phases of one command, told on standard error.
#[derive(Debug)]
pub struct Phases {
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bar: ProgressBar,
    begun: Instant,
    current: Option<&'static str>,
    /// A step whose first detail, which says what it is, is still to come.
    unnamed: bool,
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    /// Nothing begun.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            bar: ProgressBar::hidden(),
            begun: Instant::now(),
            current: None,
            unnamed: false,
            done: Vec::new(),
        };
        Self { terminal: std::io::stderr().is_terminal(), state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the last phase; gives each with its time, of one that came several times their sum.
    pub fn finish(&self) -> Vec<(&'static str, Duration)> {
        let mut state = self.state();
        state.end();
        std::mem::take(&mut state.done)
    }

    fn bar(&self, name: &'static str, total: Option<u64>) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let template = match (name, total) {
            (_, None) => "{prefix:>10} {spinner} {msg}",
            ("download", _) => "{prefix:>10} {bar:30} {bytes}/{total_bytes} {msg}",
            _ => "{prefix:>10} {bar:30} {pos}/{len} {msg}",
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(name);
        bar.tick();
        bar
    }
}

/// Each phase with its seconds: `download 0.1, unpack 0.5`.
pub fn spelled(phases: &[(&'static str, Duration)]) -> String {
    let each = phases.iter().map(|(name, time)| format!("{name} {:.1}", time.as_secs_f64()));
    each.collect::<Vec<_>>().join(", ")
}

impl State {
    fn end(&mut self) {
        self.bar.finish_and_clear();
        let Some(name) = self.current.take() else { return };
        let took = self.begun.elapsed();
        match self.done.iter_mut().find(|(done, _)| *done == name) {
            Some((_, time)) => *time += took,
            None => self.done.push((name, took)),
        }
    }
}

impl debian::Progress for Phases {
    fn phase(&self, name: &'static str, total: Option<u64>) {
        let bar = self.bar(name, total);
        let mut state = self.state();
        state.end();
        state.bar = bar;
        state.begun = Instant::now();
        state.current = Some(name);
        state.unnamed = name == "step";
        if !self.terminal {
            match (name, total) {
                ("download", Some(bytes)) => say!("{name}: {} MB", bytes.div_ceil(1_000_000)),
                (_, Some(total)) => say!("{name}: {total} packages"),
                ("step", None) => {}
                (_, None) => say!("{name}"),
            }
        }
    }

    fn advance(&self, amount: u64) {
        self.state().bar.inc(amount);
    }

    fn detail(&self, text: &str) {
        let mut state = self.state();
        if self.terminal {
            state.bar.set_message(text.to_string());
        } else if std::mem::take(&mut state.unnamed) {
            say!("step: {}", printable(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use debian::Progress;

    #[test]
    fn phases_of_one_name_are_one() {
        let phases = Phases::new();
        for name in ["unpack", "step", "verify", "step"] {
            phases.phase(name, None);
        }
        let names: Vec<_> = phases.finish().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["unpack", "step", "verify"]);
    }
}
