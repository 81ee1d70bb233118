//! Lists of a root's packages for other tools: SPDX 2.3 and `CycloneDX` 1.6, as JSON.
//!
//! A list is made of the lock alone and says what that knows: name, version, architecture, SHA-256,
//! address, and whether the archive was signed. What packages are licensed under is not among it.
//! The same lock gives the same bytes: identifiers come from its digest, the time is the root's.
//!
//! Packages are named by package URLs of type `deb`, as the purl specification has them.

use super::lock::{Lock, Pin};
use super::{Result, sources};
use crate::oci::rfc3339;
use serde_json::{Value, json};
use std::path::Path;

/// A form of such lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// SPDX 2.3.
    Spdx,
    /// `CycloneDX` 1.6.
    CycloneDx,
}

impl Form {
    /// What the name of a file tells: `.spdx.json` or `.cdx.json`; none for others.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let forms = [(".spdx.json", Self::Spdx), (".cdx.json", Self::CycloneDx)];
        forms.into_iter().find(|(end, _)| name.ends_with(end)).map(|(_, form)| form)
    }
}

/// The list of a root of `lock` with this time, in seconds since 1970.
#[must_use]
pub fn sbom(lock: &Lock, form: Form, time: i64) -> Value {
    let list = List::new(lock, time);
    match form {
        Form::Spdx => list.spdx(),
        Form::CycloneDx => list.cyclonedx(),
    }
}

/// Writes the list in place of what is there.
///
/// # Errors
/// [`super::Error::Io`].
pub fn write(lock: &Lock, form: Form, time: i64, path: &Path) -> Result<()> {
    super::lock::replace(path, &format!("{:#}\n", sbom(lock, form, time)))
}

/// What both forms have.
struct List<'l> {
    lock: &'l Lock,
    /// The name of the root.
    name: String,
    uuid: String,
    created: String,
    /// The distribution: its name in package URLs, and as an organisation.
    vendor: (&'static str, &'static str),
}

const TOOL: (&str, &str) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));

impl<'l> List<'l> {
    fn new(lock: &'l Lock, time: i64) -> Self {
        let asked = &lock.request;
        let debian = sources::siblings(&asked.suite).iter().any(|s| s == "sid");
        Self {
            lock,
            name: format!("{}-{}-{}", asked.suite, asked.variant.name(), asked.arch),
            uuid: uuid(lock.digest().hex()),
            // SPDX has whole seconds.
            created: rfc3339(u64::try_from(time).unwrap_or(0), 0).replace(".000000000", ""),
            vendor: if debian { ("debian", "Debian") } else { ("ubuntu", "Ubuntu") },
        }
    }

    /// The package URL. Its version has a colon as it is; of qualifiers, `arch` goes before `distro`.
    fn purl(&self, pin: &Pin) -> String {
        let (vendor, suite) = (self.vendor.0, encoded(&self.lock.request.suite));
        let (name, version) = (encoded(&pin.name), encoded(&pin.version));
        format!("pkg:deb/{vendor}/{name}@{version}?arch={}&distro={suite}", encoded(&pin.architecture))
    }

    /// Who publishes it; none of an archive that is not the distribution's.
    fn supplier(&self, pin: &Pin) -> Option<&'static str> {
        let added = self.lock.request.archives.iter().filter_map(|a| a.uri.as_deref());
        (!added.into_iter().any(|uri| below(&pin.url, uri))).then_some(self.vendor.1)
    }

    /// Whether the archive that it comes from may be unsigned.
    fn unsigned(&self, pin: &Pin) -> bool {
        let all = &self.lock.releases;
        let known = all.iter().any(|r| below(&pin.url, &r.uri));
        all.iter().any(|r| r.signer.is_none() && (!known || below(&pin.url, &r.uri)))
    }

    /// Archives that nobody signed, or of which nobody asked who did.
    fn unsigned_archives(&self) -> Vec<String> {
        let unsigned = self.lock.releases.iter().filter(|r| r.signer.is_none());
        unsigned.map(|r| format!("{} {}", r.uri, r.suite)).collect()
    }

    fn spdx(&self) -> Value {
        const NONE: &str = "NOASSERTION";
        let id = |pin: &Pin| format!("SPDXRef-Package-{}", pin.name.replace('+', ".2B"));
        let package = |pin: &Pin| {
            let supplier =
                self.supplier(pin).map_or(NONE.to_string(), |vendor| format!("Organization: {vendor}"));
            let mut package = json!({
                "SPDXID": id(pin),
                "name": pin.name,
                "versionInfo": pin.version,
                "supplier": supplier,
                "downloadLocation": pin.url,
                "filesAnalyzed": false,
                "checksums": [{"algorithm": "SHA256", "checksumValue": pin.sha256}],
                "licenseConcluded": NONE,
                "licenseDeclared": NONE,
                "copyrightText": NONE,
                "externalRefs": [{
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": self.purl(pin),
                }],
            });
            if self.unsigned(pin) {
                package["comment"] = UNSIGNED.into();
            }
            package
        };
        let relation = |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
        let image = json!({
            "SPDXID": "SPDXRef-Image",
            "name": self.name,
            "supplier": NONE,
            "downloadLocation": NONE,
            "filesAnalyzed": false,
            "licenseConcluded": NONE,
            "licenseDeclared": NONE,
            "copyrightText": NONE,
            "primaryPackagePurpose": "OPERATING_SYSTEM",
        });
        let pins = &self.lock.packages;
        let contains = pins.iter().map(|pin| relation("SPDXRef-Image", "CONTAINS", &id(pin)));
        let describes = relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image");
        let mut all = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": self.name,
            "documentNamespace": format!("https://spdx.org/spdxdocs/{}-{}", encoded(&self.name), self.uuid),
            "creationInfo": {"created": self.created, "creators": [format!("Tool: {}-{}", TOOL.0, TOOL.1)]},
            "packages": std::iter::once(image).chain(pins.iter().map(package)).collect::<Vec<_>>(),
            "relationships": std::iter::once(describes).chain(contains).collect::<Vec<_>>(),
        });
        let unsigned = self.unsigned_archives();
        if !unsigned.is_empty() {
            all["comment"] = format!("{UNSIGNED}: {}", unsigned.join(", ")).into();
        }
        all
    }

    fn cyclonedx(&self) -> Value {
        let property =
            |name: &str, value: &str| json!({"name": format!("{}:{name}", TOOL.0), "value": value});
        let component = |pin: &Pin| {
            let purl = self.purl(pin);
            let mut properties = vec![property("architecture", &pin.architecture)];
            if self.unsigned(pin) {
                properties.push(property("unsigned", "true"));
            }
            let mut component = json!({"type": "library", "bom-ref": purl});
            if let Some(vendor) = self.supplier(pin) {
                component["supplier"] = json!({"name": vendor});
            }
            component["name"] = pin.name.clone().into();
            component["version"] = pin.version.clone().into();
            component["hashes"] = json!([{"alg": "SHA-256", "content": pin.sha256}]);
            component["purl"] = purl.into();
            component["externalReferences"] = json!([{"type": "distribution", "url": pin.url}]);
            component["properties"] = properties.into();
            component
        };
        let pins = &self.lock.packages;
        let tool = json!({"type": "application", "name": TOOL.0, "version": TOOL.1});
        let unsigned = self.unsigned_archives();
        let unsigned: Vec<_> = unsigned.iter().map(|archive| property("unsigned-archive", archive)).collect();
        json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": format!("urn:uuid:{}", self.uuid),
            "version": 1,
            "metadata": {
                "timestamp": self.created,
                "tools": {"components": [tool]},
                "component": {"type": "operating-system", "bom-ref": "image", "name": self.name},
                "properties": unsigned,
            },
            "components": pins.iter().map(component).collect::<Vec<_>>(),
            "dependencies": [{
                "ref": "image",
                "dependsOn": pins.iter().map(|pin| self.purl(pin)).collect::<Vec<_>>(),
            }],
            "compositions": [{"aggregate": "complete", "assemblies": ["image"]}],
        })
    }
}

/// What is said of archives without a signature.
const UNSIGNED: &str = "from an archive whose signature was not checked";

fn below(url: &str, base: &str) -> bool {
    url.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
}

/// A UUID of version 8 (RFC 9562) of a hash in hexadecimal.
fn uuid(hex: &str) -> String {
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// A part of a package URL: letters, digits, `.-_~` and colons as they are.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_~:".contains(&b);
    let each = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::super::lock::tests::lock;
    use super::*;

    #[test]
    fn forms_by_name() {
        for (name, form) in [
            ("x.spdx.json", Some(Form::Spdx)),
            ("/y/x.y.cdx.json", Some(Form::CycloneDx)),
            ("x.json", None),
            ("spdx.json", None),
            ("x.spdx", None),
            ("/x.cdx.json/..", None),
        ] {
            assert_eq!(Form::of(Path::new(name)), form, "{name}");
        }
    }

    /// Of the packages `a` and `lib++`, the latter of an archive of its own.
    fn example() -> Lock {
        let mut lock = lock();
        let pin = &mut lock.packages[1];
        pin.name = "lib++".to_string();
        pin.url = "http://x/p/lib.deb".to_string();
        lock.request.archives.push(super::super::lock::Source {
            uri: Some("http://x".to_string()),
            suites: vec!["./".to_string()],
            components: vec![],
            signed_by: vec![],
            unsigned: true,
        });
        lock.releases[0].signer = Some("4CB5".to_string());
        let unsigned = super::super::lock::Locked {
            uri: "http://x".to_string(),
            suite: "./".to_string(),
            signer: None,
            ..lock.releases[0].clone()
        };
        lock.releases.push(unsigned);
        lock
    }

    #[test]
    fn spdx() {
        let all = sbom(&example(), Form::Spdx, 5);
        assert_eq!(
            (&all["name"], &all["creationInfo"]["created"]),
            (&json!("bookworm-minbase-amd64"), &json!("1970-01-01T00:00:05Z"))
        );
        let packages = all["packages"].as_array().unwrap();
        let get = |key: &str| packages.iter().map(|p| p[key].as_str().unwrap_or("-")).collect::<Vec<_>>();
        assert_eq!(get("SPDXID"), ["SPDXRef-Image", "SPDXRef-Package-a", "SPDXRef-Package-lib.2B.2B"]);
        assert_eq!(get("supplier"), ["NOASSERTION", "Organization: Debian", "NOASSERTION"]);
        assert_eq!(get("comment"), ["-", "-", UNSIGNED]);
        assert_eq!(all["comment"], format!("{UNSIGNED}: http://x ./"));
        let purl = |i: usize| packages[i]["externalRefs"][0]["referenceLocator"].as_str().unwrap();
        assert_eq!(purl(1), "pkg:deb/debian/a@1:2-3~x%2By?arch=all&distro=bookworm");
        assert_eq!(purl(2), "pkg:deb/debian/lib%2B%2B@1:2-3~x%2By?arch=all&distro=bookworm");
        let relations = all["relationships"].as_array().unwrap();
        let relations: Vec<_> = relations.iter().map(|r| r["relationshipType"].as_str().unwrap()).collect();
        assert_eq!(relations, ["DESCRIBES", "CONTAINS", "CONTAINS"]);
    }

    #[test]
    fn cyclonedx() {
        let all = sbom(&example(), Form::CycloneDx, 5);
        assert_eq!(all["metadata"]["component"]["name"], "bookworm-minbase-amd64");
        assert_eq!(
            all["metadata"]["properties"],
            json!([{"name": "shipimg:unsigned-archive", "value": "http://x ./"}])
        );
        let (one, two) = (&all["components"][0], &all["components"][1]);
        assert_eq!((&one["supplier"], two.get("supplier")), (&json!({"name": "Debian"}), None));
        assert_eq!(two["properties"][1]["name"], "shipimg:unsigned");
        assert_eq!(all["dependencies"][0]["dependsOn"], json!([one["purl"], two["purl"]]));
    }

    #[test]
    fn the_lock_decides() {
        let text = |lock: &Lock, time| sbom(lock, Form::CycloneDx, time)["serialNumber"].to_string();
        let mut other = example();
        other.packages[0].size += 1;
        assert_eq!(text(&example(), 5), text(&example(), 5));
        assert_ne!(text(&example(), 5), text(&other, 5));
        let mut ubuntu = example();
        ubuntu.request.suite = "noble".to_string();
        let all = sbom(&ubuntu, Form::CycloneDx, 5);
        assert_eq!(all["components"][0]["purl"], "pkg:deb/ubuntu/a@1:2-3~x%2By?arch=all&distro=noble");
    }
}
