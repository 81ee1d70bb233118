//! What the runtime specification says of mounts (`config.md`, Mounts): see `docs/conformance.md`.

use crate::common::bundle::Bundle;
use crate::common::{ok, output};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Output;

#[test]
fn propagation_of_the_root() {
    for (value, field) in [
        ("private", ""),
        ("rprivate", ""),
        ("slave", "master:"),
        ("rslave", "master:"),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
    ] {
        let b = Bundle::new(
            "grep ' / / ' /proc/self/mountinfo || grep '^[0-9]* [0-9]* [0-9:]* [^ ]* / ' /proc/self/mountinfo",
        );
        b.change(|c| c["linux"]["rootfsPropagation"] = json!(value));
        // The host's mounts may be private: in a mount namespace where they are shared.
        let root = b.store.path().to_str().unwrap();
        let args = ["-m", "--propagation", "shared", crate::common::bin(), "--root", root, "run", "-b"];
        let out = output("unshare", &[&args[..], &[b.dir.to_str().unwrap(), &b.id]].concat());
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{value}: {out:?}");
        let fields = text.lines().next().unwrap().split(" - ").next().unwrap();
        let optional: Vec<_> = fields.split(' ').skip(6).collect();
        if field.is_empty() {
            assert_eq!(optional, [""; 0], "{value}: {text}");
        } else {
            assert!(optional.iter().any(|f| f.starts_with(field)), "{value}: {text}");
        }
        b.nothing_left();
    }
    let b = Bundle::new("true");
    b.change(|c| c["linux"]["rootfsPropagation"] = json!("sideways"));
    assert!(b.refused(125).contains("rootfsPropagation"));
}

#[test]
fn propagation_of_a_volume() {
    for (option, seen) in [("rshared", true), ("rslave", false), ("rprivate", false)] {
        let b = Bundle::new("mount -t tmpfs inner /vol/in && touch /vol/in/made");
        b.add_capability("CAP_SYS_ADMIN");
        fs::create_dir_all(b.dir.join("vol/in")).unwrap();
        fs::create_dir(b.rootfs().join("vol")).unwrap();
        if option == "rshared" {
            b.change(|c| c["linux"]["rootfsPropagation"] = json!("shared"));
        }
        b.add_mount(json!({"destination": "/vol", "source": "vol", "options": ["rbind", option]}));
        let script = "cd \"$3\" && mount --bind vol vol && mount --make-shared vol && \
             \"$1\" --root \"$2\" run -b . \"$4\" && ls vol/in";
        let args = ["-m", "--propagation", "private", "sh", "-ec", script, "sh", crate::common::bin()];
        let rest = [b.store.path().to_str().unwrap(), b.dir.to_str().unwrap(), &b.id];
        let out = ok("unshare", &[&args[..], &rest].concat());
        assert_eq!(out == "made\n", seen, "{option}: {out:?}");
        b.nothing_left();
    }
}

#[test]
fn mounts_below_mounts() {
    let b = Bundle::new(
        "ls /a /a/b /a/b/c; touch /a/b/c/f && echo written; grep -c ' /rel/ative ' /proc/self/mountinfo; touch /ro/sub/f 2>/dev/null || echo closed",
    );
    fs::create_dir_all(b.dir.join("tree/sub")).unwrap();
    fs::create_dir(b.rootfs().join("ro")).unwrap();
    b.change(|c| c["root"]["readonly"] = json!(false));
    for place in ["/a", "/a/b", "/a/b/c"] {
        b.add_mount(json!({"destination": place, "type": "tmpfs", "source": "tmpfs"}));
    }
    b.add_mount(json!({"destination": "/ro", "source": "tree", "options": ["rbind", "rro"]}));
    // A relative destination, as old tools have it, is one below the root.
    b.add_mount(json!({"destination": "rel/ative", "type": "tmpfs", "source": "tmpfs"}));
    let script = "mount -t tmpfs t \"$3/tree/sub\" && exec \"$1\" --root \"$2\" run -b \"$3\" \"$4\"";
    let args = ["-m", "sh", "-ec", script, "sh", crate::common::bin(), b.store.path().to_str().unwrap()];
    let out = ok("unshare", &[&args[..], &[b.dir.to_str().unwrap(), &b.id]].concat());
    assert_eq!(out, "/a:\nb\n\n/a/b:\nc\n\n/a/b/c:\nwritten\n1\nclosed\n");
    b.nothing_left();
}

#[test]
fn a_volume_that_begins_with_what_it_covers() {
    let b = Bundle::new(
        "cd /srv && cat a/f && stat -c '%a %u:%g %Y' a/f a && readlink l && stat -c %a . && touch new && \
         touch /ro/new 2>/dev/null || echo closed; cat /ro/x; grep -c ' /srv .* tmpfs ' /proc/self/mountinfo",
    );
    let srv = b.rootfs().join("srv");
    fs::create_dir_all(srv.join("a")).unwrap();
    fs::write(srv.join("a/f"), "covered\n").unwrap();
    std::os::unix::fs::symlink("a/f", srv.join("l")).unwrap();
    fs::create_dir(b.rootfs().join("ro")).unwrap();
    fs::write(b.rootfs().join("ro/x"), "x\n").unwrap();
    let path = |p: &str| srv.join(p).display().to_string();
    ok("chmod", &["640", &path("a/f")]);
    ok("chmod", &["2750", &path("a")]);
    ok("chmod", &["1771", &path(".")]);
    ok("chown", &["5:6", &path("a/f"), &path("a")]);
    ok("touch", &["-d", "@1000000", &path("a/f"), &path("a")]);
    ok("chmod", &["640", &path("a/f")]);
    ok("chmod", &["2750", &path("a")]);
    for (place, options) in [("/srv", json!(["tmpcopyup", "nosuid"])), ("/ro", json!(["tmpcopyup", "ro"]))] {
        b.add_mount(json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options}));
    }
    assert_eq!(b.run(0), "covered\n640 5:6 1000000\n2750 5:6 1000000\na/f\n1771\nclosed\nx\n1\n");
    assert!(!srv.join("new").exists(), "what is covered stays as it is");
    // Through a link that leads out of the root: a folder inside is meant.
    std::os::unix::fs::symlink("/etc", b.rootfs().join("out")).unwrap();
    fs::write(b.rootfs().join("etc/mine"), "mine\n").unwrap();
    b.change(|c| {
        c["process"]["args"] = json!(["ls", "/out"]);
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| m["destination"] != "/srv" && m["destination"] != "/ro");
    });
    b.add_mount(json!({"destination": "/out", "type": "tmpfs", "options": ["tmpcopyup"]}));
    assert_eq!(b.run(0), "mine\n");
}

const OWNERS: &str = "cd /vol && stat -c '%n %u:%g' . own other sub/own; touch made || true";

/// A bundle with the folder `vol`, below which another filesystem is mounted by [`run_with_sub`].
fn with_volume(script: &str) -> Bundle {
    let b = Bundle::new(script);
    fs::create_dir_all(b.dir.join("vol/sub")).unwrap();
    for (name, id) in [("own", 0), ("other", 5)] {
        fs::write(b.dir.join("vol").join(name), "").unwrap();
        chown(b.dir.join("vol").join(name), Some(id), Some(id)).unwrap();
    }
    b
}

/// Runs it in a mount namespace where a tmpfs with a file of root's is mounted at `vol/sub`.
fn run_with_sub(b: &Bundle) -> Output {
    let script = "mount -t tmpfs t \"$3/vol/sub\" && touch \"$3/vol/sub/own\" && \
                  exec \"$1\" --root \"$2\" run -b \"$3\" \"$4\"";
    let args = ["-m", "sh", "-ec", script, "sh", crate::common::bin(), b.store.path().to_str().unwrap()];
    let out = output("unshare", &[&args[..], &[b.dir.to_str().unwrap(), &b.id]].concat());
    b.nothing_left();
    out
}

/// Runs it in a mount namespace where filesystems that know of mappings are mounted at `vol` and
/// `vol/sub`; after its output comes who owns `vol/made` there, on the filesystem.
fn run_mapped(b: &Bundle) -> Output {
    let script = r#"
        cd "$3"
        for name in vol sub; do truncate -s 128M $name.img; mkfs.btrfs -q $name.img > mkfs.log; done
        mount -o loop vol.img vol
        mkdir vol/sub
        touch vol/own vol/other
        chown 5:5 vol/other
        mount -o loop sub.img vol/sub
        touch vol/sub/own
        "$1" --root "$2" run -b . "$4"
        [ ! -e vol/made ] || stat -c %u:%g vol/made
    "#;
    let args = ["-m", "sh", "-ec", script, "sh", crate::common::bin(), b.store.path().to_str().unwrap()];
    let out = output("unshare", &[&args[..], &[b.dir.to_str().unwrap(), &b.id]].concat());
    b.nothing_left();
    out
}

fn map(host: u32) -> Value {
    json!([{"containerID": 0, "hostID": host, "size": 1000}])
}

#[test]
fn owners_of_a_mapped_volume() {
    for (options, below) in
        [(json!(["rbind", "idmap"]), 0), (json!(["rbind", "ridmap"]), 2000), (json!(["rbind"]), 0)]
    {
        let b = with_volume(OWNERS);
        b.add_mount(json!({"destination": "/vol", "source": "vol", "options": options,
            "uidMappings": map(2000), "gidMappings": map(3000)}));
        let out = run_mapped(&b);
        let group = if below == 0 { 0 } else { 3000 };
        assert_eq!(
            String::from_utf8_lossy(&out.stdout),
            // Root of the container is no one of the mapping's.
            format!(". 2000:3000\nown 2000:3000\nother 2005:3005\nsub/own {below}:{group}\n"),
            "{options}: {out:?}"
        );
        assert!(String::from_utf8_lossy(&out.stderr).contains("made: Value too large"), "{out:?}");
    }
    // What is written comes out as the filesystem's own ids.
    let b = with_volume("id -u; stat -c %u:%g /vol/own; touch /vol/sub/made /vol/made");
    b.change(|c| c["process"]["user"] = json!({"uid": 2000, "gid": 3000}));
    b.add_mount(json!({"destination": "/vol", "source": "vol", "options": ["bind", "idmap"],
        "uidMappings": map(2000), "gidMappings": map(3000)}));
    let out = run_mapped(&b);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "2000\n2000:3000\n0:0\n", "{out:?}");
}

#[test]
fn a_volume_mapped_as_the_container_is() {
    // The container's root is 100000 outside and owns what root owns on the filesystem.
    let b = with_volume("stat -c '%n %u:%g' /vol/own /vol/other /plain/own; touch /vol/made");
    b.change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        c["linux"]["uidMappings"] = map(100_000);
        c["linux"]["gidMappings"] = map(100_000);
    });
    b.add_mount(json!({"destination": "/vol", "source": "vol", "options": ["rbind", "idmap", "rro", "rrw"]}));
    b.add_mount(json!({"destination": "/plain", "source": "vol", "options": ["rbind"]}));
    for path in [b.store.path(), &b.dir] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    ok("chown", &["-R", "100000:100000", b.rootfs().to_str().unwrap()]);
    let out = run_mapped(&b);
    let expected = "/vol/own 0:0\n/vol/other 5:5\n/plain/own 65534:65534\n0:0\n";
    assert_eq!(String::from_utf8_lossy(&out.stdout), expected, "{out:?}");
}

#[test]
fn a_mapped_filesystem_of_its_own() {
    let b = Bundle::new("stat -c %u:%g /new");
    let image = b.dir.join("image");
    fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
    ok("mkfs.btrfs", &["-q", image.to_str().unwrap()]);
    let device = ok("losetup", &["--find", "--show", image.to_str().unwrap()]).trim().to_string();
    let mappings = json!({"destination": "/new", "type": "btrfs", "source": device, "options": ["idmap"],
        "uidMappings": map(7), "gidMappings": map(8)});
    b.add_mount(mappings);
    // The device is read by who mounts, in the container's control groups.
    b.change(|c| c["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]));
    let out = b.launch("run");
    ok("losetup", &["--detach", &device]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "7:8\n", "{out:?}");
    // One that belongs to the container's user namespace is not mapped by another.
    b.change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        c["linux"]["uidMappings"] = map(0);
        c["linux"]["gidMappings"] = map(0);
        let mount = c["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        (mount["type"], mount["source"]) = (json!("tmpfs"), json!("tmpfs"));
    });
    assert!(b.refused(125).contains("idmapped mount of tmpfs at /new"));
}

#[test]
fn mappings_that_cannot_be_are_refused() {
    let both = [("uidMappings", map(1)), ("gidMappings", map(1))];
    for (given, source, code, words) in [
        (&both[..1], "vol", 125, "go together"),
        (&both[1..], "vol", 125, "go together"),
        (&[], "vol", 125, "no user namespace"),
        // A filesystem without such mounts.
        (&both[..], "/proc/fs", 125, "idmapped mount of proc at /vol"),
    ] {
        let b = with_volume("true");
        let mut mount = json!({"destination": "/vol", "source": source, "options": ["bind", "idmap"]});
        for (name, value) in given {
            mount[name] = value.clone();
        }
        b.add_mount(mount);
        let stderr = b.refused(code);
        assert!(stderr.contains(words) && stderr.contains("/vol"), "{stderr}");
    }
    // The right over the filesystem is missing.
    let b = with_volume("true");
    b.add_mount(json!({"destination": "/vol", "source": "vol", "options": ["bind", "idmap"],
        "uidMappings": map(1), "gidMappings": map(1)}));
    let (root, dir) = (b.store.path().to_str().unwrap(), b.dir.to_str().unwrap());
    let run = [crate::common::bin(), "--root", root, "run", "-b", dir, &b.id];
    let out = output("unshare", &[&["--user", "--map-root-user", "--mount"], &run[..]].concat());
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(stderr.contains("idmapped bind mount at /vol by an ordinary user is not supported"), "{out:?}");
    b.nothing_left();
}

/// The options of the mounts at `places`, as `/proc/self/mountinfo` has them: of the mount, of the
/// filesystem.
fn shown(mountinfo: &str, place: &str) -> (String, String) {
    let line = mountinfo.lines().rfind(|l| l.split(' ').nth(4) == Some(place));
    let fields: Vec<_> = line.unwrap_or_else(|| panic!("{place}: {mountinfo}")).split(' ').collect();
    (format!(",{},", fields[5]), format!(",{},", fields.last().unwrap()))
}

#[test]
fn options_for_all_mounts_below() {
    let all = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"];
    let b = with_volume("cat /proc/self/mountinfo");
    let options: Vec<String> = all.iter().map(|name| format!("r{name}")).chain(["rbind".into()]).collect();
    b.add_mount(json!({"destination": "/vol", "source": "vol", "options": options}));
    let out = run_with_sub(&b);
    let text = String::from_utf8_lossy(&out.stdout);
    for place in ["/vol", "/vol/sub"] {
        let own = shown(&text, place).0;
        assert!(all.iter().all(|name| own.contains(&format!(",{name},"))), "{place}: {own}");
    }
    // And the other way round; a plain option goes for the upper mount alone.
    let b = with_volume("cat /proc/self/mountinfo");
    let options =
        json!(["rbind", "ro", "nosuid", "rdev", "rexec", "rdiratime", "rsymfollow", "rstrictatime", "rrw"]);
    b.add_mount(json!({"destination": "/vol", "source": "vol", "options": options}));
    let script = "mount -t tmpfs -o ro,nosuid,nodev,noexec,nodiratime t \"$3/vol/sub\" && \
                  exec \"$1\" --root \"$2\" run -b \"$3\" \"$4\"";
    let args = ["-m", "sh", "-ec", script, "sh", crate::common::bin(), b.store.path().to_str().unwrap()];
    let text = ok("unshare", &[&args[..], &[b.dir.to_str().unwrap(), &b.id]].concat());
    let (upper, lower) = (shown(&text, "/vol").0, shown(&text, "/vol/sub").0);
    assert_eq!((upper.as_str(), lower.as_str()), (",rw,nosuid,", ",rw,nosuid,"), "{text}");
}

#[test]
fn options_of_mounts_and_filesystems() {
    for (option, of_mount, of_filesystem) in [
        ("ro", "ro", "rw"),
        ("nosuid", "nosuid", "rw"),
        ("nodev", "nodev", "rw"),
        ("noexec", "noexec", "rw"),
        ("noatime", "noatime", "rw"),
        ("nodiratime", "nodiratime", "rw"),
        ("relatime", "relatime", "rw"),
        ("strictatime", "rw", "rw"),
        ("nosymfollow", "nosymfollow", "rw"),
        ("sync", "rw", "sync"),
        ("dirsync", "rw", "dirsync"),
        ("lazytime", "rw", "lazytime"),
        ("async", "rw", "rw"),
        ("defaults", "rw", "rw"),
        ("silent", "rw", "rw"),
        ("loud", "rw", "rw"),
        ("iversion", "rw", "rw"),
        ("noiversion", "rw", "rw"),
        ("nolazytime", "rw", "rw"),
        ("size=64k", "rw", "size=64k"),
    ] {
        let b = Bundle::new("cat /proc/self/mountinfo");
        b.add_mount(json!({"destination": "/one", "type": "tmpfs", "source": "named", "options": [option]}));
        let text = b.run(0);
        let (own, filesystem) = shown(&text, "/one");
        assert!(own.contains(&format!(",{of_mount},")), "{option}: {own}");
        assert!(filesystem.contains(&format!(",{of_filesystem},")), "{option}: {filesystem}");
        assert!(text.contains(" - tmpfs named "), "{text}");
    }
    // An existing mount is changed; what only a filesystem has means nothing to a bind mount.
    let b = with_volume("cat /proc/self/mountinfo; touch /vol/made 2>&1");
    b.add_mount(json!({"destination": "/vol", "source": "vol", "options": ["bind", "sync", "noexec"]}));
    b.add_mount(
        json!({"destination": "/vol", "source": "vol", "options": ["bind", "remount", "ro", "nodev"]}),
    );
    let text = b.run(1);
    let own = shown(&text, "/vol").0;
    assert!(["ro", "nodev", "noexec"].iter().all(|name| own.contains(&format!(",{name},"))), "{own}");
    assert!(text.contains("Read-only file system"));
    let b = Bundle::new("true");
    b.add_mount(json!({"destination": "/one", "type": "tmpfs", "options": ["nonsense"]}));
    assert!(b.refused(125).contains("nonsense"));
    b.change(|c| c["mounts"].as_array_mut().unwrap().last_mut().unwrap()["type"] = json!("nofs"));
    assert!(b.refused(125).contains("nofs"));
}
