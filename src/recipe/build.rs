//! From a recipe to its outputs: a plan that can be printed, and its execution.
//!
//! The root is made in a workspace beside the folder that it becomes, or in the store's
//! scratch; outputs are put in place by rename, whole. Steps run in the runner, in all
//! namespaces of their own and without network.

use super::{Error, Output, OutputKind, Recipe, Result, Step, Variant};
use crate::bundle::{Bundle, Origin, Settings};
use crate::debian::{self, Archive, Progress};
use crate::disk::ext4::Size;
use crate::layer::Coding;
use crate::oci::Platform;
use crate::output::{self, Files};
use crate::run::{Exit, Launch, Runtime};
use crate::store::Store;
use crate::sys::Call;
use crate::sys::workspace::Workspace;
use std::fmt;
use std::path::{Path, PathBuf};

/// A step of a build.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Make the root from packages.
    Packages {
        /// The suite.
        suite: &'a str,
        /// Which packages belong to the base.
        variant: Variant,
        /// Packages on top of it.
        include: &'a [String],
    },
    /// Run a command in the root.
    Run(&'a Step),
    /// Write an output.
    Write(&'a Output),
}

impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages { suite, variant, include } => {
                write!(f, "packages of {suite}, {variant}")?;
                if include.is_empty() { Ok(()) } else { write!(f, ", with {}", include.join(" ")) }
            }
            Self::Run(step) => write!(f, "run {}", step.command.join(" ")),
            Self::Write(output) => write!(f, "write {} {}", output.kind, output.path.display()),
        }
    }
}

impl Recipe {
    /// What a build of this recipe does, in order.
    #[must_use]
    pub fn plan(&self) -> Vec<Action<'_>> {
        let base = &self.base.debian;
        let packages =
            Action::Packages { suite: &base.suite, variant: base.variant, include: &self.packages.include };
        let steps = self.steps.iter().map(Action::Run);
        std::iter::once(packages).chain(steps).chain(self.outputs.iter().map(Action::Write)).collect()
    }

    /// The archives of the recipe's suite. Where the recipe has those of the suite's own
    /// recipe, the host's apt sources for the distribution go first.
    #[must_use]
    pub fn archive(&self) -> Archive {
        let suite = &self.base.debian.suite;
        let repo = |r: &super::Repo| debian::Repo {
            uri: r.uri.trim_end_matches('/').to_string(),
            suites: r.suites.clone(),
            components: r.components.clone(),
            signed_by: r.signed_by.clone(),
            ..debian::Repo::default()
        };
        let mut archive = Archive {
            suite: suite.clone(),
            repos: self.repos.iter().map(repo).collect(),
            distribution: debian::sources::siblings(suite),
            extra_base: self.base.debian.extra.clone(),
            never: vec!["usrmerge".to_string()],
            snapshot: None,
        };
        if Self::embedded(suite).is_ok_and(|own| own.repos == self.repos) {
            archive.use_host(&debian::host::host_repos(Path::new("/etc/apt")));
        }
        archive
    }

    /// Builds all outputs.
    ///
    /// # Errors
    /// Any [`Error`]; outputs that were in place before stay as they were.
    pub fn build(&self, store: &Store, progress: &dyn Progress) -> Result<()> {
        let folder = self.paths(OutputKind::Dir).next();
        if let Some(taken) = folder.filter(|f| f.symlink_metadata().is_ok()) {
            return Err(Error::Exists { path: taken.to_path_buf() });
        }
        let beside = |f: &Path| -> Result<Workspace> { Ok(Workspace::beside(&absolute(f)?)?) };
        let workspace = folder.map(beside).transpose()?;
        let scratch = store.scratch()?;
        let root = workspace.as_ref().map_or(scratch.path(), Workspace::path).join("root");
        std::fs::create_dir(&root).call(|| format!("mkdir({})", root.display()))?;
        self.fill(store, &root, progress)?;
        for step in &self.steps {
            progress.phase("run", None);
            run(store, &root, step)?;
        }
        self.images(store, &root, progress)?;
        folder.map_or(Ok(()), |path| rename(&root, path))
    }

    /// Writes the filesystem images of the root.
    fn images(&self, store: &Store, root: &Path, progress: &dyn Progress) -> Result<()> {
        let mut paths = self.paths(OutputKind::Ext4).peekable();
        if paths.peek().is_none() {
            return Ok(());
        }
        progress.phase("write", None);
        let (files, lease) = (Files::of_folder(root, None)?, store.lease()?);
        let manifest = output::keep(&lease, &files, &Platform::host(), 0)?;
        let image = store.image(&manifest, &Platform::host())?;
        let settings = output::Settings {
            size: Size::Auto { free: None },
            mounted: false,
            arch: debian::host_arch().to_string(),
            label: self.name.clone(),
            seed: image.layers[0].diff_id.clone(),
            time: 0,
            coding: Coding::default(),
        };
        let root = output::Root::new(store, &lease, &image, &files);
        for path in paths {
            output::Output::File(output::Kind::Ext4, path.to_path_buf()).write(&root, &settings)?;
        }
        Ok(())
    }

    fn paths(&self, kind: OutputKind) -> impl Iterator<Item = &Path> {
        self.outputs.iter().filter(move |o| o.kind == kind).map(|o| o.path.as_path())
    }

    fn fill(&self, store: &Store, root: &Path, progress: &dyn Progress) -> Result<()> {
        let request = debian::Request {
            variant: match self.base.debian.variant {
                Variant::Minbase => debian::Variant::Minbase,
                Variant::Essential => debian::Variant::Essential,
                Variant::Custom => debian::Variant::Custom,
            },
            include: self.packages.include.clone(),
            ..debian::Request::new(self.archive())
        };
        let lock = debian::resolve(&request, store, progress)?;
        debian::bootstrap(&request, &lock, store, root, progress, &mut |_| Ok(()))?;
        Ok(())
    }
}

/// Runs a step in the root itself: what it writes stays.
fn run(store: &Store, root: &Path, step: &Step) -> Result<()> {
    let origin = Origin::Directory(root.to_path_buf());
    let settings = Settings { args: step.command.clone(), ..Settings::default() };
    let name = format!("build-{}", std::process::id());
    let bundle = Bundle::throw_away(store, &name, &origin, None, &settings)?;
    let launch = Launch { id: name, bundle: bundle.path().to_path_buf(), ..Launch::default() };
    let exit = launch.run(&Runtime::open(store.root())?, None, false);
    bundle.remove()?;
    match exit? {
        Exit::Code(0) => Ok(()),
        exit => Err(Error::Step { command: step.command.join(" "), exit }),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    let done = rustix::fs::renameat_with(
        rustix::fs::CWD,
        from,
        rustix::fs::CWD,
        to,
        rustix::fs::RenameFlags::NOREPLACE,
    );
    Ok(done.call(|| format!("renameat2({}, {})", from.display(), to.display()))?)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(path).call(|| format!("getcwd for {}", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_printable() {
        let recipe = Recipe::embedded("busybox").unwrap();
        let lines: Vec<String> = recipe.plan().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "packages of bookworm, custom, with busybox-static",
                "run /bin/busybox --install -s /bin",
                "write dir busybox",
            ]
        );
    }

    #[test]
    fn archives_of_the_suites() {
        for (suite, main) in [("bookworm", "debian"), ("sid", "debian"), ("noble", "ubuntu")] {
            let archive = Recipe::embedded(suite).unwrap().archive();
            assert!(archive.repos[0].uri.contains(main) && archive.distribution.contains(&suite.to_string()));
        }
        let text = "version = 1\nname = \"x\"\n[base]\ndebian = { suite = \"bookworm\" }\n[[repo]]\n\
                    uri = \"http://127.0.0.1/debian/\"\nsuites = [\"bookworm\"]\ncomponents = [\"main\"]\nsigned-by = []\n";
        let own = Recipe::parse(text, Path::new("r.toml")).unwrap().archive();
        assert_eq!(own.repos[0].uri, "http://127.0.0.1/debian", "a mirror that the recipe names is taken");
    }
}
