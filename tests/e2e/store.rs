//! The store as a folder that other tools read.

use crate::common::TestStore;

#[test]
fn a_new_store_is_an_empty_layout() {
    let store = TestStore::new();
    assert_eq!(store.ok(&["images"]), "");
    assert_eq!(
        std::fs::read_to_string(store.path().join("oci-layout")).unwrap(),
        r#"{"imageLayoutVersion":"1.0.0"}"#
    );
}
