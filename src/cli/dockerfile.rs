//! Options of `build` and `lock` that are about Dockerfiles.

use super::Result;
use super::build::Error;
use crate::recipe::{DOCKERFILES, Dockerfile, Secret};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a Dockerfile is read.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Docker {
    /// Build from this Dockerfile; the argument is the folder that it copies from
    #[arg(short, long, value_name = "DOCKERFILE")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) given: Given,
}

/// What a Dockerfile is given.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Given {
    /// The stage of a Dockerfile that comes out, by name or number [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set an ARG of a Dockerfile; without a value to that of the caller's environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// A secret for `RUN --mount=type=secret,id=NAME`
    #[arg(long, value_name = "id=NAME,src=FILE|env=VARIABLE", value_parser = secret)]
    secret: Vec<(String, Secret)>,
}

impl Docker {
    /// The Dockerfile that `path` or the options name; none where `path` is a recipe.
    pub(super) fn of(&self, path: &Path) -> Result<Option<Dockerfile>> {
        let (file, context) = if let Some(file) = &self.file {
            (file.clone(), path.to_path_buf())
        } else if path.is_dir() {
            // What a link leads to is asked in the context alone.
            let is_file = |file: &PathBuf| file.symlink_metadata().is_ok_and(|meta| !meta.is_dir());
            let found = DOCKERFILES.iter().map(|name| path.join(name)).find(is_file);
            (found.ok_or_else(|| Error::NoDockerfile(path.to_path_buf()))?, path.to_path_buf())
        } else if is_dockerfile(path) {
            (path.to_path_buf(), path.parent().unwrap_or(Path::new("")).to_path_buf())
        } else {
            return self.given.nothing().map(|()| None);
        };
        let context = if context.as_os_str().is_empty() { PathBuf::from(".") } else { context };
        if !context.is_dir() {
            return Err(Error::NoContext(context).into());
        }
        let Given { target, secret, .. } = self.given.clone();
        Ok(Some(Dockerfile { file, context, target, secrets: secret.into_iter().collect() }))
    }
}

impl Given {
    /// An error where there is something though nothing is built from a Dockerfile.
    pub(super) fn nothing(&self) -> Result<()> {
        let options = [
            ("--target", self.target.is_some()),
            ("--build-arg", !self.build_arg.is_empty()),
            ("--secret", !self.secret.is_empty()),
        ];
        let given = options.into_iter().find(|(_, given)| *given);
        given.map_or(Ok(()), |(option, _)| Err(Error::OfDockerfiles(option).into()))
    }

    /// The values of arguments.
    pub(super) fn arguments(&self) -> BTreeMap<String, String> {
        let one = |text: &String| match text.split_once('=') {
            Some((name, value)) => Some((name.to_string(), value.to_string())),
            None => std::env::var(text).ok().map(|value| (text.clone(), value)),
        };
        self.build_arg.iter().filter_map(one).collect()
    }
}

/// Whether a file is a Dockerfile by its name.
pub(super) fn is_dockerfile(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    DOCKERFILES.iter().any(|known| {
        let ending = path.extension().is_some_and(|e| e.eq_ignore_ascii_case(known));
        ending || name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`; docker's `type=` says nothing more.
fn secret(text: &str) -> std::result::Result<(String, Secret), String> {
    let (mut id, mut secret) = (None, None);
    for (key, value) in text.split(',').filter_map(|option| option.split_once('=')) {
        match key {
            "id" => id = Some(value.to_string()),
            "src" | "source" => {
                let path = std::path::absolute(value).map_err(|e| format!("{value}: {e}"))?;
                secret = Some(Secret::File(path));
            }
            "env" => secret = Some(Secret::Env(value.to_string())),
            "type" => {}
            _ => return Err(format!("{key}: wanted id, and src or env")),
        }
    }
    id.zip(secret).ok_or_else(|| "wanted id=NAME,src=FILE or id=NAME,env=VARIABLE".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerfiles_are_known_by_their_names() {
        for (name, known) in [
            ("Dockerfile", true),
            ("d/Containerfile", true),
            ("Dockerfile.dev", true),
            ("web.dockerfile", true),
            ("web.Containerfile", true),
            ("Dockerfiles", false),
            ("r.toml", false),
        ] {
            assert_eq!(is_dockerfile(Path::new(name)), known, "{name}");
        }
    }

    #[test]
    fn secrets_have_a_name_and_a_place() {
        assert_eq!(secret("id=a,env=B"), Ok(("a".into(), Secret::Env("B".into()))));
        assert_eq!(secret("type=file,id=a,src=/x"), Ok(("a".into(), Secret::File("/x".into()))));
        for wrong in ["id=a", "src=x", "", "id=a,mode=1,src=x"] {
            assert!(secret(wrong).is_err(), "{wrong}");
        }
    }
}
