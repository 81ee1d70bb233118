//! One stage: its instructions, in order, as steps and as how the image is run.

use super::lines::{self, Document, Line, is_document};
use super::words::{Expander, Values, Wrong, split};
use super::{Dockerfile, Globals, Ignore, Inherited, Written, source_of};
use crate::recipe::Result;
use crate::recipe::context::{Directory, DockerCopy};
use crate::recipe::read::{Action, Choices, Placed};
use crate::recipe::settings::{nanoseconds, with_protocol};
use crate::recipe::types::{Copy, Healthcheck, Image, Run};
use crate::verify::Place;
use std::collections::BTreeMap;
use std::path::{Component, Path};

pub(super) type Checked<T> = std::result::Result<T, Wrong>;

/// What instructions stand in.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// Variables of the image.
    env: BTreeMap<String, String>,
    /// Arguments that have a value.
    pub args: BTreeMap<String, String>,
    user: String,
    pub workdir: String,
    shell: Vec<String>,
    /// Instructions for who builds on it.
    onbuild: Vec<String>,
}

impl Scope {
    pub fn of(image: Inherited) -> Self {
        let Inherited { env, workdir, user, shell, onbuild } = image;
        Self { env, args: BTreeMap::new(), user, workdir, shell, onbuild }
    }
}

impl Values for Scope {
    fn value(&self, name: &str) -> Option<&str> {
        self.env.get(name).or_else(|| self.args.get(name)).map(String::as_str)
    }
}

/// A stage being translated.
pub(super) struct Builder<'a> {
    pub(super) scope: Scope,
    pub(super) before: &'a [Written<'a>],
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) ignore: &'a Ignore,
    escape: char,
    at: &'a dyn Fn(usize) -> Place,
    steps: Vec<Placed<Action>>,
    image: Image,
}

impl<'a> Builder<'a> {
    pub fn new(
        scope: Scope,
        before: &'a [Written<'a>],
        dockerfile: &'a Dockerfile,
        ignore: &'a Ignore,
        escape: char,
        at: &'a dyn Fn(usize) -> Place,
    ) -> Self {
        let (steps, image) = (Vec::new(), Image::default());
        Self { scope, before, dockerfile, ignore, escape, at, steps, image }
    }

    pub fn finish(self) -> (Vec<Placed<Action>>, Image, Scope) {
        (self.steps, self.image, self.scope)
    }

    pub fn set_env(&mut self, name: &str, value: &str) {
        self.scope.env.insert(name.to_string(), value.to_string());
        self.image.env.insert(name.to_string(), value.to_string());
    }

    /// The instructions that the base has for who builds on it, as if they stood in the line `number`. They are
    /// done once.
    pub fn triggers(&mut self, number: usize) -> Checked<Vec<Line>> {
        let texts = std::mem::take(&mut self.scope.onbuild);
        if !texts.is_empty() {
            self.image.onbuild = Some(Vec::new());
        }
        texts.iter().map(|text| Ok(Line { number, ..trigger(text)? })).collect()
    }

    /// Adds an instruction.
    pub fn add(&mut self, line: &Line, globals: &Globals, choices: &Choices) -> Result<()> {
        let place = (self.at)(line.number);
        let done = known_flags(line).and_then(|()| match line.name.as_str() {
            "ARG" => self.arg(line, globals, choices),
            "RUN" => self.run(line),
            "COPY" | "ADD" => self.copy(line),
            _ => self.setting(line),
        });
        done.map_err(|reason| place.error(reason))
    }

    fn step(&mut self, line: &Line, action: Action) {
        self.steps.push(Placed { place: (self.at)(line.number), value: action });
    }

    fn expand(&self, text: &str) -> Checked<String> {
        Expander { values: &self.scope, escape: self.escape, quotes: true }.expand(text)
    }

    /// The words of a line, a JSON array or between spaces, with their variables replaced.
    fn words(&self, line: &Line) -> Checked<Vec<String>> {
        let words = array(&line.rest).unwrap_or_else(|| split(&line.rest, self.escape));
        words
            .iter()
            .map(|word| if is_document(word) { Ok(word.clone()) } else { self.expand(word) })
            .collect()
    }

    /// `NAME=VALUE …`, or in the old form `NAME VALUE`.
    fn pairs(&self, line: &Line) -> Checked<Vec<(String, String)>> {
        let words = split(&line.rest, self.escape);
        if !words.first().is_some_and(|word| word.contains('=')) {
            let (name, value) = line.rest.split_once(char::is_whitespace).ok_or("wanted NAME=VALUE")?;
            return Ok(vec![(self.expand(name)?, self.expand(value.trim_start())?)]);
        }
        let pairs = words.iter().map(|word| {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: wanted NAME=VALUE"))?;
            match self.expand(name)? {
                name if name.is_empty() => Err(format!("{word}: no name")),
                name => Ok((name, self.expand(value)?)),
            }
        });
        pairs.collect()
    }

    fn arg(&mut self, line: &Line, globals: &Globals, choices: &Choices) -> Checked<()> {
        for word in split(&line.rest, self.escape) {
            let word = self.expand(&word)?;
            let (name, default) = word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v)));
            let above = || if default.is_none() { globals.value(name) } else { None };
            let given = choices.set.get(name).map(String::as_str);
            if let Some(value) = given.or(default).or_else(above) {
                self.scope.args.insert(name.to_string(), value.to_string());
            }
        }
        Ok(())
    }

    /// What only says how the image is run, or how what follows is.
    fn setting(&mut self, line: &Line) -> Checked<()> {
        match line.name.as_str() {
            "ENV" => {
                for (name, value) in self.pairs(line)? {
                    self.set_env(&name, &value);
                }
            }
            "LABEL" => {
                let labels = self.pairs(line)?;
                self.image.labels.extend(labels);
            }
            "WORKDIR" => {
                let path = absolute(&self.scope.workdir, &self.expand(&line.rest)?);
                let path = if path == "/" { path } else { path.trim_end_matches('/').to_string() };
                let owner = Some(owner(&self.scope.user)).filter(|user| !user.is_empty());
                self.step(line, Action::Directory(Directory { path: path.clone(), owner }));
                self.scope.workdir.clone_from(&path);
                self.image.workdir = Some(path);
            }
            "USER" => {
                self.scope.user = self.expand(&line.rest)?;
                self.image.user = Some(self.scope.user.clone());
            }
            "SHELL" => {
                let words = array(&line.rest).filter(|words| !words.is_empty());
                self.scope.shell = words.ok_or("wanted SHELL [\"PROGRAM\", \"ARGUMENT\"…]")?;
                self.image.shell = Some(self.scope.shell.clone());
            }
            "CMD" => self.image.cmd = Some(self.command(&line.rest)),
            "ENTRYPOINT" => self.image.entrypoint = Some(self.command(&line.rest)),
            "EXPOSE" => {
                for port in self.words(line)? {
                    self.image.expose.extend(ports(&port)?);
                }
            }
            "VOLUME" => {
                let volumes = self.words(line)?;
                self.image.volumes.extend(volumes);
            }
            "ONBUILD" => {
                trigger(&line.rest)?;
                self.scope.onbuild.push(line.rest.clone());
                self.image.onbuild = Some(self.scope.onbuild.clone());
            }
            "STOPSIGNAL" => self.image.stop_signal = Some(self.expand(&line.rest)?),
            "HEALTHCHECK" => self.image.healthcheck = Some(self.healthcheck(line)?),
            "MAINTAINER" => self.image.author = Some(self.expand(&line.rest)?),
            other => return Err(format!("{other} is not done here")),
        }
        Ok(())
    }

    /// A program as a JSON array, or a line for the shell.
    fn command(&self, text: &str) -> Vec<String> {
        array(text).unwrap_or_else(|| self.by_shell(text))
    }

    fn by_shell(&self, text: &str) -> Vec<String> {
        let usual = ["/bin/sh", "-c"].map(String::from).to_vec();
        let mut words = if self.scope.shell.is_empty() { usual } else { self.scope.shell.clone() };
        words.push(text.to_string());
        words
    }

    fn healthcheck(&self, line: &Line) -> Checked<Healthcheck> {
        let (word, rest) = line.rest.split_once(char::is_whitespace).unwrap_or((&line.rest, ""));
        let mut check = Healthcheck::default();
        if word.eq_ignore_ascii_case("NONE") && rest.is_empty() && line.flags.is_empty() {
            return Ok(check);
        }
        if !word.eq_ignore_ascii_case("CMD") || rest.trim().is_empty() {
            return Err("wanted HEALTHCHECK [OPTIONS] CMD … or HEALTHCHECK NONE".into());
        }
        match array(rest.trim()) {
            Some(words) => check.command = words,
            None => check.shell = Some(rest.trim().to_string()),
        }
        for (flag, value) in &line.flags {
            let value = self.expand(value.as_deref().unwrap_or_default())?;
            if flag == "retries" {
                let retries = value.parse().map_err(|_| format!("--retries={value}: no number"))?;
                check.retries = Some(retries);
                continue;
            }
            nanoseconds(&value).map_err(|e| format!("--{flag}: {e}"))?;
            let field = match flag.as_str() {
                "interval" => &mut check.interval,
                "timeout" => &mut check.timeout,
                "start-period" => &mut check.start_period,
                _ => &mut check.start_interval,
            };
            *field = Some(value);
        }
        Ok(check)
    }

    fn run(&mut self, line: &Line) -> Checked<()> {
        let mut run = Run { network: true, ..Run::default() };
        for (flag, value) in &line.flags {
            let value = self.expand(value.as_deref().unwrap_or_default())?;
            match (flag.as_str(), value.as_str()) {
                ("network", "none") => run.network = false,
                ("network", "default" | "host") => {}
                ("mount", mount) => self.mount(&mut run, mount)?,
                (flag, value) => return Err(format!("RUN --{flag}={value} is not done here")),
            }
        }
        match line.documents.as_slice() {
            [] => run.command = self.command(&line.rest),
            [only] if is_document(&line.rest) && only.raw.starts_with("#!") => {
                run.program = Some(only.text());
            }
            [only] if is_document(&line.rest) => run.command = self.by_shell(&only.text()),
            all => {
                let documents = all.iter().map(|d| format!("\n{}{}", d.raw, d.name));
                run.command = self.by_shell(&(line.rest.clone() + &documents.collect::<String>()));
            }
        }
        if run.program.is_none() && run.command.iter().all(String::is_empty) {
            return Err("RUN without a command".into());
        }
        // What the image has counts more than an argument of the same name.
        run.env.clone_from(&self.scope.args);
        run.env.extend(self.scope.env.clone());
        run.user = Some(self.scope.user.clone()).filter(|user| !user.is_empty());
        run.workdir = Some(self.scope.workdir.clone()).filter(|dir| dir.starts_with('/'));
        self.step(line, Action::Run(run));
        Ok(())
    }

    fn copy(&mut self, line: &Line) -> Checked<()> {
        let words = self.words(line)?;
        let [sources @ .., to] = words.as_slice() else { return Err("no words".into()) };
        if sources.is_empty() {
            return Err(format!("wanted {} SOURCE… TARGET", line.name));
        }
        let mut copy = Copy { to: absolute(&self.scope.workdir, to), ..Copy::default() };
        for (flag, value) in &line.flags {
            let value = self.expand(value.as_deref().unwrap_or_default())?;
            match flag.as_str() {
                "chown" => copy.owner = Some(owner(&value)),
                "chmod" => copy.mode = Some(value),
                "from" => match source_of(self.before, &value) {
                    Some(index) => copy.stage = Some(self.before[index].name.clone()),
                    None => copy.image = Some(value),
                },
                // How layers are kept is another matter than what is in them.
                _ => {}
            }
        }
        let elsewhere = copy.stage.is_some() || copy.image.is_some();
        let mut documents = line.documents.iter();
        for source in sources {
            if is_document(source) {
                let Some(document) = documents.next() else { continue };
                self.document(line, document, &copy, sources.len() > 1)?;
                continue;
            }
            let remote = ["http://", "https://", "git://", "git@", "ssh://", "ftp://"];
            if line.name == "ADD" && remote.iter().any(|scheme| source.starts_with(scheme)) {
                return Err(format!("{source}: ADD takes nothing from elsewhere, a RUN may fetch it"));
            }
            copy.from.push(clean(source).ok_or_else(|| format!("{source} lies outside of the context"))?);
        }
        if copy.from.is_empty() {
            return Ok(());
        }
        let context = if elsewhere { Path::new("").into() } else { self.dockerfile.context.clone() };
        let ignore = if elsewhere { Ignore::default() } else { self.ignore.clone() };
        copy.docker = Some(DockerCopy { context, ignore, unpack: line.name == "ADD" });
        if sources.len() > 1 && !copy.to.ends_with('/') {
            return Err(format!("{to}: several sources go into a folder, whose name ends in a slash"));
        }
        self.step(line, Action::Copy(copy));
        Ok(())
    }

    /// A here-document as a file.
    fn document(&mut self, line: &Line, document: &Document, copy: &Copy, several: bool) -> Checked<()> {
        let plain = Expander { values: &self.scope, escape: self.escape, quotes: false };
        let text = document.text();
        let text = if document.expand { plain.expand(&text)? } else { text };
        let folder = copy.to.ends_with('/');
        if several && !folder {
            return Err(format!("{}: several sources go into a folder, whose name ends in a slash", copy.to));
        }
        let to = if folder { format!("{}{}", copy.to, document.name) } else { copy.to.clone() };
        let (owner, mode) = (copy.owner.clone(), copy.mode.clone());
        let copy = Copy { content: Some(text), to, owner, mode, ..Copy::default() };
        self.step(line, Action::Copy(copy));
        Ok(())
    }
}

/// The instruction that stands after ONBUILD.
fn trigger(text: &str) -> Checked<Line> {
    let wrong = |reason: &str| Err(format!("ONBUILD {text}: {reason}"));
    match lines::read(text) {
        Err((_, reason)) => wrong(&reason),
        Ok((mut found, _)) => match (found.pop(), found.is_empty()) {
            (Some(line), true) if ["FROM", "ONBUILD", "MAINTAINER"].contains(&line.name.as_str()) => {
                wrong("this cannot come after it")
            }
            (Some(line), true) => known_flags(&line).map(|()| line),
            _ => wrong("wanted one instruction"),
        },
    }
}

/// Whose files become: of a number alone the group is the same number, whatever the user's group is.
fn owner(user: &str) -> String {
    let number = !user.is_empty() && user.bytes().all(|b| b.is_ascii_digit());
    if number { format!("{user}:{user}") } else { user.to_string() }
}

/// The names that an ARG declares.
pub(super) fn arguments(line: &Line, escape: char) -> impl Iterator<Item = String> {
    let words = split(&line.rest, escape).into_iter();
    words.map(|word| word.split('=').next().unwrap_or_default().to_string())
}

/// Whether an instruction may have the flags that it has.
fn known_flags(line: &Line) -> Checked<()> {
    let known: &[&str] = match line.name.as_str() {
        "RUN" => &["mount", "network"],
        "COPY" => &["from", "chown", "chmod", "link"],
        "ADD" => &["chown", "chmod", "link"],
        "HEALTHCHECK" => &["interval", "timeout", "start-period", "start-interval", "retries"],
        _ => &[],
    };
    match line.flags.iter().find(|(name, value)| {
        !known.contains(&name.as_str()) || value.as_deref().unwrap_or_default().is_empty() && name != "link"
    }) {
        Some((name, _)) if known.contains(&name.as_str()) => Err(format!("--{name} wants a value")),
        Some((name, _)) => {
            Err(format!("{} --{name} is not done here{}", line.name, crate::recipe::suggest(name, known)))
        }
        None => Ok(()),
    }
}

/// The texts of a JSON array; none where it is none.
fn array(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

/// `PORT[-PORT][/PROTOCOL]` as single ports.
fn ports(text: &str) -> Checked<Vec<String>> {
    let whole = with_protocol(&text.to_ascii_lowercase())?;
    let Some((numbers, protocol)) = whole.split_once('/') else { return Ok(vec![whole]) };
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().map_err(|e| format!("{text}: {e}"));
    let range = number(first)?..=number(last)?;
    if range.is_empty() {
        return Err(format!("{text}: it ends before it begins"));
    }
    Ok(range.map(|port| format!("{port}/{protocol}")).collect())
}

/// `path` seen from `workdir`, without `.` and `..`; with a slash at its end where it is meant as a folder.
pub(super) fn absolute(workdir: &str, path: &str) -> String {
    let whole = Path::new("/").join(workdir).join(path);
    let mut parts: Vec<String> = Vec::new();
    for part in whole.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    let last = path.rsplit('/').next().unwrap_or_default();
    let folder = ["", ".", ".."].contains(&last) && !parts.is_empty();
    format!("/{}{}", parts.join("/"), if folder { "/" } else { "" })
}

/// A source below a context, without `.` and `..`; none where it leads out.
pub(super) fn clean(source: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(if parts.is_empty() { ".".to_string() } else { parts.join("/") })
}
