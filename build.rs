//! Sees to it that the chart library, which is embedded, is there: `scripts/assets` fetches it.

use std::process::{Command, exit};

fn main() {
    for input in ["package.json", "package-lock.json", "charts.js", "dist/charts.js"] {
        println!("cargo:rerun-if-changed=assets/{input}");
    }
    match Command::new("scripts/assets").output() {
        Ok(out) if out.status.success() => {}
        Ok(out) => stop(&String::from_utf8_lossy(&out.stderr)),
        Err(e) => stop(&format!("scripts/assets: {e}")),
    }
}

fn stop(why: &str) -> ! {
    println!(
        "cargo:error=the chart library of the pages of `shipimg analyze` is not there; run scripts/assets, which needs npm"
    );
    for line in why.lines().filter(|l| !l.trim().is_empty()) {
        println!("cargo:error={line}");
    }
    exit(1)
}
