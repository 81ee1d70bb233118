//! Which signatures of an archive count: keys that gpg makes, binds, revokes and lets expire.

use crate::common::archive::{Archive, bookworm};
use std::fs;

const NOT: &str = "is not signed by a key of";

/// Makes the key pair `who`, at `time` in gpg's words, of this use and this length of life.
fn key(archive: &Archive, who: &str, time: &str, usage: &str, life: &str) {
    fs::create_dir_all(archive.at(who)).unwrap();
    crate::common::ok("chmod", &["700".as_ref(), archive.at(who).as_os_str()]);
    let user = format!("{who}@example.org");
    gpg(archive, who, time, &["--quick-gen-key", &user, "ed25519", usage, life]);
}

fn gpg(archive: &Archive, who: &str, time: &str, args: &[&str]) {
    let time = format!("{time}!");
    let mut all = vec!["--faked-system-time", &time];
    all.extend(args);
    archive.gpg(who, if time.starts_with("now") { args } else { &all });
}

fn export(archive: &Archive, who: &str) {
    let file = archive.at("good.gpg");
    archive.gpg(who, &["--output", file.to_str().unwrap(), "--export"]);
}

/// Signs the Release file.
fn sign(archive: &Archive, who: &str, time: &str, options: &[&str]) {
    let (release, target) = (archive.dist("Release"), archive.dist("InRelease"));
    let mut args = options.to_vec();
    args.extend(["--output", target.to_str().unwrap(), "--clearsign", release.to_str().unwrap()]);
    gpg(archive, who, time, &args);
}

/// Whether the archive's signature counts; without a shell in it, nothing goes further.
fn counts(archive: &Archive) -> bool {
    let out = archive.store.output(&archive.args("a"));
    let stderr = String::from_utf8_lossy(&out.stderr);
    match out.status.code() {
        Some(9) if stderr.contains(NOT) => false,
        Some(10) if stderr.contains("execve in the root") => true,
        other => panic!("{other:?}: {stderr}"),
    }
}

fn archive() -> Archive {
    let mut archive = bookworm();
    archive.add("a", "");
    archive.publish("", Some("good"));
    archive
}

#[test]
fn expired_keys() {
    let archive = archive();
    key(&archive, "short", "20200101T000000", "sign", "1y");
    export(&archive, "short");
    sign(&archive, "short", "20200601T000000", &[]);
    assert!(counts(&archive), "the key lived when it signed");
    // gpg itself refuses to sign with an expired key: it is made to live, signs, and the
    // keyring here has the key as it was.
    let before = fs::read(archive.at("good.gpg")).unwrap();
    let fingerprint = fingerprint(&archive, "short");
    gpg(&archive, "short", "20200602T000000", &["--quick-set-expire", &fingerprint, "9y"]);
    sign(&archive, "short", "20220601T000000", &[]);
    assert!(!counts(&archive), "expired when it signed");
    export(&archive, "short");
    assert!(counts(&archive), "the newest self-signature prolonged it");
    fs::write(archive.at("good.gpg"), before).unwrap();
    assert!(!counts(&archive));
}

#[test]
fn expired_signatures() {
    let archive = archive();
    key(&archive, "long", "20200101T000000", "sign", "never");
    export(&archive, "long");
    sign(&archive, "long", "20200601T000000", &["--default-sig-expire", "30d"]);
    assert!(!counts(&archive));
    sign(&archive, "long", "now", &["--default-sig-expire", "30d"]);
    assert!(counts(&archive));
}

#[test]
fn revoked_keys() {
    let archive = archive();
    key(&archive, "lost", "20200101T000000", "sign", "never");
    export(&archive, "lost");
    sign(&archive, "lost", "20200601T000000", &[]);
    assert!(counts(&archive));
    let fingerprint = fingerprint(&archive, "lost");
    let made = archive.at("lost").join(format!("openpgp-revocs.d/{fingerprint}.rev"));
    // gpg puts a colon before the armour, against importing it by mistake.
    let text = fs::read_to_string(made).unwrap().replace(":-----BEGIN", "-----BEGIN");
    let revocation = archive.at("revocation.asc");
    fs::write(&revocation, text).unwrap();
    archive.gpg("lost", &["--import", revocation.to_str().unwrap()]);
    export(&archive, "lost");
    assert!(!counts(&archive));
}

#[test]
fn subkeys() {
    let archive = archive();
    key(&archive, "main", "20200101T000000", "cert", "never");
    let fingerprint = fingerprint(&archive, "main");
    gpg(&archive, "main", "20200102T000000", &["--quick-add-key", &fingerprint, "ed25519", "sign", "1y"]);
    export(&archive, "main");
    sign(&archive, "main", "20200601T000000", &[]);
    assert!(counts(&archive), "bound for signing");
    let whole = fs::read(archive.at("good.gpg")).unwrap();
    // The same packets with the binding signature, the last packet, gone or damaged.
    let cut = last_packet(&archive);
    fs::write(archive.at("good.gpg"), &whole[..cut]).unwrap();
    assert!(!counts(&archive), "not bound");
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(archive.at("good.gpg"), damaged).unwrap();
    assert!(!counts(&archive), "bound by nobody");
    fs::write(archive.at("good.gpg"), &whole).unwrap();
    gpg(&archive, "main", "20200602T000000", &["--quick-set-expire", &fingerprint, "9y", "*"]);
    sign(&archive, "main", "20220601T000000", &[]);
    assert!(!counts(&archive), "the subkey had expired");
    export(&archive, "main");
    assert!(counts(&archive), "prolonged");
    let revoke = "printf 'key 1\\nrevkey\\ny\\n0\\n\\ny\\nsave\\n'";
    let home = archive.at("main");
    let script = format!(
        "{revoke} | gpg --homedir {} --command-fd 0 --no-tty --passphrase '' --pinentry-mode loopback \
         --edit-key {fingerprint}; gpgconf --homedir {} --kill all",
        home.display(),
        home.display()
    );
    crate::common::ok("sh", &["-c", &script]);
    export(&archive, "main");
    assert!(!counts(&archive), "revoked");
}

fn fingerprint(archive: &Archive, who: &str) -> String {
    let home = archive.at(who);
    let listed = crate::common::ok(
        "gpg",
        &["--homedir", home.to_str().unwrap(), "--batch", "--with-colons", "--list-keys"],
    );
    let line = listed.lines().find(|l| l.starts_with("fpr:")).unwrap();
    line.split(':').nth(9).unwrap().to_string()
}

/// Where the last packet of the keyring file begins.
fn last_packet(archive: &Archive) -> usize {
    let file = archive.at("good.gpg");
    let packets =
        crate::common::ok("gpg", &["--batch".as_ref(), "--list-packets".as_ref(), file.as_os_str()]);
    let last = packets.lines().filter_map(|l| l.strip_prefix("# off=")).next_back().unwrap();
    last.split_whitespace().next().unwrap().parse().unwrap()
}
