//! What locks hold, what is refused in them, and what is asked again.

use super::*;

pub(in super::super) fn lock() -> Lock {
    let hash = "0123456789abcdef".repeat(4);
    let asked = Asked {
        suite: "bookworm".into(),
        arch: "amd64".into(),
        variant: Variant::Minbase,
        include: vec!["tini".into()],
        exclude: vec![],
        snapshot: None,
        archives: vec![Source {
            uri: None,
            suites: vec!["bookworm".into()],
            components: vec!["main".into()],
            signed_by: vec![],
            unsigned: false,
        }],
    };
    let release = Locked {
        uri: "http://deb.example/debian".into(),
        suite: "bookworm".into(),
        components: vec!["main".into()],
        date: 5,
        sha256: hash.clone(),
        signer: None,
    };
    let pin = Pin {
        name: "a".into(),
        version: "1:2-3~x+y".into(),
        architecture: "all".into(),
        sha256: hash,
        size: 7,
        url: "http://deb.example/debian/a.deb".into(),
        base: true,
    };
    Lock::new(
        asked,
        "deb http://deb.example/debian bookworm main\n",
        vec![release],
        vec![pin.clone(), Pin { name: "b".into(), base: false, ..pin }],
    )
}

#[test]
fn written_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.lock");
    assert!(Lock::read(&path).unwrap().is_none());
    lock().write(&path).unwrap();
    assert_eq!(Lock::read(&path).unwrap().unwrap(), lock());
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("version = 1\n", "version = 2\n"),
        ("[request]", "[reqest]"),
        ("sha256 = \"0123", "sha256 = \"123"),
        ("sha256 = \"0123", "sha256 = \"X123"),
        ("size = 7", "size = -7"),
        ("size = 7", "size = \"7\""),
        ("size = 7", "size = 18446744073709551616"),
        ("size = 7", "size = 7\nmore = 1"),
        ("name = \"b\"", "name = \"a\""),
        ("name = \"b\"", "name = \"../b\""),
        ("name = \"b\"", "name = \"b\\nc\""),
        ("name = \"b\"", "name = \"\""),
        ("name = \"b\"", "name = \"-b\""),
        ("name = \"b\"", "name = [\"b\"]"),
        ("version = \"1:2-3~x+y\"", "version = \"1/2\""),
        ("version = \"1:2-3~x+y\"", "version = \"1\\u001b[2J\""),
        ("architecture = \"all\"", "architecture = \"a/b\""),
        ("url = \"http", "url = \"\\nhttp"),
        ("bookworm main\"]", "bookworm main\", \"deb http://x y z\"]"),
        ("bookworm main\"]", "other main\"]"),
        ("bookworm main\"]", "bookworm main # \\n deb x\"]"),
        ("sources = [\"deb http://deb.example/debian bookworm main\"]", "sources = []"),
        ("variant = \"minbase\"", "variant = \"minbase\"\nsnapshot = \"yesterday\""),
    ] {
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        assert!(matches!(Lock::read(&path), Err(Error::Lock { .. })), "{to}");
    }
}

#[test]
fn keys_tell_roots_apart() {
    let one = lock();
    let mut other = lock();
    other.packages[1].base = true;
    assert_eq!(one.key("x"), lock().key("x"));
    assert!(one.key("x") != one.key("y") && one.key("x") != other.key("x"));
    assert_eq!(one.sources_list(), "deb http://deb.example/debian bookworm main\n");
}

#[test]
fn hostile_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.lock");
    let deep = format!("version = 1\nx = {}", "[".repeat(1 << 20));
    let large = format!("version = 1\n#{}", "x".repeat(usize::try_from(MAX).unwrap()));
    for text in [&b"\xff\xfe"[..], b"", b"version = 1", b"\x7fELF", deep.as_bytes(), large.as_bytes()] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(Lock::read(&path), Err(Error::Lock { .. })), "{} bytes", text.len());
    }
    assert!(matches!(Lock::read(dir.path()), Err(Error::Io { .. })));
}

/// The suite's own archives on a machine with this mirror.
fn own(mirror: &str) -> Archive {
    let repo = |uri: String, suites: &[&str]| Repo {
        uri,
        suites: suites.iter().map(ToString::to_string).collect(),
        components: vec!["main".to_string()],
        signed_by: vec!["/usr/share/keyrings/debian-archive-keyring.gpg".into()],
        ..Repo::default()
    };
    Archive {
        suite: "bookworm".to_string(),
        repos: vec![
            repo(format!("{mirror}/debian"), &["bookworm", "bookworm-updates"]),
            repo(format!("{mirror}/security"), &["bookworm-security"]),
        ],
        distribution: vec!["bookworm".to_string(), "sid".to_string()],
        extra_base: vec![],
        never: vec![],
        snapshot: None,
    }
}

#[test]
fn what_was_asked_is_asked_again() {
    let plain = |_: &mut Archive| {};
    let keyring = |a: &mut Archive| a.use_keyring(Path::new("/own.gpg"));
    let snapshot = |a: &mut Archive| a.use_snapshot("20260901T000000Z".parse().unwrap());
    let unsigned = |a: &mut Archive| a.repos.iter_mut().for_each(|r| r.trusted = true);
    let added = |a: &mut Archive| {
        for line in ["deb [signed-by=/k.gpg,/l.asc] http://x bookworm main", "deb [trusted=yes] http://y ./"]
        {
            a.repos.push(Repo::parse(line, "amd64").unwrap());
        }
    };
    let less = |a: &mut Archive| {
        a.main_only();
        a.use_components(&["main".to_string(), "contrib".to_string()]);
    };
    let cases: [&dyn Fn(&mut Archive); 6] = [&plain, &keyring, &snapshot, &unsigned, &added, &less];
    for (case, change) in cases.into_iter().enumerate() {
        let mut archive = own("http://one");
        change(&mut archive);
        let mut request = Request { include: vec!["a".to_string()], ..Request::new(archive) };
        request.exclude.push("b".to_string());
        let lock = Lock::new(request.asked(), &request.archive.sources_list(), vec![], vec![]);
        lock.check().unwrap();
        let again = lock.again(own("http://two"));
        assert_eq!(again.asked(), lock.request, "{case}");
        assert_eq!(again.archive.sources_list(), request.archive.sources_list(), "{case}");
        assert_eq!(again.archive.root_keyrings(), request.archive.root_keyrings(), "{case}");
        let keys = |a: &Archive| a.repos.iter().map(|r| r.signed_by.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&again.archive), keys(&request.archive), "{case}");
        let spare: Vec<&String> = again.archive.repos.iter().flat_map(|r| &r.mirrors).collect();
        let want: &[&str] = match case {
            2 => &[],
            5 => &["http://two/debian"],
            _ => &["http://two/debian", "http://two/security"],
        };
        assert_eq!(spare, want, "{case}");
        // Another machine's mirror makes no other request.
        let mut there = own("http://three");
        change(&mut there);
        let there = Request { archive: there, ..request };
        assert_eq!(there.asked(), lock.request, "{case}");
    }
}
