//! Checks for which something runs: commands, and the image's own program.

use super::check::{Check, Run, Words};
use super::container::{Ended, Running, TICK, ThrowAway};
use super::kind::{Kind, Phase};
use super::report::{Finding, Verdict};
use super::subject::Subject;
use super::value::{Pattern, Several, Text};
use super::written::Placed;
use super::{Error, Result, outside};
use crate::bundle::{Origin, Settings};
use crate::store::Store;
use crate::sys::signal;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long is waited where nothing is said.
const WITHIN: Duration = Duration::from_secs(10);
/// How long a program has run before it is looked at what it has written and what is not there, or
/// before it is stopped.
const SETTLED: Duration = Duration::from_secs(1);
/// The pause between two tries that are counted.
const PAUSE: Duration = Duration::from_secs(1);
/// So many containers run at once.
const AT_ONCE: usize = 4;

/// Checks that share a container.
#[derive(Debug)]
pub(super) struct Job {
    checks: Vec<usize>,
    place: Result<ThrowAway>,
    /// Whether the image's own program runs.
    own: bool,
}

/// What the jobs are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) checks: &'a [Placed],
    pub(super) kinds: &'a [&'static Kind],
    pub(super) subject: &'a Subject<'a>,
}

/// The jobs of the checks that have no verdict yet. To be called while this process has one thread.
pub(super) fn jobs(
    store: &Store,
    origin: &Origin,
    base: &Settings,
    checks: &[Placed],
    kinds: &[&'static Kind],
    verdicts: &[Option<Verdict>],
) -> Vec<Job> {
    let mut groups: BTreeMap<&Run, Vec<usize>> = BTreeMap::new();
    let mut jobs = Vec::new();
    let default = Run::default();
    for i in (0..checks.len()).filter(|i| verdicts[*i].is_none()) {
        let run = checks[i].check.run.as_ref();
        match (kinds[i].phase, run) {
            (Phase::Command, None) => {
                let Check { env, as_: user, .. } = checks[i].check.clone();
                let run = Run { env: env.unwrap_or_default(), user, ..Run::default() };
                jobs.push(Job {
                    checks: vec![i],
                    place: ThrowAway::new(store, origin, base, &run),
                    own: false,
                });
            }
            (Phase::Command | Phase::Container | Phase::Last, _) => {
                groups.entry(run.unwrap_or(&default)).or_default().push(i);
            }
            _ => {}
        }
    }
    for (run, checks) in groups {
        jobs.push(Job { checks, place: ThrowAway::new(store, origin, base, run), own: true });
    }
    jobs
}

/// Does the jobs, several at once.
pub(super) fn run(jobs: Vec<Job>, work: &Work, verdicts: &mut [Option<Verdict>]) -> Result<()> {
    let workers = jobs.len().min(AT_ONCE);
    let queue = Mutex::new(jobs);
    let done = std::thread::scope(|scope| {
        let one = || {
            let mut done = Vec::new();
            loop {
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(job) = job else { return Ok(done) };
                done.extend(job.run(work)?);
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(one)).collect();
        // All of them are waited for, whatever one of them says.
        let ended: Vec<Result<Vec<_>>> =
            threads.into_iter().map(|t| t.join().unwrap_or(Err(Error::Panic))).collect();
        ended.into_iter().collect::<Result<Vec<_>>>()
    })?;
    for (i, verdict) in done.into_iter().flatten() {
        verdicts[i] = Some(verdict);
    }
    Ok(())
}

impl Job {
    fn run(self, work: &Work) -> Result<Vec<(usize, Verdict)>> {
        let Self { checks, place, own } = self;
        let begun = Instant::now();
        let failed = |e: Error| {
            let text = match e {
                Error::Interrupted => return Err(e),
                Error::Start(text) => text,
                other => other.to_string(),
            };
            let one = |i: &usize| {
                let verdict =
                    work.checks[*i].verdict(work.kinds[*i], begun, Err(Error::Start(text.clone())))?;
                Ok((*i, verdict))
            };
            checks.iter().map(one).collect::<Result<Vec<_>>>()
        };
        let place = match place {
            Ok(place) => place,
            Err(e) => return failed(e),
        };
        let done = if signal::pending().is_some() {
            Err(Error::Interrupted)
        } else if own {
            match Running::start(&place) {
                Ok(running) => {
                    let done = work.container(&checks, &running);
                    running.stop();
                    done
                }
                Err(e) => failed(e),
            }
        } else {
            work.commands(&checks, &place)
        };
        let removed = place.remove();
        let done = done?;
        removed?;
        Ok(done)
    }
}

impl Work<'_> {
    /// Checks with a container of their own, in which one command after the other runs.
    fn commands(&self, checks: &[usize], place: &ThrowAway) -> Result<Vec<(usize, Verdict)>> {
        let one = |&i: &usize| {
            let (check, begun) = (&self.checks[i].check, Instant::now());
            let run = |words: &Words| place.run(words, within(check));
            let found = around(check, &run, &|| tries(check, Some(0), None, &|| command(check, &run)));
            Ok((i, self.checks[i].verdict(self.kinds[i], begun, found)?))
        };
        checks.iter().map(one).collect()
    }

    /// The checks of a running container: at once, then those that end it.
    fn container(&self, checks: &[usize], running: &Running) -> Result<Vec<(usize, Verdict)>> {
        let (mut last, first): (Vec<usize>, Vec<usize>) =
            checks.iter().partition(|&&i| self.kinds[i].phase == Phase::Last);
        // What is written is looked at before the container is stopped.
        last.sort_by_key(|&i| self.kinds[i].key == "stops-within");
        let mut done = std::thread::scope(|scope| {
            let threads: Vec<_> = first.iter().map(|&i| scope.spawn(move || self.live(i, running))).collect();
            let ended: Vec<Result<_>> =
                threads.into_iter().map(|t| t.join().unwrap_or(Err(Error::Panic))).collect();
            ended.into_iter().collect::<Result<Vec<_>>>()
        })?;
        for i in last {
            running.has_run(self.checks[i].check.within.as_ref().map_or(SETTLED, |w| w.0));
            done.push(self.live(i, running)?);
        }
        Ok(done)
    }

    fn live(&self, i: usize, running: &Running) -> Result<(usize, Verdict)> {
        let (check, kind, begun) = (&self.checks[i].check, self.kinds[i], Instant::now());
        if check.absent == Some(true) {
            // What is to stay away may be late.
            running.has_run(SETTLED);
        }
        let run = |words: &Words| running.exec(words, check, within(check));
        let until = |once: &dyn Fn() -> Result<Vec<Finding>>| tries(check, None, Some(running), once);
        let found = around(check, &run, &|| match kind.key {
            "command" => tries(check, Some(0), None, &|| command(check, &run)),
            "http" => until(&|| {
                check.http.as_ref().map_or(Ok(Vec::new()), |h| outside::http(h, running, within(check)))
            }),
            "port" => until(&|| Ok(outside::port(check, running))),
            "process" => until(&|| Ok(outside::process(check, running))),
            "log" => until(&|| Ok(outside::log(check, running))),
            _ if kind.phase == Phase::Last && running.ended().is_err() => running.ended().map(|_| Vec::new()),
            "writes-only" => outside::writes_only(check, running, self.subject.files()?),
            _ => outside::stops_within(check, running),
        });
        Ok((i, self.checks[i].verdict(kind, begun, found)?))
    }
}

fn within(check: &Check) -> Duration {
    check.within.as_ref().map_or(WITHIN, |w| w.0)
}

/// The check between its `setup` and its `teardown`, which runs whatever came before.
fn around(
    check: &Check,
    run: &dyn Fn(&Words) -> Result<Ended>,
    inner: &dyn Fn() -> Result<Vec<Finding>>,
) -> Result<Vec<Finding>> {
    let all = |what: &'static str, commands: &Option<Vec<Words>>| {
        commands.iter().flatten().try_for_each(|words| {
            let ended = run(words)?;
            let how = match ended.code {
                Some(0) => return Ok(()),
                Some(code) => format!("exit code {code}{}", tail(&ended.stderr)),
                None => "it did not end in time".to_string(),
            };
            Err(Error::Around { what, command: words.join(" "), how })
        })
    };
    let found = all("setup", &check.setup).and_then(|()| inner());
    let after = all("teardown", &check.teardown);
    let found = found?;
    after.map(|()| found)
}

/// Tries until nothing is wrong, the time or the tries are over, or the container has ended.
fn tries(
    check: &Check,
    retry: Option<u32>,
    running: Option<&Running>,
    once: &dyn Fn() -> Result<Vec<Finding>>,
) -> Result<Vec<Finding>> {
    let (begun, mut left) = (Instant::now(), check.retry.or(retry));
    loop {
        // First, so that the last try sees all there is.
        let ended = running.map_or(Ok(None), Running::ended)?;
        let mut findings = once()?;
        if findings.is_empty() {
            return Ok(findings);
        }
        if signal::pending().is_some() {
            return Err(Error::Interrupted);
        }
        if let Some(code) = ended {
            findings.push(Finding::new("a program that runs", format!("it has ended with exit code {code}")));
            return Ok(findings);
        }
        // For a command the time is that of each try.
        let over = running.is_some() && begun.elapsed() >= within(check);
        if over || left == Some(0) {
            return Ok(findings);
        }
        std::thread::sleep(if left.is_some() { PAUSE } else { 5 * TICK });
        left = left.map(|n| n - 1);
    }
}

/// `command`.
fn command(check: &Check, run: &dyn Fn(&Words) -> Result<Ended>) -> Result<Vec<Finding>> {
    let words = check.command.clone().unwrap_or_default();
    Ok(compare(check, &run(&words)?))
}

/// What a program has printed last, for a message.
fn tail(printed: &[u8]) -> String {
    let text = String::from_utf8_lossy(printed);
    let last: String = text.trim_end().lines().last().unwrap_or_default().chars().take(200).collect();
    if last.is_empty() { last } else { format!(": {last}") }
}

fn compare(check: &Check, ended: &Ended) -> Vec<Finding> {
    let wanted = check.exit.unwrap_or(0);
    let mut findings = Vec::new();
    match ended.code {
        None => {
            let limit = check.within.as_ref().map_or_else(|| "10s".to_string(), ToString::to_string);
            findings.push(Finding::new(format!("an end within {limit}"), "it had to be killed"));
        }
        Some(code) if code != wanted => {
            let found = format!("{code}{}", tail(&ended.stderr));
            findings.push(Finding::new(format!("exit code {wanted}"), found));
        }
        Some(_) => {}
    }
    let streams = [
        ("standard output", &check.stdout, &check.stdout_lacks, &check.stdout_is, &ended.stdout),
        ("standard error", &check.stderr, &check.stderr_lacks, &check.stderr_is, &ended.stderr),
    ];
    for (name, patterns, lacks, exact, printed) in streams {
        findings.extend(searched(name, patterns.as_ref(), printed));
        let text = String::from_utf8_lossy(printed);
        if let Some(exact) = exact.as_ref().filter(|exact| text.trim_end() != exact.trim_end()) {
            let found: String = text.chars().take(500).collect();
            findings.push(Finding::new(format!("{name} {exact:?}"), format!("{found:?}")));
        }
        let there = lacks.iter().flat_map(|p| p.iter()).filter(|p| p.found_in(printed));
        findings.extend(there.map(|p| Finding::new(format!("no match of {p} in {name}"), "one")));
    }
    findings
}

fn searched(name: &str, patterns: Option<&Several<Text<Pattern>>>, printed: &[u8]) -> Vec<Finding> {
    let missing = patterns.into_iter().flat_map(|p| p.iter()).filter(|p| !p.found_in(printed));
    let found = || {
        let last = tail(printed);
        format!("{} bytes{last}", printed.len())
    };
    missing.map(|p| Finding::new(format!("a match of {p} in {name}"), found())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_compared() {
        let ended = |code| Ended { code, stdout: b"one\ntwo\n".to_vec(), stderr: b"oops\n".to_vec() };
        for (toml, code, want) in [
            ("", Some(0), ""),
            ("exit = 3", Some(3), ""),
            ("exit = 3", Some(0), "exit code 3 | 0: oops"),
            ("within = '2s'", None, "an end within 2s | it had to be killed"),
            ("stdout = ['^two$', 'o']\nstderr = 'oo'", Some(0), ""),
            ("stdout = 'three'", Some(0), "a match of three in standard output | 8 bytes: two"),
            ("stdout-is = \"one\\ntwo\"", Some(0), ""),
            ("stderr-is = ''", Some(0), "standard error \"\" | \"oops\\\\n\""),
            ("stdout-lacks = 'oops'", Some(0), ""),
            ("stderr-lacks = 'oops'", Some(0), "no match of oops in standard error | one"),
        ] {
            let check: Check = toml::from_str(&format!("command = ['x']\n{toml}")).unwrap();
            let found = compare(&check, &ended(code));
            let found: Vec<_> = found.iter().map(|f| format!("{} | {}", f.wanted, f.found)).collect();
            assert_eq!(found.join("; "), want.replace("\\\\n", "\\n"), "{toml}");
        }
    }
}
