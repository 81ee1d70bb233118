//! Credentials, from where other tools keep them.
//!
//! The first file that has some for the image counts: `$REGISTRY_AUTH_FILE` alone where it
//! is set; otherwise podman's `auth.json` (`$XDG_RUNTIME_DIR/containers`, for root
//! `/run/containers/0`, then `$XDG_CONFIG_HOME/containers`), then docker's `config.json`
//! (`$DOCKER_CONFIG`, `~/.docker`). In a file `credHelpers` come first, then `credsStore`,
//! then `auths`, with the longest key that is the registry or `registry/namespace…`
//! (containers-auth.json(5), docker's "credential stores").
//!
//! A helper is the program `docker-credential-NAME` in `PATH`; NAME is letters, digits,
//! `.`, `_` and `-`. It is asked by `get`, with the registry on its standard input, and has a
//! minute to answer.

use super::{Error, Result};
use crate::sys::program;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The most that a credentials file or a helper's answer may hold, in bytes.
const LIMIT: u64 = 1 << 20;
/// How long a helper may take; it may ask its user to unlock something.
const HELPER_TIME: Duration = Duration::from_mins(1);
/// Docker Hub's key in credential files and helpers.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What a registry is shown to let one in.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password.
    Password {
        /// The user.
        user: String,
        /// The password or access token.
        password: String,
    },
    /// An `OAuth2` refresh token, for the token server alone.
    IdentityToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
        })
    }
}

impl FromStr for Credentials {
    type Err = Error;

    /// Reads `USER:PASSWORD`.
    fn from_str(text: &str) -> Result<Self> {
        let (user, password) = text.split_once(':').ok_or(Error::Credentials)?;
        if user.is_empty() || password.is_empty() {
            return Err(Error::Credentials);
        }
        Ok(Self::Password { user: user.to_string(), password: password.to_string() })
    }
}

/// The credentials for `repository` at `registry`, if there are any.
pub(super) fn find(registry: &str, repository: &str) -> Result<Option<Credentials>> {
    find_in(&files(), registry, repository)
}

/// The credentials in the first of `files` that has some.
pub(super) fn find_in(files: &[PathBuf], registry: &str, repository: &str) -> Result<Option<Credentials>> {
    for path in files {
        if let Some(file) = File::read(path)?
            && let Some(found) = file.find(path, registry, repository)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The helper that the first of `files` with one names for the registry.
pub(super) fn helper(files: &[PathBuf], registry: &str) -> Result<Option<String>> {
    for path in files {
        if let Some(helper) = File::read(path)?.and_then(|f| f.helpers(registry).next().cloned()) {
            return Ok(Some(helper));
        }
    }
    Ok(None)
}

/// Where credentials are looked for; the first is where they are written.
pub(super) fn files() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(file) = var("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = var("HOME");
    let below_home = |dir: &str| home.as_ref().map(|h| h.join(dir));
    let runtime = var("XDG_RUNTIME_DIR")
        .map(|d| d.join("containers"))
        .or_else(|| Some(format!("/run/containers/{}", crate::sys::userns::outer_uid()).into()));
    let config = var("XDG_CONFIG_HOME").or_else(|| below_home(".config")).map(|d| d.join("containers"));
    let docker = var("DOCKER_CONFIG").or_else(|| below_home(".docker"));
    [
        runtime.map(|d| d.join("auth.json")),
        config.map(|d| d.join("auth.json")),
        docker.map(|d| d.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_field_names, reason = "the names are those of the file")]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl File {
    fn read(path: &Path) -> Result<Option<Self>> {
        let fail = |reason: String| Error::CredentialsFile { path: path.to_path_buf(), reason };
        let Some(text) = read(path)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|e| fail(e.to_string()))
    }

    /// The helpers for the registry, its own first.
    fn helpers(&self, registry: &str) -> impl Iterator<Item = &String> {
        let own = self.cred_helpers.iter().filter(move |(key, _)| normal(key) == registry).map(|(_, h)| h);
        own.chain(Some(&self.creds_store).filter(|s| !s.is_empty()))
    }

    fn find(&self, path: &Path, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        for helper in self.helpers(registry) {
            if let Some(found) = ask(helper, registry)? {
                return Ok(Some(found));
            }
        }
        let full =
            if repository.is_empty() { registry.to_string() } else { format!("{registry}/{repository}") };
        let matching = self.auths.iter().filter(|(key, _)| {
            full.strip_prefix(normal(key)).is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
        });
        let Some((_, auth)) = matching.max_by_key(|(key, _)| normal(key).len()) else { return Ok(None) };
        auth.decode().map_err(|reason| Error::CredentialsFile {
            path: path.to_path_buf(),
            reason: format!("{registry}: {reason}"),
        })
    }
}

/// A credentials file's bytes; `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let fail = |reason: String| Error::CredentialsFile { path: path.to_path_buf(), reason };
    match std::fs::metadata(path) {
        Ok(m) if m.len() > LIMIT => return Err(fail(format!("it is larger than {LIMIT} bytes"))),
        Ok(m) if !m.is_file() => return Err(fail("it is no regular file".to_string())),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e.to_string())),
    }
    std::fs::read(path).map(Some).map_err(|e| fail(e.to_string()))
}

impl Auth {
    fn decode(&self) -> std::result::Result<Option<Credentials>, &'static str> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            let password =
                || Credentials::Password { user: self.username.clone(), password: self.password.clone() };
            return Ok((!self.username.is_empty()).then(password));
        }
        let bare = self.auth.trim().trim_end_matches('=');
        let text = STANDARD_NO_PAD.decode(bare).map_err(|_| "its auth is no base64")?;
        let text = String::from_utf8(text).map_err(|_| "its auth is no text")?;
        let text = text.trim_end_matches('\0');
        text.parse().map(Some).map_err(|_| "its auth is not USER:PASSWORD")
    }
}

/// A key without what old tools put around the host.
pub(super) fn normal(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>> {
    let Some(out) = ask_helper(helper, "get", server_name(registry).as_bytes())? else { return Ok(None) };
    let answer: HelperAnswer = serde_json::from_slice(&out).map_err(|_| {
        failed(helper, "its answer is not the JSON object with Username and Secret".to_string())
    })?;
    Ok(Some(match answer.user.as_str() {
        "<token>" => Credentials::IdentityToken(answer.secret),
        _ => Credentials::Password { user: answer.user, password: answer.secret },
    }))
}

/// What helpers call a registry.
pub(super) fn server_name(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB } else { registry }
}

/// What a helper answers to `action` with `input`; `None` where it has no such credentials.
pub(super) fn ask_helper(helper: &str, action: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if helper.is_empty() || !helper.bytes().all(allowed) {
        return Err(failed(helper, "a helper's name is letters, digits, '.', '_' and '-'".to_string()));
    }
    let program = format!("docker-credential-{helper}");
    let (status, out) = program::filter(&program, &[action], input, LIMIT, HELPER_TIME)?;
    if status.success() {
        return Ok(Some(out));
    }
    let text = String::from_utf8_lossy(&out);
    // The protocol's own words for "none" (docker-credential-helpers, errors.go).
    if text.trim() == "credentials not found in native keychain" {
        return Ok(None);
    }
    let said: String = text.trim().chars().filter(|c| !c.is_control()).take(200).collect();
    Err(failed(helper, format!("{status}{}", super::colon(&said))))
}

fn failed(helper: &str, reason: String) -> Error {
    Error::Helper { helper: helper.chars().take(100).collect(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> File {
        serde_json::from_str(json).unwrap()
    }

    fn user(file: &File, registry: &str, repository: &str) -> Option<String> {
        match file.find(Path::new("f"), registry, repository).unwrap()? {
            Credentials::Password { user, .. } => Some(user),
            Credentials::IdentityToken(t) => Some(format!("token {t}")),
        }
    }

    #[test]
    fn the_longest_key_counts() {
        let f = file(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOng="},
                "localhost:5000": {"auth": "aG9zdDp4"},
                "localhost:5000/team": {"auth": "dGVhbTp4"},
                "localhost:5000/te": {"auth": "bm86eA=="},
                "tokens.example.com": {"identitytoken": "T"},
                "empty.example.com": {},
                "bad.example.com": {"auth": "%%"}}}"#,
        );
        let name = |r: &str, p: &str| user(&f, r, p).unwrap_or_default();
        assert_eq!(name("docker.io", "library/alpine"), "hub");
        assert_eq!(name("localhost:5000", "x"), "host");
        assert_eq!(name("localhost:5000", "team/x"), "team");
        assert_eq!(name("localhost:5000", "team"), "team");
        assert_eq!(name("tokens.example.com", "x"), "token T");
        assert_eq!(name("empty.example.com", "x"), "");
        assert_eq!(name("localhost:5001", "x"), "");
        let e = f.find(Path::new("f"), "bad.example.com", "x").unwrap_err().to_string();
        assert!(e.contains("no base64"), "{e}");
    }

    #[test]
    fn helper_names_are_no_paths() {
        for name in ["../x", "a/b", "", "a b", "a\0b"] {
            let f = File {
                cred_helpers: [("r.example".to_string(), name.to_string())].into(),
                ..File::default()
            };
            let e = f.find(Path::new("f"), "r.example", "x").unwrap_err();
            assert!(matches!(e, Error::Helper { .. }), "{name}: {e}");
        }
    }
}
