//! Where a repository lies: mirrors to read from, and the registry itself.

use super::client::Answer;
use super::config::{Config, Endpoint};
use super::connection::Connection;
use super::{Options, Result};
use crate::oci::Reference;
use reqwest::header::{ACCEPT, RANGE};
use reqwest::{Method, Url};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One place.
#[derive(Debug)]
pub(super) struct Place {
    reference: Reference,
    options: Options,
    connection: Mutex<Option<Arc<Connection>>>,
    /// A mirror that failed is not asked again.
    down: AtomicBool,
}

/// All places of a repository.
#[derive(Debug)]
pub(super) struct Places {
    mirrors: Vec<Place>,
    upstream: Place,
}

impl Place {
    fn new(endpoint: Endpoint, wanted: &Reference, options: &Options) -> Self {
        let reference = endpoint.reference;
        // Credentials of the command line are for the registry that it names.
        let own = reference.registry() == wanted.registry();
        let credentials = options.credentials.clone().filter(|_| own);
        let tls_verify = options.tls_verify && !endpoint.insecure;
        let options = Options { credentials, tls_verify, ..options.clone() };
        Self { reference, options, connection: Mutex::default(), down: AtomicBool::new(false) }
    }

    /// The connection, made when first needed.
    pub(super) fn connection(&self) -> Result<Arc<Connection>> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*slot {
            return Ok(Arc::clone(made));
        }
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        let made = Arc::new(Connection::open(registry, repository, &self.options)?);
        Ok(Arc::clone(slot.insert(made)))
    }

    /// Host and port, as far as known.
    pub(super) fn host(&self) -> String {
        let slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map_or_else(|| self.reference.registry().to_string(), |c| c.host())
    }

    /// The URL of something of the repository there.
    pub(super) fn url(&self, connection: &Connection, kind: &str, name: &str) -> Url {
        connection.url(&format!("/v2/{}/{kind}/{name}", self.reference.repository()))
    }

    fn get(&self, kind: &str, name: &str, accept: Option<&str>, range: Option<&str>) -> Result<Answer> {
        let connection = self.connection()?;
        connection.exchange(&Method::GET, &self.url(&connection, kind, name), &|at, mut request| {
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            connection.client.send(at, request)
        })
    }
}

impl Places {
    /// Those of `reference` by the configuration.
    pub(super) fn of(reference: &Reference, options: &Options) -> Result<Self> {
        let mut places: Vec<Place> = Config::load()?
            .endpoints(reference)?
            .into_iter()
            .map(|e| Place::new(e, reference, options))
            .collect();
        let own =
            || Place::new(Endpoint { reference: reference.clone(), insecure: false }, reference, options);
        let upstream = places.pop().unwrap_or_else(own);
        Ok(Self { mirrors: places, upstream })
    }

    /// The registry itself.
    pub(super) fn upstream(&self) -> &Place {
        &self.upstream
    }

    /// Gets `kind/name`, or a range of its bytes, from the first place that has it. Any failure of a
    /// mirror leads to the next place; one that is more than a 404 takes the mirror out.
    pub(super) fn get(
        &self,
        kind: &str,
        name: &str,
        accept: Option<&str>,
        range: Option<&str>,
    ) -> Result<Answer> {
        for mirror in self.mirrors.iter().filter(|m| !m.down.load(Ordering::Relaxed)) {
            match mirror.get(kind, name, accept, range) {
                Ok(answer) => return Ok(answer),
                Err(e) => {
                    tracing::debug!("mirror {}: {e}; trying the next place", mirror.reference);
                    mirror.down.store(!e.is_missing(), Ordering::Relaxed);
                }
            }
        }
        self.upstream.get(kind, name, accept, range)
    }
}
