//! Which registries there are and where their images come from: containers-registries.conf(5),
//! version 2, as podman, skopeo and buildah read it.
//!
//! `$CONTAINERS_REGISTRIES_CONF` alone where it is set; otherwise
//! `$XDG_CONFIG_HOME/containers/registries.conf` (`~/.config`), or where that is not there
//! `/etc/containers/registries.conf`, and then the files `registries.conf.d/*.conf` of
//! `/etc/containers` and of the user, by name. A later file replaces registries of the same
//! prefix, aliases of the same name, and the search list.
//!
//! The `[[registry]]` with the longest prefix counts; `*.example.org` is every host below.
//! Its mirrors are read in the order of the file, then the registry itself; what is written
//! goes to the registry itself. Keys that are not known here are named in a warning.

use super::{Error, Result};
use crate::oci::Reference;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The most that a file may hold, in bytes.
const LIMIT: u64 = 1 << 20;
/// Keys of other tools that mean nothing here.
const FOREIGN_KEYS: [&str; 3] =
    ["short-name-mode", "credential-helpers", "additional-layer-store-auth-helper"];

/// The configuration of this machine and user.
#[derive(Debug, Default, Clone)]
pub struct Config {
    search: Vec<String>,
    aliases: BTreeMap<String, String>,
    registries: BTreeMap<String, Registry>,
}

/// A place where an image can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The image's reference there.
    pub reference: Reference,
    /// Whether plain http and any certificate will do.
    pub insecure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    aliases: BTreeMap<String, String>,
    registry: Vec<Registry>,
    #[serde(flatten)]
    rest: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
    #[serde(flatten)]
    rest: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    #[serde(rename = "pull-from-mirror")]
    kinds: Kinds,
    #[serde(flatten)]
    rest: BTreeMap<String, toml::Value>,
}

/// Which references a mirror is asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kinds {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

impl Config {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::ConfigFile`].
    pub fn load() -> Result<Self> {
        let mut config = Self::default();
        for path in files() {
            config.read(&path)?;
        }
        Ok(config)
    }

    fn read(&mut self, path: &Path) -> Result<()> {
        let fail = |reason: String| Error::ConfigFile { path: path.to_path_buf(), reason };
        match std::fs::metadata(path) {
            Ok(m) if m.len() > LIMIT => return Err(fail(format!("it is larger than {LIMIT} bytes"))),
            Ok(m) if !m.is_file() => return Err(fail("it is no regular file".to_string())),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(fail(e.to_string())),
        }
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        self.add(path, &text)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let fail = |reason: String| Error::ConfigFile { path: path.to_path_buf(), reason };
        let file: File = toml::from_str(text).map_err(|e| fail(e.to_string().replace('\n', " ")))?;
        warn_of(path, &file.rest);
        if let Some(search) = file.unqualified_search_registries {
            self.search = search;
        }
        self.aliases.extend(file.aliases);
        for mut registry in file.registry {
            warn_of(path, &registry.rest);
            registry.mirror.iter().for_each(|m| warn_of(path, &m.rest));
            if registry.prefix.is_empty() {
                registry.prefix.clone_from(&registry.location);
            }
            let wild = registry.prefix.starts_with("*.");
            if registry.prefix.is_empty() || registry.location.is_empty() && !wild && !registry.blocked {
                registry.location.clone_from(&registry.prefix);
            }
            if registry.prefix.is_empty() {
                return Err(fail("a [[registry]] has neither prefix nor location".to_string()));
            }
            if registry.prefix.contains('*') && (!wild || registry.prefix[1..].contains(['*', '/'])) {
                return Err(fail(format!("prefix {:?}: a wildcard is *.DOMAIN", registry.prefix)));
            }
            if registry.mirror.iter().any(|m| m.location.is_empty()) {
                return Err(fail(format!("a mirror of {:?} has no location", registry.prefix)));
            }
            self.registries.insert(registry.prefix.clone(), registry);
        }
        Ok(())
    }

    /// The registries in which short names are looked for; docker.io where none are set.
    #[must_use]
    pub fn search_list(&self) -> Vec<&str> {
        if self.search.is_empty() {
            return vec!["docker.io"];
        }
        self.search.iter().map(String::as_str).collect()
    }

    /// What `text` may mean, the first that exists: itself where it names a registry, else what
    /// its alias says, else the name in each registry of the search list.
    ///
    /// # Errors
    /// [`Error::Reference`].
    pub fn resolve(&self, text: &str) -> Result<Vec<Reference>> {
        if Reference::names_registry(text) {
            return Ok(vec![text.parse()?]);
        }
        // Faults are explained in the user's words, not in those of a longer name.
        text.parse::<Reference>()?;
        let (name, suffix) = Reference::split_name(text);
        if let Some(full) = self.aliases.get(name).filter(|a| !a.is_empty()) {
            return Ok(vec![format!("{full}{suffix}").parse()?]);
        }
        self.search_list().iter().map(|r| Ok(format!("{r}/{text}").parse()?)).collect()
    }

    /// What `attempt` gives for the first of [`Config::resolve`]'s references that does not fail.
    ///
    /// # Errors
    /// [`Error::Oci`], or the last failure.
    pub fn first<T>(&self, text: &str, mut attempt: impl FnMut(&Reference) -> Result<T>) -> Result<T> {
        let mut candidates = self.resolve(text)?;
        let last = candidates.pop();
        for reference in &candidates {
            match attempt(reference) {
                Ok(found) => return Ok(found),
                Err(e) => tracing::debug!("{e}; trying the next registry"),
            }
        }
        attempt(&last.map_or_else(|| text.parse(), Ok)?)
    }

    /// Where the image is read from, in order; the last one is where it is written to.
    ///
    /// # Errors
    /// [`Error::Blocked`], [`Error::Reference`].
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let full = reference.to_string();
        let Some((registry, length)) = self.find(reference, &full) else {
            return Ok(vec![Endpoint { reference: reference.clone(), insecure: false }]);
        };
        if registry.blocked {
            let prefix = registry.prefix.clone();
            return Err(Error::Blocked { reference: Box::new(reference.clone()), prefix });
        }
        let by_digest = reference.digest().is_some();
        let wanted = |m: &&Mirror| match m.kinds {
            Kinds::All => by_digest || !registry.mirror_by_digest_only,
            Kinds::DigestOnly => by_digest,
            Kinds::TagOnly => !by_digest,
        };
        let at = |location: &str, insecure| {
            let moved =
                if location.is_empty() { full.clone() } else { format!("{location}{}", &full[length..]) };
            Ok(Endpoint { reference: moved.parse()?, insecure })
        };
        let mirrors = registry.mirror.iter().filter(wanted).map(|m| at(&m.location, m.insecure));
        mirrors.chain([at(&registry.location, registry.insecure)]).collect()
    }

    /// The registry with the longest prefix, and how much of `full` that prefix is.
    fn find(&self, reference: &Reference, full: &str) -> Option<(&Registry, usize)> {
        let host = reference.registry();
        let matched = self.registries.values().filter_map(|r| {
            let length = if let Some(domain) = r.prefix.strip_prefix('*') {
                host.ends_with(domain).then_some(host.len())
            } else {
                let rest = full.strip_prefix(r.prefix.as_str());
                rest.filter(|r| r.starts_with(['/', ':', '@'])).map(|_| r.prefix.len())
            };
            Some((r, length?))
        });
        // A port is no part of a prefix without one: `host` is not a prefix of `host:5000/x`.
        let matched = matched.filter(|(_, length)| *length >= host.len());
        matched.max_by_key(|(r, _)| r.prefix.len())
    }
}

fn warn_of(path: &Path, rest: &BTreeMap<String, toml::Value>) {
    for key in rest.keys().filter(|k| !FOREIGN_KEYS.contains(&k.as_str())) {
        tracing::warn!("{}: the key {key:?} is not known here and means nothing", path.display());
    }
}

fn files() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(file) = var("CONTAINERS_REGISTRIES_CONF") {
        return vec![file];
    }
    let system = PathBuf::from("/etc/containers");
    let user = var("XDG_CONFIG_HOME").or_else(|| var("HOME").map(|h| h.join(".config")));
    let user = user.map(|d| d.join("containers"));
    let main = user.iter().chain([&system]).map(|d| d.join("registries.conf")).find(|f| f.exists());
    let mut files: Vec<PathBuf> = main.into_iter().collect();
    for folder in [Some(system), user].into_iter().flatten() {
        let entries = std::fs::read_dir(folder.join("registries.conf.d")).into_iter().flatten();
        let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        found.retain(|p| p.extension().is_some_and(|e| e == "conf"));
        found.sort();
        files.extend(found);
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let mut config = Config::default();
        config.add(Path::new("r.conf"), text).unwrap();
        config
    }

    const EXAMPLE: &str = r#"
        unqualified-search-registries = ["registry.example", "docker.io"]
        short-name-mode = "enforcing"
        [aliases]
        "debian" = "docker.io/library/debian"
        "off" = ""
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "localhost:5001/hub"
        insecure = true
        [[registry.mirror]]
        location = "by-digest.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "docker.io/evil"
        blocked = true
        [[registry]]
        prefix = "*.wild.example"
        insecure = true
        [[registry]]
        prefix = "moved.example/old"
        location = "new.example/dir"
        [[registry]]
        prefix = "strict.example"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m.example"
    "#;

    #[test]
    fn short_names() {
        let c = config(EXAMPLE);
        for (text, want) in [
            ("debian:12", &["docker.io/library/debian:12"][..]),
            ("off", &["registry.example/off:latest", "docker.io/library/off:latest"]),
            ("a/b@sha256:", &[]),
            ("a/b", &["registry.example/a/b:latest", "docker.io/a/b:latest"]),
            ("quay.io/debian", &["quay.io/debian:latest"]),
        ] {
            let got = c.resolve(text).unwrap_or_default();
            assert_eq!(got.iter().map(ToString::to_string).collect::<Vec<_>>(), want, "{text}");
        }
        let default = Config::default().resolve("debian").unwrap();
        assert_eq!(default[0].to_string(), "docker.io/library/debian:latest");
    }

    #[test]
    fn places() {
        let c = config(EXAMPLE);
        let d = format!("sha256:{}", "0".repeat(64));
        let by_digest = format!("docker.io/library/a@{d}");
        for (text, want) in [
            (
                "docker.io/library/a:1",
                &["localhost:5001/hub/library/a:1 true", "docker.io/library/a:1 false"][..],
            ),
            (
                &by_digest,
                &[
                    &format!("localhost:5001/hub/library/a@{d} true"),
                    &format!("by-digest.example/library/a@{d} false"),
                    &format!("docker.io/library/a@{d} false"),
                ],
            ),
            ("docker.io/evil/x", &[]),
            (
                "docker.io/evilx/x",
                &["localhost:5001/hub/evilx/x:latest true", "docker.io/evilx/x:latest false"],
            ),
            ("a.b.wild.example/x", &["a.b.wild.example/x:latest true"]),
            ("wild.example/x", &["wild.example/x:latest false"]),
            ("moved.example/old/x", &["new.example/dir/x:latest false"]),
            ("moved.example/older", &["moved.example/older:latest false"]),
            ("strict.example/x", &["strict.example/x:latest false"]),
            ("strict.example:5000/x", &["strict.example:5000/x:latest false"]),
        ] {
            let got = c.endpoints(&text.parse().unwrap()).unwrap_or_default();
            let got: Vec<String> = got.iter().map(|e| format!("{} {}", e.reference, e.insecure)).collect();
            assert_eq!(got, want, "{text}");
        }
        let e = c.endpoints(&"docker.io/evil/x".parse().unwrap()).unwrap_err();
        assert!(matches!(e, Error::Blocked { .. }), "{e}");
    }

    #[test]
    fn faults_of_the_file() {
        for (text, reason) in [
            ("[[registry]]", "neither prefix"),
            ("[[registry]]\nprefix = \"a.*.b\"", "wildcard"),
            ("[[registry]]\nlocation = \"a.b\"\n[[registry.mirror]]", "no location"),
            ("[[registry]]\nlocation = 7", "string"),
            ("= 7", "key"),
        ] {
            let e = Config::default().add(Path::new("r.conf"), text).unwrap_err().to_string();
            assert!(e.contains(reason), "{text}: {e}");
        }
    }

    #[test]
    fn later_files_replace() {
        let mut c = config(EXAMPLE);
        let more = "novel-key = 1\nunqualified-search-registries = [\"x.example\"]\n[[registry]]\nprefix = \"docker.io/evil\"\n[aliases]\ndebian = \"y.example/d\"";
        c.add(Path::new("s.conf"), more).unwrap();
        assert_eq!(c.resolve("debian").unwrap()[0].to_string(), "y.example/d:latest");
        assert_eq!(c.search_list(), ["x.example"]);
        assert!(c.endpoints(&"docker.io/evil/x".parse().unwrap()).is_ok());
    }
}
