//! Requests to their handlers, and what all of them share.

use super::answer::{self, Code, Refusal};
use super::auth::Users;
use super::holds::Holds;
use super::names::{Item, Place, own_registry};
use super::route::Route;
use super::uploads::Uploads;
use super::{delete, discover, pull, push};
use crate::oci::Digest;
use crate::store::Store;
use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

const VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// What the handlers share.
#[derive(Debug)]
pub struct App {
    /// The store that is served.
    pub store: Store,
    port: u16,
    users: Option<Arc<Users>>,
    /// None where nothing may be pushed.
    uploads: Option<Uploads>,
    /// What pushes need until their manifests come.
    pub holds: Holds,
    items: Mutex<Option<(Stamp, Arc<Vec<Item>>)>>,
}

/// What changes when `index.json` is replaced.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What may stand after the `?`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Params {
    /// The digest of a blob that is pushed.
    pub digest: Option<String>,
    /// The blob to mount. In which repository (`from`) it is does not matter.
    pub mount: Option<String>,
    /// How many results a page has.
    pub n: Option<String>,
    /// After which result the page begins.
    pub last: Option<String>,
    /// Referrers of this type only.
    pub artifact_type: Option<String>,
    /// From this registry only.
    pub ns: Option<String>,
}

impl App {
    /// Over `store`, for clients that connect to `port`.
    pub fn new(store: Store, port: u16, users: Option<Arc<Users>>, uploads: Option<Uploads>) -> Self {
        Self { store, port, users, uploads, holds: Holds::default(), items: Mutex::default() }
    }

    /// The open uploads.
    pub fn uploads(&self) -> Result<&Uploads, Refusal> {
        self.uploads.as_ref().ok_or_else(read_only)
    }

    /// Keeps `digest` from being pruned until the manifest that a push ends with is here.
    pub fn hold(&self, digest: &Digest) -> Result<(), Refusal> {
        if self.uploads.is_some() { Ok(self.holds.add(&self.store, digest)?) } else { Ok(()) }
    }

    /// The entries of the store as they are now.
    pub fn items(&self) -> Result<Arc<Vec<Item>>, Refusal> {
        let stamp = match std::fs::metadata(self.store.root().join("index.json")) {
            Ok(m) => Some((m.ino(), m.len(), m.mtime(), m.mtime_nsec())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e.into()),
        };
        let mut cache = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, items)) = &*cache
            && *of == stamp
        {
            return Ok(Arc::clone(items));
        }
        let items: Arc<Vec<Item>> =
            Arc::new(self.store.entries()?.into_iter().filter_map(Item::new).collect());
        *cache = Some((stamp, Arc::clone(&items)));
        Ok(items)
    }
}

fn read_only() -> Refusal {
    Refusal::new(Code::Unsupported, "this registry is read-only")
}

/// All paths of the registry.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v2", any(base))
        .route("/v2/", any(base))
        .route("/v2/{*path}", any(handle))
        .fallback(async || Refusal::new(Code::NameUnknown, "nothing here, the registry is below /v2/"))
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Around every request: the password, the API's version, the log.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let allowed = match &app.users {
        Some(users) => users.check(request.headers()).await,
        None => Ok(()),
    };
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    answer::set(&mut response, VERSION, "registry/2.0");
    let (status, size) = (response.status().as_u16(), response.body().size_hint().lower());
    tracing::info!("{method} {uri} {status} {size} {:?}", begun.elapsed());
    response
}

async fn base(method: Method) -> Response {
    if method == Method::GET || method == Method::HEAD {
        return answer::json(StatusCode::OK, "application/json", &serde_json::json!({}));
    }
    Refusal::new(Code::Unsupported, "this can only be read").into_response()
}

async fn handle(
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
    Query(params): Query<Params>,
    request: Request,
) -> Response {
    let scope = params.ns.clone();
    let mut response = dispatch(app, &path, params, request).await.unwrap_or_else(Refusal::into_response);
    if let Some(scope) = scope {
        answer::set(&mut response, NAMESPACE, &scope);
    }
    response
}

async fn dispatch(app: Arc<App>, path: &str, params: Params, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let (method, headers) = (parts.method, parts.headers);
    let route = Route::parse(path)
        .ok_or_else(|| Refusal::new(Code::NameUnknown, format!("nothing at /v2/{path}")))?;
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let registry = own_registry(host, app.port);
    let reads = method == Method::GET || method == Method::HEAD;
    if !reads {
        app.uploads()?;
    }
    let place = |name: &str| {
        let place = Place::new(&registry, name)
            .ok_or_else(|| Refusal::new(Code::NameInvalid, format!("{name:?} is no repository's name")))?;
        Ok::<_, Refusal>(place.within(params.ns.as_deref().filter(|_| reads)))
    };
    match (method, route) {
        (Method::POST, Route::Uploads(name)) => push::start(app, place(name)?, params, &headers, body).await,
        (Method::PATCH, Route::Upload(name, id)) => push::patch(app, place(name)?, id, &headers, body).await,
        (Method::PUT, Route::Upload(name, id)) => {
            push::finish(app, place(name)?, id, params, &headers, body).await
        }
        (Method::PUT, Route::Manifest(name, reference)) => {
            push::manifest(app, place(name)?, reference.to_string(), &headers, body).await
        }
        (Method::GET, Route::Upload(name, id)) => push::status(&app, &place(name)?, id).await,
        (Method::DELETE, Route::Upload(name, id)) => push::cancel(&app, &place(name)?, id),
        (method, route) => {
            let path = path.to_string();
            let place = match route {
                Route::Catalog => None,
                Route::Tags(name)
                | Route::Manifest(name, _)
                | Route::Blob(name, _)
                | Route::Uploads(name)
                | Route::Upload(name, _)
                | Route::Referrers(name, _) => Some(place(name)?),
            };
            blocking(move || on_disk(&app, &method, &path, &registry, place.as_ref(), &params, &headers))
                .await
        }
    }
}

/// The requests without a body that is of interest.
fn on_disk(
    app: &App,
    method: &Method,
    path: &str,
    registry: &str,
    place: Option<&Place>,
    params: &Params,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let reads = *method == Method::GET || *method == Method::HEAD;
    match (Route::parse(path), place) {
        (Some(Route::Catalog), _) if reads => discover::catalog(app, registry, params),
        (Some(Route::Tags(_)), Some(place)) if reads => discover::tags(app, place, params),
        (Some(Route::Referrers(_, digest)), Some(place)) if reads => {
            discover::referrers(app, place, digest, params)
        }
        (Some(Route::Manifest(_, reference)), Some(place)) if reads => {
            pull::manifest(app, place, reference, headers)
        }
        (Some(Route::Blob(_, digest)), _) if reads => pull::blob(app, method, digest, headers),
        (Some(Route::Manifest(_, reference)), Some(place)) if *method == Method::DELETE => {
            delete::manifest(app, place, reference)
        }
        (Some(Route::Blob(_, digest)), _) if *method == Method::DELETE => delete::blob(app, digest),
        _ => Err(Refusal::new(Code::Unsupported, format!("{method} is not for this path"))),
    }
}

/// Runs what waits for the disk on a thread of its own.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Refusal::internal(&e)))
}
