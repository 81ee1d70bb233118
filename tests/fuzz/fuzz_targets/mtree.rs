//! Manifests: what can be parsed is written so that it parses again, to the same files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shipimg::tree::mtree::Manifest;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    let mut text = Vec::new();
    manifest.write(&mut text).unwrap();
    let again = Manifest::parse(&text).unwrap();
    assert_eq!(again.settled, manifest.settled);
    assert!(again.tree.keys().eq(manifest.tree.keys()));
});
