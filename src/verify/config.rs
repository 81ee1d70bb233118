//! `config`: what the image's configuration says.

use super::check::{Check, Config};
use super::report::Finding;
use super::value::{Port, Text, Wanted, WantedTexts};
use super::{Error, Result};
use crate::oci::Image;
use std::collections::BTreeMap;

/// `config`.
pub(super) fn config(check: &Check, image: Option<&Image>) -> Result<Vec<Finding>> {
    let image = image.ok_or(Error::NoImage("configuration"))?;
    let wanted = check.config.clone().unwrap_or_default();
    let said = image.config.config().clone().unwrap_or_default();
    let variables = said.env().iter().flatten().filter_map(|v| v.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let labels = said.labels().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut findings = texts("env", &wanted.env, &variables);
    findings.extend(texts("label", &wanted.labels, &labels));
    findings.extend(lists(&wanted, &said));
    Ok(findings)
}

/// `wanted` is what `found` is, where something is wanted.
fn same<T: PartialEq + std::fmt::Debug>(key: &str, wanted: Option<&T>, found: &T) -> Option<Finding> {
    let wanted = wanted.filter(|wanted| *wanted != found)?;
    Some(Finding::new(format!("{key} {wanted:?}"), format!("{found:?}")))
}

fn lists(wanted: &Config, said: &oci_spec::image::Config) -> Vec<Finding> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let words = |value: &Option<Vec<String>>| value.clone().unwrap_or_default();
    let mut findings: Vec<Finding> = [
        same("entrypoint", wanted.entrypoint.as_ref(), &words(said.entrypoint())),
        same("cmd", wanted.cmd.as_ref(), &words(said.cmd())),
        same("user", wanted.user.as_ref(), &text(said.user())),
        same("workdir", wanted.workdir.as_ref(), &text(said.working_dir())),
        same("stop-signal", wanted.stop_signal.as_ref(), &text(said.stop_signal())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let ports: Vec<Port> = said
        .exposed_ports()
        .iter()
        .flatten()
        .filter_map(|p| Text::<Port>::new(p.as_str()).ok())
        .map(|p| *p)
        .collect();
    let volumes = words(said.volumes());
    let shown = |what: &str, list: Option<Vec<String>>| match list {
        Some(list) if !list.is_empty() => list.join(", "),
        _ => format!("no {what}"),
    };
    let of_ports = || shown("ports", said.exposed_ports().clone());
    let of_volumes = || shown("volumes", said.volumes().clone());
    for (wanted, there) in [(&wanted.ports, true), (&wanted.no_ports, false)] {
        let no = if there { "" } else { "no " };
        let wrong = wanted.iter().filter(|p| ports.contains(p) != there);
        findings.extend(wrong.map(|p| Finding::new(format!("{no}port {p}"), of_ports())));
    }
    for (wanted, there) in [(&wanted.volumes, true), (&wanted.no_volumes, false)] {
        let no = if there { "" } else { "no " };
        let wrong = wanted.iter().filter(|v| volumes.contains(v) != there);
        findings.extend(wrong.map(|v| Finding::new(format!("{no}volume {v}"), of_volumes())));
    }
    findings
}

/// Texts by name.
pub(super) fn texts(what: &str, wanted: &WantedTexts, found: &BTreeMap<String, String>) -> Vec<Finding> {
    let wrong = wanted.iter().filter_map(|(name, wanted)| {
        let there = found.get(name);
        let holds = match (wanted, there) {
            (Wanted::Is(text), Some(there)) => text == there,
            (Wanted::Matches { matches }, Some(there)) => matches.found_in(there.as_bytes()),
            (Wanted::Not(there), found) => *there == found.is_some(),
            (_, None) => false,
        };
        let shown = there.map_or_else(|| "nothing".to_string(), |there| format!("{there:?}"));
        (!holds).then(|| Finding::new(format!("{what} {name}: {wanted}"), shown))
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Document, media_type};
    use serde_json::json;

    fn found(toml: &str) -> String {
        let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Env": ["A=b", "PATH=/bin"], "Entrypoint": ["/x"], "User": "web", "WorkingDir": "/srv",
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/data": {}}, "Labels": {"l": "v1.2"},
                "StopSignal": "SIGQUIT"}});
        let config = config.to_string();
        let d = serde_json::to_value(Descriptor::of(media_type::CONFIG, config.as_bytes())).unwrap();
        let manifest = json!({"schemaVersion": 2, "config": d, "layers": []}).to_string();
        let Document::Manifest(manifest) = Document::parse(manifest.as_bytes(), "").unwrap() else {
            panic!()
        };
        let image =
            Image::new(Descriptor::of(media_type::MANIFEST, b"m"), manifest, config.as_bytes()).unwrap();
        let check: Check = toml::from_str(&format!("config = {{ {toml} }}")).unwrap();
        let found = super::config(&check, Some(&image)).unwrap();
        found.iter().map(|f| format!("{} | {}", f.wanted, f.found)).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn compared() {
        for (toml, want) in [
            ("env = { A = 'b', PATH = { matches = '^/bin$' }, C = false }", ""),
            ("env = { A = 'c', C = 'x' }", "env A: \"c\" | \"b\"; env C: \"x\" | nothing"),
            ("env = { A = false }", "env A: nothing | \"b\""),
            ("labels = { l = { matches = '^v2' } }", "label l: a match of ^v2 | \"v1.2\""),
            ("entrypoint = ['/x'], cmd = [], user = 'web', workdir = '/srv', stop-signal = 'SIGQUIT'", ""),
            ("entrypoint = ['/y']", "entrypoint [\"/y\"] | [\"/x\"]"),
            ("user = 'root'", "user \"root\" | \"web\""),
            ("ports = [80, '53/udp'], no-ports = ['80/udp'], volumes = ['/data'], no-volumes = ['/x']", ""),
            ("ports = [81]", "port 81 | 53/udp, 80/tcp"),
            ("no-ports = [80]", "no port 80 | 53/udp, 80/tcp"),
            ("volumes = ['/x']", "volume /x | /data"),
            ("no-volumes = ['/data']", "no volume /data | /data"),
        ] {
            let got = found(toml).replace("80/tcp, 53/udp", "53/udp, 80/tcp");
            assert_eq!(got, want, "{toml}");
        }
        let check: Check = toml::from_str("config = {}").unwrap();
        assert!(super::config(&check, None).is_err());
    }
}
