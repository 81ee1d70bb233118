//! The common part of goss' files: file, package, user, group, port, process, command, http.
//!
//! goss runs in the container while the image's own program does; so ports, processes, commands and
//! requests are checks of a running container here.

use super::At;
use crate::verify::Result;
use crate::verify::check::{Check, FileType, Http, Run};
use crate::verify::value::{Pattern, Several, Text, Wanted};
use crate::verify::written::from_yaml;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;

/// Things by name; the line is that of the name.
type Named<T> = HashMap<Spanned<String>, T>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Goss {
    file: Named<File>,
    package: Named<Package>,
    user: Named<User>,
    group: Named<Group>,
    port: Named<Port>,
    process: Named<Process>,
    command: Named<Command>,
    http: Named<Request>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: Option<String>,
    exists: Option<bool>,
    mode: Option<String>,
    size: Option<u64>,
    owner: Option<String>,
    group: Option<String>,
    filetype: Option<String>,
    #[serde(rename = "linked-to")]
    linked_to: Option<String>,
    #[serde(default, alias = "contains")]
    contents: Vec<String>,
    sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    title: Option<String>,
    installed: bool,
    #[serde(default)]
    versions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    title: Option<String>,
    exists: bool,
    uid: Option<u32>,
    gid: Option<u32>,
    groups: Option<Several<String>>,
    home: Option<String>,
    shell: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    title: Option<String>,
    exists: bool,
    gid: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    title: Option<String>,
    listening: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    title: Option<String>,
    comm: Option<String>,
    running: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Command {
    title: Option<String>,
    exec: Option<String>,
    exit_status: Option<u8>,
    #[serde(default)]
    stdout: Vec<String>,
    #[serde(default)]
    stderr: Vec<String>,
    timeout: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Request {
    title: Option<String>,
    url: Option<String>,
    method: Option<String>,
    status: u16,
    timeout: Option<u64>,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    body: Vec<String>,
}

/// Reads the checks of a file.
pub(super) fn read(text: &str, path: &Path) -> Result<Vec<(usize, Check)>> {
    let goss: Goss = from_yaml(text, path)?;
    let mut checks = Vec::new();
    each(path, goss.file, &mut checks, file)?;
    each(path, goss.package, &mut checks, package)?;
    each(path, goss.user, &mut checks, |_, name, value| Ok(vec![user(name, value)]))?;
    each(path, goss.group, &mut checks, |_, name, value| Ok(vec![group(name, value)]))?;
    each(path, goss.port, &mut checks, port)?;
    each(path, goss.process, &mut checks, |_, name, value| Ok(vec![process(name, value)]))?;
    each(path, goss.command, &mut checks, command)?;
    each(path, goss.http, &mut checks, http)?;
    checks.sort_by_key(|(line, _)| *line);
    Ok(checks)
}

fn each<T>(
    path: &Path,
    all: HashMap<Spanned<String>, T>,
    checks: &mut Vec<(usize, Check)>,
    one: impl Fn(At, String, T) -> Result<Vec<Check>>,
) -> Result<()>
where
    Spanned<String>: Hash + Eq,
{
    for (name, value) in all {
        let at = At::new(path, name.referenced);
        checks.extend(one(at, name.value, value)?.into_iter().map(|check| (at.line, check)));
    }
    Ok(())
}

/// Patterns that are found, and that are not: `/REGEX/` or text, after `!` where it is not to be there.
type Sought = (Option<Several<Text<Pattern>>>, Option<Several<Text<Pattern>>>);

fn sought(at: At, contents: &[String]) -> Result<Sought> {
    let pattern = |text: &str| match text.strip_prefix('/').and_then(|t| t.strip_suffix('/')) {
        Some(regex) => regex.to_string(),
        None => regex::escape(text.strip_prefix('\\').unwrap_or(text)),
    };
    let (not, found): (Vec<&String>, Vec<&String>) = contents.iter().partition(|c| c.starts_with('!'));
    let found: Vec<String> = found.iter().map(|c| pattern(c)).collect();
    let not: Vec<String> = not.iter().map(|c| pattern(&c[1..])).collect();
    Ok((at.patterns(&found)?, at.patterns(&not)?))
}

fn absent(there: bool) -> Option<bool> {
    (!there).then_some(true)
}

fn file(at: At, path: String, file: File) -> Result<Vec<Check>> {
    let base = Check { name: file.title, file: Some(path), ..Check::default() };
    if file.exists == Some(false) {
        return Ok(vec![Check { absent: Some(true), ..base }]);
    }
    let type_ = match file.filetype.as_deref() {
        None => None,
        Some("file") => Some(FileType::File),
        Some("directory") => Some(FileType::Dir),
        Some("symlink") => Some(FileType::Link),
        Some(other) => return at.refuse(&format!("filetype {other:?}")),
    };
    let (contains, lacks) = sought(at, &file.contents)?;
    let size = file.size.map(|size| at.say(Text::new(size.to_string()))).transpose()?;
    let group = file.group.map(|group| format!(":{group}"));
    Ok(vec![Check {
        type_,
        mode: file.mode.map(|mode| at.say(Text::new(mode))).transpose()?,
        owner: match (file.owner, group) {
            (None, None) => None,
            (owner, group) => Some(owner.unwrap_or_default() + &group.unwrap_or_default()),
        },
        min_size: size.clone(),
        max_size: size,
        link: file.linked_to,
        sha256: file.sha256.map(|sum| at.say(Text::new(sum))).transpose()?,
        contains,
        lacks,
        ..base
    }])
}

fn package(at: At, name: String, package: Package) -> Result<Vec<Check>> {
    let base = Check { name: package.title, package: Some(name), ..Check::default() };
    if !package.installed || package.versions.is_empty() {
        return Ok(vec![Check { absent: absent(package.installed), ..base }]);
    }
    let one = |version| Ok(Check { version: Some(at.say(Text::new(version))?), ..base.clone() });
    package.versions.into_iter().map(one).collect()
}

fn user(name: String, user: User) -> Check {
    let base = Check { name: user.title, user: Some(name), absent: absent(user.exists), ..Check::default() };
    if !user.exists {
        return base;
    }
    let User { uid, gid, home, shell, groups, .. } = user;
    Check { uid, gid, home, shell, groups, ..base }
}

fn group(name: String, group: Group) -> Check {
    let gid = group.gid.filter(|_| group.exists);
    let absent = absent(group.exists);
    Check { name: group.title, absent, gid, group: Some(name), ..Check::default() }
}

/// What looks at the running container.
fn running(name: Option<String>) -> Check {
    Check { name, run: Some(Run::default()), ..Check::default() }
}

fn port(at: At, name: String, port: Port) -> Result<Vec<Check>> {
    let text = match name.split_once(':') {
        None => name,
        Some((protocol, number)) => format!("{number}/{}", protocol.trim_end_matches('6')),
    };
    let value = Some(at.say(Text::new(text))?);
    Ok(vec![Check { port: value, absent: absent(port.listening), ..running(port.title) }])
}

fn process(name: String, process: Process) -> Check {
    let value = Some(process.comm.unwrap_or(name));
    Check { process: value, absent: absent(process.running), ..running(process.title) }
}

fn millis(at: At, timeout: Option<u64>) -> Result<Option<Text<crate::verify::value::Span>>> {
    timeout.map(|ms| at.say(Text::new(format!("{ms}ms")))).transpose()
}

fn command(at: At, name: String, command: Command) -> Result<Vec<Check>> {
    let (stdout, stdout_lacks) = sought(at, &command.stdout)?;
    let (stderr, stderr_lacks) = sought(at, &command.stderr)?;
    let line = command.exec.unwrap_or(name);
    Ok(vec![Check {
        command: Some(vec!["sh".to_string(), "-c".to_string(), line]),
        exit: command.exit_status,
        stdout,
        stdout_lacks,
        stderr,
        stderr_lacks,
        within: millis(at, command.timeout)?,
        ..running(command.title)
    }])
}

fn http(at: At, name: String, request: Request) -> Result<Vec<Check>> {
    let url = request.url.unwrap_or(name);
    let Some((host, port, path)) = local(&url) else {
        return at.refuse(&format!("{url}: only http://localhost can be asked, and that"));
    };
    let (body, not) = sought(at, &request.body)?;
    if not.is_some() {
        return at.refuse("`!` in a body");
    }
    let header = |line: &String| {
        let (name, value) =
            at.say(line.split_once(':').ok_or_else(|| format!("header {line:?} has no colon")))?;
        let matches = at.say(Text::new(regex::escape(value.trim())))?;
        Ok((name.to_string(), Wanted::Matches { matches }))
    };
    let headers = request.headers.iter().map(header).collect::<Result<_>>()?;
    let method = request.method.unwrap_or_else(|| "GET".to_string());
    let http = Http { port, path, method, host, status: request.status, headers, body };
    Ok(vec![Check { http: Some(http), within: millis(at, request.timeout)?, ..running(request.title) }])
}

/// Host, port and path of a URL of this machine.
fn local(url: &str) -> Option<(String, u16, String)> {
    let rest = url.strip_prefix("http://")?;
    let (place, path) = rest.find('/').map_or((rest, "/"), |i| rest.split_at(i));
    let (host, port) =
        place.split_once(':').map_or(Some((place, 80)), |(h, p)| Some((h, p.parse().ok()?)))?;
    let local = ["localhost", "127.0.0.1"].contains(&host);
    local.then(|| (host.to_string(), port, path.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::translated;

    #[test]
    fn translated_or_refused() {
        let found = translated(
            r#"file:
  /etc/passwd:
    exists: true
    mode: "0644"
    owner: root
    group: root
    filetype: file
    size: 7
    contents: ["/^root/", "a.b", "!nobody"]
  /none:
    exists: false
package:
  nginx:
    installed: true
    versions: ["1.2", "1.3"]
user:
  web: {exists: true, uid: 33, groups: [www]}
port:
  tcp:80:
    listening: true
  udp6:53:
    listening: false
process:
  nginx:
    running: true
command:
  nginx -t:
    exit-status: 0
    stderr: ["ok"]
    timeout: 500
http:
  http://localhost:8080/x:
    status: 200
    body: ["hi"]
    headers: ["Content-Type: text/html"]
"#,
        )
        .unwrap();
        let want = [
            r#"2 {"file":"/etc/passwd","type":"file","mode":"0644","owner":"root:root","min-size":"7","max-size":"7","contains":["^root","a\\.b"],"lacks":["nobody"]}"#,
            r#"10 {"file":"/none","absent":true}"#,
            r#"13 {"package":"nginx","version":"1.2"}"#,
            r#"13 {"package":"nginx","version":"1.3"}"#,
            r#"17 {"user":"web","uid":33,"groups":["www"]}"#,
            r#"19 {"run":{"args":[],"env":{},"user":null,"read-only":false},"port":"80/tcp"}"#,
            r#"21 {"absent":true,"run":{"args":[],"env":{},"user":null,"read-only":false},"port":"53/udp"}"#,
            r#"24 {"run":{"args":[],"env":{},"user":null,"read-only":false},"process":"nginx"}"#,
        ];
        assert_eq!(found[..8], want);
        assert!(
            found[8].contains(r#""command":["sh","-c","nginx -t"],"exit":0,"stderr":["ok"]"#),
            "{}",
            found[8]
        );
        assert!(found[8].ends_with(r#""within":"500ms"}"#), "{}", found[8]);
        assert!(found[9].contains(r#""port":8080,"path":"/x","method":"GET","host":"localhost","status":200,"headers":{"Content-Type":{"matches":"text/html"}},"body":["hi"]"#), "{}", found[9]);
        for (text, want) in [
            ("service:\n  nginx:\n    running: true\n", "x.yaml:1: unknown field `service`"),
            ("file:\n  /a:\n    exists: true\n    md5: x\n", "x.yaml:4: unknown field `md5`"),
            ("file:\n  /a:\n    size: {gt: 1}\n", "x.yaml:3: "),
            (
                "http:\n  https://example.com:\n    status: 200\n",
                "x.yaml:2: https://example.com: only http://localhost",
            ),
            ("file:\n  /a:\n    filetype: door\n", "x.yaml:2: filetype \"door\" is not supported"),
        ] {
            let e = translated(text).unwrap_err();
            assert!(e.starts_with(want), "{text}: {e}");
        }
    }
}
