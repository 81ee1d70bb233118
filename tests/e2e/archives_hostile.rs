//! Archives that want out, lie, or blow up: a clear error, and nothing gets a name.

use crate::common::TestStore;
use crate::common::docker::{DockerArchive, config};
use crate::common::layout::{Blob, Layout, Tar, sha256};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use tar::EntryType as T;

/// A store and an archive to read into it.
struct Case {
    store: TestStore,
    dir: tempfile::TempDir,
}

impl Case {
    fn new(archive: &[u8]) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::write(dir.path().join("archive"), archive).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        Self { store: TestStore::in_memory(), dir }
    }

    fn refused(&self, code: i32, text: &str, more: &[&str]) {
        let path = self.dir.path().join("archive");
        let e = self.store.fails(code, &[&["import", path.to_str().unwrap(), "x:1"], more].concat());
        assert!(e.contains(text), "wanted {text:?}: {e}");
        assert!(self.store.output(&["images", "-q"]).stdout.is_empty(), "{e}");
        let tmp = self.store.path().join("shipimg/tmp");
        assert_eq!(fs::read_dir(tmp).unwrap().count(), 0, "{e}");
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2, "{e}");
        assert_eq!(fs::read(self.dir.path().join("secret")).unwrap(), b"secret");
    }
}

fn refused(archive: &[u8], text: &str) {
    Case::new(archive).refused(9, text, &[]);
}

fn layer() -> Vec<u8> {
    Tar::new().file("a", b"a").finish()
}

/// An archive of one image whose only layer is called `name`.
fn one(fill: impl FnOnce(DockerArchive) -> DockerArchive, name: &str) -> Vec<u8> {
    let config = config(&[sha256(&layer())]);
    let own = format!("{}.json", &sha256(&config)[7..]);
    fill(DockerArchive::new()).file(&own, &config).image(&own, &["x:1"], &[name.to_string()]).finish()
}

#[test]
fn names_and_links_of_members() {
    let good = one(|a| a.file("l.tar", &layer()), "l.tar");
    let case = Case::new(&good);
    case.store.ok(&["import", case.dir.path().join("archive").to_str().unwrap()]);

    // Names in every form that a tar has for them, and links that stay inside.
    let long = format!("{}/l.tar", "long".repeat(50));
    let pax = Tar::new().pax(&[("path", b"p/l.tar")]).file("x", &layer()).finish();
    for (archive, name) in [
        (one(|a| a.file(&long, &layer()), &long), long.as_str()),
        (one(|a| a.file("./a//l.tar", &layer()), "a/l.tar"), "a/l.tar"),
        (one(|a| a.file("l.tar", &layer()).link("b/l.tar", "l.tar"), "b/l.tar"), "a hard link"),
        (one(|a| a.file("l.tar", &layer()).symlink("b/l.tar", "../x").symlink("x", "l.tar"), "b/l.tar"), "x"),
        ([&pax[..pax.len() - 1024], &one(|a| a, "p/l.tar")].concat(), "by a PAX record"),
    ] {
        let case = Case::new(&archive);
        let out = case.store.output(&["import", case.dir.path().join("archive").to_str().unwrap()]);
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    }

    refused(&one(|a| a.file("../l.tar", &layer()), "../l.tar"), "with a .. component");
    refused(&one(|a| a.file("/l.tar", &layer()), "/l.tar"), "absolute name");
    refused(
        &one(|a| a.file("l.tar", &layer()).file("l.tar", b"x"), "l.tar"),
        "two members are called /l.tar",
    );
    refused(&one(|a| a, "l.tar"), "has no file \"l.tar\"");
    refused(&one(|a| a, "../secret"), "has no file");
    for target in ["../secret", "/etc/passwd", "l.tar", "nothing", "d/../../secret"] {
        refused(&one(|a| a.symlink("l.tar", target), "l.tar"), "has no file \"l.tar\"");
    }
    let manifest = r#"[{"Config": "../secret", "RepoTags": null, "Layers": []}]"#;
    refused(&Tar::new().file("manifest.json", manifest.as_bytes()).finish(), "has no file \"../secret\"");
    let link = Tar::new().symlink("manifest.json", "../secret").finish();
    refused(&link, "has no file \"manifest.json\"");
    let directory = Tar::new().dir("manifest.json").finish();
    refused(&directory, "has no file \"manifest.json\"");
}

#[test]
fn content_that_is_not_what_it_is_called() {
    refused(&one(|a| a.file("l.tar", b"another layer"), "l.tar"), "content has digest");
    let mut same_size = layer();
    same_size[600] ^= 1;
    refused(&one(|a| a.file("l.tar", &same_size), "l.tar"), "content has digest");
    let packed = Blob::gzip(&same_size).bytes;
    refused(&one(|a| a.file("l.tar", &packed), "l.tar"), "l.tar has digest");

    let wrong = format!("{}.json", "0".repeat(64));
    let renamed = DockerArchive::new().file("l.tar", &layer()).file(&wrong, &config(&[sha256(&layer())]));
    refused(&renamed.image(&wrong, &["x:1"], &["l.tar".into()]).finish(), "has digest");
    let count = DockerArchive::new().file("c.json", &config(&[])).file("l.tar", &layer());
    refused(&count.image("c.json", &["x:1"], &["l.tar".into()]).finish(), "0 diff ids for 1 layers");
    let path = DockerArchive::new().file("c.json", &config(&["sha256:../../x".into()])).file("l.tar", b"");
    refused(&path.image("c.json", &["x:1"], &["l.tar".into()]).finish(), "wrong length");
    for json in ["{}", "[1]", "[", "[{}]"] {
        refused(&Tar::new().file("manifest.json", json.as_bytes()).finish(), "manifest.json: ");
    }
    let large = vec![b' '; (4 << 20) + 1];
    refused(&Tar::new().file("manifest.json", &large).finish(), "more than 4194304 bytes of a document");
    Case::new(&Tar::new().file("manifest.json", b"[]").finish()).refused(2, "has no images", &[]);
}

#[test]
fn layouts_that_lie() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(&dir.path().join("layout"));
    let at = |name: &str| layout.path().join(name);
    let digest = layout.add("x:1", &[Blob::gzip(&layer())], &json!({}));
    let pack = || {
        let args = ["-C".as_ref(), layout.path().as_os_str(), "-c".as_ref(), ".".as_ref()];
        std::process::Command::new("tar").args(args).output().unwrap().stdout
    };
    let good = fs::read(at("index.json")).unwrap();
    let blob = at("blobs/sha256").join(&digest[7..]);
    let manifest = fs::read(&blob).unwrap();
    let parsed: Value = serde_json::from_slice(&manifest).unwrap();
    let layer = at("blobs/sha256").join(&parsed["layers"][0]["digest"].as_str().unwrap()[7..]);

    let bytes = fs::read(&layer).unwrap();
    fs::write(&layer, [&bytes[..], b"x"].concat()).unwrap();
    refused(&pack(), "is longer than");
    fs::write(&layer, &bytes[1..]).unwrap();
    refused(&pack(), "ended after");
    fs::remove_file(&layer).unwrap();
    refused(&pack(), "has no file \"sha256:");
    // In a folder links are not followed either.
    fs::write(dir.path().join("outside"), &bytes).unwrap();
    std::os::unix::fs::symlink(dir.path().join("outside"), &layer).unwrap();
    let store = TestStore::in_memory();
    let e = store.fails(1, &["import".as_ref(), layout.path().as_os_str()]);
    assert!(e.contains("Too many levels of symbolic links"), "{e}");
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, &bytes).unwrap();

    fs::write(&blob, manifest.to_ascii_uppercase()).unwrap();
    refused(&pack(), "has digest");
    fs::write(&blob, &manifest).unwrap();
    let index = |text: &str| fs::write(at("index.json"), text).unwrap();
    index(&String::from_utf8(good.clone()).unwrap().replace(&digest, "sha256:../../../secret"));
    refused(&pack(), "index.json: invalid");
    index("{\"schemaVersion\": 2, \"manifests\": [], \"config\": {}, \"layers\": []}");
    refused(&pack(), "at once");
    index("{");
    refused(&pack(), "index.json: ");
    let itself = format!(
        "{{\"schemaVersion\": 2, \"manifests\": [{{\"mediaType\": \
        \"application/vnd.oci.image.index.v1+json\", \"digest\": \"{digest}\", \"size\": {}}}]}}",
        manifest.len()
    );
    index(&itself);
    refused(&pack(), "but was declared as");
    fs::write(at("index.json"), &good).unwrap();
    fs::write(at("oci-layout"), "{\"imageLayoutVersion\": \"2.0.0\"}").unwrap();
    Case::new(&pack()).refused(7, "not of version 1.0.0", &[]);
}

#[test]
fn broken_framing() {
    let good = one(|a| a.file("l.tar", &layer()), "l.tar");
    refused(&good[..700], "the archive ends within an entry");
    refused(&[&good[..512], b"no header".repeat(100).as_slice()].concat(), "at byte ");
    refused(
        b"neither a tar nor anything else, but longer than a block".repeat(20).as_slice(),
        "not a tar header",
    );
    // A size that PAX and header tell differently.
    let two = Tar::new().pax(&[("size", b"1024")]).file("a", &[0; 512]).finish();
    refused(&two, "PAX size 1024 contradicts the header's size 512");
    let mut long = Tar::new().entry(T::new(b'L'), "x", 0, "", &vec![b'n'; 2 << 20]).finish();
    refused(&long, "extended header of 2097152 bytes");
    long.truncate(1024);
    refused(&long, "extended header of 2097152 bytes");

    let packed = Blob::gzip(&good).bytes;
    refused(&packed[..packed.len() / 2], "read ");
    refused(&[&packed[..], b"garbage"].concat(), "garbage after the gzip stream");
    let mut zstd = zstd::encode_all(&good[..], 3).unwrap();
    zstd.truncate(zstd.len() - 3);
    refused(&zstd, "read ");
}

#[test]
fn bombs() {
    // 64 MiB of zeros, compressed as a whole.
    let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        z.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let gzip = z.finish().unwrap();
    let limit = ["--max-inflated", "1048576"];
    Case::new(&gzip).refused(9, "more than 1048576 inflated bytes", &limit);
    let zstd = zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap();
    Case::new(&zstd).refused(9, "more than 1048576 inflated bytes", &limit);
    // And as a layer.
    let layer = one(|a| a.file("l.tar", &gzip), "l.tar");
    Case::new(&layer).refused(9, "more than 1048576 inflated bytes", &limit);
}

#[test]
fn acis_that_want_more() {
    let aci = |manifest: &Value, more: fn(Tar) -> Tar| {
        let tar = Tar::new().file("manifest", manifest.to_string().as_bytes()).dir("rootfs");
        more(tar).finish()
    };
    let good = json!({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "x"});
    let mut depends = good.clone();
    depends["dependencies"] = json!([{"imageName": "other"}]);
    Case::new(&aci(&depends, |t| t)).refused(7, "dependencies on other images", &[]);
    let pod = json!({"acKind": "PodManifest", "name": "x"});
    Case::new(&aci(&pod, |t| t)).refused(7, "no ImageManifest", &[]);
    refused(&aci(&good, |t| t.file("rootfs/../../x", b"")), "with a .. component");
    refused(&aci(&good, |t| t.link("rootfs/a", "../secret")), "with a .. component");
    refused(&aci(&good, |t| t.link("rootfs/a", "manifest")), "hard link to /manifest");
    refused(&aci(&json!({"acKind": 1}), |t| t), "manifest: ");
}

#[test]
fn a_folder_that_is_written_to_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = TestStore::in_memory();
    Layout::new(store.path()).add("x:1", &[Blob::gzip(&layer())], &json!({}));
    let target = dir.path().join("layout");
    let layout = Layout::new(&target);
    fs::write(target.join("index.json"), "{\"schemaVersion\": 2, \"manifests\": 5}").unwrap();
    let export = ["export", "--kind", "oci", "x:1", "-o", target.to_str().unwrap()];
    let e = store.fails(7, &export);
    assert!(e.contains("no image index"), "{e}");
    // A blob's place that is a link out.
    fs::write(target.join("index.json"), "{\"schemaVersion\": 2, \"manifests\": []}").unwrap();
    fs::write(dir.path().join("outside"), "outside").unwrap();
    let images = store.ok(&["images", "-q"]);
    let place = layout.path().join("blobs/sha256").join(images.trim().strip_prefix("sha256:").unwrap());
    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(dir.path().join("outside"), &place).unwrap();
    store.ok(&export);
    assert_eq!(fs::read(dir.path().join("outside")).unwrap(), b"outside");
    assert!(!place.is_symlink() && Path::new(&place).is_file());
    let mut names: Vec<_> = fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["blobs", "index.json", "oci-layout"]);
    fs::write(target.join("oci-layout"), "{\"imageLayoutVersion\": \"2.0.0\"}").unwrap();
    assert!(store.fails(7, &export).contains("not of version 1.0.0"));
}

/// Archives with a few bytes changed are read or refused; what is read is what it was.
#[test]
fn changed_bytes_make_no_panic() {
    use shipimg::archive::{Options, Reader, Source};
    use shipimg::store::Verified;
    use std::io::Read;
    let layout = tempfile::tempdir_in("/dev/shm").unwrap();
    Layout::new(layout.path()).add("x:1", &[Blob::gzip(&layer())], &json!({}));
    let args = ["-C".as_ref(), layout.path().as_os_str(), "-c".as_ref(), ".".as_ref()];
    let oci = std::process::Command::new("tar").args(args).output().unwrap().stdout;
    let docker = one(|a| a.file(&format!("{}/l.tar", "l".repeat(101)), &layer()).symlink("s", "l.tar"), "s");
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = scratch.path().join("archive");
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    let (mut opened, mut refused) = (0, 0);
    for round in 0..600 {
        let mut bytes = if round % 2 == 0 { oci.clone() } else { docker.clone() };
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            bytes[at] = u8::try_from(next(256)).unwrap();
        }
        fs::write(&path, &bytes).unwrap();
        let Ok(reader) = Reader::open(&Source::Path(path.clone()), scratch.path(), &Options::default())
        else {
            refused += 1;
            continue;
        };
        opened += 1;
        for found in reader.images() {
            let Ok(document) = reader.document(&found.descriptor) else { continue };
            assert_eq!(sha256(&document), found.descriptor.digest.to_string());
            let _ = reader.blob(&found.descriptor, 3).and_then(|b| {
                let mut rest = Vec::new();
                let _ = Verified::new(b, &found.descriptor).read_to_end(&mut rest);
                assert!(rest.len() <= document.len());
                reader.image(None)
            });
        }
    }
    assert!(opened > 50 && refused > 50, "{opened} opened, {refused} refused");
}
