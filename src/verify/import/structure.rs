//! Files of container-structure-test, schema 2.0.0.

use super::At;
use crate::verify::Result;
use crate::verify::check::{Check, Config, FileType};
use crate::verify::value::{Port, Text, Wanted, WantedTexts};
use crate::verify::written::from_yaml;
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "they are the format's")]
struct File {
    schema_version: Spanned<Value>,
    #[serde(default)]
    global_env_vars: Vec<Variable>,
    #[serde(default)]
    command_tests: Vec<Spanned<Command>>,
    #[serde(default)]
    file_existence_tests: Vec<Spanned<Existence>>,
    #[serde(default)]
    file_content_tests: Vec<Spanned<Content>>,
    metadata_test: Option<Spanned<Metadata>>,
    license_tests: Option<Spanned<Value>>,
    container_run_options: Option<Spanned<Value>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Variable {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    is_regex: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "they are the format's")]
struct Command {
    name: String,
    #[serde(default)]
    setup: Vec<Vec<String>>,
    #[serde(default)]
    teardown: Vec<Vec<String>>,
    #[serde(default)]
    env_vars: Vec<Variable>,
    command: String,
    #[serde(default)]
    args: Vec<String>,
    exit_code: Option<u8>,
    #[serde(default)]
    expected_output: Vec<String>,
    #[serde(default)]
    excluded_output: Vec<String>,
    #[serde(default)]
    expected_error: Vec<String>,
    #[serde(default)]
    excluded_error: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Existence {
    name: String,
    path: String,
    should_exist: Option<bool>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    is_executable_by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Content {
    name: String,
    path: String,
    #[serde(default)]
    expected_contents: Vec<String>,
    #[serde(default)]
    excluded_contents: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[derive(Default)]
struct Metadata {
    env_vars: Vec<Variable>,
    unbound_env_vars: Vec<Variable>,
    labels: Vec<Variable>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    exposed_ports: Vec<Text<Port>>,
    unexposed_ports: Vec<Text<Port>>,
    volumes: Vec<String>,
    unmounted_volumes: Vec<String>,
    workdir: Option<String>,
    user: Option<String>,
}

/// Reads the checks of a file.
pub(super) fn read(text: &str, path: &Path) -> Result<Vec<(usize, Check)>> {
    let file: File = from_yaml(text, path)?;
    let at = |location| At::new(path, location);
    if file.schema_version.value.as_str() != Some("2.0.0") {
        return at(file.schema_version.referenced)
            .refuse(&format!("schemaVersion {}", file.schema_version.value));
    }
    for (what, found) in
        [("licenseTests", &file.license_tests), ("containerRunOptions", &file.container_run_options)]
    {
        if let Some(found) = found {
            return at(found.referenced).refuse(what);
        }
    }
    let mut checks = Vec::new();
    for Spanned { value, referenced, .. } in file.command_tests {
        let at = at(referenced);
        checks.push((at.line, command(at, value, &file.global_env_vars)?));
    }
    for Spanned { value, referenced, .. } in file.file_existence_tests {
        let at = at(referenced);
        checks.push((at.line, existence(at, value)?));
    }
    for Spanned { value, referenced, .. } in file.file_content_tests {
        let at = at(referenced);
        let contains = at.patterns(&value.expected_contents)?;
        let lacks = at.patterns(&value.excluded_contents)?;
        let check =
            Check { name: Some(value.name), file: Some(value.path), contains, lacks, ..Check::default() };
        checks.push((at.line, check));
    }
    if let Some(Spanned { value, referenced, .. }) = file.metadata_test {
        let at = at(referenced);
        let config = Some(metadata(at, value)?);
        checks.push((at.line, Check { name: Some("metadataTest".to_string()), config, ..Check::default() }));
    }
    Ok(checks)
}

fn command(at: At, test: Command, global: &[Variable]) -> Result<Check> {
    let mut env = BTreeMap::new();
    for variable in global.iter().chain(&test.env_vars) {
        if variable.value.contains('$') {
            return at.refuse("a variable in the value of envVars");
        }
        env.insert(variable.key.clone(), variable.value.clone());
    }
    let some = |list: Vec<Vec<String>>| Some(list).filter(|l| !l.is_empty());
    Ok(Check {
        name: Some(test.name),
        command: Some(std::iter::once(test.command).chain(test.args).collect()),
        env: Some(env).filter(|env| !env.is_empty()),
        exit: test.exit_code,
        stdout: at.patterns(&test.expected_output)?,
        stdout_lacks: at.patterns(&test.excluded_output)?,
        stderr: at.patterns(&test.expected_error)?,
        stderr_lacks: at.patterns(&test.excluded_error)?,
        setup: some(test.setup),
        teardown: some(test.teardown),
        ..Check::default()
    })
}

fn existence(at: At, test: Existence) -> Result<Check> {
    if test.is_executable_by.is_some() {
        return at.refuse("isExecutableBy");
    }
    let mut check = Check { name: Some(test.name), file: Some(test.path), ..Check::default() };
    if test.should_exist == Some(false) {
        check.absent = Some(true);
        return Ok(check);
    }
    if let Some(text) = &test.permissions {
        let (type_, mode) =
            at.say(permissions(text).ok_or_else(|| format!("permissions {text:?} are not understood")))?;
        (check.type_, check.mode) = (Some(type_), Some(at.say(Text::new(format!("{mode:04o}")))?));
    }
    check.owner = match (test.uid, test.gid) {
        (None, None) => None,
        (uid, gid) => {
            let user = uid.map(|uid| uid.to_string()).unwrap_or_default();
            Some(user + &gid.map(|gid| format!(":{gid}")).unwrap_or_default())
        }
    };
    Ok(check)
}

/// Permissions as Go writes them: letters for type and special bits, or a dash, then three times `rwx`.
fn permissions(text: &str) -> Option<(FileType, u32)> {
    let (letters, bits) = text.split_at_checked(text.len().checked_sub(9)?)?;
    let mut mode = 0;
    for (i, (bit, wanted)) in bits.chars().zip("rwxrwxrwx".chars()).enumerate() {
        match bit {
            '-' => {}
            bit if bit == wanted => mode |= 0o400 >> i,
            _ => return None,
        }
    }
    let mut type_ = FileType::File;
    for letter in letters.chars() {
        match letter {
            '-' => {}
            'd' => type_ = FileType::Dir,
            'L' => type_ = FileType::Link,
            'p' => type_ = FileType::Fifo,
            'u' => mode |= 0o4000,
            'g' => mode |= 0o2000,
            't' => mode |= 0o1000,
            _ => return None,
        }
    }
    (!letters.is_empty()).then_some((type_, mode))
}

fn metadata(at: At, test: Metadata) -> Result<Config> {
    let texts = |variables: Vec<Variable>| -> Result<WantedTexts> {
        let one = |v: Variable| {
            let wanted = if v.is_regex {
                Wanted::Matches { matches: at.say(Text::new(v.value))? }
            } else {
                Wanted::Is(v.value)
            };
            Ok((v.key, wanted))
        };
        variables.into_iter().map(one).collect()
    };
    let mut env = texts(test.env_vars)?;
    env.extend(test.unbound_env_vars.into_iter().map(|v| (v.key, Wanted::Not(false))));
    Ok(Config {
        env,
        labels: texts(test.labels)?,
        entrypoint: test.entrypoint,
        cmd: test.cmd,
        user: test.user,
        workdir: test.workdir,
        stop_signal: None,
        ports: test.exposed_ports,
        no_ports: test.unexposed_ports,
        volumes: test.volumes,
        no_volumes: test.unmounted_volumes,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::translated;
    use super::*;

    #[test]
    fn translated_or_refused() {
        let found = translated(
            r#"schemaVersion: "2.0.0"
globalEnvVars:
  - key: G
    value: g
commandTests:
  - name: version
    setup: [["touch", "/x"]]
    command: "nginx"
    args: ["-v"]
    exitCode: 1
    expectedError: ["nginx/1.*"]
    excludedOutput: ["oops"]
fileExistenceTests:
- name: root
  path: /
  permissions: drwxr-xr-x
  uid: 0
  gid: 0
- name: none
  path: /none
  shouldExist: false
fileContentTests:
- name: content
  path: /etc/x
  expectedContents: ["^a", "b"]
  excludedContents: ["c"]
metadataTest:
  envVars: [{key: A, value: "^b", isRegex: true}, {key: C, value: d}]
  unboundEnvVars: [{key: E}]
  exposedPorts: ["8080"]
  entrypoint: []
"#,
        )
        .unwrap();
        let want = [
            r#"6 {"name":"version","command":["nginx","-v"],"env":{"G":"g"},"exit":1,"stdout-lacks":["oops"],"stderr":["nginx/1.*"],"setup":[["touch","/x"]]}"#,
            r#"14 {"name":"root","file":"/","type":"dir","mode":"0755","owner":"0:0"}"#,
            r#"19 {"name":"none","file":"/none","absent":true}"#,
            r#"23 {"name":"content","file":"/etc/x","contains":["^a","b"],"lacks":["c"]}"#,
        ];
        assert_eq!(found[..4], want);
        assert!(found[4].contains(r#""env":{"A":{"matches":"^b"},"C":"d","E":false}"#), "{}", found[4]);
        assert!(
            found[4].contains(r#""entrypoint":[]"#) && found[4].contains(r#""ports":["8080"]"#),
            "{}",
            found[4]
        );
        let start = "schemaVersion: '2.0.0'\n";
        for (text, want) in [
            ("schemaVersion: '1.0.0'\n".to_string(), "x.yaml:1: schemaVersion \"1.0.0\" is not supported"),
            (format!("{start}licenseTests:\n- debian: true\n"), "x.yaml:3: licenseTests is not supported"),
            (
                format!("{start}fileExistenceTests:\n- name: a\n  path: /a\n  isExecutableBy: owner\n"),
                "x.yaml:3: isExecutableBy is not supported",
            ),
            (format!("{start}commandTests:\n- name: a\n  comand: b\n"), "x.yaml:4: "),
            (
                format!("{start}fileContentTests:\n- name: a\n  path: /a\n  expectedContents: ['(']\n"),
                "x.yaml:3: ",
            ),
            (
                format!("{start}fileExistenceTests:\n- name: a\n  path: a\n"),
                "x.yaml:3: `file` \"a\" does not begin",
            ),
        ] {
            let e = translated(&text).unwrap_err();
            assert!(e.starts_with(want), "{text}: {e}");
        }
    }

    #[test]
    fn permissions_of_go() {
        for (text, want) in [
            ("-rw-r--r--", Some((FileType::File, 0o644))),
            ("drwxr-xr-x", Some((FileType::Dir, 0o755))),
            ("urwxr-xr-x", Some((FileType::File, 0o4755))),
            ("dtrwxrwxrwx", Some((FileType::Dir, 0o1777))),
            ("Lrwxrwxrwx", Some((FileType::Link, 0o777))),
            ("rw-r--r--", None),
            ("-rw-r--r-z", None),
            ("0644", None),
            ("-ärwxrwxrw", None),
        ] {
            assert_eq!(permissions(text), want, "{text}");
        }
    }
}
