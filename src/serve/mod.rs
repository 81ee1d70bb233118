//! The store as a registry of its own, by the distribution-spec.
