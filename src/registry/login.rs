//! Logging in and out: credentials are checked, then kept where other tools find them.
//!
//! They go to the credential helper that a credentials file names for the registry; without
//! one into podman's `auth.json`, or the file that `$REGISTRY_AUTH_FILE` or the caller names.
//! That file is replaced as a whole, readable by its owner only, and what others keep in it stays.

use super::connection::{Connection, retried};
use super::credentials::{self, Credentials, ask_helper, normal};
use super::{Error, Options, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A registry, or a namespace of one, as `localhost:5000` or `localhost:5000/team`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    registry: String,
    namespace: String,
}

/// Where credentials are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In a file.
    File(PathBuf),
    /// By a credential helper.
    Helper(String),
}

impl std::str::FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bare = normal(text);
        let (registry, namespace) = bare.split_once('/').unwrap_or((bare, ""));
        // Whatever may stand before a repository is a registry.
        let repository = if namespace.is_empty() { "x" } else { namespace };
        let is_local = registry.contains(['.', ':']) || registry == "localhost";
        let reference = format!("{registry}{}/{repository}", if is_local { "" } else { ":443" });
        let parsed: crate::oci::Reference = reference.parse()?;
        let registry = parsed.registry().strip_suffix(":443").filter(|_| !is_local);
        let registry = registry.unwrap_or(parsed.registry()).to_string();
        Ok(Self { registry, namespace: namespace.to_string() })
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let separator = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{}{separator}{}", self.registry, self.namespace)
    }
}

impl Scope {
    /// Asks the registry whether it takes the credentials of `options`.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] where not; those of the network.
    pub fn check(&self, options: &Options) -> Result<()> {
        let connection = Connection::open(&self.registry, "", options)?;
        let url = connection.url("/v2/");
        let ask = || connection.exchange(&Method::GET, &url, &|at, r| connection.client.send(at, r));
        retried(ask).map(|_| ())
    }

    /// The credentials that are kept for this; `file` is where to look, without it everywhere.
    ///
    /// # Errors
    /// [`Error::CredentialsFile`], [`Error::Helper`].
    pub fn kept(&self, file: Option<&Path>) -> Result<Option<Credentials>> {
        match file {
            Some(file) => credentials::find_in(&[file.to_path_buf()], &self.registry, &self.namespace),
            None => credentials::find(&self.registry, &self.namespace),
        }
    }

    /// Keeps credentials.
    ///
    /// # Errors
    /// [`Error::CredentialsFile`], [`Error::Helper`].
    pub fn keep(&self, file: Option<&Path>, user: &str, password: &str) -> Result<Kept> {
        if let Some(helper) = credentials::helper(&places(file), &self.registry)? {
            let server = credentials::server_name(&self.registry);
            let entry = json!({ "ServerURL": server, "Username": user, "Secret": password });
            ask_helper(&helper, "store", entry.to_string().as_bytes())?;
            return Ok(Kept::Helper(helper));
        }
        let path = place(file)?;
        let auth = STANDARD.encode(format!("{user}:{password}"));
        edit(&path, |auths| {
            auths.retain(|key, _| normal(key) != self.to_string());
            auths.insert(self.to_string(), json!({ "auth": auth }));
            true
        })?;
        Ok(Kept::File(path))
    }

    /// Forgets what is kept; `false` where nothing was.
    ///
    /// # Errors
    /// [`Error::CredentialsFile`], [`Error::Helper`].
    pub fn forget(&self, file: Option<&Path>) -> Result<bool> {
        let mut forgotten = false;
        if let Some(helper) = credentials::helper(&places(file), &self.registry)?
            && self.kept(file)?.is_some()
        {
            ask_helper(&helper, "erase", credentials::server_name(&self.registry).as_bytes())?;
            forgotten = true;
        }
        let in_file = edit(&place(file)?, |auths| {
            let before = auths.len();
            auths.retain(|key, _| normal(key) != self.to_string());
            auths.len() < before
        })?;
        Ok(forgotten || in_file)
    }
}

/// Forgets all that the file holds; `false` where it held nothing.
///
/// # Errors
/// [`Error::CredentialsFile`].
pub fn forget_all(file: Option<&Path>) -> Result<bool> {
    edit(&place(file)?, |auths| {
        let some = !auths.is_empty();
        auths.clear();
        some
    })
}

fn places(file: Option<&Path>) -> Vec<PathBuf> {
    file.map_or_else(credentials::files, |f| vec![f.to_path_buf()])
}

fn place(file: Option<&Path>) -> Result<PathBuf> {
    let path = places(file).into_iter().next().unwrap_or_default();
    // A link is followed, so that it stays one.
    match path.canonicalize() {
        Ok(real) => Ok(real),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(path),
        Err(e) => Err(Error::CredentialsFile { path, reason: e.to_string() }),
    }
}

/// Changes the entries of a credentials file, and writes it anew where `change` says so.
fn edit(path: &Path, change: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<bool> {
    let fail = |reason: String| Error::CredentialsFile { path: path.to_path_buf(), reason };
    let bytes = credentials::read(path)?.unwrap_or_else(|| b"{}".to_vec());
    let mut json: Value = serde_json::from_slice(&bytes).map_err(|e| fail(e.to_string()))?;
    let object = json.as_object_mut().ok_or_else(|| fail("it is no JSON object".to_string()))?;
    let auths = object.entry("auths").or_insert_with(|| json!({}));
    let auths = auths.as_object_mut().ok_or_else(|| fail("its auths are no JSON object".to_string()))?;
    if !change(auths) {
        return Ok(false);
    }
    let write = || -> std::io::Result<()> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
        writeln!(new, "{json:#}")?;
        new.as_file().sync_all()?;
        new.persist(path)?;
        Ok(())
    };
    write().map_err(|source| Error::WriteCredentials { path: path.to_path_buf(), source })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        for (text, want) in [
            ("localhost:5000", "localhost:5000"),
            ("localhost:5000/team", "localhost:5000/team"),
            ("quay.io/a/b", "quay.io/a/b"),
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("https://quay.io/", "quay.io"),
            ("intranet", "intranet"),
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), want, "{text}");
        }
        for bad in ["", "/x", "a b", "quay.io/A", "quay.io:x"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_keep_what_others_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/auth.json");
        let scope: Scope = "localhost:5000/team".parse().unwrap();
        assert!(!scope.forget(Some(&path)).unwrap());
        assert!(!path.exists());
        scope.keep(Some(&path), "u", "p:w").unwrap();
        let text = r#"{"credHelpers": {"x.example": "none"}, "auths": {"https://localhost:5000/team/": {"auth": "eDp5"}, "y": {}}, "z": [1]}"#;
        std::fs::write(&path, text).unwrap();
        scope.keep(Some(&path), "u", "p:w").unwrap();
        let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["auths"], json!({ "y": {}, "localhost:5000/team": { "auth": "dTpwOnc=" } }));
        assert_eq!((&json["z"], &json["credHelpers"]["x.example"]), (&json!([1]), &json!("none")));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = scope.kept(Some(&path)).unwrap();
        assert_eq!(kept, Some("u:p:w".parse().unwrap()));
        assert!(scope.forget(Some(&path)).unwrap());
        assert_eq!(scope.kept(Some(&path)).unwrap(), None);
        assert!(forget_all(Some(&path)).unwrap() && !forget_all(Some(&path)).unwrap());
        std::fs::write(&path, "[]").unwrap();
        assert!(scope.keep(Some(&path), "u", "p").is_err());
    }
}
