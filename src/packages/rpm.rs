//! Databases of rpm(8): one table of headers, in a database of `SQLite`.
//!
//! A header is an index of tags and a store that they lead into (rpm's `docs/manual/hregions.md` and
//! `format_header.md`): two lengths, sixteen bytes for each tag, then the store. rpm has written other
//! formats before: Berkeley DB (RHEL 8 and older) and its own ndb (SUSE). Those are not read.

use super::{Damage, MOST_DATABASE, Manager, Package, Reader, Source, sqlite};
use crate::tree::{MAX_PATH, TreePath};
use std::cmp::Ordering;

/// Where databases lie, after and before they moved.
const SQLITE: [&str; 2] = ["usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite"];
/// Behind the name of a database: the log of what is not in it yet.
const LOG: &str = "-wal";
/// Behind the name of a database: what to undo before it is read.
const JOURNAL: &str = "-journal";

/// Databases in other formats.
const OTHERS: [(&str, &str); 4] = [
    ("usr/lib/sysimage/rpm/Packages.db", "ndb"),
    ("var/lib/rpm/Packages.db", "ndb"),
    ("usr/lib/sysimage/rpm/Packages", "Berkeley DB"),
    ("var/lib/rpm/Packages", "Berkeley DB"),
];

/// The table of headers.
const TABLE: &str = "Packages";

/// Tags of a header (rpm's `include/rpm/rpmtag.h`).
mod tag {
    pub const NAME: u32 = 1000;
    pub const VERSION: u32 = 1001;
    pub const RELEASE: u32 = 1002;
    pub const EPOCH: u32 = 1003;
    pub const LICENSE: u32 = 1014;
    pub const ARCH: u32 = 1022;
    pub const FILESTATES: u32 = 1029;
    pub const DIRINDEXES: u32 = 1116;
    pub const BASENAMES: u32 = 1117;
    pub const DIRNAMES: u32 = 1118;
}

pub(super) fn is_database(path: &str) -> bool {
    let end = |database: &str| path.strip_prefix(database).map(|end| ["", LOG, JOURNAL].contains(&end));
    SQLITE.into_iter().any(|database| end(database) == Some(true))
}

/// Reads the packages of rpm.
pub(super) fn read<S: Source>(reader: &mut Reader<S>) -> Result<(), S::Error> {
    let source = reader.source;
    let Some(path) = SQLITE.into_iter().find(|path| source.has(path)) else {
        if let Some((path, format)) = OTHERS.into_iter().find(|(path, _)| source.has(path)) {
            reader.unread(path, Damage::Format(format));
        }
        return Ok(());
    };
    let [journal, log] = [JOURNAL, LOG].map(|end| format!("{path}{end}"));
    let held = |path: &str| Ok(source.content(path)?.filter(|bytes| bytes.len() as u64 <= MOST_DATABASE));
    let (database, log_bytes, journal_bytes) = (held(path)?, held(&log)?, held(&journal)?);
    // A journal that is done with is empty, or has zeroes for a head.
    if journal_bytes.map_or(source.has(&journal), |bytes| bytes.first().is_some_and(|b| *b != 0)) {
        reader.unread(path, Damage::Journal);
        return Ok(());
    }
    let Some(database) = database.filter(|_| log_bytes.is_some() || !source.has(&log)) else {
        reader.unread(path, Damage::Held);
        return Ok(());
    };
    let mut broken = false;
    let read = sqlite::rows(&database, log_bytes.as_deref(), TABLE, &mut |row| {
        let header = match row {
            [_, sqlite::Value::Bytes(blob), ..] => Header::parse(blob),
            _ => None,
        };
        match header.as_ref().and_then(Header::package).zip(header.as_ref()) {
            Some((package, header)) => reader.add(path, package, || header.files()),
            None => broken = true,
        }
    });
    let damage = read.err().map(Damage::Sqlite).or(broken.then_some(Damage::Header));
    if let Some(damage) = damage {
        reader.unread(path, damage);
    }
    Ok(())
}

/// What is installed of a package.
struct Header<'a> {
    index: &'a [u8],
    store: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(blob: &'a [u8]) -> Option<Self> {
        let (tags, bytes) = (u32_at(blob, 0)? as usize, u32_at(blob, 4)? as usize);
        let (index, store) = blob.get(8..)?.split_at_checked(tags.checked_mul(16)?)?;
        Some(Self { index, store: store.get(..bytes)? })
    }

    /// The type of a tag, where it begins, and how many values it has.
    fn find(&self, tag: u32) -> Option<(u32, &'a [u8], usize)> {
        let entry = self.index.as_chunks::<16>().0.iter().find(|entry| u32_at(*entry, 0) == Some(tag))?;
        let (kind, at, count) = (u32_at(entry, 4)?, u32_at(entry, 8)?, u32_at(entry, 12)?);
        Some((kind, self.store.get(at as usize..)?, count as usize))
    }

    /// Texts: one, several, or one in several languages, each with a zero behind.
    fn texts(&self, tag: u32) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (store, count) = match self.find(tag) {
            Some((6, store, _)) => (store, 1),
            Some((8 | 9, store, count)) => (store, count),
            _ => (&[][..], 0),
        };
        // Without the last one, which has no zero behind.
        let whole = &store[..store.iter().rposition(|b| *b == 0).unwrap_or(0)];
        let whole = if whole.is_empty() && store.first() != Some(&0) { None } else { Some(whole) };
        whole.into_iter().flat_map(|whole| whole.split(|b| *b == 0)).take(count)
    }

    fn text(&self, tag: u32) -> Option<String> {
        self.texts(tag).next().map(|text| String::from_utf8_lossy(text).into_owned())
    }

    /// Numbers of four bytes.
    fn numbers(&self, tag: u32) -> impl Iterator<Item = u32> + use<'a> {
        let (store, count) = match self.find(tag) {
            Some((4, store, count)) => (store, count),
            _ => (&[][..], 0),
        };
        store.as_chunks::<4>().0.iter().take(count).map(|bytes| u32::from_be_bytes(*bytes))
    }

    fn package(&self) -> Option<Package> {
        let epoch = self.numbers(tag::EPOCH).next().map(|e| format!("{e}:")).unwrap_or_default();
        Some(Package {
            name: self.text(tag::NAME)?,
            version: format!("{epoch}{}-{}", self.text(tag::VERSION)?, self.text(tag::RELEASE)?),
            // Keys, which the database has as packages, have none.
            architecture: self.text(tag::ARCH).unwrap_or_default(),
            licence: self.text(tag::LICENSE),
            manager: Manager::Rpm,
            configured: true,
        })
    }

    /// The files that it has installed, and directories.
    fn files(&self) -> impl Iterator<Item = TreePath> + use<'a> {
        let folders: Vec<&[u8]> = self.texts(tag::DIRNAMES).collect();
        let states = match self.find(tag::FILESTATES) {
            Some((1, store, count)) => store.get(..count).unwrap_or_default(),
            _ => &[],
        };
        let files = self.texts(tag::BASENAMES).zip(self.numbers(tag::DIRINDEXES)).enumerate();
        files.filter_map(move |(n, (name, folder))| {
            // Other states: another package's, left out, for another machine.
            let installed = states.get(n).is_none_or(|state| *state == 0);
            let folder = folders.get(folder as usize).filter(|f| installed && f.len() < MAX_PATH)?;
            TreePath::parse_link(&[folder, name].concat()).ok()
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// Compares `version` with `bound`, each as `EPOCH:VERSION-RELEASE`: a missing epoch is 0; where one of them
/// has no release, releases do not count (rpm-version(7), rpm-dependencies(7)).
#[must_use]
pub fn compare(version: &str, bound: &str) -> Ordering {
    let parts = |text: &str| {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (version, release) =
            rest.rsplit_once('-').map_or((rest, None), |(v, r)| (v, Some(r.to_string())));
        (epoch.to_string(), version.to_string(), release)
    };
    let ((epoch_a, version_a, release_a), (epoch_b, version_b, release_b)) = (parts(version), parts(bound));
    let order = compare_part(&epoch_a, &epoch_b).then_with(|| compare_part(&version_a, &version_b));
    match (release_a, release_b) {
        (Some(a), Some(b)) => order.then_with(|| compare_part(&a, &b)),
        _ => order,
    }
}

/// rpm's `rpmvercmp`: runs of digits by number, runs of letters by letter, numbers after letters; all else
/// only parts them. `~` comes before all, even the end; `^` behind the end and before all else.
fn compare_part(a: &str, b: &str) -> Ordering {
    let counts = |b: &u8| b.is_ascii_alphanumeric() || [b'~', b'^'].contains(b);
    let next = |rest: &mut &[u8]| *rest = &rest[rest.iter().position(counts).unwrap_or(rest.len())..];
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        next(&mut a);
        next(&mut b);
        match (a.first(), b.first()) {
            (Some(b'~'), Some(b'~')) | (Some(b'^'), Some(b'^')) => (a, b) = (&a[1..], &b[1..]),
            (Some(b'~'), _) | (None, Some(b'^')) => return Ordering::Less,
            (_, Some(b'~')) | (Some(b'^'), None) => return Ordering::Greater,
            (Some(b'^'), _) => return Ordering::Less,
            (_, Some(b'^')) => return Ordering::Greater,
            (None, _) | (_, None) => return a.len().min(1).cmp(&b.len().min(1)),
            (Some(x), Some(y)) if x.is_ascii_digit() != y.is_ascii_digit() => {
                return x.is_ascii_digit().cmp(&y.is_ascii_digit());
            }
            (Some(x), Some(_)) => {
                let (digits, run_a, run_b) = (x.is_ascii_digit(), run(&mut a), run(&mut b));
                let order = if digits { run_a.len().cmp(&run_b.len()) } else { Ordering::Equal };
                let order = order.then_with(|| run_a.cmp(run_b));
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

/// Takes the run of digits, without zeroes before them, or of letters that `rest` begins with.
fn run<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let digits = rest.first().is_some_and(u8::is_ascii_digit);
    let same = |b: &u8| if digits { b.is_ascii_digit() } else { b.is_ascii_alphabetic() };
    let (run, more) = rest.split_at(rest.iter().position(|b| !same(b)).unwrap_or(rest.len()));
    *rest = more;
    let zeroes = if digits { run.iter().take_while(|b| **b == b'0').count() } else { 0 };
    &run[zeroes..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        // Ascending, equal ones on one line; those of rpm's tests/rpmvercmp.at, too.
        let table: &[&[&str]] = &[
            &["1.0~rc1", "1.0~rc01"],
            &["1.0~rc1^git1"],
            &["1.0~rc2"],
            &["1.0", "1_0", "1.0.", "0:1.0", "00:1.00"],
            &["1.0^"],
            &["1.0^git1~pre"],
            &["1.0^git1"],
            &["1.0^git2"],
            &["1.0a"],
            &["1.0b"],
            &["1.0.1"],
            &["1.1"],
            &["1.10", "1.010"],
            &["2b"],
            &["2.0"],
            &["10xyz"],
            &["10.1xyz"],
            &["99999999999999999999999999999"],
            &["1:0"],
        ];
        for (i, line) in table.iter().enumerate() {
            for (j, other) in table.iter().enumerate() {
                for (a, b) in line.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                    assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
                }
            }
        }
        for (version, bound, want) in [
            ("1.2-3.fc40", "1.2", Ordering::Equal),
            ("1.2-3.fc40", "1.2-3", Ordering::Greater),
            ("1.2-3", "1.2-10", Ordering::Less),
            ("2:1.2-3", "1.3", Ordering::Greater),
        ] {
            assert_eq!(compare(version, bound), want, "{version} {bound}");
        }
    }

    /// A header of these tags: of texts, or of numbers.
    fn header(tags: &[(u32, u32, &[u8], u32)]) -> Vec<u8> {
        let (mut index, mut store) = (Vec::new(), Vec::new());
        for (tag, kind, bytes, count) in tags {
            let at = u32::try_from(store.len()).unwrap();
            index.extend([*tag, *kind, at, *count].iter().flat_map(|n| n.to_be_bytes()));
            store.extend_from_slice(bytes);
        }
        let lengths = [tags.len(), store.len()].map(|n| u32::try_from(n).unwrap().to_be_bytes());
        [&lengths.concat(), &index, &store].map(Vec::as_slice).concat()
    }

    #[test]
    fn headers() {
        let numbers = |all: &[u32]| all.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
        let indexes = numbers(&[0, 1, 1, 9, 0]);
        let blob = header(&[
            (tag::NAME, 6, b"tool\0", 1),
            (tag::VERSION, 6, b"1.4\0", 1),
            (tag::RELEASE, 6, b"3\0", 1),
            (tag::EPOCH, 4, &numbers(&[2]), 1),
            (tag::DIRINDEXES, 4, &indexes, 5),
            (tag::DIRNAMES, 8, b"/usr/bin/\0/etc/\0", 2),
            (tag::BASENAMES, 8, b"tool\0conf\0..\0far\0gone\0", 5),
            (tag::FILESTATES, 1, &[0, 0, 0, 0, 2], 5),
        ]);
        let parsed = Header::parse(&blob).unwrap();
        let package = parsed.package().unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("tool", "2:1.4-3"));
        assert_eq!((package.architecture.as_str(), package.licence), ("", None));
        let files: Vec<_> = parsed.files().map(|p| p.to_string()).collect();
        assert_eq!(files, ["/usr/bin/tool", "/etc/conf"]);
        // Cut short, and with each byte another: never a panic.
        for n in 0..blob.len() {
            let mut other = blob.clone();
            other[n] = !other[n];
            for bytes in [&blob[..n], &other] {
                if let Some(header) = Header::parse(bytes) {
                    let _ = (header.package(), header.files().count());
                }
            }
        }
        let huge = header(&[(tag::NAME, 6, b"no end", 1), (tag::BASENAMES, 8, b"\0", u32::MAX)]);
        let parsed = Header::parse(&huge).unwrap();
        assert!(parsed.package().is_none() && parsed.files().next().is_none());
        assert!(Header::parse(&[0xff; 64]).is_none());
    }
}
