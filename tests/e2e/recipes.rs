//! The recipes that are shipped, built with their checks.

use crate::common::{TestStore, collect, need_root, succeeded};
use std::fs;
use std::path::Path;

#[test]
fn shipped_recipes_are_built_and_checked() {
    need_root();
    let (store, work) = (TestStore::new(), tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    // Their locks are written beside them.
    let copied =
        crate::common::output("cp", &["-r", recipes.to_str().unwrap(), work.path().to_str().unwrap()]);
    assert!(copied.status.success());
    let told = fs::read_to_string(recipes.join("README.md")).unwrap();
    for name in ["bookworm", "trixie", "busybox", "host", "static", "python-slim", "nginx", "netlab"] {
        let recipe = format!("recipes/{name}.toml");
        let args = ["build", &recipe];
        let out = collect(store.command().args(args).current_dir(work.path()));
        let text = succeeded(&args, &out);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains(" passed, 0 failed") || said.contains(" passed\n"), "{name}: {said}");
        assert!(!text.is_empty() && told.contains(name), "{name}: {text}");
        let again = collect(
            store
                .command()
                .args(["build", &recipe, "--frozen", "--offline", "--dry-run"])
                .current_dir(work.path()),
        );
        succeeded(&args, &again);
    }
    // A plan runs no programs: its workers may be of another kind than this machine.
    let args = ["plan", "recipes/static.toml", "--platforms", "linux/amd64,linux/arm64"];
    let plan = succeeded(&args, &collect(store.command().args(args).current_dir(work.path())));
    assert!(plan.contains("linux/amd64") && plan.contains("linux/arm64"), "{plan}");
    assert!(work.path().join("netlab.img").exists() && work.path().join("busybox/bin/sh").exists());
}
