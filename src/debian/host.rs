//! What the host's apt says: its sources (sources.list(5), both formats), proxies, and whether
//! Release files may be past their date.

use super::control::{fields, paragraphs};
use super::fetch::Proxies;
use super::sources::{Line, Repo};
use crate::sys::program;
use std::path::{Path, PathBuf};

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
            "list" => repos.extend(text.lines().filter_map(|l| Line::read(l).map(|l| l.repo))),
            "sources" => repos.extend(paragraphs(&text).flat_map(stanza)),
            _ => {}
        }
    }
    repos.retain(|r| ["http://", "https://", "file:", "copy:"].iter().any(|s| r.uri.starts_with(s)));
    repos
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
        ..Repo::default()
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
