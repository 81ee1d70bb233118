//! Which archives a root is made from.
//!
//! A suite's data comes from the caller ([`Archive`]). The host's own apt sources
//! ([`super::host`]) may replace its addresses: the entry that serves the same distribution is
//! the mirror that the host's administrator chose, whatever suite the host itself runs. Which
//! keys are trusted is never the host's choice: a third party's key on an entry of the
//! distribution's would otherwise vouch for the root's packages.

use super::{Error, Result};
use crate::oci::iso8601;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Some suites of one archive address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repo {
    /// The archive's address without a slash at the end: `http://ftp.debian.org/debian`.
    pub uri: String,
    /// Other addresses of the same archive, for when that one fails.
    pub mirrors: Vec<String>,
    /// Suites, as `bookworm`, `bookworm-updates`; `./` and the like for a flat archive.
    pub suites: Vec<String>,
    /// Components, as `main`.
    pub components: Vec<String>,
    /// Keyring files; a Release file must be signed by a key of one of them.
    pub signed_by: Vec<PathBuf>,
    /// Whether Release files are taken whoever signed them, or nobody.
    pub trusted: bool,
    /// Whether the root has no copy of the keyring of its own, and gets one.
    pub carries_keyring: bool,
    /// Whether it was added to the archives of the suite.
    pub added: bool,
}

/// All that is to be known about a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// The suite, as `bookworm`.
    pub suite: String,
    /// The main suite and its updates, the security suite; the first is the main one.
    pub repos: Vec<Repo>,
    /// Suites of the distribution, by which the host's sources are recognised.
    pub distribution: Vec<String>,
    /// Packages that belong to the base whatever their priority.
    pub extra_base: Vec<String>,
    /// Packages that no dependency of the base may bring in.
    pub never: Vec<String>,
    /// The state of the archives that is taken; none for today's.
    pub snapshot: Option<Snapshot>,
}

/// A state of an archive, by its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name: `20260901T000000Z`.
    pub id: String,
    /// The time.
    pub time: SystemTime,
}

impl std::str::FromStr for Snapshot {
    type Err = String;

    fn from_str(id: &str) -> std::result::Result<Self, String> {
        let time = iso8601(id).ok_or("a time is written 20260901T000000Z")?;
        Ok(Self { id: id.to_string(), time })
    }
}

impl Archive {
    /// Puts the addresses of the host's sources in place of the suite's own.
    pub fn use_host(&mut self, host: &[Repo]) {
        let serves = |repo: &Repo, security: bool| {
            repo.suites.iter().any(|s| is_security(s) == security && self.distribution.contains(&base(s)))
        };
        for repo in &mut self.repos {
            let security = repo.suites.iter().all(|s| is_security(s));
            if let Some(found) = host.iter().find(|h| serves(h, security)) {
                repo.uri.clone_from(&found.uri);
            }
        }
    }

    /// Puts these addresses in place of those of the main suite and its updates, `@SNAPSHOTID@` in
    /// them replaced.
    ///
    /// # Errors
    /// [`Error::Source`] for a placeholder without a snapshot.
    pub fn use_mirrors(&mut self, uris: &[String]) -> Result<()> {
        let snapshot = self.snapshot.as_ref().map(|s| s.id.as_str());
        let address = |uri: &String| match snapshot {
            None if uri.contains(PLACEHOLDER) => {
                Err(Error::Source { line: uri.clone(), reason: "no snapshot is asked for".to_string() })
            }
            id => Ok(uri.replace(PLACEHOLDER, id.unwrap_or_default()).trim_end_matches('/').to_string()),
        };
        let uris = uris.iter().map(address).collect::<Result<Vec<_>>>()?;
        let Some((first, others)) = uris.split_first() else { return Ok(()) };
        let main = |r: &&mut Repo| !r.added && !r.suites.iter().all(|s| is_security(s));
        for repo in self.repos.iter_mut().filter(main) {
            repo.uri.clone_from(first);
            repo.mirrors = others.to_vec();
        }
        Ok(())
    }

    /// Takes the archives as they were: from the distribution's own server of snapshots.
    pub fn use_snapshot(&mut self, snapshot: Snapshot) {
        let debian = self.distribution.iter().any(|s| s == "sid");
        for repo in &mut self.repos {
            let security = repo.suites.iter().all(|s| is_security(s));
            let base = match (debian, security) {
                (true, true) => "https://snapshot.debian.org/archive/debian-security",
                (true, false) => "https://snapshot.debian.org/archive/debian",
                (false, _) => "https://snapshot.ubuntu.com/ubuntu",
            };
            repo.uri = format!("{base}/{}", snapshot.id);
            repo.mirrors.clear();
        }
        self.snapshot = Some(snapshot);
    }

    /// Takes these components of all suites.
    pub fn use_components(&mut self, components: &[String]) {
        self.repos.iter_mut().for_each(|r| r.components = components.to_vec());
    }

    /// Leaves the main suite only, without updates and security.
    pub fn main_only(&mut self) {
        for repo in &mut self.repos {
            repo.suites.retain(|s| *s == self.suite);
        }
        self.repos.retain(|r| !r.suites.is_empty());
    }

    /// Sets the keyring of all suites. One that is no distribution's own goes into the root too.
    pub fn use_keyring(&mut self, keyring: &Path) {
        for repo in &mut self.repos {
            (repo.signed_by, repo.carries_keyring) = (vec![keyring.to_path_buf()], !is_own(keyring));
        }
    }

    /// Where a file may be had that lies at `url`: there first, then at other addresses of its archive.
    /// Where that is none of these archives, `bases` are addresses of the suite's own archives on other
    /// machines: what lies below one of them has the same path below those here.
    #[must_use]
    pub fn everywhere<'a>(&self, url: &str, mut bases: impl Iterator<Item = &'a str>) -> Vec<String> {
        let path = |base: &str| url.strip_prefix(base).filter(|p| p.starts_with('/')).map(str::to_string);
        let at = |r: &Repo, path: &str| r.addresses().map(|a| format!("{a}{path}")).collect::<Vec<_>>();
        let below = |r: &Repo| r.addresses().find_map(path).map(|path| at(r, &path));
        let own = |path: String| {
            let own = self.repos.iter().filter(|r| !r.added);
            own.flat_map(|r| at(r, &path)).collect()
        };
        let others = self.repos.iter().find_map(below).or_else(|| bases.find_map(path).map(own));
        let mut all = vec![url.to_string()];
        for other in others.unwrap_or_default() {
            if !all.contains(&other) {
                all.push(other);
            }
        }
        all
    }

    /// One-line source entries (sources.list(5)), as debootstrap leaves them.
    #[must_use]
    pub fn sources_list(&self) -> String {
        let mut text = String::new();
        for repo in &self.repos {
            let mut options = Vec::new();
            if repo.trusted {
                // Of these no keyring goes into the root.
                if repo.signed_by.is_empty() || repo.carries_keyring {
                    options.push("trusted=yes".to_string());
                }
            } else if repo.carries_keyring {
                let paths = repo.signed_by.iter().map(|k| format!("/{ROOT_KEYRINGS}/{}", self.root_name(k)));
                options.push(format!("signed-by={}", paths.collect::<Vec<_>>().join(",")));
            }
            if self.snapshot.is_some() {
                options.push("check-valid-until=no".to_string());
            }
            let options =
                if options.is_empty() { String::new() } else { format!(" [{}]", options.join(" ")) };
            for suite in &repo.suites {
                let line = format!("deb{options} {} {suite} {}", repo.uri, repo.components.join(" "));
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    /// The keyrings that go into the root's `/etc/apt/keyrings`: their files, and their names there.
    #[must_use]
    pub fn root_keyrings(&self) -> Vec<(&Path, String)> {
        self.carried().into_iter().map(|k| (k, self.root_name(k))).collect()
    }

    fn carried(&self) -> Vec<&Path> {
        let repos = self.repos.iter().filter(|r| r.carries_keyring && !r.trusted);
        let mut all: Vec<&Path> = repos.flat_map(|r| &r.signed_by).map(PathBuf::as_path).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// A name of its own for each keyring; apt reads armoured ones by `.asc`, others by `.gpg`.
    fn root_name(&self, keyring: &Path) -> String {
        let stem = keyring.file_stem().unwrap_or_default().to_string_lossy();
        let extension = if keyring.extension().is_some_and(|e| e == "asc") { "asc" } else { "gpg" };
        let same = |k: &&Path| k.file_stem() == keyring.file_stem();
        match self.carried().into_iter().filter(same).position(|k| k == keyring) {
            None | Some(0) => format!("{stem}.{extension}"),
            Some(n) => format!("{stem}-{n}.{extension}"),
        }
    }
}

impl Repo {
    /// All addresses, the first to be tried first.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.uri).chain(&self.mirrors).map(String::as_str)
    }

    /// Reads a one-line source entry (sources.list(5)) for a root of architecture `arch`. Of its
    /// options, `signed-by`, `arch` and `trusted` count, those about translations and the like do
    /// not, and others are refused.
    ///
    /// # Errors
    /// [`Error::Source`].
    pub fn parse(text: &str, arch: &str) -> Result<Self> {
        let bad = |reason: String| Error::Source { line: text.to_string(), reason };
        let Some(Line { options, mut repo }) = Line::read(text) else {
            return Err(bad("not of the form deb [OPTIONS] URI SUITE COMPONENT…".to_string()));
        };
        repo.added = true;
        let flat = repo.suites.iter().all(|s| s.ends_with('/'));
        if flat != repo.components.is_empty() {
            let reason = if flat { "a flat archive has no components" } else { "no component" };
            return Err(bad(reason.to_string()));
        }
        for option in options.split_whitespace() {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let mut values = value.split(',');
            match name.to_ascii_lowercase().as_str() {
                "signed-by" if values.clone().all(|v| v.starts_with('/')) => {
                    repo.signed_by = values.map(PathBuf::from).collect();
                    repo.carries_keyring = true;
                }
                "signed-by" => return Err(bad(format!("{value} is no path of a keyring"))),
                "arch" if values.any(|v| v == arch) => {}
                "arch" => return Err(bad(format!("it is for {value}, the system for {arch}"))),
                "trusted" => repo.trusted = matches!(value, "yes" | "true" | "1"),
                "lang" | "target" | "pdiffs" | "by-hash" => {}
                _ => return Err(bad(format!("option {option} is not known"))),
            }
        }
        Ok(repo)
    }
}

/// A one-line entry.
#[derive(Debug)]
pub(super) struct Line<'t> {
    /// What stands between its brackets.
    pub options: &'t str,
    /// The rest.
    pub repo: Repo,
}

impl<'t> Line<'t> {
    /// Reads `deb [options] URI SUITE COMPONENT…`; none for all else.
    pub(super) fn read(text: &'t str) -> Option<Self> {
        let line = text.split('#').next()?.trim();
        let rest = line.strip_prefix("deb")?.strip_prefix(char::is_whitespace)?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace().map(str::to_string);
        let uri = words.next()?.trim_end_matches('/').to_string();
        let (suites, components) = (vec![words.next()?], words.collect());
        Some(Self { options, repo: Repo { uri, suites, components, ..Repo::default() } })
    }
}

/// Where distributions have their keyrings.
const KEYRINGS: &str = "/usr/share/keyrings";

/// Where a root has keyrings that no package of it brought.
pub(super) const ROOT_KEYRINGS: &str = "etc/apt/keyrings";

/// What stands for a snapshot's name in an address, as in those of apt.
const PLACEHOLDER: &str = "@SNAPSHOTID@";

/// Whether this is a keyring of a distribution, by its name.
pub(super) fn is_distributions(keyring: &Path) -> bool {
    keyring.file_stem().is_some_and(|s| s.to_string_lossy().ends_with("-archive-keyring"))
}

/// Whether it is a distribution's, where the distribution has it: every root has that one too.
pub(super) fn is_own(keyring: &Path) -> bool {
    keyring.starts_with(KEYRINGS) && is_distributions(keyring)
}

fn is_security(suite: &str) -> bool {
    suite.ends_with("-security") || suite.ends_with("/updates")
}

/// `bookworm-updates` → `bookworm`.
fn base(suite: &str) -> String {
    suite.split(['-', '/']).next().unwrap_or_default().to_string()
}

/// All suites, `suite` among them, of the distribution that has it; none where it is unknown.
#[must_use]
pub fn siblings(suite: &str) -> Vec<String> {
    const DISTRIBUTIONS: [&[&str]; 2] = [
        &["bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"],
        &["focal", "jammy", "noble", "plucky", "questing", "resolute", "stonking"],
    ];
    let own = DISTRIBUTIONS.iter().find(|suites| suites.contains(&suite));
    own.into_iter().flat_map(|suites| suites.iter().map(ToString::to_string)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::host::host_repos;
    use super::*;

    fn words(s: &str) -> Vec<String> {
        s.split_whitespace().map(str::to_string).collect()
    }

    fn archive(suite: &str) -> Archive {
        let repo = |uri: &str, suites: String| Repo {
            uri: uri.to_string(),
            suites: words(&suites),
            components: words("main"),
            ..Repo::default()
        };
        Archive {
            suite: suite.to_string(),
            repos: vec![
                repo("http://canonical/debian", format!("{suite} {suite}-updates")),
                repo("http://canonical/security", format!("{suite}-security")),
            ],
            distribution: words("bookworm trixie sid"),
            extra_base: vec![],
            never: vec![],
            snapshot: None,
        }
    }

    fn uris(list: &str, sources: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        std::fs::write(dir.path().join("sources.list"), list).unwrap();
        std::fs::write(dir.path().join("sources.list.d/x.sources"), sources).unwrap();
        let mut a = archive("trixie");
        a.use_host(&host_repos(dir.path()));
        a.repos.into_iter().map(|r| r.uri).collect()
    }

    #[test]
    fn the_host_chooses_the_mirror() {
        let canonical = ["http://canonical/debian", "http://canonical/security"];
        assert_eq!(uris("", ""), canonical);
        assert_eq!(uris("deb http://x/ubuntu noble main\ndeb https://cloud other main\n", ""), canonical);
        let list = "deb-src http://s/debian bookworm main\n#deb http://no/debian sid main\n\
                    deb [arch=amd64 signed-by=/k] http://m/debian/ bookworm main contrib # note\n";
        assert_eq!(uris(list, ""), ["http://m/debian", "http://canonical/security"]);
        let sources = "Types: deb\n# snapshot\nURIs: http://off/debian\nSuites: bookworm\nEnabled: no\n\n\
                       Types: deb deb-src\nURIs: http://m2/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
                       Types: deb\nURIs: http://m2/sec\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(uris("deb cdrom:[x]/ bookworm main", sources), ["http://m2/debian", "http://m2/sec"]);
    }

    #[test]
    fn sources_of_the_image() {
        let mut a = archive("trixie");
        assert_eq!(
            a.sources_list(),
            "deb http://canonical/debian trixie main\ndeb http://canonical/debian trixie-updates main\n\
             deb http://canonical/security trixie-security main\n"
        );
        a.use_mirrors(&["http://m/".to_string()]).unwrap();
        a.main_only();
        assert_eq!(a.sources_list(), "deb http://m trixie main\n");
    }

    #[test]
    fn entries() {
        let repo =
            Repo::parse("deb [ arch=amd64,i386 signed-by=/a.gpg,/b.asc lang=en ] http://x/y/ s main", "i386");
        let repo = repo.unwrap();
        assert_eq!(
            (repo.uri.as_str(), repo.suites, repo.components),
            ("http://x/y", words("s"), words("main"))
        );
        assert_eq!(repo.signed_by, [Path::new("/a.gpg"), Path::new("/b.asc")]);
        assert!(repo.carries_keyring && !repo.trusted);
        assert!(Repo::parse("deb [trusted=yes] http://x ./", "amd64").unwrap().trusted);
        for (line, reason) in [
            ("http://x s main", "not of the form"),
            ("deb-src http://x s main", "not of the form"),
            ("deb http://x s", "no component"),
            ("deb http://x ./ main", "a flat archive has no components"),
            ("deb [arch=amd64] http://x s main", "it is for amd64, the system for arm64"),
            ("deb [signed-by=0123ABCD] http://x s main", "no path of a keyring"),
            ("deb [allow-weak=yes] http://x s main", "option allow-weak=yes is not known"),
        ] {
            let e = Repo::parse(line, "arm64").unwrap_err().to_string();
            assert!(e.contains(reason), "{line}: {e}");
        }
    }

    #[test]
    fn keyrings_of_the_image() {
        let mut a = archive("trixie");
        a.use_keyring(Path::new("/usr/share/keyrings/debian-archive-keyring.gpg"));
        assert!(a.root_keyrings().is_empty() && !a.sources_list().contains("signed-by"));
        a.use_keyring(Path::new("/x/k.pgp"));
        a.main_only();
        for file in ["/y/k.gpg", "/y/k.asc"] {
            a.repos.push(Repo::parse(&format!("deb [signed-by={file}] http://x s main"), "amd64").unwrap());
        }
        a.repos.push(Repo::parse("deb [trusted=yes] http://z ./", "amd64").unwrap());
        let names: Vec<_> = a.root_keyrings().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["k.gpg", "k-1.asc", "k-2.gpg"]);
        assert_eq!(
            a.sources_list(),
            "deb [signed-by=/etc/apt/keyrings/k.gpg] http://canonical/debian trixie main\n\
             deb [signed-by=/etc/apt/keyrings/k-2.gpg] http://x s main\n\
             deb [signed-by=/etc/apt/keyrings/k-1.asc] http://x s main\n\
             deb [trusted=yes] http://z ./\n"
        );
    }

    #[test]
    fn files_of_other_mirrors() {
        let mut a = archive("trixie");
        a.repos.push(Repo::parse("deb [trusted=yes] http://added/x s main", "amd64").unwrap());
        let all = |url: &str| a.everywhere(url, ["http://m/d", "http://m/debian"].into_iter());
        let both = ["http://canonical/debian/p/x", "http://canonical/security/p/x"].map(str::to_string);
        let found = all("http://m/debian/p/x");
        assert!(found[0] == "http://m/debian/p/x" && found[1..] == both, "{found:?}");
        for alone in ["http://elsewhere/debian/p/x", "http://m/debian-security/p", "http://added/x/p"] {
            assert_eq!(all(alone), [alone]);
        }
    }

    #[test]
    fn snapshots() {
        let id = "20260901T000000Z";
        let mut a = archive("trixie");
        let mirror = ["http://m/@SNAPSHOTID@/".to_string(), "http://n".to_string()];
        assert!(a.use_mirrors(&mirror).is_err(), "no snapshot");
        a.use_snapshot(id.parse().unwrap());
        assert_eq!(a.repos[0].uri, format!("https://snapshot.debian.org/archive/debian/{id}"));
        assert_eq!(a.repos[1].uri, format!("https://snapshot.debian.org/archive/debian-security/{id}"));
        assert!(a.sources_list().starts_with("deb [check-valid-until=no] https://snapshot.debian.org/"));
        a.use_mirrors(&mirror).unwrap();
        let first = format!("http://m/{id}");
        assert_eq!(
            a.everywhere("http://n/pool/x", [].into_iter()),
            ["http://n/pool/x".to_string(), format!("{first}/pool/x")]
        );
        let mut ubuntu = Archive { distribution: words("noble"), ..archive("noble") };
        ubuntu.use_snapshot(id.parse().unwrap());
        assert!(ubuntu.repos.iter().all(|r| r.uri == format!("https://snapshot.ubuntu.com/ubuntu/{id}")));
        for bad in ["", "2026", "20260901T000000", "20261301T000000Z", "2026-09-01T00:00:00Z"] {
            assert!(bad.parse::<Snapshot>().is_err(), "{bad}");
        }
    }
}
