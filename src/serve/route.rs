//! Paths below `/v2/`, parsed from their end: a repository's name may have any words in it.

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `_catalog`
    Catalog,
    /// `NAME/tags/list`
    Tags(&'a str),
    /// `NAME/manifests/REFERENCE`
    Manifest(&'a str, &'a str),
    /// `NAME/blobs/DIGEST`
    Blob(&'a str, &'a str),
    /// `NAME/blobs/uploads/`
    Uploads(&'a str),
    /// `NAME/blobs/uploads/ID`
    Upload(&'a str, &'a str),
    /// `NAME/referrers/DIGEST`
    Referrers(&'a str, &'a str),
}

impl<'a> Route<'a> {
    /// Parses `path`, without `/v2/` before it.
    pub fn parse(path: &'a str) -> Option<Self> {
        if path == "_catalog" {
            return Some(Self::Catalog);
        }
        if let Some(name) = path.strip_suffix("/blobs/uploads/").or(path.strip_suffix("/blobs/uploads")) {
            return Some(Self::Uploads(name));
        }
        let (rest, last) = path.rsplit_once('/')?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Some(Self::Upload(name, last));
        }
        let (name, word) = rest.rsplit_once('/')?;
        match (word, last) {
            ("tags", "list") => Some(Self::Tags(name)),
            ("manifests", _) => Some(Self::Manifest(name, last)),
            ("blobs", _) => Some(Self::Blob(name, last)),
            ("referrers", _) => Some(Self::Referrers(name, last)),
            _ => None,
        }
    }
}

/// The bytes that a `Range: bytes=…` header asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everything: no range, several ranges, or another unit.
    All,
    /// From the first to the last of these, both included.
    Part(u64, u64),
    /// Nothing that is there.
    Nothing,
}

/// Reads a Range header for content of `size` bytes (RFC 9110, 14.1.2).
pub fn range(header: Option<&str>, size: u64) -> Wanted {
    let parse = || {
        let (first, last) = header?.trim().strip_prefix("bytes=")?.trim().split_once('-')?;
        let number = |t: &str| t.trim().parse::<u64>().ok();
        match (first.trim(), last.trim()) {
            ("", n) => Some((size.saturating_sub(number(n)?), size.checked_sub(1), number(n)? > 0)),
            (a, "") => Some((number(a)?, size.checked_sub(1), true)),
            (a, b) if number(a)? <= number(b)? => {
                Some((number(a)?, size.checked_sub(1).map(|end| end.min(number(b).unwrap_or(end))), true))
            }
            _ => None,
        }
    };
    match parse() {
        None => Wanted::All,
        Some((first, Some(last), true)) if first <= last => Wanted::Part(first, last),
        Some(_) => Wanted::Nothing,
    }
}

/// First and last byte of a chunk: `Content-Range: 0-99`, without a unit (distribution-spec).
pub fn chunk(header: &str) -> Option<(u64, u64)> {
    let (first, last) = header.split_once('-')?;
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok())?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last < u64::MAX).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, want) in [
            ("_catalog", Some(Route::Catalog)),
            ("a/tags/list", Some(Route::Tags("a"))),
            ("a/b/manifests/1", Some(Route::Manifest("a/b", "1"))),
            ("manifests/manifests/manifests", Some(Route::Manifest("manifests", "manifests"))),
            ("a/blobs/sha256:0", Some(Route::Blob("a", "sha256:0"))),
            ("a/blobs/uploads/", Some(Route::Uploads("a"))),
            ("a/blobs/uploads", Some(Route::Uploads("a"))),
            ("a/blobs/uploads/x", Some(Route::Upload("a", "x"))),
            ("a/referrers/sha256:0", Some(Route::Referrers("a", "sha256:0"))),
            ("a/../b/manifests/1", Some(Route::Manifest("a/../b", "1"))),
            ("a", None),
            ("a/manifests", None),
            ("manifests/1", None),
            ("a/tags/other", None),
            ("", None),
        ] {
            assert_eq!(Route::parse(path), want, "{path}");
        }
    }

    #[test]
    fn ranges() {
        for (header, want) in [
            ("bytes=0-3", Wanted::Part(0, 3)),
            ("bytes=2-", Wanted::Part(2, 9)),
            ("bytes=-3", Wanted::Part(7, 9)),
            ("bytes=-30", Wanted::Part(0, 9)),
            ("bytes=5-99", Wanted::Part(5, 9)),
            ("bytes=9-9", Wanted::Part(9, 9)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=10-12", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=3-2", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("bytes=99999999999999999999-", Wanted::All),
            ("lines=0-3", Wanted::All),
        ] {
            assert_eq!(range(Some(header), 10), want, "{header}");
        }
        assert_eq!(range(None, 10), Wanted::All);
        assert_eq!(range(Some("bytes=0-"), 0), Wanted::Nothing);
    }

    #[test]
    fn chunks() {
        for (header, want) in [
            ("0-0", Some((0, 0))),
            ("5-9", Some((5, 9))),
            ("9-5", None),
            ("bytes 0-1/*", None),
            ("+1-2", None),
            ("1-", None),
            ("18446744073709551615-18446744073709551615", None),
        ] {
            assert_eq!(chunk(header), want, "{header}");
        }
    }
}
