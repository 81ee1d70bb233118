//! Answers: the specification's error codes, and what responses have in common.

use crate::oci::Digest;
use crate::store;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::io;

/// The digest of what an answer is about.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The error codes (distribution-spec, "Error Codes"; the last four are docker's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// No such blob.
    BlobUnknown,
    /// An upload's request makes no sense.
    BlobUploadInvalid,
    /// No such upload.
    BlobUploadUnknown,
    /// Content has another digest, or this is none.
    DigestInvalid,
    /// A manifest names content that is not here.
    ManifestBlobUnknown,
    /// A manifest that is none.
    ManifestInvalid,
    /// No such manifest.
    ManifestUnknown,
    /// No repository's name.
    NameInvalid,
    /// No such repository.
    NameUnknown,
    /// Too long, or not as long as said.
    SizeInvalid,
    /// Who is asking?
    Unauthorized,
    /// Not to be had or not to be done here.
    Unsupported,
    /// Later.
    TooManyRequests,
    /// No tag.
    TagInvalid,
    /// No number of results.
    PaginationNumberInvalid,
    /// The server failed.
    Unknown,
}

impl Code {
    const fn name(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::TagInvalid => "TAG_INVALID",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unknown => "UNKNOWN",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown | Self::BlobUploadUnknown | Self::ManifestUnknown | Self::NameUnknown => {
                StatusCode::NOT_FOUND
            }
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// A request that is not done, and why.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    code: Code,
    message: String,
    headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    /// With the code's own status.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { status: code.status(), code, message: message.into(), headers: Vec::new() }
    }

    /// With another status.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With a header more.
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The server's own failure: the log has it, the client is told that there was one.
    pub fn internal(e: &dyn std::error::Error) -> Self {
        tracing::error!("{e}");
        Self::new(Code::Unknown, "the server failed, its log says how")
    }
}

impl From<store::Error> for Refusal {
    fn from(e: store::Error) -> Self {
        match &e {
            store::Error::NoBlob { digest, .. } => {
                Self::new(Code::BlobUnknown, format!("no blob {digest} here"))
            }
            e => Self::internal(e),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(e: io::Error) -> Self {
        Self::internal(&e)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"errors": [{"code": self.code.name(), "message": self.message}]});
        let mut response = json(self.status, "application/json", &body);
        for (name, value) in self.headers {
            set(&mut response, name, &value);
        }
        response
    }
}

/// An answer without content.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Body::empty().into_response();
    *response.status_mut() = status;
    response
}

/// A JSON document.
pub fn json(status: StatusCode, media_type: &str, value: &serde_json::Value) -> Response {
    let mut response = Body::from(value.to_string()).into_response();
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, media_type);
    response
}

/// Something was made, and is at `location`.
pub fn created(location: &str, digest: &Digest) -> Response {
    let mut response = empty(StatusCode::CREATED);
    set(&mut response, header::LOCATION, location);
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    response
}

/// Sets a header; a value that cannot be one is left out.
pub fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
