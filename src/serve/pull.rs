//! Pull: manifests and blobs, whole or in part (distribution-spec, "Pull").

use super::answer::{self, CONTENT_DIGEST, Code, Refusal};
use super::body::FileBody;
use super::names::Place;
use super::route::{Wanted, range};
use super::router::App;
use super::walk;
use crate::oci::{Descriptor, Digest};
use crate::store;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::fs::File;

/// The manifest or index that `reference`, a tag or a digest, means in `place`.
pub fn find(app: &App, place: &Place, reference: &str) -> Result<Descriptor, Refusal> {
    let unknown =
        || Refusal::new(Code::ManifestUnknown, format!("no manifest {reference} in {}", place.name()));
    let items = app.items()?;
    if !reference.contains(':') {
        let tags = place.tags(&items);
        return tags.get(reference).map(|(_, item)| item.descriptor.clone()).ok_or_else(unknown);
    }
    let digest: Digest = reference.parse().map_err(|_| unknown())?;
    let members = place.members(&items);
    let mut descriptors = members.iter().map(|(_, item)| &item.descriptor);
    if let Some(descriptor) = descriptors.clone().find(|d| d.digest == digest) {
        return Ok(descriptor.clone());
    }
    let indexes = descriptors.by_ref().filter(|d| d.is_index()).cloned();
    walk::documents(&app.store, indexes)?.into_iter().find(|d| d.digest == digest).ok_or_else(unknown)
}

/// GET and HEAD of a manifest.
pub fn manifest(app: &App, place: &Place, reference: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let descriptor = find(app, place, reference)?;
    let bytes = app.store.document(&descriptor).map_err(|e| match e {
        store::Error::NoBlob { .. } => {
            Refusal::new(Code::ManifestUnknown, format!("manifest {} is not here", descriptor.digest))
        }
        e => e.into(),
    })?;
    if is_known(headers, &descriptor.digest) {
        return Ok(described(answer::empty(StatusCode::NOT_MODIFIED), &descriptor.digest));
    }
    let length = bytes.len().to_string();
    let mut response = Body::from(bytes).into_response();
    answer::set(&mut response, header::CONTENT_TYPE, &descriptor.media_type);
    answer::set(&mut response, header::CONTENT_LENGTH, &length);
    Ok(described(response, &descriptor.digest))
}

/// GET and HEAD of a blob.
pub fn blob(app: &App, method: &Method, digest: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let unknown = || Refusal::new(Code::BlobUnknown, format!("no blob {digest} here"));
    let digest: Digest = digest.parse().map_err(|_| unknown())?;
    if method == Method::HEAD {
        app.hold(&digest)?;
    }
    let size = app.store.size(&digest)?.ok_or_else(unknown)?;
    if is_known(headers, &digest) {
        return Ok(described(answer::empty(StatusCode::NOT_MODIFIED), &digest));
    }
    let wanted = range(headers.get(header::RANGE).and_then(|r| r.to_str().ok()), size);
    let (status, start, len) = match wanted {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Wanted::Nothing => {
            return Err(Refusal::new(Code::SizeInvalid, format!("{digest} has {size} bytes"))
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    let mut response = if method == Method::HEAD {
        answer::empty(status)
    } else {
        let file = File::open(app.store.blob_path(&digest)).map_err(|_| unknown())?;
        let mut response = Body::new(FileBody::new(file, start, len)?).into_response();
        *response.status_mut() = status;
        response
    };
    answer::set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    answer::set(&mut response, header::CONTENT_LENGTH, &len.to_string());
    answer::set(&mut response, header::ACCEPT_RANGES, "bytes");
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {start}-{}/{size}", start + len - 1);
        answer::set(&mut response, header::CONTENT_RANGE, &range);
    }
    Ok(described(response, &digest))
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client has this content already.
fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    let tag = etag(digest);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    known.is_some_and(|v| v.split(',').any(|t| t.trim().trim_start_matches("W/") == tag))
}

fn described(mut response: Response, digest: &Digest) -> Response {
    answer::set(&mut response, CONTENT_DIGEST, &digest.to_string());
    answer::set(&mut response, header::ETAG, &etag(digest));
    answer::set(&mut response, HeaderName::from_static("x-content-type-options"), "nosniff");
    response
}
