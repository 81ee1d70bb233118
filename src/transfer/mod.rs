//! Copies images between registries, archives, folders and the store.
