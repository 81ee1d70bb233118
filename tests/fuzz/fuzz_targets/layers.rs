//! Layers from anywhere, into a folder with a canary beside it; see `Ground::run`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shipimg_fuzz::{Ground, Input, seeds};
use std::sync::LazyLock;

static GROUND: LazyLock<Ground> = LazyLock::new(Ground::new);

fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("SHIPIMG_FUZZ_SEEDS") {
            seeds::write(folder.as_ref());
            std::process::exit(0);
        }
    },
    |bytes: &[u8]| {
        if let Some(input) = Input::parse(bytes) {
            GROUND.run(&input);
        }
    }
);
