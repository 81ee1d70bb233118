//! What a registry has: tags, referrers, its catalogue, and what its search finds.
//!
//! Lists come in pages that a Link header chains (distribution-spec, "Listing tags"). A page
//! has at most [`Options::document`] bytes, and the next one must be of the same origin.

use super::client::Answer;
use super::connection::{Connection, retried};
use super::remote::Remote;
use super::{Error, Options, Result};
use crate::oci::{Descriptor, Digest, Document, media_type};
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

/// How many entries a page is asked to have.
const PAGE: usize = 1000;
/// How many pages are read.
const MAX_PAGES: usize = 10_000;
/// How many results a page of a search has at most (Docker Hub's limit).
const SEARCH_PAGE: usize = 100;

/// A repository that a search has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The registry, as in references.
    pub registry: String,
    /// The repository, as in references.
    pub repository: String,
    /// Its description; empty where the registry has none.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// Whether the registry's owner answers for it.
    pub official: bool,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Search {
    results: Vec<SearchResult>,
    #[serde(default)]
    num_pages: usize,
}

#[derive(Deserialize)]
struct SearchResult {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: u64,
    #[serde(default)]
    is_official: bool,
}

impl Remote {
    /// The first `limit` tags of the repository, in the registry's order.
    ///
    /// # Errors
    /// [`Error::NoRepository`], [`Error::Redirect`], and those of the network.
    pub fn tags(&self, limit: usize) -> Result<Vec<String>> {
        let upstream = self.places.upstream();
        let connection = upstream.connection()?;
        let mut url = upstream.url(&connection, "tags", "list");
        url.query_pairs_mut().append_pair("n", &limit.min(PAGE).to_string());
        let mut tags = Vec::new();
        let result = pages(&connection, url, "tags", |page: Tags| {
            tags.extend(page.tags.unwrap_or_default());
            tags.len() < limit
        });
        result.map_err(|e| match self.no_image(e) {
            Error::NoImage { reference, host, message } => Error::NoRepository {
                registry: reference.registry().to_string(),
                repository: reference.repository().to_string(),
                host,
                message,
            },
            other => other,
        })?;
        tags.truncate(limit);
        Ok(tags)
    }

    /// What refers to the manifest or index, as signatures do, by the referrers API, or where
    /// the registry has none by the tag that stands in for it (distribution-spec, "Listing
    /// referrers"); with `artifact_type` only those of that type.
    ///
    /// # Errors
    /// [`Error::Oci`] for a malformed list, and those of the network.
    pub fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let upstream = self.places.upstream();
        let connection = upstream.connection()?;
        let mut url = upstream.url(&connection, "referrers", &subject.to_string());
        if let Some(kind) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", kind);
        }
        let mut found = match index_pages(&connection, url) {
            Err(Error::Status { status, .. }) if [400, 404, 405].contains(&status.as_u16()) => {
                let tag = subject.to_string().replacen(':', "-", 1);
                match index_pages(&connection, upstream.url(&connection, "manifests", &tag)) {
                    Err(Error::Status { status: StatusCode::NOT_FOUND, .. }) => Vec::new(),
                    other => other?,
                }
            }
            other => other?,
        };
        found.retain(|d| artifact_type.is_none_or(|kind| d.artifact_type.as_deref() == Some(kind)));
        Ok(found)
    }
}

/// Repositories of `registry` that go by `term`: by its search API where it has one
/// (`/v1/search`, as Docker Hub), else those of its catalogue whose name has `term` in it.
/// `keep` says which count towards `limit`.
///
/// # Errors
/// [`Error::Status`] where it has neither; those of the network.
pub fn search(
    registry: &str,
    term: &str,
    limit: usize,
    keep: &dyn Fn(&Found) -> bool,
    options: &Options,
) -> Result<Vec<Found>> {
    let host = if registry == "docker.io" { "index.docker.io" } else { registry };
    let connection = Connection::open(host, "", options)?;
    let found = match by_search(&connection, registry, term, limit, keep) {
        Err(Error::Status { status, .. }) if status.is_client_error() && status != 429 => {
            by_catalog(&connection, registry, term, limit, keep)
        }
        other => other,
    };
    let mut found = found?;
    found.truncate(limit);
    Ok(found)
}

fn by_search(
    connection: &Connection,
    registry: &str,
    term: &str,
    limit: usize,
    keep: &dyn Fn(&Found) -> bool,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for page in 1..=MAX_PAGES {
        let mut url = connection.url("/v1/search");
        let count = limit.clamp(1, SEARCH_PAGE).to_string();
        url.query_pairs_mut().append_pair("q", term).append_pair("n", &count);
        if page > 1 {
            url.query_pairs_mut().append_pair("page", &page.to_string());
        }
        let answer = get(connection, &url)?;
        let search: Search = json(connection, answer, "search results")?;
        let last = search.results.is_empty() || page >= search.num_pages;
        let results = search.results.into_iter().map(|r| Found {
            registry: registry.to_string(),
            repository: if r.name.contains('/') || registry != "docker.io" {
                r.name
            } else {
                format!("library/{}", r.name)
            },
            description: r.description.unwrap_or_default(),
            stars: r.star_count,
            official: r.is_official,
        });
        found.extend(results.filter(|f| keep(f)));
        if last || found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

fn by_catalog(
    connection: &Connection,
    registry: &str,
    term: &str,
    limit: usize,
    keep: &dyn Fn(&Found) -> bool,
) -> Result<Vec<Found>> {
    let mut url = connection.url("/v2/_catalog");
    url.query_pairs_mut().append_pair("n", &PAGE.to_string());
    let mut found = Vec::new();
    pages(connection, url, "the catalogue", |page: Catalog| {
        let names = page.repositories.unwrap_or_default().into_iter();
        let hits = names.filter(|n| n.contains(term)).map(|repository| Found {
            registry: registry.to_string(),
            repository,
            description: String::new(),
            stars: 0,
            official: false,
        });
        found.extend(hits.filter(|f| keep(f)));
        found.len() < limit
    })?;
    Ok(found)
}

fn index_pages(connection: &Connection, url: Url) -> Result<Vec<Descriptor>> {
    let mut found = Vec::new();
    let mut next = Some(url);
    for _ in 0..MAX_PAGES {
        let Some(url) = next.take() else { break };
        let answer = get(connection, &url)?;
        next = next_page(connection, &answer)?;
        let bytes = answer.document("referrers")?;
        if let Document::Index(index) = Document::parse(&bytes, media_type::INDEX)? {
            found.extend(index.manifests);
        }
    }
    Ok(found)
}

/// Reads pages from `url` on while `take` wants more.
fn pages<T: for<'a> Deserialize<'a>>(
    connection: &Connection,
    url: Url,
    what: &'static str,
    mut take: impl FnMut(T) -> bool,
) -> Result<()> {
    let mut next = Some(url);
    for _ in 0..MAX_PAGES {
        let Some(url) = next.take() else { break };
        let answer = get(connection, &url)?;
        next = next_page(connection, &answer)?;
        if !take(json(connection, answer, what)?) {
            break;
        }
    }
    Ok(())
}

fn get(connection: &Connection, url: &Url) -> Result<Answer> {
    let accept = format!("{}, application/json", media_type::INDEX);
    retried(|| {
        connection.exchange(&Method::GET, url, &|at, request| {
            connection.client.send(at, request.header(ACCEPT, &accept))
        })
    })
}

fn json<T: for<'a> Deserialize<'a>>(
    connection: &Connection,
    answer: Answer,
    what: &'static str,
) -> Result<T> {
    let bytes = answer.document(what)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { host: connection.host(), what, source })
}

fn next_page(connection: &Connection, answer: &Answer) -> Result<Option<Url>> {
    let from = answer.url();
    let Some(link) = answer.headers("link").find_map(next_link) else { return Ok(None) };
    let reason = match from.join(link) {
        Ok(next) if next == *from => "the next page is this page",
        Ok(next) if connection.owns(&next) => return Ok(Some(next)),
        Ok(_) => "the next page is of another host",
        Err(_) => "it is no URL",
    };
    let to = link.split('?').next().unwrap_or_default().chars().take(200).collect();
    Err(Error::Redirect { host: connection.host(), to, reason })
}

/// The target of the link that is called `next` (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |p: &str| {
            p.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
            })
        };
        parameters.split(';').any(is_next).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::next_link;

    #[test]
    fn links() {
        for (header, want) in [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Some("/v2/a/tags/list?n=2&last=b")),
            ("<x>;rel=next", Some("x")),
            (r#"<p>; rel="prev", <n>; title="t"; REL="next""#, Some("n")),
            (r#"<p>; rel="prev""#, None),
            ("x; rel=next", None),
            ("<x; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_link(header), want, "{header}");
        }
    }
}
