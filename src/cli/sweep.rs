//! What `rmi`, `prune` and `df` share: what the images and unpacked layers of the store are
//! used by, and the removal of what is not.

use super::table::Format;
use super::{Context, Result, printable};
use crate::bundle::{self, Bundle, Needs};
use crate::oci::{Digest, Image};
use crate::rootfs::{Stale, stale};
use crate::store::{self, Area, Entry, Kept, Plan, Scope, Store, Survey, Usage};
use indicatif::HumanBytes;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::time::SystemTime;

/// Why nothing is removed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody can be asked.
    #[error("prune cannot ask on standard input, which is no terminal, and goes on with --yes only")]
    Unasked,
    /// An image is in use.
    #[error("{image} is used by {}; --force removes it all the same", users.join(", "))]
    Used {
        /// Its name.
        image: String,
        /// Bundles and containers.
        users: Vec<String>,
    },
}

/// Options that `rmi` and `prune` share.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Say what would be removed, remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// A bundle or container, and what it needs.
pub struct User {
    /// `bundle NAME`, `container ID`.
    pub name: String,
    /// What of the store.
    pub needs: Needs,
}

/// All bundles and containers that need something.
pub fn users(context: &Context, store: &Store) -> Result<Vec<User>> {
    let mut users = Vec::new();
    // A store that may only be read has no such folders made.
    let is_there = |area: Area| store.root().join("shipimg").join(area.name()).exists();
    if is_there(Area::Bundles) {
        for bundle in Bundle::all(store)? {
            users.push(User { name: format!("bundle {}", bundle.name()), needs: bundle.needs() });
        }
    }
    if !is_there(Area::Containers) {
        return Ok(users);
    }
    for (state, _) in context.runtime()?.list()? {
        if let Some(needs) = bundle::needs_of(&state.bundle)? {
            users.push(User { name: format!("container {}", state.id), needs });
        }
    }
    Ok(users)
}

/// Those of `users` that are made from the image of `entry`.
pub fn users_of<'a>(survey: &Survey, entry: &Entry, users: &'a [User]) -> Vec<&'a str> {
    let images = manifests(survey, entry);
    let is_user = |u: &&User| u.needs.image.as_ref().is_some_and(|d| images.contains(d));
    users.iter().filter(is_user).map(|u| u.name.as_str()).collect()
}

/// The documents of an entry: its own, and as far as they can be read those of an index.
pub fn manifests(survey: &Survey, entry: &Entry) -> HashSet<Digest> {
    let mut manifests: HashSet<Digest> = entry.digests().cloned().collect();
    if entry.descriptor.is_index() {
        manifests.extend(survey.documents(entry.digests().cloned()).unwrap_or_default());
    }
    manifests
}

/// What will be removed.
pub struct Removal {
    /// Of the store.
    pub plan: Plan,
    /// Unpacked layers.
    pub layers: Stale,
    /// What each of them takes, in bytes.
    layer_sizes: Vec<u64>,
}

impl Removal {
    /// What goes where the entries go that `drop` says, and what `users` need stays. Results of
    /// steps go that were not used since `idle`.
    pub fn new(
        store: &Store,
        survey: &Survey,
        scope: Scope,
        drop: impl Fn(&Entry) -> bool,
        users: &[User],
        idle: SystemTime,
    ) -> Result<Self> {
        let caches = if scope == Scope::All { store.idle_caches(idle)? } else { Vec::new() };
        let (idle, busy): (Vec<Kept>, _) = store.kept()?.into_iter().partition(|k| k.used < idle);
        let needed = users.iter().filter_map(|u| u.needs.image.clone());
        let keep: Vec<Digest> = needed.chain(busy.into_iter().map(|k| k.manifest)).collect();
        let mut plan = survey.plan(scope, &drop, &keep)?;
        plan.results = idle.into_iter().map(|k| k.path).collect();
        plan.caches = caches;
        let layers = match scope {
            Scope::Dropped => Stale::default(),
            Scope::All => {
                let lowers: Vec<_> = users.iter().flat_map(|u| u.needs.lowers.iter().cloned()).collect();
                let kept = survey.entries().iter().filter(|e| !drop(e)).flat_map(Entry::digests);
                let images = images(store, survey, kept.chain(survey.held()).chain(&keep).cloned());
                stale(store, images, &lowers)?
            }
        };
        let mut usage = Usage::default();
        let layer_sizes = layers.folders.iter().map(|f| usage.of(f)).collect::<store::Result<_>>()?;
        Ok(Self { plan, layers, layer_sizes })
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        self.plan.size() + self.layers_size()
    }

    /// Bytes on disk of the unpacked layers.
    pub fn layers_size(&self) -> u64 {
        self.layer_sizes.iter().sum()
    }

    fn is_empty(&self) -> bool {
        let plan = &self.plan;
        let files = plan.blobs.len()
            + plan.partials.len()
            + plan.results.len()
            + plan.caches.len()
            + self.layers.folders.len();
        plan.entries.is_empty() && files == 0
    }

    /// `3 blobs, 1 unpacked layer: 2.1 MiB`.
    pub fn summary(&self) -> String {
        let parts = [
            (self.plan.entries.len(), "name"),
            (self.plan.blobs.len(), "blob"),
            (self.plan.partials.len(), "partial download"),
            (self.plan.results.len(), "kept result"),
            (self.plan.caches.len(), "cache of steps"),
            (self.layers.folders.len(), "unpacked layer"),
        ];
        let count = |(n, what): &(usize, &str)| format!("{n} {what}{}", if *n == 1 { "" } else { "s" });
        let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(count).collect();
        if parts.is_empty() {
            return "nothing".to_string();
        }
        format!("{}: {}", parts.join(", "), HumanBytes(self.size()))
    }

    fn json(&self, dry_run: bool) -> Value {
        let names = self.plan.entries.iter().map(
            |e| json!({"name": e.reference.as_ref().map(ToString::to_string), "digest": e.descriptor.digest}),
        );
        let blobs = self.plan.blobs.iter().map(|(d, w)| json!({"digest": d, "size": w.size}));
        let partials = self.plan.partials.iter().map(|w| json!({"path": w.path, "size": w.size}));
        let layers = self.layers.folders.iter().zip(&self.layer_sizes);
        json!({
            "dryRun": dry_run,
            "untagged": names.collect::<Vec<_>>(),
            "blobs": blobs.collect::<Vec<_>>(),
            "partials": partials.collect::<Vec<_>>(),
            "layers": layers.map(|(p, s)| json!({"path": p, "size": s})).collect::<Vec<_>>(),
            "reclaimed": self.size(),
        })
    }

    fn print(&self, options: &Options) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match options.format {
            Format::Json => writeln!(out, "{:#}", self.json(options.dry_run))?,
            Format::Table => {
                for entry in &self.plan.entries {
                    writeln!(out, "untagged {}", printable(&entry.name()))?;
                }
                let waste = self.plan.blobs.iter().map(|(d, w)| (d.to_string(), w.size));
                let partials = self.plan.partials.iter().map(|w| (w.path.display().to_string(), w.size));
                let layers = self.layers.folders.iter().map(|p| p.display().to_string());
                let layers = layers.zip(self.layer_sizes.iter().copied());
                if options.dry_run {
                    for (what, size) in waste.chain(partials).chain(layers) {
                        writeln!(out, "would remove {what} {}", HumanBytes(size))?;
                    }
                }
                let done = if options.dry_run { "would remove" } else { "removed" };
                writeln!(out, "{done} {}", self.summary())?;
            }
        }
        Ok(())
    }
}

/// The images that these manifests and indexes are or lead to, as far as they are there and
/// whole; looked for when the first is asked for.
fn images<'a>(
    store: &'a Store,
    survey: &'a Survey,
    roots: impl Iterator<Item = Digest> + 'a,
) -> impl Iterator<Item = Image> + 'a {
    let documents = std::iter::once_with(|| survey.documents(roots).unwrap_or_default()).flatten();
    documents.filter_map(|d| store.image_of(&d).ok().flatten())
}

/// Removes what `plan` makes of the store: shows it, asks where `ask` says so, and makes the
/// plan anew under the lock.
pub fn remove(
    store: &Store,
    options: &Options,
    ask: bool,
    plan: impl Fn(&Survey) -> Result<Removal>,
) -> Result<()> {
    if options.dry_run {
        return plan(&store.survey()?)?.print(options);
    }
    if ask {
        let shown = plan(&store.survey()?)?;
        if shown.is_empty() || !confirm(&shown)? {
            say!("nothing removed");
            return Ok(());
        }
    }
    let survey = store.pruning()?;
    let removal = plan(&survey)?;
    survey.apply(&removal.plan)?;
    removal.print(options)?;
    let grave = removal.layers.retire()?;
    // Others go on while the layers are deleted.
    drop(survey);
    drop(grave);
    Ok(())
}

fn confirm(removal: &Removal) -> Result<bool> {
    for entry in &removal.plan.entries {
        say!("untag {}", printable(&entry.name()));
    }
    let mut err = std::io::stderr();
    write!(err, "remove {}? [y/N] ", removal.summary())?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether a person can be asked.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}
