//! Image configuration → runtime configuration (image-spec, conversion.md).

use super::{Error, HEALTH_ANNOTATION, Ids, Result};
use crate::oci::{Image, ImageConfig};
use oci_spec::runtime::{MountBuilder, Process, ProcessBuilder, Spec, UserBuilder};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// Prefix of the annotations that the image-spec defines for converted fields.
const ANNOTATION: &str = "org.opencontainers.image";
/// `PATH` where the image gives none, as in every container tool.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The image's `Config.User`, as written.
#[must_use]
pub fn user(image: &Image) -> &str {
    image.config.config().as_ref().and_then(|c| c.user().as_deref()).unwrap_or("")
}

/// Puts what the image says of its process into `spec`: user, environment, arguments,
/// working folder, volumes, annotations.
///
/// # Errors
/// [`Error::Config`] where a volume or the working folder is no absolute, clean path.
pub fn apply(spec: &mut Spec, image: &Image, ids: &Ids) -> Result<()> {
    let config = image.config.config().as_ref();
    let mut env = config.and_then(|c| c.env().clone()).unwrap_or_default();
    if !env.iter().any(|e| e.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.to_string());
    }
    let cwd = config.and_then(|c| c.working_dir().clone()).unwrap_or_default();
    let cwd = if cwd.is_empty() { PathBuf::from("/") } else { clean("WorkingDir", &cwd)? };
    let mut args = config.and_then(|c| c.entrypoint().clone()).unwrap_or_default();
    args.extend(config.and_then(|c| c.cmd().clone()).unwrap_or_default());
    if args.is_empty() {
        args.push("/bin/sh".to_string());
    }
    let process =
        spec.process_mut().get_or_insert_with(|| ProcessBuilder::default().build().unwrap_or_default());
    process.set_env(Some(env)).set_cwd(cwd).set_args(Some(args));
    set_user(process, ids);

    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for volume in config.and_then(|c| c.volumes().clone()).unwrap_or_default() {
        let options = ["rw", "nosuid", "nodev", "relatime", "tmpcopyup"].map(String::from).to_vec();
        let mount = MountBuilder::default()
            .destination(clean("Volumes", &volume)?)
            .typ("tmpfs")
            .source("tmpfs")
            .options(options)
            .build();
        mounts.extend(mount.ok());
    }
    spec.set_mounts(Some(mounts));
    let mut annotations = annotations(&image.config);
    if let Some(health) = image.health.as_ref().and_then(|h| serde_json::to_string(h).ok()) {
        annotations.insert(HEALTH_ANNOTATION.to_string(), health);
    }
    spec.set_annotations(Some(annotations));
    Ok(())
}

/// Makes `ids` the user of the process, with a home where the environment has none.
pub fn set_user(process: &mut Process, ids: &Ids) {
    let mut user = UserBuilder::default().uid(ids.uid).gid(ids.gid).build().unwrap_or_default();
    if !ids.additional.is_empty() {
        user.set_additional_gids(Some(ids.additional.clone()));
    }
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", ids.home.as_deref().unwrap_or("/")));
    }
    process.set_user(user).set_env(Some(env));
}

fn annotations(image: &ImageConfig) -> HashMap<String, String> {
    let config = image.config().as_ref();
    let mut out = HashMap::new();
    let mut put = |key: &str, value: String| {
        if !value.is_empty() {
            out.insert(format!("{ANNOTATION}.{key}"), value);
        }
    };
    put("os", image.os().to_string());
    put("architecture", image.architecture().to_string());
    put("variant", image.variant().clone().unwrap_or_default());
    put("author", image.author().clone().unwrap_or_default());
    put("created", image.created().clone().unwrap_or_default());
    put("stopSignal", config.and_then(|c| c.stop_signal().clone()).unwrap_or_default());
    put("exposedPorts", config.and_then(|c| c.exposed_ports().clone()).unwrap_or_default().join(","));
    out.extend(config.and_then(|c| c.labels().clone()).unwrap_or_default());
    // What the runner is asked for by annotation is the caller's to ask.
    out.retain(|key, _| !key.starts_with("org.shipimg."));
    out
}

/// An absolute path without `..`, as a volume or a working folder must be.
fn clean(field: &'static str, path: &str) -> Result<PathBuf> {
    let fail = || Error::Config { field, value: path.chars().take(200).collect() };
    if !path.starts_with('/') || path.contains('\0') {
        return Err(fail());
    }
    let mut out = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => out.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(fail()),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Digest, Document, media_type};

    fn image(config: &serde_json::Value) -> Image {
        let d = serde_json::to_value(Descriptor::of(media_type::CONFIG, b"")).unwrap();
        let manifest = serde_json::json!({"schemaVersion": 2, "config": d, "layers": []}).to_string();
        let Document::Manifest(manifest) = Document::parse(manifest.as_bytes(), "").unwrap() else {
            panic!()
        };
        let config = serde_json::json!({"os": "linux", "architecture": "amd64", "author": "me",
            "config": config, "rootfs": {"type": "layers", "diff_ids": []}});
        let descriptor = Descriptor::new(media_type::MANIFEST, Digest::of(b""), 0);
        Image::new(descriptor, manifest, config.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn converts_every_field() {
        let image = image(&serde_json::json!({
            "User": "web", "Env": ["A=b"], "Entrypoint": ["/e"], "Cmd": ["c"], "WorkingDir": "/srv/",
            "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGINT",
            "Labels": {"l": "v", "org.shipimg.network": "private", "org.opencontainers.image.author": "label wins"}}));
        assert_eq!(user(&image), "web");
        let mut spec = Spec::default();
        let ids = Ids { uid: 7, gid: 8, additional: vec![9], home: Some("/srv".to_string()) };
        apply(&mut spec, &image, &ids).unwrap();
        let process = spec.process().clone().unwrap();
        assert_eq!(process.args().clone().unwrap(), ["/e", "c"]);
        assert_eq!(process.env().clone().unwrap(), [DEFAULT_PATH, "A=b", "HOME=/srv"]);
        assert_eq!(process.cwd(), Path::new("/srv"));
        assert_eq!((process.user().uid(), process.user().gid()), (7, 8));
        assert_eq!(process.user().additional_gids().clone().unwrap(), [9]);
        let mounts = spec.mounts().clone().unwrap();
        assert_eq!(mounts.last().unwrap().destination(), Path::new("/data"));
        let annotations = spec.annotations().clone().unwrap();
        for (key, value) in [
            ("org.opencontainers.image.os", "linux"),
            ("org.opencontainers.image.author", "label wins"),
            ("org.opencontainers.image.stopSignal", "SIGINT"),
            ("org.opencontainers.image.exposedPorts", "80/tcp"),
            ("l", "v"),
        ] {
            assert_eq!(annotations[key], value);
        }
        assert!(!annotations.contains_key("org.shipimg.network"), "an image asks for nothing of the host");
    }

    #[test]
    fn refuses_paths_that_lead_out() {
        for (field, value) in [("WorkingDir", "rel"), ("WorkingDir", "/a/../..")] {
            let image = image(&serde_json::json!({field: value}));
            assert!(apply(&mut Spec::default(), &image, &Ids::default()).is_err(), "{field} {value}");
        }
        let image = image(&serde_json::json!({"Volumes": {"/../..": {}}}));
        let e = apply(&mut Spec::default(), &image, &Ids::default()).unwrap_err().to_string();
        assert_eq!(e, "the image's Volumes \"/../..\" is not an absolute path without ..");
    }
}
