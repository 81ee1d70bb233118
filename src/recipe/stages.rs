//! Stages that do not need each other, done at once.
//!
//! The steps that have to be done are cut into [`Part`]s: steps of one stage in a row, of which only the first takes
//! from elsewhere, and only the last is given to others. A part waits for the parts that it needs, and for no
//! other. What two parts have in common, such as a base, is done by the first of them alone.
//!
//! As long as one part alone can be done this process does it, as it does a recipe of one stage. Where there are
//! several, each is done by a copy of this process: fork(2), for containers are started by processes with one
//! thread, which this one has, too. A copy is given the plan as it is in memory; its results come back through the
//! store, under their keys, so that they are what they are when one is done after the other. It has mounts of its
//! own, a process group of its own, and ends with this process. It says what it does through a pipe, whose lines get
//! the stage's name here, and how it has ended through a socket, at whose end it waits until its results are held.
//!
//! When a part fails or a signal comes the other copies are asked to end, which ends their containers at once, and
//! waited for; then what they leave in the store is taken away. The output of the step that failed comes last, whole.

mod copy;

use super::Result;
use super::build::{Builder, How, Known};
use super::command::Shell;
use super::plan::Plan;
use crate::layer;
use crate::run::Runtime;
use crate::sys::Call;
use crate::sys::signal::{self, Signals};
use copy::Worker;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};

/// Steps that are done by one process, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The steps.
    steps: Vec<usize>,
    /// The parts that it needs.
    needs: BTreeSet<usize>,
}

impl Part {
    /// Its last step, whose result is all that others see.
    fn last(&self) -> usize {
        self.steps.last().copied().unwrap_or_default()
    }
}

/// Cuts the steps of `missing` into parts, each after those that it needs.
fn parts(plan: &Plan, missing: &BTreeSet<usize>) -> Vec<Part> {
    let key = |i: usize| &plan.steps[i].key;
    let same_stage = |a: usize, b: usize| std::ptr::eq(plan.steps[a].stage, plan.steps[b].stage);
    let shared = |i: usize| missing.iter().any(|&other| other != i && key(other) == key(i));
    let (mut parts, mut of_step): (Vec<Part>, BTreeMap<usize, usize>) = (Vec::new(), BTreeMap::new());
    for &i in missing {
        let step = &plan.steps[i];
        let goes_on = |part: &Part| match step.needs.as_slice() {
            [below] => *below == part.last() && same_stage(*below, i) && !shared(*below),
            _ => false,
        };
        if !parts.last().is_some_and(goes_on) {
            parts.push(Part { steps: Vec::new(), needs: BTreeSet::new() });
        }
        let at = parts.len() - 1;
        let twin = of_step.iter().find(|(other, _)| key(**other) == key(i)).map(|(_, part)| *part);
        let needed = step.needs.iter().filter_map(|need| of_step.get(need).copied()).chain(twin);
        parts[at].needs.extend(needed.filter(|part| *part != at));
        parts[at].steps.push(i);
        of_step.insert(i, at);
    }
    parts
}

impl Builder<'_> {
    /// Does the steps that `last` needs and that are not kept, as many stages at once as there may be.
    pub(super) fn stages(&mut self, last: usize) -> Result<()> {
        // A shell has the terminal for itself.
        if self.options.jobs < 2 || self.options.shell != Shell::Never {
            return Ok(());
        }
        let mut missing = BTreeSet::new();
        self.missing(last, &mut missing)?;
        let parts = parts(self.plan, &missing);
        let mut workers = Vec::new();
        let done = self.all(&parts, &mut workers);
        if done.is_err() {
            copy::end(workers);
            self.sweep().unwrap_or_else(|e| tracing::warn!("{e}"));
        }
        signal::unblock();
        done
    }

    /// Takes away what processes that are gone have left.
    fn sweep(&self) -> Result<()> {
        drop(self.store.scratch()?);
        Ok(Runtime::open(self.store.root())?.sweep()?)
    }

    /// Adds the steps that have to be done for `index`.
    fn missing(&mut self, index: usize, missing: &mut BTreeSet<usize>) -> Result<()> {
        if missing.contains(&index) || self.find(index)? {
            return Ok(());
        }
        missing.insert(index);
        let needs = self.plan.steps[index].needs.clone();
        needs.into_iter().try_for_each(|need| self.missing(need, missing))
    }

    /// Does all parts; `workers` are the copies that are at work.
    fn all(&mut self, parts: &[Part], workers: &mut Vec<Worker>) -> Result<()> {
        let (mut begun, mut done) = (BTreeSet::new(), BTreeSet::new());
        let mut signals = None;
        while done.len() < parts.len() {
            let ready = |i: &usize| !begun.contains(i) && parts[*i].needs.is_subset(&done);
            let ready: Vec<usize> = (0..parts.len()).filter(ready).collect();
            if let (true, [only]) = (workers.is_empty(), ready.as_slice()) {
                // Signals come as if there had never been another.
                if signals.take().is_some() {
                    signal::unblock();
                }
                self.whole(parts[*only].last())?;
                begun.insert(*only);
                done.insert(*only);
                continue;
            }
            if workers.is_empty() {
                self.options.overlays.changes(self.store)?;
                self.progress.phase("stages", None);
            }
            let room = self.options.jobs.saturating_sub(workers.len());
            for part in ready.into_iter().take(room) {
                begun.insert(part);
                // Another part may have done the same.
                if self.find(parts[part].last())? {
                    done.insert(part);
                } else {
                    workers.push(self.copy(part, parts[part].last())?);
                }
            }
            if !workers.is_empty() {
                let signals = match &mut signals {
                    Some(signals) => signals,
                    none => none.insert(Signals::take()?),
                };
                done.extend(self.attend(signals, workers)?);
            }
        }
        Ok(())
    }

    /// Waits until something happens; gives the parts that are done then.
    fn attend(&mut self, signals: &Signals, workers: &mut Vec<Worker>) -> Result<Vec<usize>> {
        let mut fds = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        fds.extend(workers.iter().flat_map(Worker::wants));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => Err(e).call(|| "poll".to_string())?,
        }
        drop(fds);
        while let Some(number) = signals.next() {
            if signal::put_off_one(number) {
                return Err(layer::Error::Stopped.into());
            }
        }
        let mut done = Vec::new();
        for i in (0..workers.len()).rev() {
            let ended = workers[i].listen();
            for line in workers[i].lines(ended) {
                self.show(workers[i].stage(), &line);
            }
            if ended {
                let worker = workers.remove(i);
                done.push(worker.part);
                self.take(worker)?;
            }
        }
        Ok(done)
    }

    /// Takes over what a copy has done.
    fn take(&mut self, worker: Worker) -> Result<()> {
        let told = match worker.told() {
            Ok(told) => told,
            Err(e) => {
                worker.close();
                return Err(e);
            }
        };
        for (index, how) in told.steps {
            if self.how[index] == How::Unneeded {
                self.how[index] = how;
            }
            let image = self.store.result(&self.plan.steps[index].key, self.lease)?;
            self.known[index] = image.map(Known::Here);
        }
        self.options.cache.add(told.cache);
        worker.close();
        told.failed.map_or(Ok(()), |failed| Err(failed.into()))
    }

    /// Shows a line of a copy.
    fn show(&self, stage: &str, line: &[u8]) {
        let mut out = std::io::stderr();
        if out.is_terminal() {
            let text: String = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).collect();
            self.progress.detail(&format!("{stage}: {text}"));
        } else {
            let _ = out.write_all(&[stage.as_bytes(), b": ", line, b"\n"].concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Choices, Lock, Recipe};
    use std::path::Path;

    #[test]
    fn steps_are_cut_where_stages_meet() {
        let text = "version = 1\n[base]\nscratch = true\n[[stage]]\nname = \"a\"\nbase = { scratch = true }\n\
             [[stage.run]]\nshell = \"a1\"\n[[stage.run]]\nshell = \"a2\"\n\
             [[stage]]\nname = \"b\"\nbase = { stage = \"a\" }\n[[stage.run]]\nshell = \"b1\"\n\
             [[stage]]\nname = \"none\"\nbase = { scratch = true }\n[[stage.run]]\nshell = \"never\"\n\
             [[run]]\nshell = \"m1\"\n[[run]]\nshell = \"m2\"\n[[copy]]\nstage = \"b\"\nfrom = \"/x\"\n[[run]]\nshell = \"m3\"\n";
        let recipe = Recipe::parse(text, Path::new("r.toml"), &Choices::default()).unwrap();
        let lock = Lock::default();
        let plan = Plan::of(&recipe, &lock).unwrap();
        // 0 scratch, 1 a1, 2 a2 | 3 b1 | 4 scratch, 5 never | 6 scratch, 7 m1, 8 m2, 9 copy, 10 m3
        let cut = |missing: &[usize]| -> Vec<(Vec<usize>, Vec<usize>)> {
            let parts = parts(&plan, &missing.iter().copied().collect());
            parts.into_iter().map(|p| (p.steps, p.needs.into_iter().collect())).collect()
        };
        assert_eq!(
            cut(&[0, 1, 2, 3, 6, 7, 8, 9, 10]),
            [
                (vec![0], vec![]),
                (vec![1, 2], vec![0]),
                (vec![3], vec![1]),
                (vec![6], vec![0]),
                (vec![7, 8], vec![3]),
                (vec![9, 10], vec![2, 4]),
            ],
            "what two stages begin with is a part of its own, which the second one waits for"
        );
        assert_eq!(cut(&[2, 3, 9, 10]), [(vec![2], vec![]), (vec![3], vec![0]), (vec![9, 10], vec![1])]);
        assert_eq!(cut(&[7, 8]), [(vec![7, 8], vec![])]);
        assert_eq!(cut(&[]), []);
    }
}
