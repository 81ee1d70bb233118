//! Runs the maintainer scripts: what `dpkg --configure -a` does, in the root's own namespaces.
//!
//! 1. `preinst install` of the base's packages, base-passwd's first: their files are all in
//!    place, as they are when debootstrap runs these scripts.
//! 2. The base is configured: other packages may use it in any script, and depend on it by no
//!    field (policy, 3.8).
//! 3. Packages beyond the base are placed, as many at once as do not pre-depend on each other. Of those that
//!    have a preinst, it has run before, and what they pre-depend on has been configured.
//! 4. The packages are configured whose scripts call what works beside dpkg, and what they need.
//! 5. `dpkg --configure -a`.
//!
//! Most scripts call dpkg-maintscript-helper, several times, each time for four processes,
//! to undo what an older version of their package left. There is no older version here, and a program
//! of [`stand_in`](super::stand_in) answers those calls; others do slow work beside dpkg.
//!
//! The scripts see no network, no terminal and no service manager (policy-rc.d says 101),
//! and wait for no disk.

use super::control::{Dependency, Package};
use super::database::{make, put};
use super::stand_in::{self, BIN};
use super::{Error, Progress, Result};
use crate::sys::dir::Dir;
use crate::sys::sandbox::Sandbox;
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;

/// How many lines of output are kept for an error.
const TAIL: usize = 40;

/// Where the control files lie of packages whose preinst is to run, a folder for each. A
/// preinst runs from `tmp.ci`, by which debconf finds the package that it belongs to.
pub(super) const CONTROL: &str = "var/lib/dpkg/shipimg.ci";

/// The script that a root has whose packages are to be configured on another machine.
const LATER: &str = "var/lib/dpkg/shipimg-configure";

/// A preinst script.
#[derive(Debug)]
pub(super) struct Preinst {
    /// Its package.
    pub package: String,
    /// The package's architecture.
    pub arch: String,
    /// The package's folder in [`CONTROL`].
    pub folder: String,
}

/// A package that is placed when the base is configured.
#[derive(Debug)]
pub(super) struct Leftover {
    /// Which of the jobs it is.
    pub job: usize,
    /// Its name.
    pub name: String,
    /// Its script, if it has one.
    pub preinst: Option<Preinst>,
    /// What is to be configured before that.
    pub before: Vec<String>,
}

/// The scripts to run.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    /// The base's.
    pub preinst: Vec<Preinst>,
    /// The names of the base's packages and of what they need, where others follow.
    pub base: Vec<String>,
    /// What is placed later, in these turns.
    pub leftover: Vec<Vec<Leftover>>,
    /// The names of the packages to be configured first, once all are unpacked.
    pub early: Vec<String>,
    /// Whether the scripts of one package alone know of the certificates in /etc/ssl/certs.
    pub certificates: bool,
    /// Whether one of the packages has py3compile, which scripts look for.
    pub python: bool,
}

/// Configures the packages below `root_path`. `place` is called for those that are placed later; it gives
/// the triggers that their files set off.
///
/// # Errors
/// [`Error::Configure`] with the output's end; [`Error::Sys`]; those of `place`.
pub(super) fn configure(
    root_path: &Path,
    scripts: &Scripts,
    (hostname, time): (&str, i64),
    place: &mut dyn FnMut(&[Leftover]) -> Result<BTreeSet<String>>,
    progress: &dyn Progress,
) -> Result<()> {
    let root = Dir::open(root_path)?;
    let sbin = make(&root, "usr/sbin")?;
    let policy = OsStr::new("policy-rc.d");
    let own_policy = sbin.stat(policy)?.is_none();
    if own_policy {
        put(&sbin, "policy-rc.d", 0o755, b"#!/bin/sh\nexit 101\n")?;
    }
    stand_in::place(&root, scripts.certificates, scripts.python)?;
    let sandbox = sandbox(root_path, hostname);
    let path = format!("/{BIN}:{PATH}");
    let time = time.to_string();
    let environment: Vec<_> =
        environment(&path).into_iter().chain([("SOURCE_DATE_EPOCH", time.as_str())]).collect();
    let run = |script: &str| {
        let mut tail = Tail::default();
        let status = sandbox.run(&["/bin/sh", "-c", script], &environment, &mut |line| {
            if let Some(package) = line.strip_prefix("Setting up ").and_then(|l| l.split_whitespace().next())
            {
                progress.detail(package);
                progress.advance(1);
            }
            tail.push(line);
        })?;
        if status.success() {
            return Ok(());
        }
        Err(failure(tail.lines.make_contiguous(), &status.to_string()))
    };
    let mut text = begin(scripts);
    for together in &scripts.leftover {
        run(&(text + &before(together) + &stand_in::and_wait("true")))?;
        text = after(&place(together)?);
    }
    run(&(text + &end(scripts, &stand_in::and_wait("dpkg --configure -a"))))?;
    if own_policy {
        sbin.unlink(policy)?;
    }
    for (folder, name) in [CONTROL, BIN].iter().filter_map(|path| path.rsplit_once('/')) {
        root.in_root(Path::new(folder))?.remove(OsStr::new(name))?;
    }
    Ok(())
}

/// The end of the output, or what was before the first failure: dpkg goes on after one.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    /// How many lines came since the failure, its own among them.
    since: usize,
}

impl Tail {
    fn push(&mut self, line: &str) {
        if self.since > 0 || line.contains("error processing ") {
            self.since += 1;
        }
        // No failure: a pre-dependency was configured along with another one.
        if self.since == 2 && line.ends_with(" is already installed and configured") {
            self.lines.pop_back();
            self.since = 0;
            return;
        }
        // The line after dpkg's own says which script it was.
        if self.since > 2 {
            return;
        }
        if self.lines.len() == TAIL {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_string());
    }
}

fn sandbox(root: &Path, hostname: &str) -> Sandbox {
    Sandbox { root: root.to_path_buf(), hostname: hostname.to_string(), ignore_sync: true }
}

/// Where a root's own programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// No import leaves its compiled form: whether before or after py3compile, which works beside, would be chance.
fn environment(path: &str) -> [(&'static str, &str); 7] {
    [
        ("PATH", path),
        ("HOME", "/root"),
        ("LC_ALL", "C"),
        ("TERM", "dumb"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ]
}

/// A shell on the terminal, where the scripts ran.
///
/// # Errors
/// [`Error::Sys`], also where the root has no shell.
pub(super) fn shell(root: &Path, hostname: &str) -> Result<()> {
    let bash = root.join("usr/bin/bash").exists() || root.join("bin/bash").exists();
    let shell = if bash { "/bin/bash" } else { "/bin/sh" };
    let mut environment = environment(PATH);
    let terminal = std::env::var("TERM").unwrap_or_else(|_| "linux".to_string());
    environment[3].1 = &terminal;
    sandbox(root, hostname).interact(&[shell, "-i"], &environment)?;
    Ok(())
}

/// Leaves what [`configure`] would run as a script in the root, [`LATER`], to be run there, once.
///
/// # Errors
/// [`Error::Sys`], [`Error::Io`].
pub(super) fn leave(root: &Dir, scripts: &Scripts) -> Result<()> {
    let (folder, name) = LATER.rsplit_once('/').unwrap_or(("", LATER));
    let last = format!("dpkg --configure -a\nrmdir /{CONTROL}\nrm -f /{LATER}\n");
    let text = begin(scripts) + &end(scripts, &last);
    put(&make(root, folder)?, name, 0o755, format!("#!/bin/sh\n{text}").as_bytes())
}

/// Finds the package in dpkg's words: `dpkg: error processing package NAME (--configure):`.
fn failure(lines: &[String], status: &str) -> Error {
    let named = |l: &String| {
        let (_, rest) = l.split_once("error processing ")?;
        let rest = rest.strip_prefix("package ").or_else(|| rest.strip_prefix("archive ")).unwrap_or(rest);
        Some(rest.split_whitespace().next()?.trim_end_matches(':').to_string())
    };
    let first = lines.iter().position(|l| named(l).is_some());
    let package = first.and_then(|i| named(&lines[i])).unwrap_or_else(|| "?".to_string());
    // What the script said begins where dpkg began to set its package up.
    let bare = package.split(':').next().unwrap_or(&package).to_string();
    let start = lines.iter().rposition(|l| {
        l.strip_prefix("Setting up ").is_some_and(|r| r.split([' ', ':']).next() == Some(bare.as_str()))
    });
    let triggered = |l: &String| {
        l.strip_prefix("Processing triggers for ").is_some_and(|r| r.split([' ', ':']).next() == Some(&*bare))
    };
    let reason = first.and_then(|i| lines.get(i + 1)).map_or("", String::as_str);
    let script = match reason {
        r if r.contains("pre-installation script") || r.contains("preinst script") => "preinst",
        r if !r.contains("post-installation script") => "dpkg",
        _ if lines.iter().any(triggered) => "trigger",
        _ => "postinst",
    };
    let output = lines[start.unwrap_or(0)..].join("\n");
    Error::Configure { package, script, status: status.to_string(), output }
}

/// What each script begins with: it ends where a command fails, and knows how a preinst is run.
fn prelude() -> String {
    "set -e\ncd /\nci=/var/lib/dpkg/tmp.ci\n\
     version=$(dpkg-query --version | head -n1 | sed 's/.*version \\([0-9.]*\\).*/\\1/')\n\
     preinst() {\n\
     mv \"/{CONTROL}/$3\" $ci\n\
     DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= \
     DPKG_MAINTSCRIPT_PACKAGE=$1 DPKG_MAINTSCRIPT_ARCH=$2 DPKG_MAINTSCRIPT_NAME=preinst \
     DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_RUNNING_VERSION=$version \
     $ci/preinst install || {\n\
     status=$?; echo \"dpkg: error processing package $1 (--unpack):\"; \
     echo \" preinst script returned error exit status $status\"; exit $status; }\nrm -rf $ci\n}\n"
        .replace("{CONTROL}", CONTROL)
}

fn preinst(script: &Preinst) -> String {
    format!("preinst '{}' '{}' '{}'\n", script.package, script.arch, script.folder)
}

/// The scripts of the base.
fn begin(scripts: &Scripts) -> String {
    let mut text = prelude() + &scripts.preinst.iter().map(preinst).collect::<String>();
    if !scripts.base.is_empty() {
        let _ = writeln!(text, "dpkg --configure {}", scripts.base.join(" "));
    }
    text
}

/// What comes before packages are placed.
fn before(together: &[Leftover]) -> String {
    let before: BTreeSet<&str> = together.iter().flat_map(|l| &l.before).map(String::as_str).collect();
    let mut text = String::new();
    if !before.is_empty() {
        let before: Vec<_> = before.into_iter().collect();
        let _ = writeln!(text, "dpkg --configure --skip-same-version {} || :", before.join(" "));
    }
    text + &together.iter().filter_map(|l| l.preinst.as_ref()).map(preinst).collect::<String>()
}

/// What comes after packages are placed: the owners and modes that dpkg-statoverride(1) knows, and `triggers`.
fn after(triggers: &BTreeSet<String>) -> String {
    let mut text = prelude();
    text.push_str(
        "[ ! -s /var/lib/dpkg/statoverride ] || while read -r user group mode path; do\n\
         [ ! -e \"$path\" ] || { chown \"${user#\\#}:${group#\\#}\" \"$path\"; chmod \"$mode\" \"$path\"; }\n\
         done </var/lib/dpkg/statoverride\n",
    );
    for path in triggers {
        let path = path.replace('\'', "'\\''");
        let _ = writeln!(text, "dpkg-trigger --no-await --by-package=dpkg '{path}'");
    }
    text
}

/// The rest, and `last`.
fn end(scripts: &Scripts, last: &str) -> String {
    let early = scripts.early.join(" ");
    let early = if early.is_empty() { early } else { format!("dpkg --configure {early}\n") };
    early + last
}

/// Puts packages that are placed later into turns: what one pre-depends on comes in an earlier one, and all
/// that nobody waits for in the last.
pub(super) fn turns(mut rest: Vec<Leftover>) -> Vec<Vec<Leftover>> {
    let mut turns = Vec::new();
    while !rest.is_empty() {
        let names: BTreeSet<String> = rest.iter().map(|l| l.name.clone()).collect();
        let waits = |l: &Leftover| l.before.iter().any(|name| names.contains(name));
        let awaited =
            rest.iter().filter(|l| waits(l)).flat_map(|l| l.before.clone()).collect::<BTreeSet<_>>();
        let is_next = |l: &Leftover| awaited.is_empty() || awaited.contains(&l.name) && !waits(l);
        let (mut now, mut later): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_next);
        if now.is_empty() {
            // Nobody can serve a circle.
            (now, later) = later.into_iter().partition(|l| awaited.contains(&l.name));
        }
        turns.push(now);
        rest = later;
    }
    turns
}

/// The base with what it needs, to be configured before the others; nothing where there are no
/// others, or where it needs one that is still to be placed.
pub(super) fn base_first(base: &BTreeSet<String>, leftover: &[&Package], all: &[Package]) -> Vec<String> {
    let of_base = all.iter().filter(|p| base.contains(&p.name));
    let needs = of_base.clone().flat_map(Package::all_depends).collect();
    let mut names: BTreeSet<&str> = needed(needs, all).into_iter().map(|p| p.name.as_str()).collect();
    names.extend(of_base.map(|p| p.name.as_str()));
    if names.len() == all.len() || leftover.iter().any(|p| names.contains(p.name.as_str())) {
        return Vec::new();
    }
    names.into_iter().map(str::to_string).collect()
}

/// The `slow` packages and what they need, but for what is `done` before.
pub(super) fn early(slow: &BTreeSet<&str>, done: &BTreeSet<&str>, all: &[Package]) -> Vec<String> {
    let slow = all.iter().filter(|p| slow.contains(p.name.as_str()));
    let mut names: Vec<&str> = needed(slow.clone().flat_map(Package::all_depends).collect(), all)
        .into_iter()
        .map(|p| p.name.as_str())
        .collect();
    names.extend(slow.map(|p| p.name.as_str()));
    let mut seen = done.clone();
    names.retain(|name| seen.insert(name));
    names.into_iter().map(str::to_string).collect()
}

/// What must be configured before a package is unpacked: its pre-dependencies and what those need.
pub(super) fn pre_depends(package: &Package, all: &[Package]) -> Vec<String> {
    let needed = needed(super::control::dependencies(&package.pre_depends), all);
    needed.into_iter().filter(|p| p.name != package.name).map(|p| p.name.clone()).collect()
}

/// The packages that meet the needs, and what these need in turn.
fn needed(mut needs: Vec<Dependency>, all: &[Package]) -> Vec<&Package> {
    let find = |name: &str| {
        let real = all.iter().find(|p| p.name == name);
        real.or_else(|| all.iter().find(|p| p.provided().iter().any(|a| a.name == name)))
    };
    let mut found: Vec<&Package> = Vec::new();
    while let Some(need) = needs.pop() {
        let Some(package) = need.iter().find_map(|a| find(&a.name)) else { continue };
        if !found.iter().any(|f| f.name == package.name) {
            found.push(package);
            needs.extend(package.all_depends());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_failing_package() {
        let text = "Setting up a (1) ...\nfine\nSetting up b:amd64 (2) ...\nboom\n\
                    dpkg: error processing package b:amd64 (--configure):\n installed b failed\n";
        let lines: Vec<String> = text.lines().map(str::to_string).collect();
        let Error::Configure { package, output, script, .. } = failure(&lines, "exit status: 1") else {
            panic!()
        };
        assert_eq!((package.as_str(), script), ("b:amd64", "dpkg"));
        assert!(output.starts_with("Setting up b:amd64") && output.contains("boom"), "{output}");
    }

    #[test]
    fn keeps_the_first_failure() {
        let mut tail = Tail::default();
        tail.push("dpkg: error processing package a (--configure):");
        tail.push(" package a is already installed and configured");
        (0..100).for_each(|n| tail.push(&n.to_string()));
        tail.push("dpkg: error processing package b (--configure):");
        tail.push(" installed b package post-installation script subprocess failed");
        (0..100).for_each(|n| tail.push(&n.to_string()));
        assert_eq!((tail.lines.len(), tail.lines[TAIL - 3].as_str()), (TAIL, "99"));
    }

    #[test]
    fn names_the_failing_script() {
        let dpkg = "dpkg: error processing package b (--configure):\n installed b package post-installation \
                    script subprocess returned error exit status 1\n";
        let triggers = format!("Processing triggers for b (1) ...\nboom\n{dpkg}");
        for (text, want) in [
            (dpkg, "postinst"),
            (&triggers, "trigger"),
            (
                "dpkg: error processing package b (--unpack):\n preinst script returned error exit status 2\n",
                "preinst",
            ),
            (
                "dpkg: error processing archive /b.deb (--unpack):\n new b package pre-installation script subprocess returned error exit status 2\n",
                "preinst",
            ),
            ("dpkg: error processing package b (--configure):\n dependency problems\n", "dpkg"),
        ] {
            let lines: Vec<String> = text.lines().map(str::to_string).collect();
            let Error::Configure { script, .. } = failure(&lines, "") else { panic!() };
            assert_eq!(script, want, "{text}");
        }
    }

    #[test]
    fn orders_by_pre_depends() {
        let p = |name: &str, pre: &str| Package {
            name: name.to_string(),
            pre_depends: pre.to_string(),
            ..Package::default()
        };
        let all = [p("a", "b"), p("b", "c"), p("c", "")];
        let order = |leftover: &[&Package], all: &[Package]| {
            let later = leftover.iter().map(|p| Leftover {
                job: 0,
                name: p.name.clone(),
                preinst: None,
                before: pre_depends(p, all),
            });
            turns(later.collect())
        };
        let sorted = order(&[&all[0], &all[1]], &all);
        let names: Vec<_> = sorted.iter().flatten().map(|l| l.name.as_str()).collect();
        assert_eq!((names, sorted.len()), (vec!["b", "a"], 2), "a needs b configured");
        assert_eq!(sorted[0][0].before, ["c"]);
        let others = order(&[&all[0], &all[2]], &all[..1]);
        assert_eq!((others.len(), order(&[], &all).len()), (1, 0));
        let circle = [p("x", "y"), p("y", "x")];
        assert_eq!(order(&[&circle[0], &circle[1]], &circle).len(), 1);
        let base = BTreeSet::from(["b".to_string()]);
        assert!(base_first(&base, &[], &all[1..]).is_empty(), "nothing else");
        let mut all = all;
        all[1].depends = "c".to_string();
        assert_eq!(base_first(&base, &[&all[0]], &all), ["b", "c"]);
        assert!(base_first(&base, &[&all[2]], &all).is_empty(), "needs what comes later");
    }
}
