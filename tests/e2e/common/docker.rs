//! docker-archives by code, in the forms that docker itself has written over the years.

use super::layout::{Tar, sha256};
use serde_json::{Value, json};

/// A docker-archive being written.
pub struct DockerArchive {
    tar: Tar,
    images: Vec<Value>,
}

/// The configuration of an image with these layers, as docker writes it.
pub fn config(diff_ids: &[String]) -> Vec<u8> {
    json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "container_config": {"Hostname": "x"}, "docker_version": "20.10.5",
        "created": "2021-01-02T03:04:05.678Z", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes()
}

impl DockerArchive {
    /// An empty one.
    pub fn new() -> Self {
        Self { tar: Tar::new(), images: Vec::new() }
    }

    /// Any member.
    pub fn file(self, name: &str, bytes: &[u8]) -> Self {
        Self { tar: self.tar.file(name, bytes), ..self }
    }

    /// A link to another member.
    pub fn symlink(self, name: &str, target: &str) -> Self {
        Self { tar: self.tar.symlink(name, target), ..self }
    }

    /// A hard link to another member.
    pub fn link(self, name: &str, target: &str) -> Self {
        Self { tar: self.tar.link(name, target), ..self }
    }

    /// An image as docker wrote it until version 24: a folder for each layer.
    pub fn old(mut self, tags: &[&str], layers: &[Vec<u8>]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|l| sha256(l)).collect();
        let mut names = Vec::new();
        for (layer, id) in layers.iter().zip(&diff_ids) {
            let id = &sha256(id.as_bytes())[7..];
            let name = format!("{id}/layer.tar");
            if !self.images.iter().any(|i| i["Layers"].as_array().unwrap().contains(&json!(name))) {
                self.tar = self.tar.dir(&format!("{id}/")).file(&format!("{id}/VERSION"), b"1.0");
                self.tar = self.tar.file(&format!("{id}/json"), b"{}").file(&name, layer);
            }
            names.push(name);
        }
        let config = config(&diff_ids);
        let name = format!("{}.json", &sha256(&config)[7..]);
        self.file(&name, &config).image(&name, tags, &names)
    }

    /// An entry of `manifest.json`.
    pub fn image(mut self, config: &str, tags: &[&str], layers: &[String]) -> Self {
        let tags = if tags.is_empty() { Value::Null } else { json!(tags) };
        self.images.push(json!({"Config": config, "RepoTags": tags, "Layers": layers}));
        self
    }

    /// The bytes, with `manifest.json` at the end, as docker has it.
    pub fn finish(self) -> Vec<u8> {
        self.tar.file("manifest.json", json!(self.images).to_string().as_bytes()).finish()
    }
}
