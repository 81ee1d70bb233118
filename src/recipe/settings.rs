//! How an image is run, put into its configuration.

use super::types::{Healthcheck, Image};
use crate::oci::{Edit, span};
use serde_json::{Map, Value, json};

/// Puts `image` into the documents; gives what is wrong with it.
pub(super) fn apply(image: &Image, edit: &mut Edit) -> Result<(), String> {
    if let Some(author) = &image.author {
        edit.set("author", author.as_str());
    }
    let annotations = edit.annotations();
    for (name, value) in &image.annotations {
        annotations.insert(name.clone(), json!(value));
    }
    let settings = edit.settings();
    for (key, words) in [("Entrypoint", &image.entrypoint), ("Cmd", &image.cmd), ("Shell", &image.shell)] {
        if let Some(words) = words {
            settings.insert(key.into(), json!(words));
        }
    }
    // A program of its own takes the base's arguments away.
    if image.entrypoint.is_some() && image.cmd.is_none() {
        settings.remove("Cmd");
    }
    for (key, text) in
        [("User", &image.user), ("WorkingDir", &image.workdir), ("StopSignal", &image.stop_signal)]
    {
        if let Some(text) = text {
            settings.insert(key.into(), json!(text));
        }
    }
    match image.onbuild.as_deref() {
        None => {}
        // Those of the base are done.
        Some([]) => drop(settings.remove("OnBuild")),
        Some(lines) => drop(settings.insert("OnBuild".into(), json!(lines))),
    }
    for (name, value) in &image.env {
        Edit::set_variable(settings, &format!("{name}={value}"));
    }
    for (name, value) in &image.labels {
        Edit::member(settings, "Labels", name, json!(value));
    }
    for volume in &image.volumes {
        Edit::member(settings, "Volumes", volume, json!({}));
    }
    for port in &image.expose {
        Edit::member(settings, "ExposedPorts", &with_protocol(port)?, json!({}));
    }
    if let Some(check) = &image.healthcheck {
        settings.insert("Healthcheck".into(), healthcheck(check)?);
    }
    Ok(())
}

/// A port with its protocol.
pub(super) fn with_protocol(port: &str) -> Result<String, String> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let first = number.split('-').all(|n| n.parse::<u16>().is_ok_and(|n| n > 0));
    if !first || !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(format!("expose {port:?}: wanted PORT[/tcp|udp|sctp]"));
    }
    Ok(format!("{number}/{protocol}"))
}

fn healthcheck(check: &Healthcheck) -> Result<Value, String> {
    let mut map = Map::new();
    let test = match (&check.shell, &check.command[..]) {
        (Some(text), []) => json!(["CMD-SHELL", text]),
        (Some(_), _) => return Err("healthcheck: command or shell, not both".into()),
        (None, []) => json!(["NONE"]),
        (None, words) => json!([&["CMD".to_string()][..], words].concat()),
    };
    map.insert("Test".into(), test);
    for (key, text) in [
        ("Interval", &check.interval),
        ("Timeout", &check.timeout),
        ("StartPeriod", &check.start_period),
        ("StartInterval", &check.start_interval),
    ] {
        if let Some(text) = text {
            map.insert(key.into(), json!(nanoseconds(text)?));
        }
    }
    if let Some(retries) = check.retries {
        map.insert("Retries".into(), json!(retries));
    }
    Ok(map.into())
}

/// A time as `1m30s` in nanoseconds.
pub(super) fn nanoseconds(text: &str) -> Result<u64, String> {
    span(text)
        .map_err(|e| e.to_string())
        .and_then(|span| u64::try_from(span.as_nanos()).map_err(|e| e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, wanted) in [
            ("80", Some("80/tcp")),
            ("53/udp", Some("53/udp")),
            ("8000-8010", Some("8000-8010/tcp")),
            ("0", None),
            ("80/x", None),
            ("http", None),
        ] {
            assert_eq!(with_protocol(text).ok().as_deref(), wanted, "{text}");
        }
    }
}
