//! The kinds of checks, and which keys go together.
//!
//! A check is of one kind, the one whose key it has; [`KINDS`] is the table of all kinds and of the
//! keys that go with each. [`Check::kind`] refuses other combinations by name.

use super::check::Check;
use serde_json::Value;

/// What is needed to find out whether a check holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The image's documents.
    Image,
    /// The files.
    Files,
    /// A program that runs in a container of its own.
    Command,
    /// A container in which the image's own program runs.
    Container,
    /// That container, when all other checks of it are over.
    Last,
    /// Something that only the caller has.
    Caller,
}

/// A kind of check.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The key that makes a check one of this kind.
    pub key: &'static str,
    /// What it takes.
    pub phase: Phase,
    /// The keys that go with it, beside `name`.
    with: &'static [&'static str],
}

const fn kind(key: &'static str, phase: Phase, with: &'static [&'static str]) -> Kind {
    Kind { key, phase, with }
}

const ONE: &[&str] = &[
    "absent",
    "type",
    "mode",
    "owner",
    "min-size",
    "max-size",
    "sha256",
    "contains",
    "lacks",
    "json",
    "yaml",
    "link",
    "capability",
];
const EACH: &[&str] = &[
    "type",
    "mode",
    "owner",
    "min-size",
    "max-size",
    "contains",
    "lacks",
    "capability",
    "count",
    "min-count",
    "max-count",
    "except",
];
const COMMAND: &[&str] = &[
    "env",
    "as",
    "exit",
    "stdout",
    "stdout-lacks",
    "stdout-is",
    "stderr",
    "stderr-lacks",
    "stderr-is",
    "run",
    "within",
    "retry",
    "setup",
    "teardown",
];
const LIVE: &[&str] = &["run", "within", "retry", "setup", "teardown"];
const ABSENT_LIVE: &[&str] = &["absent", "run", "within", "retry", "setup", "teardown"];
const PROCESS: &[&str] = &["as", "absent", "run", "within", "retry", "setup", "teardown"];

/// All kinds. Of a check with the keys of two the first is its kind.
pub const KINDS: &[Kind] = &[
    kind("file", Phase::Files, ONE),
    kind("files", Phase::Files, EACH),
    kind("package", Phase::Files, &["version", "absent"]),
    kind("user", Phase::Files, &["uid", "gid", "home", "shell", "groups", "absent"]),
    kind("group", Phase::Files, &["gid", "absent"]),
    kind("config", Phase::Image, &[]),
    kind("command", Phase::Command, COMMAND),
    kind("http", Phase::Container, LIVE),
    kind("port", Phase::Container, ABSENT_LIVE),
    kind("process", Phase::Container, PROCESS),
    kind("log", Phase::Container, &["lacks", "run", "within", "retry", "setup", "teardown"]),
    kind("writes-only", Phase::Last, &["run", "within"]),
    kind("stops-within", Phase::Last, &["run", "within"]),
    kind("only-setuid", Phase::Files, &[]),
    kind("no-secrets", Phase::Files, &["except"]),
    kind("no-world-writable", Phase::Files, &["except"]),
    kind("max-wasted", Phase::Image, &[]),
    kind("max-layers", Phase::Image, &[]),
    kind("max-size", Phase::Files, &[]),
    kind("reproducible", Phase::Caller, &[]),
];

impl Check {
    /// Its kind, where its keys go together.
    ///
    /// # Errors
    /// Which keys do not.
    pub fn kind(&self) -> Result<&'static Kind, String> {
        let keys = self.keys();
        let has = |key: &str| keys.iter().any(|(k, _)| k == key);
        let kind = KINDS.iter().find(|kind| has(kind.key)).ok_or_else(|| {
            let known: Vec<&str> = KINDS.iter().map(|k| k.key).collect();
            format!("a check is of no kind: wanted one of {}", known.join(", "))
        })?;
        let alone = |key: &str| key == "name" || key == kind.key;
        for (key, _) in keys.iter().filter(|(key, _)| !alone(key)) {
            if kind.with.contains(&key.as_str()) {
                continue;
            }
            let goes_with: Vec<&str> =
                KINDS.iter().filter(|k| k.with.contains(&key.as_str())).map(|k| k.key).collect();
            return Err(if KINDS.iter().any(|k| k.key == key) {
                format!("`{}` and `{key}` are two checks", kind.key)
            } else {
                format!("`{key}` does not go with `{}`, but with {}", kind.key, goes_with.join(", "))
            });
        }
        self.contradiction(kind).map_or(Ok(kind), Err)
    }

    /// Values that contradict each other.
    fn contradiction(&self, kind: &Kind) -> Option<String> {
        let others =
            self.keys().keys().filter(|k| !["name", "absent", kind.key].contains(&k.as_str())).count();
        let live = [Phase::Container, Phase::Command].contains(&kind.phase);
        if self.absent == Some(true) && others > 0 && !live {
            return Some("nothing else can be said of what is `absent`".to_string());
        }
        let yes = [
            ("no-secrets", self.no_secrets),
            ("no-world-writable", self.no_world_writable),
            ("reproducible", self.reproducible),
        ];
        if let Some((key, _)) = yes.iter().find(|(_, value)| *value == Some(false)) {
            return Some(format!("`{key} = false` says nothing"));
        }
        if self.command.as_ref().is_some_and(Vec::is_empty) {
            return Some("`command` has no program".to_string());
        }
        if let Some(path) = self.file.as_deref().filter(|path| !path.starts_with('/')) {
            return Some(format!("`file` {path:?} does not begin with /"));
        }
        let http = self.http.as_ref()?;
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let parts = [("path", &http.path), ("method", &http.method), ("host", &http.host)];
        let (key, text) =
            parts.iter().find(|(key, text)| !plain(text) || (*key == "path" && !text.starts_with('/')))?;
        Some(format!("{key} {text:?} is none of a request"))
    }

    /// The keys that it has, with their values.
    #[must_use]
    pub fn keys(&self) -> serde_json::Map<String, Value> {
        let Ok(Value::Object(mut keys)) = serde_json::to_value(self) else { return serde_json::Map::new() };
        keys.retain(|_, value| !value.is_null());
        keys
    }

    /// What reports call it.
    #[must_use]
    pub fn title(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let keys = self.keys();
        let Some((key, value)) = KINDS.iter().find_map(|k| Some((k.key, keys.get(k.key)?))) else {
            return String::new();
        };
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        match value {
            Value::Bool(_) => key.to_string(),
            Value::Array(words) => {
                let words: Vec<String> = words.iter().map(text).collect();
                format!("{key} {}", words.join(" ")).trim_end().to_string()
            }
            Value::Object(fields) if key == "http" => {
                let field = |name: &str| fields.get(name).map(text).unwrap_or_default();
                format!("{key} :{}{}", field("port"), field("path"))
            }
            Value::Object(fields) => {
                let given = fields.iter().filter(|(_, value)| !is_nothing(value));
                let given: Vec<String> =
                    given.map(|(name, value)| format!("{name} {}", text(value))).collect();
                format!("{key} {}", given.join(", "))
            }
            other => format!("{key} {}", text(other)),
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(toml: &str) -> Result<Check, String> {
        let check: Check = toml::from_str(toml).map_err(|e| e.to_string())?;
        check.kind().map(|_| check)
    }

    #[test]
    fn keys_go_together() {
        for (toml, want) in [
            (
                "name = 'serves'\nrun = true\nhttp = { port = 80, path = '/', status = 200, body = 'hello' }\nwithin = '10s'",
                "http",
            ),
            ("command = ['nginx', '-t']\nexit = 0", "command"),
            ("file = '/etc/passwd'\nmode = '0644'\nowner = 'root:root'\ncontains = '^web:'", "file"),
            ("file = '/x'\nmax-size = '1k'", "file"),
            ("max-size = '150M'", "max-size"),
            ("files = '/usr/**'\ncount = 0", "files"),
            ("port = 80\nrun = { env = { A = 'b' }, read-only = true }", "port"),
            ("port = '53/udp'\nabsent = true", "port"),
            ("config = { env = { A = 'b', B = { matches = '^x' }, C = false } }", "config"),
            ("user = 'web'\nuid = 7\ngroups = ['a', 'b']", "user"),
            ("stops-within = '5s'", "stops-within"),
            ("file = '/a'\njson = { '/b/0' = 1 }", "file"),
        ] {
            let check = parse(toml).unwrap_or_else(|e| panic!("{toml}: {e}"));
            assert_eq!(check.kind().unwrap().key, want, "{toml}");
            let json = Value::Object(check.keys()).to_string();
            assert_eq!(serde_json::from_str::<Check>(&json).unwrap(), check, "{json}");
            assert_eq!(serde_saphyr::from_str::<Check>(&json).unwrap(), check, "{json}");
            let toml = toml::to_string(&check).unwrap();
            assert_eq!(parse(&toml).unwrap(), check, "{toml}");
        }
    }

    #[test]
    fn wrong_ones_are_named() {
        for (toml, want) in [
            ("name = 'x'", "a check is of no kind: wanted one of file, "),
            ("file = '/a'\nhttp = { port = 1 }", "`file` and `http` are two checks"),
            ("command = ['a']\nmode = '0644'", "`mode` does not go with `command`, but with file, files"),
            ("file = '/a'\nabsent = true\nmode = '0644'", "nothing else can be said of what is `absent`"),
            ("no-secrets = false", "`no-secrets = false` says nothing"),
            ("port = 1\nrun = false", "`run = false` says nothing"),
            ("command = []", "`command` has no program"),
            ("file = 'a'", "`file` \"a\" does not begin with /"),
            ("http = { port = 1, path = '/a b' }", "path \"/a b\" is none of a request"),
            ("http = { port = 1, path = 'a' }", "path \"a\" is none of a request"),
            ("http = { port = 1, host = \"a\\r\\nX: y\" }", "host \"a\\r\\nX: y\" is none of a request"),
            ("fiel = '/a'", "unknown field `fiel`"),
            ("file = '/a'\ncontains = '('", "unclosed group"),
            ("port = 0", "port \"0\" is not one"),
            ("config = { env = { A = 1 } }", "wanted text, { matches = "),
            ("http = { port = 1, stauts = 2 }", "unknown field `stauts`"),
            ("port = 1\nrun = { arg = [] }", "unknown field `arg`"),
        ] {
            let e = parse(toml).unwrap_err();
            assert!(e.contains(want), "{toml}: {e}");
        }
    }

    #[test]
    fn keys_of_the_table_are_keys_of_checks() {
        let schema = serde_json::to_value(schemars::schema_for!(Check)).unwrap();
        let known = schema["properties"].as_object().unwrap();
        let table = KINDS.iter().flat_map(|k| k.with.iter().chain(std::iter::once(&k.key)));
        let table: std::collections::BTreeSet<&str> = table.copied().chain(["name"]).collect();
        assert_eq!(known.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), table);
        assert_eq!(schema["additionalProperties"], false);
        // Both forms of `run`.
        assert!(schema["properties"]["run"].to_string().contains("anyOf"), "{}", schema["properties"]["run"]);
    }

    #[test]
    fn titles() {
        for (toml, want) in [
            ("name = 'x'\nfile = '/a'", "x"),
            ("file = '/a'", "file /a"),
            ("command = ['a', 'b']", "command a b"),
            ("http = { port = 80 }", "http :80/"),
            ("no-secrets = true", "no-secrets"),
            ("config = { user = 'app', workdir = '/x' }", "config user app, workdir /x"),
            ("max-layers = 5", "max-layers 5"),
        ] {
            assert_eq!(parse(toml).unwrap().title(), want);
        }
    }
}
