//! `RUN --mount=…`: what a command has mounted.

use super::source_of;
use super::stage::{Builder, Checked, absolute, clean};
use crate::recipe::context::{DockerCopy, is_wild};
use crate::recipe::mounts::{Bind, InMemory, KeptFolder};
use crate::recipe::types::Run;
use crate::store::Sharing;

/// The options of one `--mount`.
struct Options<'a> {
    /// As it is written.
    text: &'a str,
    left: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Options<'a> {
    fn of(text: &'a str) -> Self {
        let option = |option: &'a str| option.split_once('=').map_or((option, None), |(k, v)| (k, Some(v)));
        Self { text, left: text.split(',').map(option).collect() }
    }

    fn wrong<T>(&self, reason: &str) -> Checked<T> {
        Err(format!("--mount={}: {reason}", self.text))
    }

    /// Takes the value of an option out, by whichever of its names.
    fn take(&mut self, names: &[&str]) -> Checked<Option<&'a str>> {
        let Some(at) = self.left.iter().rposition(|(key, _)| names.contains(key)) else { return Ok(None) };
        let value = self.left[at].1.filter(|value| !value.is_empty());
        self.left.retain(|(key, _)| !names.contains(key));
        match value {
            None => self.wrong(&format!("{} wants a value", names[0])),
            value => Ok(value),
        }
    }

    /// Takes an option out that is true or false, and true without a value.
    fn truth(&mut self, names: &[&str]) -> Checked<Option<bool>> {
        let Some(at) = self.left.iter().rposition(|(key, _)| names.contains(key)) else { return Ok(None) };
        let (key, value) = self.left.remove(at);
        match value {
            None | Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            _ => self.wrong(&format!("{key} is true or false")),
        }
    }

    fn number(&mut self, name: &str) -> Checked<u32> {
        let text = self.take(&[name])?.unwrap_or("0");
        text.parse().or_else(|_| self.wrong(&format!("{name} is a number")))
    }

    /// Nothing may be left.
    fn end(&self) -> Checked<()> {
        match self.left.first() {
            None => Ok(()),
            Some((key, _)) => self.wrong(&format!("{key} is not done here")),
        }
    }
}

impl Builder<'_> {
    /// Adds what `--mount` asks for to a step.
    pub(super) fn mount(&self, run: &mut Run, text: &str) -> Checked<()> {
        let mut options = Options::of(text);
        let kind = options.take(&["type"])?.unwrap_or("bind");
        let target = options.take(&["target", "dst", "destination"])?;
        if kind == "secret" {
            return self.secret(run, options, target);
        }
        let target = target.map(|t| absolute(&self.scope.workdir, t).trim_end_matches('/').to_string());
        let Some(target) = target.filter(|target| !target.is_empty()) else {
            return options.wrong("no target, or / as one");
        };
        match kind {
            "cache" => run.cache.push(cache(options, target)?),
            "bind" => run.bind.push(self.bind(options, target)?),
            "tmpfs" => {
                let size = options.take(&["size"])?.map(str::to_string);
                options.end()?;
                run.tmpfs.push(InMemory { target, size });
            }
            _ => return options.wrong("this type is not done here"),
        }
        Ok(())
    }

    fn bind(&self, mut options: Options, target: String) -> Checked<Bind> {
        let place = options.take(&["from"])?;
        let source = options.take(&["source", "src"])?.unwrap_or("/");
        // Later ones count more, but nobody writes both.
        let read = options.truth(&["ro", "readonly"])?.unwrap_or(true);
        let write = options.truth(&["rw", "readwrite"])?.unwrap_or(!read);
        options.end()?;
        let mut bind = Bind { target, write, ..Bind::default() };
        if let Some(name) = place {
            match source_of(self.before, name) {
                Some(index) => bind.stage = Some(self.before[index].name.clone()),
                None => bind.image = Some(name.to_string()),
            }
            bind.from = absolute("/", source);
            return Ok(bind);
        }
        let Some(from) = clean(source).filter(|_| !is_wild(source.as_bytes())) else {
            return options.wrong("source lies outside of the context, or is a pattern");
        };
        let (context, ignore) = (self.dockerfile.context.clone(), self.ignore.clone());
        bind.docker = Some(DockerCopy { context, ignore, unpack: false });
        bind.from = from;
        Ok(bind)
    }

    /// The secret that is asked for, and where it is to lie; none where it is not given and need not be.
    fn secret(&self, run: &mut Run, mut options: Options, target: Option<&str>) -> Checked<()> {
        let Some(id) = options.take(&["id"])? else { return options.wrong("no id") };
        let required = options.truth(&["required"])?;
        options.end()?;
        if id.contains('/') || id.starts_with('.') {
            return options.wrong("this cannot be an id");
        }
        if target.is_some_and(|target| !target.starts_with('/')) {
            return options.wrong("the target of a secret is an absolute path");
        }
        if self.dockerfile.secrets.contains_key(id) {
            run.targets.extend(target.map(|target| (id.to_string(), absolute("/", target).into())));
            run.secrets.push(id.to_string());
        } else if required == Some(true) {
            return Err(format!("no secret {id} is given: --secret id={id},src=FILE"));
        }
        Ok(())
    }
}

fn cache(mut options: Options, target: String) -> Checked<KeptFolder> {
    let id = options.take(&["id"])?.map(str::to_string);
    let sharing = match options.take(&["sharing"])? {
        None | Some("shared") => Sharing::Shared,
        Some("locked") => Sharing::Locked,
        Some("private") => Sharing::Private,
        Some(_) => return options.wrong("sharing is shared, locked or private"),
    };
    let (uid, gid) = (options.number("uid")?, options.number("gid")?);
    let mode = options.take(&["mode"])?.map(str::to_string);
    options.end()?;
    Ok(KeptFolder { target, id, sharing, uid, gid, mode })
}
