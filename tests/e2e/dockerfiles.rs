//! Dockerfiles built: the same image as buildah makes of them, what buildah does not know, results that are kept, and
//! contexts and files that mean harm.

use crate::common::user::User;
use crate::common::work::BUSYBOX;
use crate::common::{self, ok};
use serde_json::{Value, json};
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::symlink;

/// An image of busybox with users, and settings of its own.
const BASE: &str = "[[copy]]\ncontent = \"root:x:0:0:root:/root:/bin/sh\\napp:x:1000:1001::/home/app:/bin/sh\\n\"\nto = \"/etc/passwd\"\n\
    [[copy]]\ncontent = \"root:x:0:\\nweb:x:1001:\\nstaff:x:50:app\\n\"\nto = \"/etc/group\"\n\
    [[run]]\nshell = \"mkdir -m 1777 /tmp && mkdir /real && ln -s /real /alias\"\n\
    [image]\nenv = { PATH = \"/usr/local/bin:/bin\", BASE = \"yes\" }\nworkdir = \"/srv\"\ncmd = [\"/bin/sh\"]\nlabels = { from = \"base\" }\n\
    [[output]]\nkind = \"oci\"\ntag = \"localhost/base:1\"\n\
    [[output]]\nkind = \"oci-archive\"\npath = \"base.tar\"\ntag = \"localhost/base:1\"\n";

/// A folder with a context, a store that has the base image, and storage of buildah.
struct Work(common::work::Work);

impl Deref for Work {
    type Target = common::work::Work;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Work {
    fn new() -> Self {
        let work = Self(common::work::Work::new());
        work.base(BASE);
        fs::create_dir(work.path("ctx")).unwrap();
        work
    }

    /// Makes the base image.
    fn base(&self, text: &str) {
        self.0.write("base.toml", format!("{BUSYBOX}{text}"));
        self.ok(&["build", "base.toml"]);
    }

    /// Writes a file of the context.
    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        self.0.write(&format!("ctx/{name}"), text);
        self
    }

    /// Builds the context: the digest, and how many steps were done.
    #[track_caller]
    fn build(&self, more: &[&str]) -> (String, u64) {
        self.made(&[&["ctx", "--tag", "localhost/made:1"], more].concat())
    }

    /// What the context's build fails with.
    #[track_caller]
    fn refused(&self, code: i32, text: &str) -> String {
        self.write("Dockerfile", text);
        self.fails(code, &["build", "ctx"])
    }

    fn buildah(&self, args: &[&str]) -> String {
        let [root, run] = ["root", "run"].map(|d| self.path("engine").join(d).display().to_string());
        let own = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
        ok("buildah", &[&own[..], args].concat())
    }

    /// Builds the context by buildah; the image gets into the store.
    fn by_buildah(&self) {
        let path = |name: &str| self.path(name).display().to_string();
        self.buildah(&["pull", "-q", &format!("oci-archive:{}", path("base.tar"))]);
        let how = ["bud", "--isolation", "chroot", "--layers=false", "--format", "docker", "-q"];
        self.buildah(&[&how[..], &["-t", "localhost/theirs:1", &path("ctx")]].concat());
        let archive = format!("oci-archive:{}:localhost/theirs:1", path("theirs.tar"));
        self.buildah(&[
            "push",
            "-q",
            "--format",
            "docker",
            "localhost/theirs:1",
            &archive.replace("oci-", "docker-"),
        ]);
        self.ok(&["import", "theirs.tar", "localhost/theirs:1"]);
    }

    /// Path, type, mode, owner, target and content of all files but those of busybox and of mounts.
    fn files(&self, image: &str) -> Vec<String> {
        let out = self.path("unpacked");
        self.ok(&["unpack", image, out.to_str().unwrap()]);
        let root = out.join("rootfs");
        let form = "%P\\t%y %m %U:%G %l\\n";
        let listed = ok("find", &[root.to_str().unwrap(), "-mindepth", "1", "-printf", form]);
        // buildah leaves in the root what it mounts there, and makes folders for volumes.
        let mounts =
            ["dev", "proc", "sys", "run", "etc/hostname", "etc/hosts", "etc/resolv.conf", "data", "more"];
        let lines = listed.lines().map(|line| line.split_once('\t').unwrap());
        let lines = lines.filter(|(name, _)| !name.starts_with("bin/") && !mounts.contains(name));
        let mut files: Vec<String> = lines
            .map(|(name, facts)| {
                let path = root.join(name);
                let is_file = fs::symlink_metadata(&path).unwrap().is_file();
                let content = if is_file { fs::read(&path).unwrap() } else { Vec::new() };
                format!("{name} {facts} {}", String::from_utf8_lossy(&content))
            })
            .collect();
        files.sort();
        fs::remove_dir_all(out).unwrap();
        files
    }

    /// The settings of an image, without what buildah says of itself.
    fn config(&self, image: &str) -> Value {
        let place = format!("oci:{}:{image}", self.store.path().display());
        let inspected: Value = serde_json::from_str(&ok("skopeo", &["inspect", "--config", &place])).unwrap();
        let mut config = inspected["config"].clone();
        let mut env: Vec<String> = serde_json::from_value(config["Env"].clone()).unwrap_or_default();
        env.sort();
        config["Env"] = json!(env);
        config["Labels"].as_object_mut().map(|labels| labels.remove("io.buildah.version"));
        let keys = [
            "Env",
            "Cmd",
            "Entrypoint",
            "User",
            "WorkingDir",
            "ExposedPorts",
            "Labels",
            "Volumes",
            "StopSignal",
            "Healthcheck",
            "Shell",
        ];
        keys.iter()
            .map(|key| ((*key).to_string(), config[*key].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// Fills the context with files of all kinds.
    fn fill(&self) {
        self.write("a.txt", "a").write("b.txt", "b").write("dir/c", "c").write("dir/sub/d", "d");
        self.write("skip/x", "x")
            .write("skip/keep", "keep")
            .write("x.log", "log")
            .write("dir/deep/y.log", "log");
        self.write("run.sh", "#!/bin/sh\necho ran\n").write("sp ace/f g", "spaces");
        self.write(".dockerignore", "# not these\nskip/*\n!skip/keep\n**/*.log\n\nDockerfile*\n");
        let path = |name: &str| self.path("ctx").join(name).display().to_string();
        ok("chmod", &["600", &path("dir/sub/d")]);
        ok("chmod", &["750", &path("dir/sub")]);
        ok("chmod", &["711", &path("run.sh")]);
        ok("chown", &["3:4", &path("a.txt")]);
        symlink("c", path("dir/link")).unwrap();
        symlink("dir/c", path("top")).unwrap();
        let tree = self.path("tree/in");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("f"), "in").unwrap();
        ok("chown", &["-R", "5:6", tree.to_str().unwrap()]);
        for (name, how) in [("t.tar", "--format=gnu"), ("t.tgz", "-z"), ("t.txz", "-J"), ("t.tzst", "--zstd")]
        {
            let tree = self.path("tree").display().to_string();
            ok("tar", &["-C", &tree, how, "-cf", &path(name), "in"]);
        }
    }
}

/// What docker and buildah 1.28 do alike. ADD of zstd is checked alone: this buildah copies it.
const BOTH: &str = "# syntax=docker/dockerfile:1
ARG TAG=1
FROM localhost/base:$TAG AS build
ARG V=7 BASE=no
ARG UNSET
ENV X=1 Y=\"two words\" \\
    # a comment
    Z=${UNSET:-default}${V:+set} PATH=/opt/bin:$PATH
WORKDIR /work/deep
RUN echo \"$X $Y $Z $V $PATH $BASE [$UNSET]\" > out; pwd >> out; id -u >> out; echo $HOME >> out
RUN [\"/bin/sh\", \"-c\", \"echo $0 exec > exec\"]
RUN umask 077 && mkdir -p made && \\
    echo x > made/x && chown 1000:1001 made/x && \\
    chmod 2750 made
FROM localhost/base:1
COPY --from=build /work/deep /copied
COPY --from=0 /work/deep/out /work/deep/made/x named/
COPY *.txt dir /txt/
COPY dir /newdir
COPY dir/sub /newdir/c2/
COPY run.sh /usr/local/bin/run
COPY a.txt none* /alias/
COPY b.txt /alias
COPY --chown=app:web --chmod=640 dir/c top /owned/
COPY --chown=1000 dir/sub /owned/sub
COPY [\"sp ace/f g\", \"/sp/q r\"]
COPY . /all
ADD t.tgz t.txz a.txt /un/
ADD t.tar /un2
ENV P=1 BASE=\"$BASE-$PATH\" 'Q'='$P'
ENV OLD  form of $P
RUN run >> /ran
USER app
WORKDIR /home/app
RUN id -u > /tmp/id && id -g >> /tmp/id && id -G >> /tmp/groups && echo $HOME $P $BASE $OLD > env
USER 0
EXPOSE 80 53/udp
LABEL a=b \"c d\"=\"e f\" g=$P
LABEL from=here
VOLUME /data /more
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=1m --retries=3 CMD wget -q localhost || exit 1
ENTRYPOINT [\"/bin/echo\", \"a\"]
CMD hi $X
SHELL [\"/bin/sh\", \"-ec\"]
RUN false; true || touch /never
";

#[test]
fn as_buildah_does() {
    let work = Work::new();
    work.fill();
    // With -e the last line fails, as it is to be.
    let said = work.refused(1, BOTH);
    assert!(said.contains("ctx/Dockerfile:46: run /bin/sh -ec false"), "{said}");
    work.write("Dockerfile", BOTH.replace("RUN false; true || touch /never\n", "RUN true; touch /last\n"));
    work.build(&[]);
    work.by_buildah();
    assert_eq!(work.config("localhost/made:1"), work.config("localhost/theirs:1"));
    let (mine, theirs) = (work.files("localhost/made:1"), work.files("localhost/theirs:1"));
    let only = |a: &[String], b: &[String]| a.iter().filter(|f| !b.contains(f)).cloned().collect::<Vec<_>>();
    assert_eq!((only(&mine, &theirs), only(&theirs, &mine)), (Vec::new(), Vec::new()));
    assert!(mine.contains(&"all/skip/keep f 644 0:0  keep".to_string()));
    assert!(!mine.iter().any(|f| f.contains(".log f ")), "they are left out");
}

#[test]
fn what_buildah_does_not_know() {
    let work = Work::new();
    work.fill();
    work.write("secret", "from a file").write(
        "Dockerfile",
        "FROM localhost/base:1 AS volume
VOLUME /v
FROM volume
RUN mkdir -p /v && echo kept > /v/f
ARG WHO=nobody
RUN <<END
echo \"$WHO\" > /here
echo second >> /here
END
RUN cat <<A > /two && cat <<-'B' >> /two
one $WHO
A
\ttwo $WHO
\tB
RUN <<X
#!/bin/awk -f
BEGIN { print \"awk\" > \"/awk\" }
X
COPY --chmod=0600 --chown=app <<conf <<\"raw\" x/
base=${BASE} who=$WHO
conf
base=${BASE}
raw
RUN --mount=type=secret,id=a --mount=type=secret,id=b,target=/x/y cat /run/secrets/a /x/y > /secret
RUN --mount=type=secret,id=c ls /run/secrets > /none 2>&1 || true
RUN --network=none grep -c : /proc/net/dev > /net
ADD t.tzst /un/
EXPOSE 7000-7002
",
    );
    let file = format!("id=a,src={}", work.path("ctx/secret").display());
    work.build(&["--build-arg", "WHO=me", "--secret", &file, "--secret", "id=b,env=TOKEN"]);
    let files = work.files("localhost/made:1");
    for wanted in [
        "v/f f 644 0:0  kept\n",
        "here f 644 0:0  me\nsecond\n",
        "two f 644 0:0  one me\ntwo $WHO\n",
        "awk f 644 0:0  awk\n",
        "srv/x/conf f 600 1000:1001  base=yes who=me\n",
        "srv/x/raw f 600 1000:1001  base=${BASE}\n",
        "secret f 644 0:0  from a filesesame-open",
        "none f 644 0:0  ls: /run/secrets: No such file or directory\n",
        "net f 644 0:0  1\n",
        "un/in/f f 644 5:6  in",
    ] {
        assert!(files.contains(&wanted.to_string()), "{wanted:?} is not in {files:#?}");
    }
    assert!(!files.iter().any(|f| f.starts_with("x ")), "what a mount needed is taken away");
    let ports = work.config("localhost/made:1")["ExposedPorts"].clone();
    assert_eq!(ports, json!({"7000/tcp": {}, "7001/tcp": {}, "7002/tcp": {}}));
}

#[test]
fn an_image_says_what_is_done_on_it() {
    let work = Work::new();
    work.write("Dockerfile", "FROM localhost/base:1\nONBUILD COPY f /f\nONBUILD RUN cat /f > /g\n");
    work.build(&[]);
    work.ok(&["tag", "localhost/made:1", "localhost/on:1"]);
    assert!(!work.files("localhost/on:1").iter().any(|f| f.starts_with("f ")));
    let onbuild = |image: &str| {
        let place = format!("oci:{}:{image}", work.store.path().display());
        let inspected: Value =
            serde_json::from_str(&ok("skopeo", &["inspect", "--config", "--raw", &place])).unwrap();
        inspected["config"]["OnBuild"].clone()
    };
    assert_eq!(onbuild("localhost/on:1"), json!(["COPY f /f", "RUN cat /f > /g"]));
    work.write("f", "mine").write("Dockerfile", "FROM localhost/on:1\n");
    work.build(&[]);
    let files = work.files("localhost/made:1");
    assert!(files.contains(&"f f 644 0:0  mine".into()) && files.contains(&"g f 644 0:0  mine".into()));
    assert_eq!(onbuild("localhost/made:1"), Value::Null, "once");
}

#[test]
fn steps_are_done_once() {
    let work = Work::new();
    let text = |last: &str| {
        format!(
            "FROM localhost/base:1 AS a\nRUN echo a > /a\nFROM localhost/base:1 AS b\nCOPY f /f\nCOPY --from=a /a /a\nRUN {last}\n"
        )
    };
    work.write("f", "1").write("Dockerfile", text("echo 1 > /x"));
    let (first, done) = work.build(&[]);
    assert_eq!(done, 5);
    assert_eq!(work.build(&[]), (first.clone(), 0), "nothing changed");
    work.write("Dockerfile", text("echo 2 > /x"));
    assert_eq!(work.build(&[]).1, 1, "the last step alone");
    work.write("Dockerfile", format!("# more\n\n{}", text("echo 1 > /x")));
    assert_eq!(work.build(&[]).1, 0, "lines are in no key");
    ok("chmod", &["755", work.path("ctx/f").to_str().unwrap()]);
    assert_eq!(work.build(&[]).1, 3, "a mode of an input");
    work.write("more", "x");
    assert_eq!(work.build(&[]).1, 0, "a file that no instruction takes");
    assert_eq!(work.build(&["--target", "a"]).1, 0, "a stage alone");
    let plan = work.ok(&["build", "-f", "ctx/Dockerfile", "ctx", "--dry-run", "--build-arg", "X=1"]);
    let lines: Vec<&str> = plan.lines().collect();
    assert!(lines[4].contains("Dockerfile:7  ") && lines[4].ends_with("copy a of stage a to /a"), "{plan}");
    let history = work.ok(&["history", "localhost/made:1", "--format", "json"]);
    assert!(history.contains("run /bin/sh -c echo a > /a") && history.contains("Dockerfile:4"), "{history}");
    let labelled = work.build(&["--label", "a=b", "--label", "from=me=you"]);
    assert_eq!(labelled.1, 1, "settings are a step");
    assert_eq!(work.config("localhost/made:1")["Labels"], json!({"a": "b", "from": "me=you"}));
}

#[test]
fn an_ordinary_user_builds_the_same() {
    let work = Work::new();
    let text = "FROM localhost/base:1\nRUN grep -c : /proc/net/dev; ls /sys/class > /dev/null; echo made > /x\nUSER app\nRUN id -u > /tmp/id\n";
    work.write("Dockerfile", text);
    let (wanted, _) = work.build(&[]);
    let user = User::new();
    let dir = user.home().join("ctx");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("Dockerfile"), text).unwrap();
    fs::copy(work.path("base.tar"), user.home().join("base.tar")).unwrap();
    user.give(&user.home());
    user.ok(&["import", "base.tar", "localhost/base:1"]);
    let args = ["build", "ctx", "--tag", "localhost/made:1", "--format", "json"];
    let made: Value = serde_json::from_str(&user.ok(&args)).unwrap();
    assert_eq!(made["digest"], wanted);
}

#[test]
fn a_lock_counts_where_there_is_one() {
    let work = Work::new();
    work.write("f", "1").write("Dockerfile", "FROM localhost/base:1\nCOPY f /f\n");
    work.build(&[]);
    assert!(!work.path("ctx/Dockerfile.lock").exists(), "none is made by itself");
    let said = work.fails(4, &["build", "ctx", "--frozen"]);
    assert!(said.contains("localhost/base:1 is not in ctx/Dockerfile.lock"), "{said}");
    work.ok(&["lock", "ctx/Dockerfile"]);
    let lock = fs::read_to_string(work.path("ctx/Dockerfile.lock")).unwrap();
    assert!(lock.contains("[image.\"localhost/base:1\"]") && lock.contains("f = \"sha256:"), "{lock}");
    work.ok(&["lock", "ctx/Dockerfile"]);
    let (first, _) = work.build(&["--frozen"]);
    work.base(&BASE.replace("staff", "people"));
    assert_eq!(work.build(&["--frozen"]), (first, 0), "the base is the one that is locked");
    let said = work.fails(10, &["lock", "ctx/Dockerfile", "--update", "localhost/base:1,bsae"]);
    assert!(said.contains("no package or image bsae in ctx/Dockerfile.lock"), "{said}");
    work.write("f", "2");
    work.fails(4, &["build", "ctx", "--frozen"]);
    assert_eq!(work.build(&[]).1, 1);
    work.ok(&["build", "ctx", "--frozen"]);
    // What is locked is what is built, so that arguments count as in a build.
    work.ok(&["tag", "localhost/base:1", "localhost/base:2"]);
    work.write("Dockerfile", "ARG TAG=none\nFROM localhost/base:$TAG\nFROM scratch AS other\nCOPY f /\n");
    let lock = ["lock", "ctx/Dockerfile", "--update", "--target", "0", "--build-arg"];
    work.ok(&[&lock[..], &["TAG=2"]].concat());
    let text = fs::read_to_string(work.path("ctx/Dockerfile.lock")).unwrap();
    assert!(text.contains("[image.\"localhost/base:2\"]") && !text.contains("f = "), "{text}");
    work.ok(&["build", "ctx", "--frozen", "--target", "0", "--build-arg", "TAG=2"]);
    let said = work.fails(2, &["lock", "base.toml", "--build-arg", "TAG=2"]);
    assert!(said.contains("--build-arg is for Dockerfiles"), "{said}");
}

#[test]
fn nothing_outside_a_context_is_read() {
    let work = Work::new();
    fs::write(work.path("outside"), "not for you").unwrap();
    work.write("in/f", "1").write("f", "2");
    symlink("../outside", work.path("ctx/up")).unwrap();
    symlink(work.path("outside"), work.path("ctx/absolute")).unwrap();
    symlink("..", work.path("ctx/folder")).unwrap();
    symlink("loop", work.path("ctx/loop")).unwrap();
    symlink("in", work.path("ctx/same")).unwrap();
    for source in ["up", "absolute", "folder/outside", "loop", "loop/x", "nothing", "*.none", "f/x"] {
        let code = if source == "loop" { 1 } else { 10 };
        let said = work.refused(code, &format!("FROM localhost/base:1\nCOPY {source} /x\n"));
        assert!(said.contains("ctx/Dockerfile:2: ") && !said.contains("not for you"), "{source}: {said}");
    }
    for source in ["../outside", "in/../../outside", "/../outside"] {
        let said = work.refused(2, &format!("FROM localhost/base:1\nADD {source} /x\n"));
        assert!(
            said.contains("ctx/Dockerfile:2: ") && said.contains("lies outside of the context"),
            "{said}"
        );
    }
    for name in [".dockerignore", "Dockerfile"] {
        work.write("Dockerfile", "FROM localhost/base:1\n");
        let path = work.path("ctx").join(name);
        let _ = fs::remove_file(&path);
        symlink("../outside", &path).unwrap();
        for args in [&["build", "ctx"][..], &["build", "-f", "ctx/Dockerfile", "ctx"]] {
            let said = work.fails(10, args);
            assert!(
                said.contains(&format!("read ctx/{name}: there is no such file in the context")),
                "{said}"
            );
        }
        fs::remove_file(&path).unwrap();
    }
    work.write("in/file", "FROM localhost/base:1\nCOPY f /\n");
    symlink("/in/file", work.path("ctx/Dockerfile")).unwrap();
    work.build(&[]);
    fs::remove_file(work.path("ctx/Dockerfile")).unwrap();
    // Links are what they are below a source, and a context is the root of its own links.
    work.write("Dockerfile", "FROM localhost/base:1\nCOPY . /x/\nCOPY folder/same/f same /y/\n");
    work.build(&[]);
    let files = work.files("localhost/made:1");
    for wanted in ["x/up l 777 0:0 ../outside ", "x/folder l 777 0:0 .. ", "y/f f 644 0:0  1"] {
        assert!(files.contains(&wanted.to_string()), "{wanted:?} is not in {files:#?}");
    }
    assert!(!files.iter().any(|f| f.contains("not for you")), "{files:#?}");
}

#[test]
fn files_that_mean_harm_are_refused() {
    let work = Work::new();
    let long = "FROM localhost/base:1\n".to_string() + &"# x\n".repeat(2_600_000);
    assert!(work.refused(2, &long).contains("not a file of at most 4 MiB"));
    for (text, line, reason) in [
        ("FROM localhost/base:1\nRUN true\0\n".to_string(), 2, "a NUL byte"),
        (format!("FROM localhost/base:1\nENV a={}\n", "${a:-".repeat(200_000)), 2, "too deep"),
        (format!("FROM localhost/base:1\nRUM {}\n", "\\\n".repeat(1_000_000)), 2, "no instruction RUM"),
        ("FROM localhost/base:1\nRUN --mount=type=ssh,target=/x true\n".to_string(), 2, "type=ssh"),
        ("FROM localhost/base:1\nADD https://localhost/x /\n".to_string(), 2, "takes nothing from elsewhere"),
    ] {
        let said = work.refused(2, &text);
        assert!(said.contains(&format!("ctx/Dockerfile:{line}: ")) && said.contains(reason), "{said}");
    }
    work.write("Dockerfile", b"FROM localhost/base:1\nRUN \xff\n");
    assert!(work.fails(2, &["build", "ctx"]).contains("UTF-8"));
    ok("mkfifo", &[work.path("ctx/fifo").to_str().unwrap()]);
    work.fails(2, &["build", "-f", "ctx/fifo", "ctx"]);
    fs::remove_file(work.path("ctx/Dockerfile")).unwrap();
    assert!(work.fails(2, &["build", "ctx"]).contains("no Dockerfile and no Containerfile in ctx"));
    let said = work.fails(2, &["build", "base.toml", "--target", "x"]);
    assert!(said.contains("--target is for Dockerfiles"), "{said}");
    work.write("Dockerfile", "FROM localhost/base:1\n");
    let said = work.fails(10, &["build", "ctx", "--platform", "linux/s390x"]);
    assert!(said.contains("Dockerfile:1: image localhost/base:1: it is for linux/"), "{said}");
    // A tar whose links lead out of the root.
    let tree = work.path("evil");
    fs::create_dir(&tree).unwrap();
    symlink(work.dir.path(), tree.join("out")).unwrap();
    let tar = work.path("ctx/evil.tar").display().to_string();
    ok("tar", &["-C", tree.to_str().unwrap(), "-cf", &tar, "out"]);
    fs::remove_file(tree.join("out")).unwrap();
    fs::create_dir(tree.join("out")).unwrap();
    fs::write(tree.join("out/escaped"), "x").unwrap();
    ok("tar", &["-C", tree.to_str().unwrap(), "-rf", &tar, "out/escaped"]);
    let said = work.refused(9, "FROM localhost/base:1\nADD evil.tar /x/\n");
    assert!(said.contains("Dockerfile:2: ") && said.contains("out"), "{said}");
    assert!(!work.path("escaped").exists());
    // Limits are those of any archive.
    fs::write(tree.join("zeros"), vec![0; 200_000]).unwrap();
    ok("tar", &["-C", tree.to_str().unwrap(), "-czf", work.path("ctx/zeros.tgz").to_str().unwrap(), "zeros"]);
    work.write("Dockerfile", "FROM localhost/base:1\nADD zeros.tgz /x/\n");
    work.ok(&["build", "ctx"]);
    let said = work.fails(9, &["build", "--no-cache", "--max-inflated", "100k", "ctx"]);
    assert!(
        said.contains("Dockerfile:2: copy zeros.tgz to /x/: ") && said.contains("inflated bytes"),
        "{said}"
    );
}

#[test]
fn what_is_made_has_the_time_of_the_base() {
    let work = Work::new();
    let aged = |seconds: &str| {
        let mut command = work.command(&["build", "base.toml"]);
        common::succeeded(&["build"], &common::collect(command.env("SOURCE_DATE_EPOCH", seconds)));
    };
    aged("1700000000");
    work.write("Dockerfile", "FROM localhost/base:1\nRUN echo $SOURCE_DATE_EPOCH > /when\nCOPY f /f\n")
        .write("f", "1");
    let (first, _) = work.build(&[]);
    let inspected: Value = serde_json::from_str(&work.ok(&["inspect", "localhost/made:1"])).unwrap();
    assert_eq!(inspected["config"]["created"], "2023-11-14T22:13:20.000000000Z");
    work.ok(&["unpack", "localhost/made:1", "unpacked"]);
    assert_eq!(fs::read_to_string(work.path("unpacked/rootfs/when")).unwrap(), "1700000000\n");
    for name in ["when", "f"] {
        let path = work.path("unpacked/rootfs").join(name);
        assert_eq!(ok("stat", &["-c", "%Y", path.to_str().unwrap()]).trim(), "1700000000", "{name}");
    }
    aged("1700000001");
    assert_ne!(work.build(&[]).0, first);
}
