//! Small universes: what is chosen, what is said where nothing can be, and random ones
//! against all of their subsets.

use super::super::control::{Origin, packages};
use super::super::plan::{Plan, Variant, Wishes, plan};
use super::*;
use std::fmt::Write as _;
use std::sync::Arc;

/// `name version [R|E]|Field: value;Field: value`; `/` in fields is `|`. R is required, E essential.
fn universe<S: AsRef<str>>(lines: &[S]) -> Universe {
    let mut text = String::new();
    for line in lines {
        let (head, fields) = line.as_ref().split_once('|').unwrap_or((line.as_ref(), ""));
        let words: Vec<&str> = head.split_whitespace().collect();
        let (fields, sha) = (fields.replace(';', "\n").replace('/', "|"), "0".repeat(64));
        let kind = match words.get(2) {
            Some(&"R") => "Priority: required\n",
            Some(&"E") => "Priority: required\nEssential: yes\n",
            _ => "Priority: optional\n",
        };
        let _ = write!(
            text,
            "Package: {}\nVersion: {}\n{kind}Filename: f\nSHA256: {sha}\n{fields}\n\n",
            words[0], words[1]
        );
    }
    Universe::new(packages(text.as_bytes(), &Arc::default()).unwrap())
}

/// What is wrong with a set: unmet needs, conflicts, two versions of one name. Looks at each
/// pair of packages, with nothing of the search in it but the meaning of one relation.
fn wrong(set: &[Package]) -> Option<String> {
    for package in set {
        if set.iter().filter(|p| p.name == package.name).count() > 1 {
            return Some(format!("{} twice", package.name));
        }
        for need in package.all_depends() {
            if !need.iter().any(|atom| set.iter().any(|p| fits(p, atom))) {
                return Some(format!("{} lacks {need:?}", package.name));
            }
        }
        for atom in dependencies(&package.conflicts).iter().flatten() {
            if let Some(other) = set.iter().find(|p| p.name != package.name && fits(p, atom)) {
                return Some(format!("{} conflicts with {}", package.name, other.name));
            }
        }
    }
    None
}

fn planned(lines: &[&str], include: &str, exclude: &str) -> Result<String> {
    let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let (include, exclude) = (words(include), words(exclude));
    let wishes =
        Wishes { variant: Variant::Essential, include: &include, exclude: &exclude, ..Wishes::default() };
    let Plan { packages, .. } = plan(&universe(lines), &wishes)?;
    assert_eq!(wrong(&packages), None, "{lines:?}");
    let shown = |p: &Package| match p.version.as_str() {
        "1" => p.name.clone(),
        version => format!("{}={version}", p.name),
    };
    Ok(packages.iter().map(shown).collect::<Vec<_>>().join(" "))
}

#[test]
fn chooses() {
    let table: &[(&str, &[&str], &str, &str)] = &[
        ("loop", &["x 1|Depends: y", "y 1|Depends: z", "z 1|Depends: x"], "x", "x y z"),
        ("loop with the base", &["e 1 E|Pre-Depends: x", "x 1|Depends: e"], "x", "e x"),
        ("itself", &["x 1|Depends: x, v;Provides: v"], "x", "x"),
        ("a name that is only provided", &["x 1|Depends: v", "p 1|Provides: v"], "x", "p x"),
        (
            "a versioned provide",
            &["x 1|Depends: v (>= 2)", "p 1|Provides: v", "q 1|Provides: v (= 3)"],
            "x",
            "q x",
        ),
        ("the real one before a provider", &["x 1|Depends: v", "a 1|Provides: v", "v 1"], "x", "v x"),
        (
            "a provider where the real one is too old",
            &["x 1|Depends: v (>= 2)", "a 1|Provides: v (= 2)", "v 1"],
            "x",
            "a x",
        ),
        ("what is in the set", &["x 1|Depends: a / b", "a 1", "b 1"], "x b", "b x"),
        ("what is needed before", &["x 1|Depends: y, a / b", "y 1|Depends: b", "a 1", "b 1"], "x", "b x y"),
        ("alternatives in order", &["x 1|Depends: no / b / a", "a 1", "b 1"], "x", "b x"),
        (
            "a conflict with a name that it provides itself",
            &["x 1|Provides: mta;Conflicts: mta", "e 1 E"],
            "x",
            "e x",
        ),
        (
            "the other that provides it",
            &["x 1|Depends: mta", "y 1|Conflicts: p", "p 1|Provides: mta", "q 1|Provides: mta"],
            "y x",
            "q x y",
        ),
        ("breaks of an older version only", &["x 1|Breaks: y (<< 2)", "y 2"], "x y", "x y=2"),
        ("a lower version", &["x 1|Depends: y (<< 2)", "y 1", "y 2"], "x", "x y"),
        (
            "a lower version of what is in the set already",
            &["x 1|Depends: y, z", "y 1", "y 2", "z 1|Depends: y (= 1)"],
            "x",
            "x y z",
        ),
        ("a lower version of what is included", &["x 1", "x 2|Depends: no"], "x", "x"),
        ("one level back", &["x 1|Depends: a / b, c", "a 1|Conflicts: c", "b 1", "c 1"], "x", "b c x"),
        (
            "two levels back",
            &[
                "x 1|Depends: a / b, m, c",
                "a 1|Depends: d",
                "b 1",
                "m 1|Depends: n / o",
                "n 1",
                "o 1",
                "d 1|Conflicts: c",
                "c 1",
            ],
            "x",
            "b c m n x",
        ),
        (
            "not what had no part in it",
            &["x 1|Depends: a / b, m / n, c", "a 1|Breaks: c", "b 1", "m 1", "n 1", "c 1"],
            "x",
            "b c m x",
        ),
        (
            "a conflict from the other side",
            &["x 1|Depends: a / b, c", "a 1", "b 1", "c 1|Breaks: a"],
            "x",
            "b c x",
        ),
        (
            "a conflict with a provided version",
            &["x 1|Depends: v / w;Conflicts: k (<< 2)", "v 1|Provides: k (= 1)", "w 1|Provides: k (= 2)"],
            "x",
            "w x",
        ),
        (
            "deep in an alternative",
            &["x 1|Depends: a / b", "a 1|Depends: c", "c 1|Depends: no", "b 1"],
            "x",
            "b x",
        ),
        ("a version asked for", &["x 1", "x 2", "y 1|Depends: x"], "y x=1", "x y"),
        ("a virtual name asked for", &["p 1|Provides: v"], "v", "p"),
        ("architectures in names", &["x 1|Depends: p:any (>= 1)", "p 1"], "x", "p x"),
    ];
    for (what, lines, include, want) in table {
        assert_eq!(planned(lines, include, "").map_err(|e| e.to_string()).as_deref(), Ok(*want), "{what}");
    }
}

#[test]
fn says_a_reason_once() {
    let lines =
        ["e 1 E", "x 1|Conflicts: e", "x 2|Conflicts: e", "y 1|Depends: x / no / z", "z 1|Conflicts: e"];
    assert_eq!(planned(&lines, "x", "").unwrap_err().to_string(), "x conflicts with e: e");
    let want = "y → x conflicts with e: e; y → z conflicts with e: e";
    assert_eq!(planned(&lines, "y", "").unwrap_err().to_string(), want);
}

#[test]
fn excludes() {
    let lines =
        ["e 1 E|Depends: l", "l 1", "x 1|Depends: a / b", "a 1", "b 1", "y 1|Depends: z", "z 1|Depends: a"];
    assert_eq!(planned(&lines, "x", "a").unwrap(), "b e l x");
    for (include, exclude, want) in [
        ("y", "a", "cannot satisfy y → z → a: a is excluded"),
        ("x", "a b", "cannot satisfy x → a | b: a is excluded; cannot satisfy x → a | b: b is excluded"),
        ("a", "a", "cannot satisfy a: a is excluded"),
        ("", "l", "cannot satisfy e → l: l is excluded"),
    ] {
        assert_eq!(planned(&lines, include, exclude).unwrap_err().to_string(), want);
    }
    assert_eq!(planned(&lines, "", "e").unwrap(), "", "the base is no exception");
}

#[test]
fn explains() {
    let table: &[(&[&str], &str, &str)] = &[
        (
            &["x 1|Depends: y", "y 1|Depends: z (>= 9)", "z 1", "z 2"],
            "x",
            "cannot satisfy x → y → z (>= 9): the archive has z 2, 1",
        ),
        (&["x 1|Depends: z / w"], "x", "cannot satisfy x → z | w: the archive has no such package"),
        (&["e 1 E", "x 1|Depends: y", "y 1|Conflicts: e"], "x", "x → y conflicts with e: e"),
        (&["e 1 E|Breaks: y (<< 2)", "x 1|Depends: y", "y 1"], "x", "e conflicts with y (<< 2): x → y"),
        (
            &["a 1|Depends: p", "b 1|Depends: q", "p 1", "q 1|Conflicts: p"],
            "a b",
            "b → q conflicts with p: a → p",
        ),
        (&["p 1|Provides: m;Conflicts: m", "q 1|Provides: m;Conflicts: m"], "p q", "q conflicts with m: p"),
        (
            &["x 1|Depends: y (= 1)", "y 1", "y 2"],
            "y=2 x",
            "cannot satisfy x → y (= 1): y is in the set as 2: y",
        ),
        (
            &["x 1|Depends: a / b", "a 1|Depends: no", "b 1|Conflicts: e", "e 1 E"],
            "x",
            "cannot satisfy x → a → no: the archive has no such package; x → b conflicts with e: e",
        ),
        (
            &["x 1|Depends: v (>= 1)", "p 1|Provides: v"],
            "x",
            "cannot satisfy x → v (>= 1): the archive has no such package",
        ),
        (&["x 1"], "x=2", "no package x=2 in the archive, it has 1 ()"),
        (&["p 1|Provides: v", "q 1|Provides: v"], "v", "v is no package, it is provided by p, q"),
        (&[], "x", "no package x in the archive"),
    ];
    for (lines, include, want) in table {
        assert_eq!(planned(lines, include, "").unwrap_err().to_string(), *want);
    }
}

#[test]
fn what_is_not_automatic_is_asked_for() {
    let sha = "0".repeat(64);
    let paragraph = |l: &&str| format!("{}\nFilename: f\nSHA256: {sha}\n\n", l.replace(';', "\n"));
    let text = |lines: &[&str]| lines.iter().map(paragraph).collect::<Vec<_>>().concat();
    let stable =
        text(&["Package: x;Version: 1", "Package: y;Version: 1", "Package: z;Version: 1;Depends: y (>= 2)"]);
    let backports = text(&["Package: x;Version: 2;Depends: y", "Package: y;Version: 2"]);
    let origin = Origin { suites: vec!["backports".to_string()], automatic: false, ..Origin::default() };
    let mut all = packages(stable.as_bytes(), &Arc::default()).unwrap();
    all.extend(packages(backports.as_bytes(), &Arc::new(origin)).unwrap());
    let universe = Universe::new(all);
    for (include, want) in [("x", "x=1"), ("x/backports", "x=2 y=1"), ("x=2", "x=2 y=1"), ("z", "y=2 z=1")] {
        let include = [include.to_string()];
        let wishes = Wishes { variant: Variant::Essential, include: &include, ..Wishes::default() };
        let Plan { packages, .. } = plan(&universe, &wishes).unwrap();
        let shown: Vec<String> = packages.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
        assert_eq!(shown.join(" "), want);
    }
}

/// Numbers that are the same each time (an LCG).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// A relation to some version of one of seven names, two of which are only provided.
    fn atom(&mut self) -> String {
        let name = ["a", "b", "c", "d", "e", "v", "w"][usize::try_from(self.below(7)).unwrap()];
        match self.below(4) {
            0 => format!("{name} (>= 2)"),
            1 => format!("{name} (<< 2)"),
            _ => name.to_string(),
        }
    }
}

/// All sets of at most one version of each name.
fn sets(all: &[Package], with: &str) -> Vec<Vec<Package>> {
    let mut sets = vec![Vec::new()];
    for name in ["a", "b", "c", "d", "e"] {
        let versions: Vec<&Package> = all.iter().filter(|p| p.name == name).collect();
        let more: Vec<Vec<Package>> = sets
            .iter()
            .flat_map(|s| versions.iter().map(move |v| s.iter().chain([*v]).cloned().collect()))
            .collect();
        sets.extend(more);
    }
    sets.retain(|s| s.iter().any(|p| p.name == with));
    sets
}

#[test]
fn finds_a_set_where_there_is_one() {
    let mut numbers = Numbers(1);
    let (mut found, mut none) = (0, 0);
    for _ in 0..400 {
        let mut lines = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            for version in 1..=1 + numbers.below(2) {
                let mut line = format!("{name} {version}|");
                for _ in 0..numbers.below(3) {
                    let more =
                        if numbers.below(2) == 0 { format!(" / {}", numbers.atom()) } else { String::new() };
                    let _ = write!(line, "Pre-Depends: {}{more};", numbers.atom());
                    let _ = write!(line, "Depends: {};", numbers.atom());
                }
                if numbers.below(2) == 0 {
                    let _ = write!(line, "Conflicts: {};", numbers.atom());
                }
                match numbers.below(4) {
                    0 => line.push_str("Provides: v;"),
                    1 => line.push_str("Provides: v (= 1), w (= 2);"),
                    _ => {}
                }
                lines.push(line);
            }
        }
        let universe = universe(&lines);
        let all: Vec<Package> =
            ["a", "b", "c", "d", "e"].iter().flat_map(|n| universe.versions(n)).cloned().collect();
        let there_is = sets(&all, "a").iter().any(|s| wrong(s).is_none());
        let include = ["a".to_string()];
        let wishes = Wishes { variant: Variant::Essential, include: &include, ..Wishes::default() };
        match plan(&universe, &wishes) {
            Ok(plan) => assert_eq!((wrong(&plan.packages), there_is), (None, true), "{lines:?}"),
            Err(e) => assert!(!there_is, "{lines:?}: {e}"),
        }
        *(if there_is { &mut found } else { &mut none }) += 1;
    }
    assert!(found > 50 && none > 50, "{found} and {none}");
}
