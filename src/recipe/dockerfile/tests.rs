//! Instructions and what they become.

use super::*;
use crate::recipe::context::{Directory, DockerCopy};
use crate::recipe::types::{Copy, Healthcheck, Image, Run};
use crate::recipe::{Action, Error, KeptFolder};
use crate::store::Sharing;

/// What the image `base` says.
fn base() -> Inherited {
    let env = [("PATH", "/bin"), ("BASE", "b")].map(|(n, v)| (n.to_string(), v.to_string())).into();
    Inherited { env, workdir: "/srv".into(), user: String::new(), shell: Vec::new(), onbuild: Vec::new() }
}

fn with(text: &str, dockerfile: &Dockerfile, set: &[(&str, &str)]) -> Result<Recipe> {
    let set = set.iter().map(|(n, v)| ((*n).to_string(), (*v).to_string())).collect();
    let choices = Choices { set, platform: "linux/arm64".parse()?, ..Choices::default() };
    let mut look = |name: &str| {
        Ok(match name {
            "onbuild" => Inherited { onbuild: words(&["ARG A=1", "RUN x $A", "ENV T=done"]), ..base() },
            "bad" => Inherited { onbuild: words(&["FROM other\nRUN x"]), ..base() },
            _ => base(),
        })
    };
    translate(text, dockerfile, &Ignore::default(), &choices, &mut look)
}

fn read(text: &str) -> Result<Recipe> {
    let secrets = [("token".to_string(), Secret::Env("T".into()))].into();
    with(text, &Dockerfile { file: "d/Dockerfile".into(), context: "ctx".into(), target: None, secrets }, &[])
}

/// The steps of the last stage.
#[track_caller]
fn steps(text: &str) -> Vec<Action> {
    let stage = read(&format!("FROM base\n{text}")).unwrap().stages.pop().unwrap();
    stage.steps.into_iter().map(|s| s.value).collect()
}

/// How the last stage's image is run.
#[track_caller]
fn image(text: &str) -> Image {
    read(&format!("FROM base\n{text}")).unwrap().stages.pop().unwrap().image
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn who_builds_on_an_image_does_what_it_asks_for() {
    let stages = |text: &str| -> Vec<(Vec<String>, Option<Vec<String>>)> {
        let stages = read(text).unwrap().stages.into_iter();
        let steps = |s: &Stage| s.steps.iter().map(|s| format!("{} {}", s.place.line, s.value)).collect();
        stages.map(|s| (steps(&s), s.image.onbuild)).collect()
    };
    let done = stages("FROM onbuild\nRUN y");
    assert_eq!(done, [(words(&["1 run /bin/sh -c x $A", "2 run /bin/sh -c y"]), Some(Vec::new()))]);
    let text = "FROM base AS a\nONBUILD RUN x\nONBUILD WORKDIR /w\nFROM a AS b\nRUN y\nFROM b\nRUN z";
    let wanted = [
        (Vec::new(), Some(words(&["RUN x", "WORKDIR /w"]))),
        (words(&["4 run /bin/sh -c x", "4 directory /w", "5 run /bin/sh -c y"]), Some(Vec::new())),
        (words(&["7 run /bin/sh -c z"]), None),
    ];
    assert_eq!(stages(text), wanted, "once");
}

#[test]
fn runs_stand_in_what_was_said_before() {
    let run = |text: &str| match steps(text).pop() {
        Some(Action::Run(run)) => run,
        other => panic!("{other:?}"),
    };
    let plain = run("RUN echo  a \\\n  # comment\n\n  && echo \"b\"");
    let env: BTreeMap<_, _> = base().env;
    let wanted = Run {
        command: words(&["/bin/sh", "-c", "echo  a   && echo \"b\""]),
        network: true,
        env: env.clone(),
        workdir: Some("/srv".into()),
        ..Run::default()
    };
    assert_eq!(plain, wanted);
    for (text, command) in [
        ("RUN [\"a\", \"b c\"]", &["a", "b c"][..]),
        ("RUN [ -e /x ] && y", &["/bin/sh", "-c", "[ -e /x ] && y"]),
        ("SHELL [\"/bin/bash\", \"-lc\"]\nRUN x $Y", &["/bin/bash", "-lc", "x $Y"]),
        ("RUN <<E\n a\n$b\nE\nCMD x", &["/bin/sh", "-c", " a\n$b\n"]),
        ("RUN <<-E\n\t\ta\n\tE", &["/bin/sh", "-c", "a\n"]),
        ("RUN cat <<A 3<<'B' > /x\n1\nA\n2\nB", &["/bin/sh", "-c", "cat <<A 3<<'B' > /x\n1\nA\n2\nB"]),
        ("RUN echo $((1<<2)) \"<<X\"", &["/bin/sh", "-c", "echo $((1<<2)) \"<<X\""]),
        ("run x", &["/bin/sh", "-c", "x"]),
    ] {
        assert_eq!(run(text).command, command, "{text}");
    }
    assert_eq!(run("RUN <<E\n#!/bin/awk -f\nx\nE").program.as_deref(), Some("#!/bin/awk -f\nx\n"));
    let inside = run("ARG A=1 BASE=no\nENV E=$A\nUSER app:web\nWORKDIR sub\nRUN --network=none x");
    let more = [("A", "1"), ("E", "1")].map(|(n, v)| (n.to_string(), v.to_string()));
    assert_eq!(inside.env, env.into_iter().chain(more).collect());
    assert_eq!((inside.user.as_deref(), inside.workdir.as_deref()), (Some("app:web"), Some("/srv/sub")));
    assert!(!inside.network);
    let cache =
        run("WORKDIR /w\nRUN --mount=type=cache,target=c,id=i,sharing=locked,uid=7,gid=8,mode=0700 x").cache;
    let kept = KeptFolder {
        target: "/w/c".into(),
        id: Some("i".into()),
        sharing: Sharing::Locked,
        uid: 7,
        gid: 8,
        mode: Some("0700".into()),
    };
    assert_eq!(cache, [kept]);
    assert_eq!(run("RUN --mount=type=tmpfs,target=/t,size=1m x").tmpfs[0].size.as_deref(), Some("1m"));
    let bind = |text: &str| run(&format!("RUN --mount={text} x")).bind.remove(0);
    let from = bind("type=bind,from=build,source=/a/../b,dst=/in,rw");
    assert_eq!((from.stage, from.image.as_deref(), from.write), (None, Some("build"), true));
    assert_eq!((from.from.as_str(), from.target.as_str()), ("/b", "/in"));
    let context = bind("target=/in,src=a/./b");
    assert!(context.docker.is_some() && !context.write && context.from == "a/b");
    assert_eq!(run("RUN --mount=type=secret,id=token x").secrets, ["token"]);
    let elsewhere = run("RUN --mount=type=secret,id=token,target=/a/../b x").targets;
    assert_eq!(elsewhere, [("token".to_string(), PathBuf::from("/b"))].into());
    assert!(run("RUN --mount=type=secret,id=other x").secrets.is_empty(), "one that need not be there");
}

#[test]
fn copies() {
    let docker = |unpack| Some(DockerCopy { context: "ctx".into(), unpack, ..DockerCopy::default() });
    let copy = |from: &[&str], to: &str| Copy {
        from: words(from),
        to: to.into(),
        docker: docker(false),
        ..Copy::default()
    };
    for (text, wanted) in [
        ("COPY a b/ /c/", copy(&["a", "b"], "/c/")),
        ("COPY /a/./b/../c .", copy(&["a/c"], "/srv/")),
        ("COPY . x", copy(&["."], "/srv/x")),
        ("COPY *.txt ../y/", copy(&["*.txt"], "/y/")),
        ("COPY [\"a b\", \"/c d\"]", copy(&["a b"], "/c d")),
        ("COPY a\\ b \"c d\"", copy(&["a b"], "/srv/c d")),
        ("ENV D=/d\nCOPY $BASE ${D}/", copy(&["b"], "/d/")),
        (
            "ARG U=app\nCOPY --chown=$U:web --chmod=0640 --link a /b",
            Copy { owner: Some("app:web".into()), mode: Some("0640".into()), ..copy(&["a"], "/b") },
        ),
        ("COPY --chown=7 a /b", Copy { owner: Some("7:7".into()), ..copy(&["a"], "/b") }),
        ("ADD a /b", Copy { docker: docker(true), ..copy(&["a"], "/b") }),
        (
            "COPY --from=img:1 /a /b",
            Copy { image: Some("img:1".into()), docker: Some(DockerCopy::default()), ..copy(&["a"], "/b") },
        ),
        (
            "COPY <<-\"E\" /f\n\tit's $BASE\n\tE",
            Copy { content: Some("it's $BASE\n".into()), docker: None, ..copy(&[], "/f") },
        ),
        (
            "COPY --chmod=755 <<run.sh /d/\nit's $BASE \\$x\nrun.sh",
            Copy {
                content: Some("it's b $x\n".into()),
                docker: None,
                mode: Some("755".into()),
                ..copy(&[], "/d/run.sh")
            },
        ),
    ] {
        let steps = steps(text);
        assert_eq!(steps, [Action::Copy(wanted)], "{text}");
    }
    let two = steps("COPY a <<b /d/\nx\nb");
    assert_eq!(two.len(), 2, "{two:?}");
    let stages = "FROM base AS Build\nFROM base\nCOPY --from=build /a /b\nCOPY --from=0 a /b\n";
    let recipe = read(stages).unwrap();
    for step in &recipe.stages[1].steps {
        let Action::Copy(copy) = &step.value else { panic!() };
        assert_eq!((copy.stage.as_deref(), copy.from.as_slice()), (Some("build"), &["a".to_string()][..]));
    }
}

#[test]
fn settings() {
    let env = |text: &str| image(text).env.into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
    for (text, wanted) in [
        ("ENV a=1 b=\"2 3\" c=4\\ 5 d='6'", &["a=1", "b=2 3", "c=4 5", "d=6"][..]),
        ("ENV a  one \"two\"", &["a=one two"]),
        ("ENV a=1\nENV a=2 b=$a", &["a=2", "b=1"]),
        ("ENV PATH=/x:$PATH", &["PATH=/x:/bin"]),
        ("ARG v=1\nENV a=${v:-2}${w:-3}", &["a=13"]),
        ("ENV a=1 \\\n  # c\n  b=2", &["a=1", "b=2"]),
    ] {
        assert_eq!(env(text), wanted, "{text}");
    }
    let all = image(
        "LABEL \"a b\"=\"c $BASE\" d=e\nLABEL f g h\nUSER $BASE\nEXPOSE 80 53/UDP 90-91\nVOLUME /a /b\nVOLUME [\"/c\"]\n\
         STOPSIGNAL SIG$BASE\nCMD a $b\nENTRYPOINT [\"e\"]\nMAINTAINER me and you\nSHELL [\"s\"]\nWORKDIR /\n",
    );
    let labels = [("a b", "c b"), ("d", "e"), ("f", "g h")];
    let wanted = Image {
        labels: labels.map(|(n, v)| (n.to_string(), v.to_string())).into(),
        user: Some("b".into()),
        expose: words(&["80/tcp", "53/udp", "90/tcp", "91/tcp"]),
        volumes: words(&["/a", "/b", "/c"]),
        stop_signal: Some("SIGb".into()),
        cmd: Some(words(&["/bin/sh", "-c", "a $b"])),
        entrypoint: Some(words(&["e"])),
        author: Some("me and you".into()),
        shell: Some(words(&["s"])),
        workdir: Some("/".into()),
        ..Image::default()
    };
    assert_eq!(all, wanted);
    let check = |text: &str| image(text).healthcheck.unwrap();
    let own = check(
        "HEALTHCHECK --interval=5s --timeout=1m --start-period=1s --start-interval=2s --retries=3 CMD a || b",
    );
    let times = |text: &str| Some(text.to_string());
    let wanted = Healthcheck {
        shell: times("a || b"),
        interval: times("5s"),
        timeout: times("1m"),
        start_period: times("1s"),
        start_interval: times("2s"),
        retries: Some(3),
        ..Healthcheck::default()
    };
    assert_eq!(own, wanted);
    assert_eq!(check("HEALTHCHECK CMD [\"a\", \"b\"]").command, ["a", "b"]);
    assert_eq!(check("HEALTHCHECK none"), Healthcheck::default());
    let made = steps("WORKDIR a\nWORKDIR b/../c/\nUSER u\nWORKDIR /$BASE");
    let directory = |path: &str, owner: Option<&str>| {
        Action::Directory(Directory { path: path.into(), owner: owner.map(str::to_string) })
    };
    let wanted = [directory("/srv/a", None), directory("/srv/a/c", None), directory("/b", Some("u"))];
    assert_eq!(made, wanted);
}

#[test]
fn stages_and_arguments() {
    let text = "ARG tag=1\nARG none\nFROM --platform=$TARGETPLATFORM img:${tag} AS one\nARG tag\nARG none\nARG own=o\nARG TARGETARCH\n\
                ENV e=$tag-$none-$own-$TARGETARCH\nSHELL [\"sh\"]\nUSER u\nFROM scratch AS other\nRUN no\nFROM one\nENV f=$own$e\nCMD x\n";
    let dockerfile = Dockerfile { file: "D".into(), ..Dockerfile::default() };
    let recipe = with(text, &dockerfile, &[]).unwrap();
    let names: Vec<_> = recipe.stages.iter().map(|s| (s.name.as_str(), &s.base.value)).collect();
    assert_eq!(names, [("one", &Base::Image("img:1".into())), ("2", &Base::Stage("one".into()))]);
    assert_eq!(recipe.stages[0].image.env["e"], "1--o-arm64");
    assert_eq!(recipe.stages[1].image.env["f"], "o1--o-arm64", "a stage has the arguments of its base");
    assert_eq!(recipe.stages[1].image.cmd, Some(words(&["sh", "x"])));
    let set = [("tag", "2"), ("none", "n"), ("own", "")];
    let recipe = with(text, &dockerfile, &set).unwrap();
    assert_eq!(recipe.stages[0].base.value, Base::Image("img:2".into()));
    assert_eq!(recipe.stages[0].image.env["e"], "2-n--arm64");
    for (target, name) in [("other", "other"), ("ONE", "one"), ("1", "other")] {
        let target = Dockerfile { target: Some(target.into()), ..dockerfile.clone() };
        let recipe = with(text, &target, &[]).unwrap();
        assert_eq!((recipe.stages.len(), recipe.stages[0].name.as_str()), (1, name));
    }
    let scratch = with("FROM scratch\n", &dockerfile, &[]).unwrap();
    assert_eq!(scratch.stages[0].image.env["PATH"], PATH);
    let target = Dockerfile { target: Some("oen".into()), ..dockerfile };
    assert!(with(text, &target, &[]).unwrap_err().to_string().contains("no stage oen, did you mean one?"));
    let ticks = "# escape=`\nFROM base\nENV a=c:\\b `\n  b=`$a\n";
    assert_eq!(read(ticks).unwrap().stages[0].image.env["a"], "c:\\b");
    let windows = "\u{feff}FROM base\r\n# x\r\nENV a=1 \\\r\n  b=2\r\n";
    assert_eq!(read(windows).unwrap().stages[0].image.env["b"], "2");
}

#[test]
fn what_is_not_known_is_said_with_its_line() {
    let mounts = "RUN --mount=type=ssh,target=/x y";
    for (text, line, reason) in [
        ("RUN x\nFROM base", 1, "RUN before the first FROM"),
        ("# only\n", 1, "no FROM"),
        ("FROM base\n\nRNU x", 3, "no instruction RNU, did you mean RUN?"),
        ("FROM base\nRUN a \\\n b\nRUN", 4, "RUN wants more words"),
        ("FROM base\nRUN <<E\nx\n", 2, "here-document E has no end"),
        (&format!("FROM base\n{mounts}"), 2, "--mount=type=ssh,target=/x: this type is not done here"),
        ("FROM base\nRUN --mount=type=cache,id=a x", 2, "no target"),
        ("FROM base\nRUN --mount=type=cache,target=/ x", 2, "no target, or / as one"),
        (
            "FROM base\nRUN --mount=type=cache,target=/x,sharing=all x",
            2,
            "sharing is shared, locked or private",
        ),
        ("FROM base\nRUN --mount=type=cache,target=/x,from=y x", 2, "from is not done here"),
        ("FROM base\nRUN --mount=type=cache,target=/x,mode=9 x", 2, "mode is octal"),
        ("FROM base\nRUN --mount=type=tmpfs,target=/x,size=1,mode=2 x", 2, "mode is not done here"),
        ("FROM base\nRUN --mount=type=tmpfs,target=/x,size=much x", 2, "size is a number"),
        ("FROM base\nRUN --mount=target=/x,source=../y x", 2, "outside of the context"),
        ("FROM base\nRUN --mount=target=/x,rw=maybe x", 2, "rw is true or false"),
        ("FROM base\nRUN --mount=type=secret,id=token,target=t x", 2, "an absolute path"),
        ("FROM base\nRUN --mount=type=secret,id=token,env=T x", 2, "env is not done here"),
        ("FROM base\nRUN --mount=type=secret,id=a/b x", 2, "cannot be an id"),
        ("FROM base\nRUN --mount=type=secret,id=q,required=true x", 2, "--secret id=q,src=FILE"),
        ("FROM base\nRUN --security=insecure x", 2, "RUN --security is not done here"),
        ("FROM base\nRUN --network=mine x", 2, "--network=mine"),
        ("FROM base\nRUN []", 2, "RUN without a command"),
        ("FROM base\nCOPY a", 2, "wanted COPY SOURCE… TARGET"),
        ("FROM base\nCOPY a b c", 2, "ends in a slash"),
        ("FROM base\nCOPY a/../../b /c", 2, "a/../../b lies outside of the context"),
        ("FROM base\nCOPY --chwon=a b c", 2, "did you mean chown?"),
        ("FROM base\nCOPY --chmod=u+x b c", 2, "mode is octal"),
        ("FROM base\nCOPY --from b c", 2, "--from wants a value"),
        ("FROM base\nADD https://x/y /z", 2, "takes nothing from elsewhere"),
        ("FROM base\nADD git@x:y.git /z", 2, "takes nothing from elsewhere"),
        ("FROM base\nENV a=1 b", 2, "b: wanted NAME=VALUE"),
        ("FROM base\nENV a=\"1", 2, "without an end"),
        ("FROM base\nENV a=${b:?\"is needed\"}", 2, "b: is needed"),
        ("FROM base\nEXPOSE 80-70", 2, "ends before it begins"),
        ("FROM base\nEXPOSE http", 2, "wanted PORT"),
        ("FROM base\nHEALTHCHECK x", 2, "wanted HEALTHCHECK"),
        ("FROM base\nHEALTHCHECK --interval=5 CMD x", 2, "--interval: \"5\" is no time"),
        ("FROM base\nSHELL sh", 2, "wanted SHELL"),
        ("FROM base\nONBUILD ONBUILD RUN x", 2, "this cannot come after it"),
        ("FROM base\nONBUILD FROM x", 2, "this cannot come after it"),
        ("FROM base\nONBUILD RUM x", 2, "no instruction RUM"),
        ("FROM base\nONBUILD RUN --security=x y", 2, "--security is not done here"),
        ("FROM bad", 1, "wanted one instruction"),
        ("FROM base AS 1x", 1, "no name of a stage"),
        ("FROM a AS x\nFROM b AS X", 2, "a stage x is there already"),
        ("FROM a b", 1, "wanted FROM IMAGE [AS NAME]"),
        ("FROM $none", 1, "this is empty"),
        ("FROM --platform=linux/s390x base", 1, "another platform"),
        ("# escape=x\nFROM base", 1, "wanted \\ or `"),
        ("FROM base\nRUN a\0b", 2, "a NUL byte"),
    ] {
        let e = read(text).unwrap_err();
        let said = e.to_string();
        assert!(matches!(e, Error::Syntax { .. }), "{text}: {said}");
        assert!(
            said.starts_with(&format!("d/Dockerfile:{line}: ")) && said.contains(reason),
            "{text}: {said}"
        );
    }
}

#[test]
fn long_lines_are_read_once() {
    let text = format!("FROM base\nRUN true{}\n", " \\\n  && true".repeat(300_000));
    let Action::Run(run) = &read(&text).unwrap().stages[0].steps[0].value else { panic!() };
    assert_eq!(run.command[2].matches("true").count(), 300_001);
}

/// Texts that are nearly right: whatever comes, an answer or an error with its line.
#[test]
fn no_text_breaks_the_reader() {
    let good = "# escape=\\\nARG a=1\nFROM base AS x\nENV b=\"${a:-$c}\" \\\n d='e'\nRUN --mount=type=secret,id=token <<E cat\n$x\nE\n\
                COPY --from=x --chown=1 <<F a*/b [\"c\", \"d\"] ./e/\nf\nF\nEXPOSE 1-3/udp\nHEALTHCHECK --retries=1 CMD x\nLABEL é=\u{2003}ü\n";
    let pieces = [
        "$", "{", "}", "\"", "'", "\\", "\n", "<<", "-", "=", "[", "]", " ", "\t", "\r", ":", "é", "#", "\0",
        "/..", "*",
    ];
    let mut seed = 1_usize;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..20_000 {
        let mut chars: Vec<char> = good.chars().collect();
        for _ in 0..=next(4) {
            let at = next(chars.len());
            let end = (at + next(8)).min(chars.len());
            chars.splice(at..end, pieces[next(pieces.len())].chars());
        }
        let text: String = chars.into_iter().collect();
        if let Err(e) = read(&text) {
            assert!(e.to_string().starts_with("d/Dockerfile:"), "{text}: {e}");
        }
    }
}
