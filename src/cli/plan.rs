//! `shipimg plan`: builds of several recipes, spread over workers.

use super::build::Reading;
use super::{Context, Result};
use crate::oci::Platform;
use crate::recipe::{self, Job, Plan, Shard};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recipes
    #[arg(value_name = "RECIPE", required = true)]
    recipes: Vec<PathBuf>,
    /// Over how many workers
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    shards: u16,
    /// Build each recipe for each of these platforms [default: this machine's]
    #[arg(long, value_name = "OS/ARCH,…", value_delimiter = ',')]
    platforms: Vec<Platform>,
    /// How to print: a matrix for a job of GitHub Actions or of GitLab CI, or JSON
    #[arg(long, value_enum, default_value_t = Form::Json)]
    format: Form,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    GithubMatrix,
    Gitlab,
    Json,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let lease = store.lease()?;
        let mut jobs = Vec::new();
        let here = [Platform::host()];
        for platform in if self.platforms.is_empty() { &here[..] } else { &self.platforms } {
            for path in &self.recipes {
                let recipe = self.reading.recipe_for(path, platform)?;
                let lock = self.reading.lock(&recipe, (&store, &lease))?;
                jobs.push(Job::of(&Plan::of(&recipe, &lock)?, path.display().to_string()));
            }
        }
        let shards = recipe::shards(jobs, usize::from(self.shards));
        let mut out = std::io::stdout();
        match self.format {
            Form::Json => writeln!(out, "{:#}", json!(shards))?,
            Form::GithubMatrix => writeln!(out, "{}", github(&shards))?,
            Form::Gitlab => write!(out, "{}", gitlab(&shards))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The command lines of a shard's builds: recipe and platform of each.
fn builds(shard: &Shard) -> String {
    let each = shard.jobs.iter().map(|job| format!("{} {}", job.recipe, job.platform));
    each.collect::<Vec<_>>().join("\n")
}

/// For `strategy.matrix: ${{ fromJSON(…) }}`.
fn github(shards: &[Shard]) -> Value {
    let include = shards.iter().map(|shard| json!({"shard": shard.shard, "builds": builds(shard)}));
    json!({"include": include.collect::<Vec<_>>()})
}

/// A file of jobs for `trigger: include: artifact:`; each extends a job `.shipimg-build` of the pipeline.
fn gitlab(shards: &[Shard]) -> String {
    let job = |shard: &Shard| {
        let variables = json!({"SHARD": shard.shard.to_string(), "BUILDS": builds(shard)});
        format!("build-{}:\n  extends: .shipimg-build\n  variables: {variables}\n", shard.shard)
    };
    shards.iter().map(job).collect()
}
