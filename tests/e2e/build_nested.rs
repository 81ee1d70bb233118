//! Builds in a store that lies on an overlay, as in a container without a volume.

use crate::common::user::User;
use crate::common::work::{BUSYBOX, TAG, Work};
use crate::common::{bin, collect, ok, succeeded, unmount_below};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An overlay that is gone with the value.
struct Overlay(tempfile::TempDir);

impl Overlay {
    /// Over a folder of its own, or over `lower`; below `parent`.
    fn new(parent: &Path, lower: Option<&Path>) -> Self {
        let made = Self(tempfile::tempdir_in(parent).unwrap());
        let [own, upper, work, root] =
            ["lower", "upper", "work", "root"].map(|name| made.0.path().join(name));
        for dir in [&own, &upper, &work, &root] {
            fs::create_dir(dir).unwrap();
        }
        ok("chmod", &["755", made.0.path().to_str().unwrap()]);
        let [lower, upper, work] = [lower.unwrap_or(&own), &upper, &work].map(|dir| dir.display());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        ok("mount", &["-t", "overlay", "overlay", "-o", &options, root.to_str().unwrap()]);
        made
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount_below(self.0.path());
    }
}

/// Layers that hide files of those below, each looked at by the next step.
fn recipe() -> String {
    format!(
        "{BUSYBOX}[[run]]\nshell = \"mkdir -p /d/e && echo old > /d/e/f && echo one > /one && ln /one /two && adduser -D -h /d u || true\"\n\
         [[run]]\nshell = \"rm /bin/vi && rm -r /d && mkdir -m 750 /d && echo new > /d/g && rm /one\"\n\
         [[run]]\nshell = \"! [ -e /bin/vi ] && ! [ -e /d/e ] && ! [ -e /one ] && cat /d/g /two > /seen && ln /two /three\"\n\
         [[stage]]\nname = \"other\"\nbase = {{ image = \"localhost/first:1\" }}\n[[stage.run]]\nshell = \"rm /bin/ed && mkdir /o && echo o > /o/f\"\n\
         [[copy]]\nstage = \"other\"\nfrom = \"/o/\"\nto = \"/o/\"\n\
         [image]\nenv = {{ PATH = \"/bin\" }}\n{TAG}[[output]]\nkind = \"dir\"\npath = \"out\"\n"
    )
}

/// Builds twice in `dir`; gives the digest.
fn build(command: &dyn Fn() -> Command, dir: &Path, store: &Path) -> String {
    let first = format!("{BUSYBOX}[image]\nenv = {{ PATH = \"/bin\" }}\n{}", TAG.replace("made", "first"));
    fs::write(dir.join("first.toml"), first).unwrap();
    fs::write(dir.join("r.toml"), recipe()).unwrap();
    let shipimg = |args: &[&str]| {
        let out = collect(command().arg("--root").arg(store).args(args).current_dir(dir));
        (succeeded(args, &out), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    shipimg(&["build", "first.toml"]);
    let (text, said) = shipimg(&["build", "r.toml", "--format", "json"]);
    let nested = store.starts_with("/") && said.contains("in memory");
    assert_eq!(said.matches("in memory").count(), usize::from(nested), "once: {said}");
    let built: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(fs::read_to_string(dir.join("out/seen")).unwrap(), "new\none\n");
    assert!(
        !dir.join("out/bin/vi").exists() && dir.join("out/bin/ed").exists() && !dir.join("out/d/e").exists()
    );
    fs::remove_dir_all(dir.join("out")).unwrap();
    let (text, _) = shipimg(&["build", "r.toml", "--format", "json"]);
    let again: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&again["digest"], again["done"].as_u64()), (&built["digest"], Some(0)));
    fs::remove_dir_all(dir.join("out")).unwrap();
    // Nothing is left: no folder, no mount.
    for area in ["tmp", "bundles", "containers"] {
        let left: Vec<_> = fs::read_dir(store.join("shipimg").join(area)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{area}: {left:?}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("{}/", store.display())), "{mounts}");
    shipimg(&["prune", "--all", "--yes"]);
    format!("{} {}", built["digest"].as_str().unwrap(), nested)
}

#[test]
fn a_store_on_an_overlay_gives_the_same() {
    let work = Work::new();
    let usual = build(&|| Command::new(bin()), work.dir.path(), work.store.path());
    let (digest, nested) = usual.split_once(' ').unwrap();
    assert_eq!(nested, "false", "a store on a disk");
    let wanted = format!("{digest} true");
    let overlay = Overlay::new(work.dir.path(), None);
    assert_eq!(build(&|| Command::new(bin()), work.dir.path(), &overlay.root().join("store")), wanted);
    for user in [User::new(), User::single()] {
        let dir = user.home().join("work");
        fs::create_dir(&dir).unwrap();
        user.give(&dir);
        let overlay = Overlay::new(Path::new("/var/tmp"), None);
        user.give(&overlay.root());
        assert_eq!(build(&|| user.shipimg(), &dir, &overlay.root().join("store")), wanted);
        assert!(user.processes().is_empty(), "the user's processes");
    }
    // The kernel stacks two overlays and no more.
    let deeper = Overlay::new(work.dir.path(), Some(&overlay.root()));
    let args = ["build", "r.toml", "--no-cache"];
    let store = deeper.root().join("store-of-its-own");
    fs::write(work.path("r.toml"), format!("{BUSYBOX}{TAG}")).unwrap();
    let out = collect(Command::new(bin()).arg("--root").arg(&store).args(args).current_dir(work.dir.path()));
    let said = crate::common::failed(1, &args, &out);
    assert!(said.contains("overlay") && !said.contains("in memory"), "{said}");
}
