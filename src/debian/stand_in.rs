//! Programs that stand before the root's own in PATH while its packages are configured.
//!
//! [`HELPER`], [`UNITS`] and [`IS_CHROOT`] answer what is known here. [`BESIDE`] and [`COMPILE`] let a program
//! work beside dpkg, which uses one processor only, where nothing needs its result before the end: py3compile,
//! systemd-hwdb, and update-ca-certificates where the scripts of no other package know of certificates.
//! All hold `busy` until they are through, and the end of all is waited for.

use super::Result;
use super::database::{make, put};
use crate::sys::dir::Dir;

/// Where they lie.
pub(super) const BIN: &str = "var/lib/dpkg/shipimg.bin";

/// The program that compiles modules of Python.
const PYTHON: &str = "py3compile";

/// The package that has it.
pub(super) const PYTHON_PACKAGE: &str = "python3-minimal";

/// Does nothing where dpkg-maintscript-helper does nothing: these commands, called with the
/// arguments of an install for the first time, look for what an older version left.
const HELPER: &str = r#"#!/bin/sh
first() {
    while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
    [ $# -gt 1 ] && [ -z "${3-}" ]
}
case "$DPKG_MAINTSCRIPT_NAME:${1-}" in
preinst:rm_conffile | preinst:mv_conffile | preinst:symlink_to_dir | preinst:dir_to_symlink | \
postinst:rm_conffile | postinst:mv_conffile | postinst:symlink_to_dir | postinst:dir_to_symlink)
    first "$@" && exit 0 ;;
esac
exec /usr/bin/dpkg-maintscript-helper "$@"
"#;

/// Does nothing where deb-systemd-helper finds nothing to do: a unit of which no file or link lies in /etc
/// is not masked, and one that no state is kept of counts as enabled.
const UNITS: &str = r#"#!/bin/sh
case "$#:$1:${2-}" in
2:unmask:*) [ -e "/etc/systemd/system/${2##*/}" ] || exit 0 ;;
3:--quiet:was-enabled) [ -e "/var/lib/systemd/deb-systemd-helper-enabled/${3##*/}.dsh-also" ] || exit 0 ;;
esac
exec /usr/bin/deb-systemd-helper "$@"
"#;

/// Answers as in a chroot, which ischroot(1) cannot know here: the scripts are not to talk to an init,
/// nor to wait for it (libc6's does so for a second).
const IS_CHROOT: &str = "#!/bin/sh\nexit 0\n";

/// Runs a program of its own name beside dpkg, which is through before it is called again. Nobody minds where
/// systemd-hwdb fails.
const BESIDE: &str = r#"#!/bin/sh
program=${0##*/}
PATH=${PATH#/{BIN}:}
command -v flock >/dev/null || exec "$program" "$@"
cd '/{BIN}'
exec 9>>busy
flock -s 9
exec 8>>"only-$program"
flock -x 8
(
    cd /
    nice -n 10 "$program" "$@" 8>&- 9>&- || [ "$program" = systemd-hwdb ] ||
        echo "$DPKG_MAINTSCRIPT_PACKAGE $program" >>'/{BIN}/failed'
) </dev/null >>log 2>&1 3>&- &
"#;

/// Leaves a call of py3compile to [`CALLS`], which works on those of the meantime together, one time after another.
const COMPILE: &str = r#"#!/bin/sh
PATH=${PATH#/{BIN}:}
command -v flock >/dev/null || exec /usr/bin/py3compile "$@"
cd '/{BIN}'
exec 9>>busy
flock -s 9
exec 8>>calls
flock -x 8
printf '%s\0' $# "$DPKG_MAINTSCRIPT_PACKAGE" "$@" >&8 || exit 1
exec 8>>only-py3compile
(
    flock -x 8
    [ ! -s calls ] || nice -n 10 python3 py3compile-calls 8>&- 9>&- || echo '? py3compile' >>failed
) </dev/null >>log 2>&1 3>&- &
"#;

/// Does what calls of py3compile ask for, by its own code but with one compiler for all: of a single call
/// most of the time is spent on the start of four interpreters. A call that is not met by that, or
/// nobody knows which, is made as it was.
const CALLS: &str = r#"import fcntl, os, subprocess, sys

PROGRAM = "/usr/bin/py3compile"


def taken():
    with open("calls", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        words = os.fsdecode(file.read()).split("\0")[:-1]
        file.truncate(0)
    while words:
        end = int(words[0]) + 2
        yield words[1:end]
        del words[:end]


class Compilers(dict):
    def values(self):
        return []  # for each call would wait for them


def together(calls):
    script = {"__name__": "py3compile"}
    with open(PROGRAM) as file:
        exec(compile(file.read(), PROGRAM, "exec"), script)
    compilers = script["WORKERS"] = Compilers()
    ends = []
    try:
        for _, *arguments in calls:
            sys.argv = [PROGRAM, *arguments]
            try:
                script["main"]()
            except SystemExit as end:
                ends.append(end.code)
    finally:
        for compiler in dict.values(compilers):
            compiler.communicate()
            ends.append(compiler.returncode)
    return not any(ends)


calls = list(taken())
folder = os.getcwd()
os.chdir("/")
try:
    done = not any("-O" in call for call in calls) and together(calls)
except Exception as error:
    print(error)
    done = False
for package, *arguments in [] if done else calls:
    if subprocess.call([PROGRAM, *arguments]):
        with open(folder + "/failed", "a") as failed:
            print(package, "py3compile", file=failed)
"#;

/// What is waited for: a command, and what [`BESIDE`] has begun.
const WAIT: &str = r#"status=0
{COMMAND} || status=$?
cd '/{BIN}'
[ ! -e busy ] || { exec 9>>busy; flock -x 9; }
if [ -s failed ]; then
    cat log
    read -r package program <failed
    echo "dpkg: error processing package $package (--configure):"
    echo " its $program failed"
    status=1
fi
exit $status
"#;

/// Puts them into `root`; with `certificates`, update-ca-certificates may take its time, with `python`, py3compile.
pub(super) fn place(root: &Dir, certificates: bool, python: bool) -> Result<()> {
    let bin = make(root, BIN)?;
    let beside = BESIDE.replace("{BIN}", BIN);
    put(&bin, "dpkg-maintscript-helper", 0o755, HELPER.as_bytes())?;
    put(&bin, "deb-systemd-helper", 0o755, UNITS.as_bytes())?;
    put(&bin, "ischroot", 0o755, IS_CHROOT.as_bytes())?;
    if python {
        put(&bin, PYTHON, 0o755, COMPILE.replace("{BIN}", BIN).as_bytes())?;
        put(&bin, "py3compile-calls", 0o644, CALLS.as_bytes())?;
    }
    put(&bin, "systemd-hwdb", 0o755, beside.as_bytes())?;
    if certificates {
        put(&bin, "update-ca-certificates", 0o755, beside.as_bytes())?;
    }
    Ok(())
}

/// The end of a shell script: the command, and the end of all that works beside.
pub(super) fn and_wait(command: &str) -> String {
    WAIT.replace("{BIN}", BIN).replace("{COMMAND}", command)
}

/// Whether the scripts of a package, by the name of its control file, know of certificates that
/// update-ca-certificates makes.
pub(super) fn know_certificates(name: &str, text: &[u8]) -> bool {
    let is_script = ["preinst", "postinst", "config", "triggers"].contains(&name);
    is_script && (says(text, "ssl/certs") || says(text, "ca-certificates"))
}

/// Whether the script of a package calls what works beside dpkg.
pub(super) fn works_beside(name: &str, text: &[u8]) -> bool {
    name == "postinst" && says(text, PYTHON)
}

fn says(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|w| w == word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_know_certificates() {
        for (name, text, want) in [
            ("postinst", "ls /etc/ssl/certs/*.pem", true),
            ("triggers", "interest /etc/ca-certificates/update.d", true),
            ("postinst", "ls /etc/ssl", false),
            ("md5sums", "0123 usr/share/ca-certificates/x.crt", false),
        ] {
            assert_eq!(know_certificates(name, text.as_bytes()), want, "{name}: {text}");
        }
    }
}
