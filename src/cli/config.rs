//! `shipimg config`: other settings for an image.

use super::back::{Stepping, Tagging, Work};
use super::import::{Words, words};
use super::settings::variable;
use super::{Context, Result};
use crate::oci::{Edit, Name};
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a reference, the end of one, or a digest
    name: Name,
    /// The program: words, or a JSON array
    #[arg(long, value_name = "WORDS", value_parser = words, allow_hyphen_values = true)]
    entrypoint: Option<Words>,
    /// Default arguments of the program, or the program: words, or a JSON array
    #[arg(long, value_name = "WORDS", value_parser = words, allow_hyphen_values = true)]
    cmd: Option<Words>,
    /// Set an environment variable
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// Set a label
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    label: Vec<String>,
    /// Set an annotation of the manifest
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    annotation: Vec<String>,
    /// User and group, as names or numbers
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The working directory
    #[arg(long, alias = "workdir", value_name = "DIR")]
    workingdir: Option<String>,
    /// When the image was made, RFC 3339
    #[arg(long, value_name = "TIME")]
    created: Option<String>,
    /// A path where containers keep data
    #[arg(long, value_name = "DIR")]
    volume: Vec<String>,
    /// A port that containers listen on
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    port: Vec<String>,
    /// The signal that ends a container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Take away all that is set of a kind, before anything is set
    #[arg(long, value_enum, value_name = "WHAT")]
    clear: Vec<Clear>,
    #[command(flatten)]
    tagging: Tagging,
    #[command(flatten)]
    stepping: Stepping,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Clear {
    Entrypoint,
    Cmd,
    Env,
    Label,
    Annotation,
    Volume,
    Port,
}

impl Clear {
    const fn key(self) -> &'static str {
        match self {
            Self::Entrypoint => "Entrypoint",
            Self::Cmd => "Cmd",
            Self::Env => "Env",
            Self::Label => "Labels",
            Self::Annotation => "",
            Self::Volume => "Volumes",
            Self::Port => "ExposedPorts",
        }
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let (mut work, new) = Work::named(context, &self.name, &self.tagging, &self.stepping)?;
        for clear in &self.clear {
            match clear {
                Clear::Annotation => work.edit.annotations().clear(),
                other => drop(work.edit.settings().remove(other.key())),
            }
        }
        self.apply(work.edit.settings());
        let annotations = work.edit.annotations();
        for (name, value) in self.annotation.iter().filter_map(|a| a.split_once('=')) {
            annotations.insert(name.to_string(), json!(value));
        }
        let step = Work::step("config", &self.stepping);
        work.edit.note(&step);
        if let Some(author) = &self.stepping.author {
            work.edit.set("author", author.as_str());
        }
        if let Some(created) = &self.created {
            work.edit.set("created", created.as_str());
        }
        work.publish(&new)?;
        Ok(ExitCode::SUCCESS)
    }

    fn apply(&self, settings: &mut Map<String, Value>) {
        for (key, words) in [("Entrypoint", &self.entrypoint), ("Cmd", &self.cmd)] {
            if let Some(words) = words {
                settings.insert(key.into(), json!(words.0));
            }
        }
        let texts =
            [("User", &self.user), ("WorkingDir", &self.workingdir), ("StopSignal", &self.stop_signal)];
        for (key, text) in texts {
            if let Some(text) = text {
                settings.insert(key.into(), json!(text));
            }
        }
        for variable in &self.env {
            Edit::set_variable(settings, variable);
        }
        for (name, value) in self.label.iter().filter_map(|l| l.split_once('=')) {
            Edit::member(settings, "Labels", name, json!(value));
        }
        for volume in &self.volume {
            Edit::member(settings, "Volumes", volume, json!({}));
        }
        for port in &self.port {
            let port = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
            Edit::member(settings, "ExposedPorts", &port, json!({}));
        }
    }
}
