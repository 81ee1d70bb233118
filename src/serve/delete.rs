//! Content management: tags, manifests and blobs go (distribution-spec, "Content Management").
//!
//! What is deleted is a name or a repository's hold on a document; its blobs stay until `prune`
//! or a DELETE of each.

use super::answer::{self, Code, Refusal};
use super::names::{Item, Place, Rank};
use super::router::App;
use super::{pull, walk};
use crate::oci::{Descriptor, Digest};
use axum::http::StatusCode;
use axum::response::Response;

type Answer = Result<Response, Refusal>;

/// DELETE of a tag, or of a manifest with all its tags.
pub fn manifest(app: &App, place: &Place, reference: &str) -> Answer {
    let descriptor = pull::find(app, place, reference)?;
    let items = app.items()?;
    let own: Vec<&Item> = place
        .members(&items)
        .into_iter()
        .filter(|(rank, item)| *rank == Rank::Own && item.descriptor.digest == descriptor.digest)
        .map(|(_, item)| item)
        .collect();
    if own.is_empty() {
        let message = "this was not pushed here: only the owner of the store removes it, by shipimg rmi";
        return Err(Refusal::new(Code::Unsupported, message));
    }
    if reference.contains(':') {
        forget_all(app, place, &own, &descriptor)?;
    } else {
        if own.len() == 1 {
            app.store.keep(&place.own_name(), &descriptor)?;
        }
        forget(app, place, reference, &descriptor)?;
    }
    Ok(answer::empty(StatusCode::ACCEPTED))
}

fn forget_all(app: &App, place: &Place, own: &[&Item], descriptor: &Descriptor) -> Result<(), Refusal> {
    let items = app.items()?;
    let others = place.members(&items).into_iter().filter(|(rank, item)| {
        *rank == Rank::Own && item.descriptor.is_index() && item.descriptor.digest != descriptor.digest
    });
    let others = others.map(|(_, item)| item.descriptor.clone());
    if walk::documents(&app.store, others)?.iter().any(|d| d.digest == descriptor.digest) {
        let message = "an index of this repository lists it, delete that first";
        return Err(Refusal::new(Code::Unsupported, message));
    }
    for tag in own.iter().filter_map(|item| item.tag.as_deref()) {
        forget(app, place, tag, descriptor)?;
    }
    Ok(app.store.release(&place.own_name(), &[&descriptor.digest].into())?)
}

fn forget(app: &App, place: &Place, tag: &str, descriptor: &Descriptor) -> Result<(), Refusal> {
    if let Some(reference) = place.tagged(tag) {
        app.store.untag_from(&reference, &descriptor.digest)?;
    }
    Ok(())
}

/// DELETE of a blob that nothing needs.
pub fn blob(app: &App, digest: &str) -> Answer {
    let unknown = || Refusal::new(Code::BlobUnknown, format!("no blob {digest} here"));
    let digest: Digest = digest.parse().map_err(|_| unknown())?;
    app.store.size(&digest)?.ok_or_else(unknown)?;
    // What this server holds for a push to come does not count: the client knows better.
    let own = app.holds.count(&digest);
    // Under the lock of the store nobody takes hold of it meanwhile.
    let survey = app.store.pruning()?;
    let held = survey.held().iter().filter(|d| **d == digest).count();
    if held > own || walk::needed(&app.store, survey.entries())?.contains(&digest) {
        return Err(Refusal::new(Code::Unsupported, format!("an image needs {digest}")));
    }
    std::fs::remove_file(app.store.blob_path(&digest))?;
    Ok(answer::empty(StatusCode::ACCEPTED))
}
