//! Who may use the registry: an htpasswd file with bcrypt hashes (`htpasswd -B`).
//!
//! Other hashes (MD5, SHA-1, crypt) are refused at the start, as docker-registry does. A
//! password that was right is remembered by its digest, since bcrypt is slow on purpose and an
//! image takes many requests.

use super::answer::{Code, Refusal};
use super::{Error, Result};
use crate::oci::Digest;
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// How many passwords are checked at once; guessing must not take all processors.
const CHECKS: usize = 2;

/// Users and their passwords' hashes.
#[derive(Debug)]
pub struct Users {
    hashes: HashMap<String, String>,
    right: Mutex<HashMap<String, Digest>>,
    checks: Semaphore,
}

impl Users {
    /// Reads a file of lines `USER:BCRYPT`; empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Htpasswd`], [`Error::NoUsers`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        let mut hashes = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = parse(line).map_err(|reason| Error::Htpasswd {
                path: path.to_path_buf(),
                line: at + 1,
                reason,
            })?;
            hashes.insert(user.to_string(), hash.to_string());
        }
        if hashes.is_empty() {
            return Err(Error::NoUsers(path.to_path_buf()));
        }
        Ok(Self { hashes, right: Mutex::default(), checks: Semaphore::new(CHECKS) })
    }

    /// Lets a request pass, or says that it must log in.
    pub(super) async fn check(self: &Arc<Self>, headers: &HeaderMap) -> std::result::Result<(), Refusal> {
        let refusal = || {
            Refusal::new(Code::Unauthorized, "authentication required")
                .header(header::WWW_AUTHENTICATE, "Basic realm=\"shipimg\", charset=\"UTF-8\"")
        };
        let (user, password) = credentials(headers).ok_or_else(refusal)?;
        let digest = Digest::of(password.as_bytes());
        let known = |users: &Self| {
            let right = users.right.lock().unwrap_or_else(PoisonError::into_inner);
            right.get(&user) == Some(&digest)
        };
        if known(self) {
            return Ok(());
        }
        let _permit = self.checks.acquire().await;
        if known(self) {
            return Ok(());
        }
        // An unknown user costs the same time as a known one.
        let hash = self.hashes.get(&user).or_else(|| self.hashes.values().next()).cloned();
        let checked = tokio::task::spawn_blocking(move || {
            hash.is_some_and(|h| bcrypt::verify(password.as_bytes(), &h).unwrap_or(false))
        });
        if !checked.await.unwrap_or(false) || !self.hashes.contains_key(&user) {
            return Err(refusal());
        }
        self.right.lock().unwrap_or_else(PoisonError::into_inner).insert(user, digest);
        Ok(())
    }
}

fn parse(line: &str) -> std::result::Result<(&str, &str), &'static str> {
    let (user, hash) =
        line.split_once(':').filter(|(user, _)| !user.is_empty()).ok_or("wanted USER:BCRYPT-HASH")?;
    if !["$2y$", "$2a$", "$2b$"].iter().any(|p| hash.starts_with(p)) {
        return Err("the password is not hashed by bcrypt, as htpasswd -B does");
    }
    if hash.parse::<bcrypt::HashParts>().is_err() {
        return Err("the bcrypt hash is malformed");
    }
    Ok((user, hash))
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_string(), password.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let bcrypt = "$2y$05$Qz5dO1kQyXyR0oDRwzsSd.4oQ2n6Jb6sn3yN4bCgJ0wO8oRZxUZbe";
        for (line, want) in [
            (format!("anna:{bcrypt}"), ""),
            ("anna:$apr1$x$y".into(), "not hashed by bcrypt"),
            ("anna:{SHA}abc".into(), "not hashed by bcrypt"),
            ("anna:secret".into(), "not hashed by bcrypt"),
            ("anna:$2y$05$short".into(), "malformed"),
            ("anna".into(), "wanted"),
            (format!(":{bcrypt}"), "wanted"),
        ] {
            let got = parse(&line).err().unwrap_or_default();
            assert!(if want.is_empty() { got.is_empty() } else { got.contains(want) }, "{line}: {got}");
        }
    }
}
