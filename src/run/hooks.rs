//! Programs that config.json wants run at points of the lifecycle (`config.md`, POSIX-platform Hooks).
//!
//! Each gets the container's state on standard input and no environment but its own.

use super::watch;
use super::{Error, Result, spec::Hook};
use crate::sys::process;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs `hooks` one after another; the first that fails ends it.
///
/// # Errors
/// [`Error::Hook`].
pub fn run(point: &'static str, hooks: &[Hook], state: &serde_json::Value) -> Result<()> {
    hooks.iter().try_for_each(|hook| {
        run_one(hook, state).map_err(|reason| Error::Hook { point, path: hook.path.clone(), reason })
    })
}

/// Runs `hooks`; failures are warnings.
pub fn run_all(point: &'static str, hooks: &[Hook], state: &serde_json::Value) {
    for hook in hooks {
        if let Err(reason) = run_one(hook, state) {
            tracing::warn!("{point} hook {}: {reason}", hook.path.display());
        }
    }
}

fn run_one(hook: &Hook, state: &serde_json::Value) -> Result<(), String> {
    // What the caller has left open is not for hooks.
    process::close_on_exec_from(3).map_err(|e| e.to_string())?;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|v| v.split_once('=')));
    command.stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its input is fine.
        let _ = stdin.write_all(state.to_string().as_bytes());
    }
    if let Some(seconds) = hook.timeout
        && !ends_within(&child, seconds)
    {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("did not end within {seconds} s"));
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

fn ends_within(child: &std::process::Child, seconds: u64) -> bool {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(pidfd) = pid.and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok()) else { return true };
    watch::ends_within(pidfd, Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<u64>) -> Hook {
        let args = ["sh", "-c", script].map(String::from).to_vec();
        Hook { path: "/bin/sh".into(), args, env: vec!["A=b".into()], timeout }
    }

    #[test]
    fn state_environment_failure_and_timeout() {
        let state = serde_json::json!({"id": "x"});
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("cat > {0}; echo \" $A $HOME.\" >> {0}", out.display());
        run("prestart", &[hook(&script, Some(10))], &state).unwrap();
        assert_eq!(std::fs::read_to_string(out).unwrap(), "{\"id\":\"x\"} b .\n");
        let failed = run("prestart", &[hook("exit 3", None)], &state).unwrap_err();
        assert!(failed.to_string().ends_with("exit status: 3"), "{failed}");
        let slow = run("prestart", &[hook("exec sleep 60", Some(1))], &state).unwrap_err();
        assert!(slow.to_string().contains("within 1 s"), "{slow}");
    }
}
