//! Content discovery: tags, repositories, referrers (distribution-spec, "Content Discovery").

use super::answer::{self, Code, Refusal};
use super::names::{self, Place};
use super::router::{App, Params};
use super::walk;
use crate::oci::{Descriptor, Digest, media_type};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

type Answer = Result<Response, Refusal>;

/// What a manifest or index says beside its blobs.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Its own media type.
    pub media_type: Option<String>,
    /// What sort of artifact it is.
    pub artifact_type: Option<String>,
    /// What it is a referrer of.
    pub subject: Option<Subject>,
    config: Option<Typed>,
    annotations: Option<BTreeMap<String, String>>,
}

/// What a referrer refers to.
#[derive(Debug, serde::Deserialize)]
pub struct Subject {
    /// Its digest.
    pub digest: Digest,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: String,
}

impl Facts {
    /// Reads a manifest's JSON.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    fn kind(&self) -> Option<&str> {
        let own = self.artifact_type.as_deref().filter(|t| !t.is_empty());
        own.or(self.config.as_ref().map(|c| c.media_type.as_str()))
    }
}

/// GET of a repository's tags.
pub fn tags(app: &App, place: &Place, params: &Params) -> Answer {
    let items = app.items()?;
    if place.members(&items).is_empty() {
        return Err(Refusal::new(Code::NameUnknown, format!("no repository {} here", place.name())));
    }
    let tags = place.tags(&items);
    let (tags, next) = page(tags.keys().copied(), params)?;
    let body = json!({"name": place.name(), "tags": tags});
    let mut response = answer::json(StatusCode::OK, "application/json", &body);
    link(&mut response, &format!("/v2/{}/tags/list", place.name()), next);
    Ok(response)
}

/// GET of the repositories.
pub fn catalog(app: &App, registry: &str, params: &Params) -> Answer {
    let repositories = names::catalog(&app.items()?, registry);
    let (repositories, next) = page(repositories.iter().map(String::as_str), params)?;
    let body = json!({"repositories": repositories});
    let mut response = answer::json(StatusCode::OK, "application/json", &body);
    link(&mut response, "/v2/_catalog", next);
    Ok(response)
}

/// Where the next page begins, and how many a page has.
type Next<'a> = Option<(usize, &'a str)>;

/// What of the sorted `all` a page holds.
fn page<'a>(
    all: impl Iterator<Item = &'a str>,
    params: &Params,
) -> Result<(Vec<&'a str>, Next<'a>), Refusal> {
    let invalid =
        |n: &String| Refusal::new(Code::PaginationNumberInvalid, format!("n={n} is no number of results"));
    let n = params.n.as_ref().map(|n| n.parse::<usize>().map_err(|_| invalid(n))).transpose()?;
    let last = params.last.as_deref().unwrap_or_default();
    let mut rest = all.filter(|item| last.is_empty() || *item > last);
    let items: Vec<&str> = rest.by_ref().take(n.unwrap_or(usize::MAX)).collect();
    let more = rest.next().is_some();
    let next = items.last().copied().filter(|_| more).zip(n).map(|(last, n)| (n, last));
    Ok((items, next))
}

fn link(response: &mut Response, path: &str, next: Next<'_>) {
    if let Some((n, last)) = next {
        answer::set(response, header::LINK, &format!("<{path}?n={n}&last={last}>; rel=\"next\""));
    }
}

/// GET of the manifests whose subject is `digest`.
pub fn referrers(app: &App, place: &Place, digest: &str, params: &Params) -> Answer {
    let digest: Digest =
        digest.parse().map_err(|e: crate::oci::Error| Refusal::new(Code::DigestInvalid, e.to_string()))?;
    let items = app.items()?;
    let roots = place.members(&items).into_iter().map(|(_, item)| item.descriptor.clone());
    let mut found = Vec::new();
    for descriptor in walk::documents(&app.store, roots)? {
        match app.store.document(&descriptor).map(|bytes| Facts::parse(&bytes)) {
            Ok(Ok(facts)) if facts.subject.as_ref().is_some_and(|s| s.digest == digest) => {
                let wanted = params.artifact_type.as_deref();
                if wanted.is_none_or(|w| facts.kind() == Some(w)) {
                    found.push(referrer(&descriptor, &facts));
                }
            }
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::warn!("{}: {e}", descriptor.digest),
            Err(e) => tracing::warn!("{e}"),
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": found});
    let mut response = answer::json(StatusCode::OK, media_type::INDEX, &index);
    if params.artifact_type.is_some() {
        answer::set(&mut response, FILTERS, "artifactType");
    }
    Ok(response)
}

fn referrer(descriptor: &Descriptor, facts: &Facts) -> Value {
    let mut value = json!({"mediaType": descriptor.media_type, "digest": descriptor.digest,
        "size": descriptor.size});
    if let Some(kind) = facts.kind() {
        value["artifactType"] = kind.into();
    }
    if let Some(annotations) = &facts.annotations {
        value["annotations"] = json!(annotations);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let get = |n: Option<&str>, last: Option<&str>| {
            let params = Params { n: n.map(Into::into), last: last.map(Into::into), ..Params::default() };
            page(["a", "b", "c"].into_iter(), &params).map(|(items, next)| (items.concat(), next)).ok()
        };
        for (n, last, want) in [
            (None, None, Some(("abc", None))),
            (Some("2"), None, Some(("ab", Some((2, "b"))))),
            (Some("3"), None, Some(("abc", None))),
            (Some("2"), Some("b"), Some(("c", None))),
            (Some("1"), Some("a"), Some(("b", Some((1, "b"))))),
            (None, Some("aa"), Some(("bc", None))),
            (Some("0"), None, Some(("", None))),
            (Some("2"), Some("z"), Some(("", None))),
            (Some("-1"), None, None),
            (Some("x"), None, None),
        ] {
            assert_eq!(get(n, last), want.map(|(i, next)| (i.to_string(), next)), "{n:?} {last:?}");
        }
    }
}
