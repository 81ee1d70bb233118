//! What no image should have: set-uid files that nobody knows of, keys and tokens, files that everybody
//! may write.

use super::Result;
use super::check::Check;
use super::files::is_excepted;
use super::report::Finding;
use super::subject::Files;
use crate::sys::signal;
use crate::tree::{Kind, Node, TreePath};
use regex::bytes::RegexSet;
use std::sync::LazyLock;

/// So many files are told of.
const MOST_TOLD: usize = 50;
/// Larger files are not searched for keys and tokens.
const MOST_SEARCHED: u64 = 256 << 10;

/// `only-setuid`.
pub(super) fn only_setuid(check: &Check, files: &Files) -> Vec<Finding> {
    let special = |node: &Node| node.kind == Kind::File && node.meta.mode & 0o6000 != 0;
    let wanted = "no set-uid or set-gid file but those listed";
    let found = |node: &Node| format!("mode {:04o}", node.meta.mode);
    told(files, |path, node| {
        (special(node) && !is_excepted(path, check.only_setuid.as_ref()))
            .then(|| Finding::new(wanted, found(node)))
    })
}

/// `no-world-writable`: the sticky bit of a directory makes it one for all.
pub(super) fn no_world_writable(check: &Check, files: &Files) -> Vec<Finding> {
    let open = |node: &Node| match node.kind {
        Kind::Directory => node.meta.mode & 0o1002 == 0o002,
        Kind::File => node.meta.mode & 0o002 != 0,
        _ => false,
    };
    told(files, |path, node| {
        let wrong = open(node) && !is_excepted(path, check.except.as_ref());
        wrong
            .then(|| Finding::new("nothing that everybody may write", format!("mode {:04o}", node.meta.mode)))
    })
}

fn told(files: &Files, wrong: impl Fn(&[u8], &Node) -> Option<Finding>) -> Vec<Finding> {
    let one = |(path, node): (&TreePath, &Node)| {
        let name = [b"/", path.as_bytes()].concat();
        wrong(&name, node).map(|finding| finding.at(path))
    };
    files.tree.iter().filter_map(one).take(MOST_TOLD).collect()
}

/// Files that hold secrets by their names.
const NAMES: &[(&str, &str)] = &[
    ("/.aws/credentials", "credentials for AWS"),
    ("/.netrc", "passwords for hosts"),
    ("/.git-credentials", "passwords for git"),
    ("/.docker/config.json", "credentials for registries"),
    ("/.pgpass", "passwords for PostgreSQL"),
    ("/.kube/config", "credentials for Kubernetes"),
    ("/.ssh/id_rsa", "a private key"),
    ("/.ssh/id_ecdsa", "a private key"),
    ("/.ssh/id_ed25519", "a private key"),
    ("/.npmrc", "credentials for npm"),
    ("/.pypirc", "credentials for PyPI"),
    ("/.vault-token", "a token for Vault"),
];

/// What content gives away: a pattern, and what it is.
const PATTERNS: &[(&str, &str)] = &[
    (r"-----BEGIN (RSA |EC |DSA |OPENSSH |ENCRYPTED )?PRIVATE KEY-----\r?\n[A-Za-z0-9+/=:]", "a private key"),
    (r"-----BEGIN PGP PRIVATE KEY BLOCK-----\r?\n[A-Za-z\r\n]", "a private key"),
    (r"\b(AKIA|ASIA)[A-Z2-7]{16}\b", "an access key for AWS"),
    (r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{80,90}\b", "a token for GitHub"),
    (r"\bglpat-[A-Za-z0-9_-]{20}\b", "a token for GitLab"),
    (r"\bxox[abprs]-[0-9]{8,}-[A-Za-z0-9-]{10,}", "a token for Slack"),
    (r"\bnpm_[A-Za-z0-9]{36}\b", "a token for npm"),
    (r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}", "a token for PyPI"),
    (r"\bsk_live_[A-Za-z0-9]{24,}\b", "a key for Stripe"),
    (r"\bAIza[A-Za-z0-9_-]{35}\b", "a key for Google"),
];

/// The patterns, built once; a test sees that they can be.
static TOKENS: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(PATTERNS.iter().map(|(pattern, _)| format!("(?-u){pattern}")))
        .unwrap_or_else(|_| RegexSet::empty())
});

/// `no-secrets`.
pub(super) fn no_secrets(check: &Check, files: &Files) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let first = |node: &Node, path: &TreePath| node.same.as_ref().is_none_or(|same| same == path);
    let regular = files.tree.iter().filter(|(path, node)| node.kind == Kind::File && first(node, path));
    for (path, node) in regular.filter(|(_, node)| node.size > 0) {
        if signal::pending().is_some() {
            return Err(super::Error::Interrupted);
        }
        let name = [b"/", path.as_bytes()].concat();
        if is_excepted(&name, check.except.as_ref()) {
            continue;
        }
        let mut what = NAMES.iter().find(|(end, _)| name.ends_with(end.as_bytes())).map(|(_, what)| *what);
        if what.is_none() && node.size <= MOST_SEARCHED {
            let bytes = files.up_to(path, MOST_SEARCHED)?.unwrap_or_default();
            what = TOKENS.matches(&bytes).iter().next().and_then(|i| PATTERNS.get(i)).map(|(_, what)| *what);
        }
        findings
            .extend(what.map(|what| Finding::new("no secrets", format!("what looks like {what}")).at(path)));
        if findings.len() >= MOST_TOLD {
            break;
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::super::subject::tests::files;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn patterns_are_right() {
        assert_eq!(TOKENS.len(), PATTERNS.len());
        let a = |n| "a".repeat(n);
        for (text, want) in [
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb".to_string(), Some("a private key")),
            // Programs that know of keys have the words alone.
            ("-----BEGIN PRIVATE KEY-----\0".to_string(), None),
            ("-----BEGIN PUBLIC KEY-----\nabc".to_string(), None),
            ("id = AKIAABCDEFGHIJKLMNOP".to_string(), Some("an access key for AWS")),
            (format!("ghp_{}", a(36)), Some("a token for GitHub")),
            (format!("ghp_{}", a(37)), None),
            (format!("npm_{}", a(36)), Some("a token for npm")),
            (format!("sk_live_{}", a(24)), Some("a key for Stripe")),
            ("hello".to_string(), None),
        ] {
            let found = TOKENS.matches(text.as_bytes()).iter().next().map(|i| PATTERNS[i].1);
            assert_eq!(found, want, "{text}");
        }
    }

    #[test]
    fn found_and_excepted() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("su", 0o4755), ("open", 0o666), ("wall", 0o2755), ("fine", 0o644)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "x").unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        for (name, mode) in [("tmp", 0o1777), ("drop", 0o777), ("root/.ssh", 0o700)] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        std::fs::write(dir.path().join("root/.ssh/id_rsa"), "anything").unwrap();
        std::fs::write(dir.path().join("key"), "-----BEGIN PRIVATE KEY-----\nMII").unwrap();
        let files = files(dir.path());
        for (toml, want) in [
            ("only-setuid = []", "/su /wall"),
            ("only-setuid = ['/su', '/w*']", ""),
            ("no-world-writable = true", "/drop /open"),
            ("no-world-writable = true\nexcept = '/*'", ""),
            ("no-secrets = true", "/key /root/.ssh/id_rsa"),
            ("no-secrets = true\nexcept = ['/key', '/root/**']", ""),
        ] {
            let check: Check = toml::from_str(toml).unwrap();
            let found = match check.kind().unwrap().key {
                "only-setuid" => only_setuid(&check, &files),
                "no-secrets" => no_secrets(&check, &files).unwrap(),
                _ => no_world_writable(&check, &files),
            };
            let paths: Vec<_> = found.iter().filter_map(|f| f.path.clone()).collect();
            assert_eq!(paths.join(" "), want, "{toml}");
        }
    }
}
