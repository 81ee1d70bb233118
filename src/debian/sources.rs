//! Which archives a root is made from, and what the host's apt says about them.
//!
//! A suite's data comes from the caller ([`Archive`]). The host's own apt sources
//! (sources.list(5), both formats) may replace its addresses: the entry that serves the
//! same distribution is the mirror that the host's administrator chose, whatever suite the
//! host itself runs. Proxies and `Check-Valid-Until` come from apt's configuration.

use super::control::{fields, paragraphs};
use super::fetch::Proxies;
use crate::sys::program;
use std::path::{Path, PathBuf};

/// Some suites of one archive address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// The archive's address without a slash at the end: `http://ftp.debian.org/debian`.
    pub uri: String,
    /// Suites, as `bookworm`, `bookworm-updates`.
    pub suites: Vec<String>,
    /// Components, as `main`.
    pub components: Vec<String>,
    /// Keyring files; a Release file must be signed by a key of one of them.
    pub signed_by: Vec<PathBuf>,
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

    /// Puts `uri` in place of the address of the main suite and its updates.
    pub fn use_mirror(&mut self, uri: &str) {
        for repo in self.repos.iter_mut().filter(|r| !r.suites.iter().all(|s| is_security(s))) {
            repo.uri = uri.trim_end_matches('/').to_string();
        }
    }

    /// Leaves the main suite only, without updates and security.
    pub fn main_only(&mut self) {
        for repo in &mut self.repos {
            repo.suites.retain(|s| *s == self.suite);
        }
        self.repos.retain(|r| !r.suites.is_empty());
    }

    /// Sets the keyring of all suites.
    pub fn use_keyring(&mut self, keyring: &Path) {
        self.repos.iter_mut().for_each(|r| r.signed_by = vec![keyring.to_path_buf()]);
    }

    /// One-line source entries (sources.list(5)), as debootstrap leaves them.
    #[must_use]
    pub fn sources_list(&self) -> String {
        let line = |r: &Repo, s: &String| format!("deb {} {s} {}\n", r.uri, r.components.join(" "));
        self.repos.iter().flat_map(|r| r.suites.iter().map(move |s| line(r, s))).collect()
    }
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
        &["focal", "jammy", "noble", "plucky", "questing", "resolute"],
    ];
    let own = DISTRIBUTIONS.iter().find(|suites| suites.contains(&suite));
    own.into_iter().flat_map(|suites| suites.iter().map(ToString::to_string)).collect()
}

/// The binary package sources below `etc_apt` (`/etc/apt`), in apt's order; what cannot be
/// read or used (`cdrom:`, `mirror+file:`) is left out.
#[must_use]
pub fn host_repos(etc_apt: &Path) -> Vec<Repo> {
    let mut files = vec![etc_apt.join("sources.list")];
    let listed = std::fs::read_dir(etc_apt.join("sources.list.d")).into_iter().flatten().flatten();
    let mut more: Vec<PathBuf> = listed.map(|e| e.path()).collect();
    more.sort();
    files.extend(more);
    let mut repos = Vec::new();
    for file in files {
        let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_string();
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match extension.as_str() {
            "list" => repos.extend(text.lines().filter_map(one_line)),
            "sources" => repos.extend(paragraphs(&text).flat_map(stanza)),
            _ => {}
        }
    }
    repos.retain(|r| ["http://", "https://", "file:", "copy:"].iter().any(|s| r.uri.starts_with(s)));
    repos
}

/// `deb [options] URI SUITE COMPONENT…`.
fn one_line(line: &str) -> Option<Repo> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace().map(str::to_string);
    let uri = words.next()?.trim_end_matches('/').to_string();
    Some(Repo { uri, suites: vec![words.next()?], components: words.collect(), signed_by: Vec::new() })
}

/// A paragraph of a `.sources` file: one entry for each of its addresses.
fn stanza(paragraph: &str) -> Vec<Repo> {
    let words = |name: &str| -> Vec<String> {
        let value = fields(paragraph).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v);
        value.unwrap_or_default().split_whitespace().map(str::to_string).collect()
    };
    let enabled = !words("Enabled").first().is_some_and(|e| matches!(e.as_str(), "no" | "false" | "0"));
    if !enabled || !words("Types").iter().any(|t| t == "deb") {
        return Vec::new();
    }
    let (suites, components) = (words("Suites"), words("Components"));
    let repo = |uri: String| Repo {
        uri: uri.trim_end_matches('/').to_string(),
        suites: suites.clone(),
        components: components.clone(),
        signed_by: Vec::new(),
    };
    words("URIs").into_iter().map(repo).collect()
}

/// What apt's configuration says about downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Proxies of apt, or of the environment.
    pub proxies: Proxies,
    /// Whether an expired Release file is refused (`Acquire::Check-Valid-Until`).
    pub check_valid_until: bool,
}

impl Settings {
    /// Asks `apt-config`, where apt is there, and the environment.
    #[must_use]
    pub fn of_host() -> Self {
        let dump = program::output("apt-config", &["dump"]).unwrap_or_default();
        let environment = |name: &str| std::env::var(name).ok();
        Self::new(&String::from_utf8_lossy(&dump), &environment)
    }

    fn new(dump: &str, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            let line = dump.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(" \""));
            line.and_then(|l| l.strip_suffix("\";")).filter(|v| !v.is_empty()).map(str::to_string)
        };
        let proxy = |apt: &str, names: [&str; 2]| {
            let value = get(apt).or_else(|| names.iter().find_map(|n| environment(n)));
            value.filter(|v| !v.is_empty() && v != "DIRECT" && v != "false")
        };
        let http = proxy("Acquire::http::Proxy", ["http_proxy", "HTTP_PROXY"]);
        let https = proxy("Acquire::https::Proxy", ["https_proxy", "HTTPS_PROXY"]).or_else(|| http.clone());
        let check = get("Acquire::Check-Valid-Until");
        let check_valid_until = !check.is_some_and(|v| matches!(v.as_str(), "false" | "no" | "0" | "off"));
        Self { proxies: Proxies { http, https }, check_valid_until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(s: &str) -> Vec<String> {
        s.split_whitespace().map(str::to_string).collect()
    }

    fn archive(suite: &str) -> Archive {
        let repo = |uri: &str, suites: String| Repo {
            uri: uri.to_string(),
            suites: words(&suites),
            components: words("main"),
            signed_by: vec![],
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
        a.use_mirror("http://m/");
        a.main_only();
        assert_eq!(a.sources_list(), "deb http://m trixie main\n");
    }

    #[test]
    fn settings() {
        let none = |_: &str| None;
        let dump = "Acquire::http::Proxy \"http://p:1\";\nAcquire::http::Proxy::x \"DIRECT\";\nAcquire::Check-Valid-Until \"false\";\n";
        let s = Settings::new(dump, &none);
        assert_eq!((s.proxies.http.as_deref(), s.check_valid_until), (Some("http://p:1"), false));
        let s = Settings::new("Acquire::http::Proxy \"DIRECT\";\n", &|n| {
            (n == "http_proxy").then(|| "http://e".to_string())
        });
        assert_eq!((s.proxies.http, s.check_valid_until), (None, true));
        let s = Settings::new("", &|n| (n == "http_proxy").then(|| "http://e".to_string()));
        assert_eq!(s.proxies.https.as_deref(), Some("http://e"));
    }
}
