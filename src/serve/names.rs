//! Which entries of the store a repository's name means: see the head of the room.

use crate::oci::{Descriptor, Reference};
use crate::store::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// An entry of the store as a repository has it.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it belongs.
    home: Reference,
    /// Its tag, where it has a name with one.
    pub tag: Option<String>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
}

impl Item {
    /// None where the entry belongs to no repository.
    pub fn new(entry: Entry) -> Option<Self> {
        let home = entry.home()?;
        let tag = entry.reference.as_ref().and_then(|r| r.tag().map(str::to_string));
        Some(Self { home, tag, descriptor: entry.descriptor })
    }

    /// `registry/repository`.
    pub fn full_name(&self) -> String {
        self.home.full_name()
    }
}

/// How an item fits a name; the smaller, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// It was pushed here.
    Own,
    /// It is what the name means on a command line.
    Named,
    /// It has this repository in another registry.
    Other,
}

/// A repository, as asked for.
#[derive(Debug, Clone)]
pub struct Place {
    name: String,
    own: Reference,
    named: Option<Reference>,
    /// Only this registry's.
    scope: Option<String>,
}

impl Place {
    /// The repository `name` at `registry`, an own name of this server; where the name is one.
    pub fn new(registry: &str, name: &str) -> Option<Self> {
        if name.contains([':', '@']) {
            return None;
        }
        let own = format!("{registry}/{name}").parse().ok()?;
        Some(Self { name: name.to_string(), own, named: name.parse().ok(), scope: None })
    }

    /// Narrowed to what comes from `registry`.
    pub fn within(mut self, registry: Option<&str>) -> Self {
        self.scope = registry.map(str::to_string);
        self
    }

    /// The name as in the path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The full name of what is pushed here: `localhost:5000/lab/app`.
    pub fn own_name(&self) -> String {
        self.own.full_name()
    }

    /// The own name with a tag; none where it is no tag.
    pub fn tagged(&self, tag: &str) -> Option<Reference> {
        if tag.contains(['/', '@', ':']) {
            return None;
        }
        format!("{}:{tag}", self.own_name()).parse().ok()
    }

    fn rank(&self, item: &Item) -> Option<Rank> {
        let same =
            |r: &Reference| r.registry() == item.home.registry() && r.repository() == item.home.repository();
        if let Some(scope) = &self.scope {
            let hub = scope == "docker.io" && self.named.as_ref().is_some_and(same);
            let here = item.home.registry() == scope && item.home.repository() == self.name;
            return (hub || here).then_some(Rank::Named);
        }
        if same(&self.own) {
            return Some(Rank::Own);
        }
        if self.named.as_ref().is_some_and(same) {
            return Some(Rank::Named);
        }
        (item.home.repository() == self.name).then_some(Rank::Other)
    }

    /// The items of this repository.
    pub fn members<'a>(&self, items: &'a [Item]) -> Vec<(Rank, &'a Item)> {
        let mut members: Vec<_> = items.iter().filter_map(|i| Some((self.rank(i)?, i))).collect();
        members.sort_by_key(|(rank, _)| *rank);
        members
    }

    /// Its tags, sorted, and what they lead to.
    pub fn tags<'a>(&self, items: &'a [Item]) -> BTreeMap<&'a str, (Rank, &'a Item)> {
        let mut tags: BTreeMap<&str, (Rank, &Item)> = BTreeMap::new();
        let mut unclear = BTreeSet::new();
        for (rank, item) in self.members(items) {
            let Some(tag) = item.tag.as_deref() else { continue };
            match tags.get(tag) {
                None => {
                    tags.insert(tag, (rank, item));
                }
                Some((Rank::Other, first)) if first.descriptor.digest != item.descriptor.digest => {
                    unclear.insert(tag);
                }
                Some(_) => {}
            }
        }
        tags.retain(|tag, _| !unclear.contains(tag));
        tags
    }
}

/// The repositories that a client at `registry` can ask for, sorted.
pub fn catalog(items: &[Item], registry: &str) -> BTreeSet<String> {
    let name = |item: &Item| {
        let home = item.home.registry();
        if home == registry || home == "docker.io" || home.contains(':') {
            return item.home.repository().to_string();
        }
        item.full_name()
    };
    items.iter().map(name).collect()
}

/// The name of this server, listening on `port`, for a client that calls it `host`.
pub fn own_registry(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    let name = match host.rsplit_once(':') {
        Some((name, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => &host,
    };
    let loopback = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
    let registry = format!("{name}:{port}");
    let valid = format!("{registry}/x").parse::<Reference>().is_ok_and(|r| r.registry() == registry);
    if loopback || !valid { format!("localhost:{port}") } else { registry }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, content: &str) -> Item {
        let reference: Reference = name.parse().unwrap();
        let descriptor = Descriptor::of("x", content.as_bytes());
        Item::new(Entry { reference: Some(reference), descriptor, shadow: None, tagged: None }).unwrap()
    }

    #[test]
    fn names_of_the_server() {
        for (host, want) in [
            ("laptop:5000", "laptop:5000"),
            ("Laptop", "laptop:5000"),
            ("laptop.lan:443", "laptop.lan:5000"),
            ("127.0.0.1:5000", "localhost:5000"),
            ("127.9.9.9", "localhost:5000"),
            ("[::1]:5000", "localhost:5000"),
            ("localhost:1", "localhost:5000"),
            ("[fe80::1]:5000", "[fe80::1]:5000"),
            ("192.168.0.7", "192.168.0.7:5000"),
            ("docker.io", "docker.io:5000"),
            ("index.docker.io:443", "index.docker.io:5000"),
            ("my_registry:5000", "localhost:5000"),
            ("a/b", "localhost:5000"),
            ("a@b", "localhost:5000"),
            ("", "localhost:5000"),
        ] {
            assert_eq!(own_registry(host, 5000), want, "{host}");
        }
    }

    #[test]
    fn tags_lead_to_the_nearest() {
        let items = [
            item("localhost:5000/alpine:mine", "1"),
            item("docker.io/library/alpine:latest", "2"),
            item("docker.io/library/alpine:mine", "3"),
            item("quay.io/org/app:1", "4"),
            item("registry.lan:6000/org/app:1", "5"),
            item("registry.lan:6000/org/app:2", "6"),
        ];
        let tags = |name: &str| {
            let place = Place::new("localhost:5000", name).unwrap();
            let tags = place.tags(&items);
            tags.iter()
                .map(|(t, (_, i))| {
                    let n = items.iter().position(|o| o.descriptor == i.descriptor).unwrap();
                    format!("{t}={}", n + 1)
                })
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (name, want) in [
            ("alpine", "latest=2 mine=1"),
            ("library/alpine", "latest=2 mine=3"),
            ("docker.io/library/alpine", "latest=2 mine=3"),
            ("org/app", "2=6"),
            ("quay.io/org/app", "1=4"),
            ("nothing", ""),
        ] {
            assert_eq!(tags(name), want, "{name}");
        }
        let catalog: Vec<String> = catalog(&items, "localhost:5000").into_iter().collect();
        assert_eq!(catalog, ["alpine", "library/alpine", "org/app", "quay.io/org/app"]);
        for name in ["", "A", "a:b", "a@b", "../a", "a//b", "a/", "/a", "a b"] {
            assert!(Place::new("localhost:5000", name).is_none(), "{name}");
        }
        let scoped = Place::new("localhost:5000", "org/app").unwrap().within(Some("quay.io"));
        assert_eq!(scoped.tags(&items).len(), 1);
    }
}
