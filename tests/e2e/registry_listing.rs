//! `tags`, `search` and `referrers`, against a real registry server and ones in this process.

use crate::common::layout::{Blob, Layout};
use crate::common::registry::Registry;
use crate::common::server::{Server, json};
use crate::common::tls::Home;
use serde_json::{Value, json};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn tags_and_the_catalogue_of_a_real_registry() {
    let (registry, home, dir) = (Registry::start(), Home::new(), tempfile::tempdir().unwrap());
    let layout = Layout::new(dir.path());
    let names = ["lab/app:1", "lab/app:2", "lab/app:10", "lab/apple:1", "other:1"];
    for name in names {
        layout.add(name, &[Blob::gzip(b"one")], &json!({}));
        registry.fill(&layout, name);
    }
    let host = registry.host();
    let app = format!("{host}/lab/app");
    let mut tags: Vec<String> = home.ok(&["tags", &app]).lines().map(str::to_string).collect();
    tags.sort();
    assert_eq!(tags, ["1", "10", "2"]);
    let seen = parse(&home.ok(&["tags", "--format", "json", "--limit", "2", &app]));
    assert_eq!((&seen["repository"], seen["tags"].as_array().unwrap().len()), (&json!(app), 2));
    home.fails(10, &["tags", &format!("{host}/none")]);

    let found = home.ok(&["search", &format!("{host}/app")]);
    assert_eq!(
        found.lines().skip(1).map(|l| l.split(' ').next().unwrap()).collect::<Vec<_>>(),
        [format!("{host}/lab/app"), format!("{host}/lab/apple")]
    );
    let seen = parse(&home.ok(&["search", "--registry", &host, "--format", "json", "--limit", "1", ""]));
    let want = json!([{"name": app, "description": "", "stars": 0, "official": false}]);
    assert_eq!(seen, want);
    assert_eq!(home.ok(&["search", "--registry", &host, "--filter", "is-official=true", "app"]), "");
    home.write("registries.conf", &format!("unqualified-search-registries = [\"{host}\"]"));
    assert!(home.ok(&["search", "other"]).contains(&format!("{host}/other")));
}

#[test]
fn pages_are_chained_and_stay_at_home() {
    let server = Server::start(|asked| {
        let link = |to: &str| vec![format!("Link: <{to}>; rel=\"next\"")];
        Some(match asked.path.as_str() {
            p if p.starts_with("/v2/a/tags/list?n=") => {
                ("200 OK", link("/v2/a/tags/list?last=2"), br#"{"tags":["1","2"]}"#.to_vec())
            }
            "/v2/a/tags/list?last=2" => json(r#"{"tags":["3\u001b[31m"]}"#),
            p if p.starts_with("/v2/away/") => {
                ("200 OK", link("http://localhost:1/v2/away/tags/list"), br#"{"tags":[]}"#.to_vec())
            }
            p if p.starts_with("/v2/loop/") => ("200 OK", link(p), br#"{"tags":null}"#.to_vec()),
            p if p.starts_with("/v2/bad/") => json("[1"),
            p if p.starts_with("/v2/huge/") => json(&"x".repeat(9 << 20)),
            _ => json("{}"),
        })
    });
    let home = Home::new();
    let tags = |name: &str| format!("{}/{name}", server.host());
    assert_eq!(home.ok(&["tags", &tags("a")]), "1\n2\n3 [31m\n");
    assert_eq!(home.ok(&["tags", "--limit", "2", &tags("a")]), "1\n2\n");
    for (name, code, why) in [
        ("away", 6, "another host"),
        ("loop", 6, "this page"),
        ("bad", 9, "no list of tags"),
        ("huge", 9, "more than"),
    ] {
        let e = home.fails(code, &["tags", &tags(name)]);
        assert!(e.contains(why), "{name}: {e}");
    }
}

#[test]
fn the_search_of_docker_hub() {
    let server = Server::start(|asked| {
        let result = |name: &str, stars: u64, official: bool| {
            json!({"name": name, "description": format!("{name}\u{1b}[31m"), "star_count": stars,
                "is_official": official, "is_automated": false})
        };
        let page = |rows: &[Value]| json(&json!({"num_pages": 2, "results": rows}).to_string());
        Some(match asked.path.as_str() {
            "/v1/search?q=debian+x&n=2" => page(&[result("debian", 9, true), result("a/debian", 3, false)]),
            "/v1/search?q=debian+x&n=2&page=2" => page(&[result("b/debian", 1, false)]),
            "/v2/" => json("{}"),
            _ => ("404 Not Found", Vec::new(), Vec::new()),
        })
    });
    let home = Home::new();
    let search = |more: &[&str]| {
        let host = server.host();
        let args =
            [&["search", "--registry", &host, "--limit", "2", "--format", "json"], more, &["debian x"]];
        let rows = parse(&home.ok(&args.concat()));
        let names = rows.as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap());
        names.map(|n| n.strip_prefix(&format!("{host}/")).unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(search(&[]), ["debian", "a/debian"]);
    assert_eq!(search(&["--filter", "is-official=false"]), ["a/debian", "b/debian"]);
    assert_eq!(search(&["--filter", "stars=4"]), ["debian"]);
    let table = home.ok(&["search", "--registry", &server.host(), "--limit", "2", "debian x"]);
    assert!(!table.contains('\u{1b}') && table.contains("yes"), "{table}");
    home.fails(2, &["search", "--filter", "is-nice=true", "x"]);
    home.fails(6, &["search", "--registry", &server.host(), "neither"]);
}

/// A subject and its referrers, as an index.
fn referrers() -> String {
    let entry = |kind: &str, n: u8| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7, "artifactType": kind,
            "digest": format!("sha256:{}", format!("{n:x}").repeat(64))})
    };
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry("text/sbom", 1), entry("text/signature", 2)]})
    .to_string()
}

#[test]
fn referrers_by_the_api_and_by_tag() {
    let home = Home::new();
    let subject = format!("sha256:{}", "0".repeat(64));
    let server = Server::start(|asked| {
        Some(if asked.path.starts_with("/v2/app/referrers/sha256:0") {
            let headers = vec!["Content-Type: application/vnd.oci.image.index.v1+json".to_string()];
            ("200 OK", headers, referrers().into_bytes())
        } else if asked.path == "/v2/" {
            json("{}")
        } else {
            ("404 Not Found", Vec::new(), Vec::new())
        })
    });
    let image = format!("{}/app@{subject}", server.host());
    let all = parse(&home.ok(&["referrers", "--format", "json", &image]));
    assert_eq!(all["referrers"].as_array().unwrap().len(), 2);
    // The registry ignores the filter.
    let one = home.ok(&["referrers", "--artifact-type", "text/sbom", &image]);
    assert!(one.contains("text/sbom") && !one.contains("text/signature"), "{one}");
    assert!(server.asked("artifactType=text%2Fsbom").len() == 1);

    // This registry server has no such API; the tag stands in.
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let layout = Layout::new(dir.path());
    let digest = layout.add("app:1", &[Blob::gzip(b"one")], &json!({}));
    let reference = registry.fill(&layout, "app:1");
    assert_eq!(home.ok(&["referrers", &reference]), "");
    let remote = shipimg::registry::Remote::connect(
        &reference.parse().unwrap(),
        &shipimg::registry::Options::default(),
    )
    .unwrap();
    let empty = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
            "size": remote.root().unwrap().1.len(), "artifactType": "text/sbom"}]})
    .to_string();
    let index = shipimg::oci::Descriptor::of("application/vnd.oci.image.index.v1+json", empty.as_bytes());
    remote.put_document(&index, empty.as_bytes(), &digest.replace(':', "-")).unwrap();
    let seen = parse(&home.ok(&["referrers", "--format", "json", &reference]));
    assert_eq!(
        (&seen["digest"], &seen["referrers"][0]["artifactType"]),
        (&json!(digest), &json!("text/sbom"))
    );
}
