//! Push: uploads in one or many pieces, mounts, manifests (distribution-spec, "Push").

use super::answer::{self, Code, Refusal};
use super::body;
use super::discover::Facts;
use super::names::{Place, Rank};
use super::route::chunk;
use super::router::{App, Params, blocking};
use super::uploads::{self, Uploads, Writing};
use crate::oci::{Algorithm, Descriptor, Digest, Document, Hasher, media_type};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::Response;
use std::collections::BTreeSet;
use std::sync::Arc;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

type Answer = Result<Response, Refusal>;

/// POST: a mount, a whole blob at once, or the start of an upload.
pub async fn start(app: Arc<App>, place: Place, params: Params, headers: &HeaderMap, body: Body) -> Answer {
    if let Some(mount) = &params.mount {
        let digest = digest(mount)?;
        app.hold(&digest)?;
        if app.store.size(&digest)?.is_some() {
            return Ok(answer::created(&blob_location(&place, &digest), &digest));
        }
    }
    let uploads = app.uploads()?;
    let id = uploads.start(place.name())?;
    if params.digest.is_some() && params.mount.is_none() {
        return finish(app, place, &id, params, headers, body).await;
    }
    Ok(accepted(&place, &id, 0))
}

/// GET: how far an upload is.
pub async fn status(app: &App, place: &Place, id: &str) -> Answer {
    let upload = app.uploads()?.take(place.name(), id).await?;
    let mut response = accepted(place, id, upload.len());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// PATCH: the next chunk, or a stream of unknown length.
pub async fn patch(app: Arc<App>, place: Place, id: &str, headers: &HeaderMap, body: Body) -> Answer {
    let upload = append(app.uploads()?, &place, id, headers, body).await?;
    Ok(accepted(&place, id, upload.len()))
}

/// PUT: the last chunk, where there is one, and the digest of it all.
pub async fn finish(
    app: Arc<App>,
    place: Place,
    id: &str,
    params: Params,
    headers: &HeaderMap,
    body: Body,
) -> Answer {
    let digest = digest(params.digest.as_deref().unwrap_or_default())?;
    let upload = append(app.uploads()?, &place, id, headers, body).await?;
    let (held, wanted) = (Arc::clone(&app), digest.clone());
    let published = blocking(move || {
        held.hold(&wanted)?;
        upload.publish(&held.store, &wanted)
    });
    let published = published.await;
    let _ = app.uploads()?.end(place.name(), id);
    published?;
    Ok(answer::created(&blob_location(&place, &digest), &digest))
}

/// DELETE: gives an upload up.
pub fn cancel(app: &App, place: &Place, id: &str) -> Answer {
    app.uploads()?.end(place.name(), id)?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

async fn append(
    uploads: &Uploads,
    place: &Place,
    id: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Writing, Refusal> {
    let upload = uploads.take(place.name(), id).await?;
    match expected(headers, upload.len()) {
        Ok(limit) => uploads::receive(upload, body, limit).await,
        Err(refusal) => {
            let here = last_byte(upload.len());
            drop(upload);
            body::drain(body).await;
            Err(refusal.header(header::LOCATION, upload_location(place, id)).header(header::RANGE, here))
        }
    }
}

/// How many bytes a chunk has, where its headers say so; it must begin at byte `at`.
fn expected(headers: &HeaderMap, at: u64) -> Result<Option<u64>, Refusal> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let length = text(header::CONTENT_LENGTH).and_then(|l| l.parse::<u64>().ok());
    let Some(range) = text(header::CONTENT_RANGE) else { return Ok(length) };
    let invalid = |code, message: String| Err(Refusal::new(code, message));
    let Some((first, last)) = chunk(range) else {
        return invalid(Code::BlobUploadInvalid, format!("Content-Range {range:?} is not FIRST-LAST"));
    };
    if first != at {
        return Err(Refusal::new(Code::BlobUploadInvalid, format!("the next byte is {at}, not {first}"))
            .status(StatusCode::RANGE_NOT_SATISFIABLE));
    }
    let size = last - first + 1;
    if length.is_some_and(|l| l != size) {
        return invalid(Code::SizeInvalid, format!("Content-Range {range} and Content-Length differ"));
    }
    Ok(Some(size))
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|e: crate::oci::Error| Refusal::new(Code::DigestInvalid, e.to_string()))
}

fn blob_location(place: &Place, digest: &Digest) -> String {
    format!("/v2/{}/blobs/{digest}", place.name())
}

fn upload_location(place: &Place, id: &str) -> String {
    format!("/v2/{}/blobs/uploads/{id}", place.name())
}

fn last_byte(len: u64) -> String {
    format!("0-{}", len.saturating_sub(1))
}

fn accepted(place: &Place, id: &str, len: u64) -> Response {
    let mut response = answer::empty(StatusCode::ACCEPTED);
    answer::set(&mut response, header::LOCATION, &upload_location(place, id));
    answer::set(&mut response, header::RANGE, &last_byte(len));
    answer::set(&mut response, UPLOAD_ID, id);
    response
}

/// PUT of a manifest or index by tag or digest.
pub async fn manifest(
    app: Arc<App>,
    place: Place,
    reference: String,
    headers: &HeaderMap,
    body: Body,
) -> Answer {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
    let declared = declared.split(';').next().unwrap_or_default().trim().to_string();
    let most = app.store.limits().document;
    let Some(bytes) = body::whole(body, most).await? else {
        return Err(Refusal::new(Code::SizeInvalid, format!("a manifest has at most {most} bytes"))
            .status(StatusCode::PAYLOAD_TOO_LARGE));
    };
    blocking(move || store_manifest(&app, &place, &reference, &declared, &bytes)).await
}

fn store_manifest(app: &App, place: &Place, reference: &str, declared: &str, bytes: &[u8]) -> Answer {
    let invalid = |e: String| Refusal::new(Code::ManifestInvalid, e);
    let document = Document::parse(bytes, declared).map_err(|e| invalid(e.to_string()))?;
    let facts = Facts::parse(bytes).map_err(|e| invalid(e.to_string()))?;
    let by_digest = if reference.contains(':') { Some(digest(reference)?) } else { None };
    let mut hasher = Hasher::new(by_digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm));
    hasher.update(bytes);
    let got = hasher.finish();
    if by_digest.as_ref().is_some_and(|d| *d != got) {
        return Err(Refusal::new(Code::DigestInvalid, format!("the manifest has digest {got}")));
    }
    check_blobs(app, &document)?;
    let media_type = match (&facts.media_type, &document) {
        (Some(inner), _) => inner.clone(),
        (None, _) if media_type::DOCUMENTS.contains(&declared) => declared.to_string(),
        (None, Document::Manifest(_)) => media_type::MANIFEST.to_string(),
        (None, Document::Index(_)) => media_type::INDEX.to_string(),
    };
    let mut descriptor = Descriptor::new(media_type, got, bytes.len() as u64);
    descriptor.artifact_type.clone_from(&facts.artifact_type);
    app.store.put_as(&descriptor, bytes)?;
    if by_digest.is_some() {
        hold(app, place, &descriptor)?;
    } else {
        tag(app, place, reference, &descriptor)?;
    }
    if let Document::Index(index) = &document {
        let members: BTreeSet<&Digest> = index.manifests.iter().map(|m| &m.digest).collect();
        app.store.release(&place.own_name(), &members)?;
    }
    let location = format!("/v2/{}/manifests/{}", place.name(), descriptor.digest);
    let mut response = answer::created(&location, &descriptor.digest);
    if let Some(subject) = facts.subject {
        answer::set(&mut response, SUBJECT, &subject.digest.to_string());
    }
    Ok(response)
}

/// A manifest's blobs must be here, but for foreign layers, which lie at their URLs; an index may
/// list images that are not here, as when one platform of many is copied.
fn check_blobs(app: &App, document: &Document) -> Result<(), Refusal> {
    let Document::Manifest(manifest) = document else { return Ok(()) };
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if blob.urls.is_empty() && !app.store.has(blob)? {
            let message = format!("no blob {} of {} bytes here", blob.digest, blob.size);
            return Err(Refusal::new(Code::ManifestBlobUnknown, message));
        }
    }
    Ok(())
}

/// Holds a manifest by digest, unless something of the repository leads to it.
fn hold(app: &App, place: &Place, descriptor: &Descriptor) -> Result<(), Refusal> {
    let items = app.items()?;
    let own: Vec<Descriptor> = place
        .members(&items)
        .into_iter()
        .filter(|(rank, _)| *rank == Rank::Own)
        .map(|(_, item)| item.descriptor.clone())
        .collect();
    if super::walk::documents(&app.store, own)?.iter().any(|d| d.digest == descriptor.digest) {
        return Ok(());
    }
    Ok(app.store.keep(&place.own_name(), descriptor)?)
}

/// Gives a tag; what had it before is held by digest from now on.
fn tag(app: &App, place: &Place, tag: &str, descriptor: &Descriptor) -> Result<(), Refusal> {
    let reference = place
        .tagged(tag)
        .ok_or_else(|| Refusal::new(Code::TagInvalid, format!("{tag:?} cannot be a tag")))?;
    let items = app.items()?;
    if let Some((Rank::Own, old)) = place.tags(&items).get(tag)
        && old.descriptor.digest != descriptor.digest
    {
        app.store.keep(&place.own_name(), &old.descriptor)?;
    }
    Ok(app.store.tag(&reference, descriptor)?)
}
