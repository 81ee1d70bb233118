//! `user` and `group`: by the image's own passwd(5) and group(5).

use super::Result;
use super::check::Check;
use super::report::Finding;
use super::subject::Files;

/// Users and groups of an image; malformed lines are passed over.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

#[derive(Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// Those of the image.
    pub(super) fn of(files: &Files) -> Result<Self> {
        Ok(Self::parse(&files.text("/etc/passwd")?, &files.text("/etc/group")?))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let user = |line: &str| match line.split(':').collect::<Vec<_>>()[..] {
            [name, _, uid, gid, _, home, shell] if !name.is_empty() => Some(User {
                name: name.to_string(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: home.to_string(),
                shell: shell.to_string(),
            }),
            _ => None,
        };
        let members = |list: &str| list.split(',').filter(|m| !m.is_empty()).map(str::to_string).collect();
        let group_of = |line: &str| match line.split(':').collect::<Vec<_>>()[..] {
            [name, _, gid, list] if !name.is_empty() => {
                Some(Group { name: name.to_string(), gid: gid.parse().ok()?, members: members(list) })
            }
            _ => None,
        };
        Self {
            users: passwd.lines().filter_map(user).collect(),
            groups: group.lines().filter_map(group_of).collect(),
        }
    }

    /// The number of a user, by name or number.
    pub(super) fn uid(&self, text: &str) -> Option<u32> {
        self.users.iter().find(|u| u.name == text).map(|u| u.uid).or_else(|| text.parse().ok())
    }

    fn gid(&self, text: &str) -> Option<u32> {
        self.groups.iter().find(|g| g.name == text).map(|g| g.gid).or_else(|| text.parse().ok())
    }

    /// Whether `USER`, `USER:GROUP` or `:GROUP` says what owns a file of these numbers.
    pub(super) fn says(&self, owner: &str, uid: u32, gid: u32) -> bool {
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        (user.is_empty() || self.uid(user) == Some(uid)) && (group.is_empty() || self.gid(group) == Some(gid))
    }

    /// `USER:GROUP` by name where they have one.
    pub(super) fn names(&self, uid: u32, gid: u32) -> String {
        let user =
            self.users.iter().find(|u| u.uid == uid).map_or_else(|| uid.to_string(), |u| u.name.clone());
        let group =
            self.groups.iter().find(|g| g.gid == gid).map_or_else(|| gid.to_string(), |g| g.name.clone());
        format!("{user}:{group}")
    }

    /// `user`.
    fn user(&self, check: &Check) -> Vec<Finding> {
        let name = check.user.as_deref().unwrap_or_default();
        let found = self.users.iter().find(|u| u.name == name);
        let Some(user) = found.filter(|_| check.absent != Some(true)) else {
            let there =
                found.map(|u| Finding::new(format!("no user {name}"), format!("one with uid {}", u.uid)));
            let missing = || Finding::new(format!("user {name}"), "none in /etc/passwd");
            return if check.absent == Some(true) { there.into_iter().collect() } else { vec![missing()] };
        };
        let mut findings = Vec::new();
        let mut differs = |key: &str, wanted: Option<String>, found: String| {
            findings
                .extend(wanted.filter(|w| *w != found).map(|w| Finding::new(format!("{key} {w}"), found)));
        };
        differs("uid", check.uid.map(|n| n.to_string()), user.uid.to_string());
        differs("gid", check.gid.map(|n| n.to_string()), user.gid.to_string());
        differs("home", check.home.clone(), user.home.clone());
        differs("shell", check.shell.clone(), user.shell.clone());
        let in_group = |g: &&Group| g.gid == user.gid || g.members.contains(&user.name);
        let groups: Vec<&str> = self.groups.iter().filter(in_group).map(|g| g.name.as_str()).collect();
        for wanted in check.groups.iter().flat_map(|g| g.iter()).filter(|g| !groups.contains(&g.as_str())) {
            findings.push(Finding::new(format!("group {wanted}"), format!("groups {}", groups.join(", "))));
        }
        findings
    }

    /// `group`.
    fn group(&self, check: &Check) -> Vec<Finding> {
        let name = check.group.as_deref().unwrap_or_default();
        let found = self.groups.iter().find(|g| g.name == name);
        match (found, check.absent == Some(true)) {
            (Some(g), true) => {
                vec![Finding::new(format!("no group {name}"), format!("one with gid {}", g.gid))]
            }
            (None, false) => vec![Finding::new(format!("group {name}"), "none in /etc/group")],
            (Some(g), false) => {
                let wanted = check.gid.filter(|gid| *gid != g.gid);
                wanted.map(|gid| Finding::new(format!("gid {gid}"), g.gid.to_string())).into_iter().collect()
            }
            (None, true) => Vec::new(),
        }
    }
}

/// `user`.
pub(super) fn user(check: &Check, files: &Files) -> Result<Vec<Finding>> {
    Ok(files.accounts()?.user(check))
}

/// `group`.
pub(super) fn group(check: &Check, files: &Files) -> Result<Vec<Finding>> {
    Ok(files.accounts()?.group(check))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups() {
        let accounts = Accounts::parse(
            "root:x:0:0:root:/root:/bin/sh\nbroken:x:1\nweb:x:7:8:,:/srv:/bin/false\nx:x:-1:0:::\n",
            "root:x:0:\nwww:x:8:\nssl:x:9:a,web\n",
        );
        for (toml, want) in [
            (
                "user = 'web'\nuid = 7\ngid = 8\nhome = '/srv'\nshell = '/bin/false'\ngroups = ['www', 'ssl']",
                "",
            ),
            ("user = 'web'\nuid = 8\nshell = '/bin/sh'", "uid 8 | 7; shell /bin/sh | /bin/false"),
            ("user = 'web'\ngroups = 'root'", "group root | groups www, ssl"),
            ("user = 'broken'", "user broken | none in /etc/passwd"),
            ("user = 'x'\nabsent = true", ""),
            ("user = 'root'\nabsent = true", "no user root | one with uid 0"),
            ("group = 'ssl'\ngid = 9", ""),
            ("group = 'ssl'\ngid = 1", "gid 1 | 9"),
            ("group = 'none'", "group none | none in /etc/group"),
            ("group = 'none'\nabsent = true", ""),
            ("group = 'www'\nabsent = true", "no group www | one with gid 8"),
        ] {
            let check: Check = toml::from_str(toml).unwrap();
            let found = if check.user.is_some() { accounts.user(&check) } else { accounts.group(&check) };
            let found: Vec<_> = found.iter().map(|f| format!("{} | {}", f.wanted, f.found)).collect();
            assert_eq!(found.join("; "), want, "{toml}");
        }
        for (owner, want) in [("web:www", true), ("web", true), (":8", true), ("7:9", false), ("nope", false)]
        {
            assert_eq!(accounts.says(owner, 7, 8), want, "{owner}");
        }
        assert_eq!(accounts.names(7, 4), "web:4");
    }
}
