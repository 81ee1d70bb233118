//! The kinds of failure, shared by every room, and the exit code of each.
//!
//! Each room has one error enum of its own; its `kind()` is one of these. The
//! command line maps the kind to the process's exit code and to nothing else, so
//! that scripts can tell "try again" from "fix the input" without reading text.

use std::error::Error;
use std::io;

/// What sort of failure an error is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// Anything that fits no other kind: an I/O error, a full disk, a program that failed.
    Internal,
    /// The caller's words or files are wrong: usage, a malformed reference, a bad config.json.
    Input,
    /// Checks of an image or of a recipe failed.
    Checks,
    /// A lock is not there, or not the one of what is asked for.
    Stale,
    /// A registry or mirror could not be reached or answered with an error; worth a retry.
    Network,
    /// The host lacks a kernel feature or a program.
    Unsupported,
    /// The caller lacks the right: not root, permission denied.
    Privilege,
    /// Bytes are not what their digest, size, signature or format promises.
    Integrity,
    /// The named image, bundle, container, file or package does not exist.
    Missing,
}

/// The exit code of what was made twice and came out otherwise the second time.
pub const NOT_REPRODUCIBLE: u8 = 5;

impl Kind {
    /// The process exit code, as listed in `docs/exit-codes.md`.
    ///
    /// 5 (not reproducible) and 130 (interrupted) are not kinds of error and are given elsewhere.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Input => 2,
            Self::Checks => 3,
            Self::Stale => 4,
            Self::Network => 6,
            Self::Unsupported => 7,
            Self::Privilege => 8,
            Self::Integrity => 9,
            Self::Missing => 10,
        }
    }

    /// The kind of an operating system error.
    #[must_use]
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        match error.kind() {
            E::PermissionDenied | E::ReadOnlyFilesystem => Self::Privilege,
            E::NotFound => Self::Missing,
            E::Unsupported => Self::Unsupported,
            E::AlreadyExists | E::NotADirectory | E::IsADirectory | E::InvalidFilename => Self::Input,
            _ => Self::Internal,
        }
    }
}

/// The cause of type `E` among `e` and its causes.
#[must_use]
pub fn cause<'a, E: Error + 'static>(e: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut at = Some(e);
    while let Some(e) = at {
        if let Some(found) = e.downcast_ref() {
            return Some(found);
        }
        at = match e.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            // An io::Error shows what its content was caused by, never its content.
            Some(inner) => Some(inner),
            None => e.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn exit_codes_are_distinct() {
        let kinds = [
            Kind::Internal,
            Kind::Input,
            Kind::Checks,
            Kind::Stale,
            Kind::Network,
            Kind::Unsupported,
            Kind::Privilege,
            Kind::Integrity,
            Kind::Missing,
        ];
        let codes: std::collections::BTreeSet<u8> = kinds.iter().map(|k| k.exit_code()).collect();
        assert_eq!(codes.len(), kinds.len());
        assert!(!codes.contains(&0) && !codes.contains(&5));
    }
}
