//! A folder to build in, with a store of its own.

use super::{TestStore, collect, failed, need_root, succeeded};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The beginning of a recipe: a root with busybox and all of its names.
pub const BUSYBOX: &str = "version = 1\n[base]\nscratch = true\n[[copy]]\nfrom = \"/bin/busybox\"\nto = \"/bin/\"\n\
    mode = \"0755\"\n[[run]]\ncommand = [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
/// An output: an image in the store.
pub const TAG: &str = "[[output]]\nkind = \"oci\"\ntag = \"localhost/made:1\"\n";

/// The folder and the store.
pub struct Work {
    pub store: TestStore,
    pub dir: tempfile::TempDir,
}

impl Work {
    pub fn new() -> Self {
        need_root();
        Self { store: TestStore::new(), dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file below the folder.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// The command in the folder; `TOKEN` is set to a secret.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.store.command();
        command.args(args).current_dir(self.dir.path()).env("TOKEN", "sesame-open");
        command
    }

    pub fn output(&self, args: &[&str]) -> Output {
        collect(&mut self.command(args))
    }

    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        succeeded(args, &self.output(args))
    }

    #[track_caller]
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        failed(code, args, &self.output(args))
    }

    /// What a build tells as JSON.
    #[track_caller]
    pub fn built(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["build", "--format", "json"], args].concat())).unwrap()
    }

    /// The digest that a build makes, and how many steps it does.
    #[track_caller]
    pub fn made(&self, args: &[&str]) -> (String, u64) {
        let value = self.built(args);
        (value["digest"].as_str().unwrap().to_string(), value["done"].as_u64().unwrap())
    }

    #[track_caller]
    pub fn nothing_left(&self) {
        for area in ["tmp", "bundles", "containers"] {
            let left: Vec<_> =
                fs::read_dir(self.store.path().join("shipimg").join(area)).into_iter().flatten().collect();
            assert!(left.is_empty(), "{area}: {left:?}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.store.path().display().to_string()), "{mounts}");
    }
}
