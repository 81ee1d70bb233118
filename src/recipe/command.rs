//! Run steps: a program in the root of a bundle, in namespaces of its own.
//!
//! What it prints goes to standard error as it comes where that is no terminal, and into a file: on a
//! terminal it is shown whole when the step has failed. Secrets lie on a tmpfs that is mounted into
//! the container and nowhere else; what the mounts of a step leave in the root, directories and empty
//! files that they needed, is taken away after it.

use super::plan::Step;
use super::read::Recipe;
use super::types::{Run, Secret};
use super::{Error, Failed, Result};
use crate::bundle::{Bundle, Net, Settings};
use crate::layer;
use crate::run::{Exit, Launch, Runtime};
use crate::store::{Scratch, Store};
use crate::sys::dir::Dir;
use crate::sys::inroot::Root;
use crate::sys::mount::Mount;
use crate::sys::{Call, program, signal};
use oci_spec::runtime;
use rustix::fs::OFlags;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where a step sees its inputs.
const RECIPE: &str = "/run/recipe";
/// Where a step sees its secrets.
const SECRETS: &str = "/run/secrets";
/// Where a step sees a program of which its recipe has the text.
const PROGRAM: &str = "/dev/pipes/program";
/// The most of a failed step's output that is shown, in bytes: its end.
const SHOWN: u64 = 1 << 20;

/// Whether a shell is opened where a step has failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shell {
    /// No.
    #[default]
    Never,
    /// On this terminal.
    OnError,
}

/// How the program of a run step is run.
pub(super) fn settings(run: &Run, step: &Step) -> Result<Settings> {
    let mut mounts = Vec::new();
    for file in run.script.iter().chain(&run.inputs) {
        mounts.push(
            bind(&step.place.beside(file), &Path::new(RECIPE).join(file)).map_err(|e| step.place.error(e))?,
        );
    }
    if run.network {
        mounts.extend(bind(Path::new("/etc/resolv.conf"), Path::new("/etc/resolv.conf")).ok());
    }
    let mut env = vec![format!("SOURCE_DATE_EPOCH={}", step.time)];
    if run.script.is_some() || !run.inputs.is_empty() {
        env.push(format!("RECIPE={RECIPE}"));
    }
    env.extend(run.env.iter().map(|(name, value)| format!("{name}={value}")));
    Ok(Settings {
        args: args(run, step)?,
        env,
        user: Some(run.user.clone().unwrap_or_else(|| "0".to_string())),
        workdir: Some(run.workdir.clone().unwrap_or_else(|| "/".to_string()).into()),
        hostname: Some("build".to_string()),
        net: if run.network { Net::Host } else { Net::None },
        mounts,
        ..Settings::default()
    })
}

fn args(run: &Run, step: &Step) -> Result<Vec<String>> {
    let shell = |more: &[&str]| ["/bin/sh", "-e"].iter().chain(more).map(ToString::to_string).collect();
    if let Some(text) = &run.shell {
        return Ok(shell(&["-c", text]));
    }
    if run.program.is_some() {
        return Ok(vec![PROGRAM.to_string()]);
    }
    let Some(script) = &run.script else { return Ok(run.command.clone()) };
    let path = step.place.beside(script);
    let bytes = fs::read(&path).map_err(|source| Error::Read { path, source })?;
    let inside = Path::new(RECIPE).join(script).display().to_string();
    let program = bytes.starts_with(b"#!") || bytes.starts_with(b"\x7fELF");
    Ok(if program { vec![inside] } else { shell(&[&inside]) })
}

/// A read-only bind mount.
fn bind(from: &Path, to: &Path) -> std::result::Result<runtime::Mount, String> {
    let options = ["bind", "ro", "nosuid", "nodev"].map(String::from).to_vec();
    let from = from.canonicalize().map_err(|e| format!("{}: {e}", from.display()))?;
    let mount = runtime::MountBuilder::default().source(from).destination(to).typ("bind").options(options);
    mount.build().map_err(|e| e.to_string())
}

/// The secrets of a step, while it runs.
pub(super) struct Secrets {
    /// What is mounted into the container.
    pub mounts: Vec<runtime::Mount>,
    _memory: Mount,
    _scratch: Scratch,
}

/// Puts the secrets of a step into memory, and its program.
pub(super) fn secrets(recipe: &Recipe, run: &Run, step: &Step, store: &Store) -> Result<Option<Secrets>> {
    if run.secrets.is_empty() && run.program.is_none() {
        return Ok(None);
    }
    let scratch = store.scratch()?;
    let flags = sys_mount::MountFlags::NOSUID | sys_mount::MountFlags::NODEV;
    let memory = Mount::new(Path::new("tmpfs"), scratch.path(), "tmpfs", flags, "mode=755")?;
    let mut mounts = Vec::new();
    for name in &run.secrets {
        let Some((secret, file)) = recipe.secrets.get(name) else { continue };
        let missing = || Error::NoSecret { name: name.clone() };
        let value = match secret {
            Secret::Env(variable) => std::env::var_os(variable).ok_or_else(missing)?.into_encoded_bytes(),
            Secret::File(path) => {
                let path = file.parent().unwrap_or(Path::new("")).join(path);
                fs::read(&path).map_err(|source| Error::Read { path, source })?
            }
        };
        let path = scratch.path().join(name);
        let mode = if run.user.is_some() { 0o444 } else { 0o400 };
        fs::write(&path, value).call(|| format!("write({})", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).call(|| "chmod".to_string())?;
        let usual = Path::new(SECRETS).join(name);
        mounts.push(bind(&path, run.targets.get(name).unwrap_or(&usual)).map_err(|_| missing())?);
    }
    if let Some(text) = &run.program {
        let path = scratch.path().join(".program");
        fs::write(&path, text).call(|| format!("write({})", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).call(|| "chmod".to_string())?;
        mounts.push(bind(&path, Path::new(PROGRAM)).map_err(|e| step.place.error(e))?);
    }
    Ok(Some(Secrets { mounts, _memory: memory, _scratch: scratch }))
}

/// Runs the program of a step. Where it fails a shell is opened, or what it printed is told though it was shown (`again`).
pub(super) fn run(
    run: &Run,
    step: &Step,
    bundle: &Bundle,
    store: &Store,
    (shell, again): (Shell, bool),
) -> Result<()> {
    let root = Root::new(File::open(bundle.rootfs()).call(|| "open".to_string())?.into());
    let traces = traces(&root, bundle)?;
    let log = bundle.path().join("output");
    let launch =
        Launch { id: bundle.name().to_string(), bundle: bundle.path().to_path_buf(), ..Launch::default() };
    let runtime = Runtime::open(store.root())?;
    let live = !std::io::stderr().is_terminal();
    let exit = {
        let tee = program::Tee::new(&log, live)?;
        let exit = launch.run_with(&runtime, tee.streams()?);
        tee.finish()?;
        exit?
    };
    if signal::pending().is_some() {
        return Err(layer::Error::Stopped.into());
    }
    if exit != Exit::Code(0) {
        if shell == Shell::OnError {
            eprintln!("{}: {}: a shell where it failed; exit leaves it", step.place, step.work);
            let args = vec!["/bin/sh".to_string()];
            Launch { args, terminal: Some(true), ..launch }.run(&runtime, None, false)?;
        }
        let output = if live && !again { String::new() } else { end_of(&log)? };
        let what = super::read::Action::Run(run.clone()).to_string();
        return Err(Error::Failed(Box::new(Failed { place: step.place.clone(), what, exit, output })));
    }
    clean(&bundle.rootfs(), &traces)
}

/// The end of a file as text.
fn end_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    let begin = bytes.len().saturating_sub(usize::try_from(SHOWN).unwrap_or(usize::MAX));
    Ok(String::from_utf8_lossy(&bytes[begin..]).into_owned())
}

/// What the mounts of `bundle` will make in its root, that is not there: directories and empty files.
fn traces(root: &Root, bundle: &Bundle) -> Result<BTreeSet<PathBuf>> {
    let path = bundle.path().join("config.json");
    let read = |source| Error::Read { path: path.clone(), source };
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).map_err(read)?).unwrap_or_default();
    let mounts = config["mounts"].as_array().into_iter().flatten();
    let places = mounts.filter_map(|m| m["destination"].as_str()).map(Path::new);
    let all =
        places.flat_map(|place| place.ancestors().filter(|p| p.parent().is_some()).map(Path::to_path_buf));
    Ok(all.filter(|path| root.open(path, OFlags::PATH | OFlags::NOFOLLOW).is_err()).collect())
}

/// Takes away what of `traces` is still nothing but that.
fn clean(root: &Path, traces: &BTreeSet<PathBuf>) -> Result<()> {
    let root = Dir::open(root)?;
    for path in traces.iter().rev() {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let Ok(dir) = root.in_root(parent) else { continue };
        match dir.stat(name)? {
            Some(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() => {
                // One that has something in it is the step's own.
                drop(dir.rmdir(name));
            }
            Some(stat)
                if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_size == 0 =>
            {
                dir.unlink(name)?;
            }
            _ => {}
        }
    }
    Ok(())
}
