//! A new image from an old one: manifest and configuration edited as JSON, so that fields that
//! nobody here knows stay as they are. A Docker image becomes an OCI image of the same blobs.

use super::{Descriptor, Digest, Error, Manifest, Result, media_type};
use serde_json::{Map, Value, json};

/// One line of an image's history (image-spec, config.md, "history").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// RFC 3339.
    pub created: String,
    /// What made it.
    pub created_by: String,
    /// Who made it.
    pub author: Option<String>,
    /// What for.
    pub comment: Option<String>,
}

/// Manifest and configuration on their way to a new image.
#[derive(Debug, Clone)]
pub struct Edit {
    manifest: Map<String, Value>,
    config: Map<String, Value>,
}

/// A document and what describes it.
pub type Written = (Descriptor, Vec<u8>);

fn object(what: &'static str, bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { what, source })
}

/// The object or array `key` of `map`, which is made where it is not one.
fn child<'a>(map: &'a mut Map<String, Value>, key: &str, empty: Value) -> &'a mut Value {
    let value = map.entry(key).or_insert(Value::Null);
    if std::mem::discriminant(value) != std::mem::discriminant(&empty) {
        *value = empty;
    }
    value
}

impl Edit {
    /// Begins with the image of these documents, which have been read as an [`super::Image`].
    ///
    /// # Errors
    /// [`Error::Json`].
    pub fn of(manifest: &[u8], config: &[u8]) -> Result<Self> {
        let manifest = object("manifest", &Manifest::docker_to_oci(manifest)?)?;
        Ok(Self { manifest, config: object("image config", config)? })
    }

    /// The `config` object of the configuration: what a container is run with.
    pub fn settings(&mut self) -> &mut Map<String, Value> {
        match child(&mut self.config, "config", json!({})) {
            Value::Object(map) => map,
            _ => unreachable!("it was made an object"),
        }
    }

    /// Sets a field of the configuration itself, as `author`.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.config.insert(key.to_string(), value.into());
    }

    /// The manifest's annotations.
    pub fn annotations(&mut self) -> &mut Map<String, Value> {
        match child(&mut self.manifest, "annotations", json!({})) {
            Value::Object(map) => map,
            _ => unreachable!("it was made an object"),
        }
    }

    /// Puts a layer on top.
    pub fn add_layer(&mut self, layer: &Descriptor, diff_id: &Digest, step: &Step) {
        push(&mut self.manifest, "layers", json!(layer));
        if let Value::Object(rootfs) = child(&mut self.config, "rootfs", json!({"type": "layers"})) {
            push(rootfs, "diff_ids", json!(diff_id));
        }
        self.remember(step, false);
    }

    /// Takes all layers away, and the history with them.
    pub fn clear_layers(&mut self) {
        self.manifest.insert("layers".into(), json!([]));
        self.config.insert("rootfs".into(), json!({"type": "layers", "diff_ids": []}));
        self.config.insert("history".into(), json!([]));
    }

    /// Notes a step that made no layer.
    pub fn note(&mut self, step: &Step) {
        self.remember(step, true);
    }

    fn remember(&mut self, step: &Step, empty: bool) {
        let mut entry = Map::new();
        entry.insert("created".into(), json!(step.created));
        entry.insert("created_by".into(), json!(step.created_by));
        for (key, text) in [("author", &step.author), ("comment", &step.comment)] {
            if let Some(text) = text {
                entry.insert(key.into(), json!(text));
            }
        }
        if empty {
            entry.insert("empty_layer".into(), json!(true));
        }
        push(&mut self.config, "history", entry.into());
        self.config.insert("created".into(), json!(step.created));
    }

    /// Gives the last steps of the history these comments, the last step the first of them.
    pub fn comment_last(&mut self, comments: &[String]) {
        if let Value::Array(history) = child(&mut self.config, "history", json!([])) {
            for (entry, comment) in history.iter_mut().rev().zip(comments) {
                entry["comment"] = json!(comment);
            }
        }
    }

    /// Sets the variable `NAME=VALUE` of [`Self::settings`], in its place or as the last.
    pub fn set_variable(settings: &mut Map<String, Value>, variable: &str) {
        let Value::Array(list) = child(settings, "Env", json!([])) else { return };
        let name = |text: &str| text.split('=').next().unwrap_or_default().to_string();
        let old = list.iter_mut().find(|v| v.as_str().is_some_and(|t| name(t) == name(variable)));
        match old {
            Some(old) => *old = json!(variable),
            None => list.push(json!(variable)),
        }
    }

    /// Puts `name` into the object `key` of [`Self::settings`].
    pub fn member(settings: &mut Map<String, Value>, key: &str, name: &str, value: Value) {
        if let Value::Object(object) = child(settings, key, json!({})) {
            object.insert(name.to_string(), value);
        }
    }

    /// The configuration and the manifest.
    #[must_use]
    pub fn finish(mut self) -> (Written, Written) {
        let config = Value::Object(self.config).to_string().into_bytes();
        let config_descriptor = Descriptor::of(media_type::CONFIG, &config);
        self.manifest.insert("config".into(), json!(config_descriptor));
        if self.manifest.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty) {
            self.manifest.remove("annotations");
        }
        let manifest = Value::Object(self.manifest).to_string().into_bytes();
        let descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
        ((config_descriptor, config), (descriptor, manifest))
    }
}

fn push(map: &mut Map<String, Value>, key: &str, value: Value) {
    if let Value::Array(list) = child(map, key, json!([])) {
        list.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Document, Image};
    use super::*;

    #[test]
    fn variables_keep_their_place() {
        let mut settings = Map::new();
        for variable in ["A=1", "B=2", "A=3"] {
            Edit::set_variable(&mut settings, variable);
        }
        assert_eq!(settings["Env"], json!(["A=3", "B=2"]));
    }

    #[test]
    fn unknown_fields_stay_and_the_image_is_whole() {
        let layer = Descriptor::of(media_type::DOCKER_LAYER_GZIP, b"one");
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST, "x": [1],
            "config": Descriptor::of(media_type::DOCKER_CONFIG, b"c"), "layers": [layer]});
        let config = json!({"os": "linux", "architecture": "amd64", "moby.x": {"y": 1},
            "config": {"Env": ["A=1"], "Odd": true},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"1")]}});
        let begin = || Edit::of(manifest.to_string().as_bytes(), config.to_string().as_bytes()).unwrap();
        let mut edit = begin();
        let step = Step { created: "2020-01-01T00:00:00Z".into(), created_by: "t".into(), ..Step::default() };
        edit.add_layer(&Descriptor::of(media_type::LAYER_ZSTD, b"two"), &Digest::of(b"2"), &step);
        edit.note(&step);
        edit.settings().insert("User".into(), json!("7"));
        let ((_, config), (descriptor, manifest)) = edit.finish();
        let Document::Manifest(parsed) = Document::parse(&manifest, media_type::MANIFEST).unwrap() else {
            panic!()
        };
        let image = Image::new(descriptor, parsed, &config).unwrap();
        assert_eq!(image.layers.len(), 2);
        assert_eq!(image.layers[0].descriptor.media_type, media_type::LAYER_GZIP);
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!((&config["moby.x"]["y"], &config["config"]["Odd"]), (&json!(1), &json!(true)));
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
        assert_eq!(serde_json::from_slice::<Value>(&manifest).unwrap()["x"], json!([1]));
        let mut edit = begin();
        edit.clear_layers();
        let ((_, config), _) = edit.finish();
        assert_eq!(serde_json::from_slice::<Value>(&config).unwrap()["rootfs"]["diff_ids"], json!([]));
    }
}
