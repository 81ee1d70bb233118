//! Sockets of a service manager, passed on into the container (`sd_listen_fds(3)`): the first
//! descriptors after the standard streams, as `LISTEN_FDS` and `LISTEN_FDNAMES` tell.

/// What the service manager has handed to this process.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sockets {
    count: u32,
    names: Option<String>,
}

impl Sockets {
    /// Reads this process's environment: none where `LISTEN_PID` is another process.
    #[must_use]
    pub fn inherited() -> Self {
        Self::read(|name| std::env::var(name).ok(), std::process::id())
    }

    fn read(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Self {
        let number = |name| variable(name)?.parse::<u32>().ok();
        match (number("LISTEN_PID"), number("LISTEN_FDS")) {
            (Some(of), Some(count)) if of == pid && count > 0 => {
                Self { count, names: variable("LISTEN_FDNAMES") }
            }
            _ => Self::default(),
        }
    }

    /// How many descriptors they are with `others` after them.
    #[must_use]
    pub fn before(&self, others: u32) -> u32 {
        self.count.saturating_add(others)
    }

    /// Tells the program of them, in place of what its environment says; but for its process id,
    /// see `own_pid`.
    pub fn tell(&self, env: &mut Vec<String>) {
        if self.count == 0 {
            return;
        }
        env.retain(|v| !["LISTEN_FDS=", "LISTEN_FDNAMES=", PID].iter().any(|name| v.starts_with(name)));
        env.push(format!("LISTEN_FDS={}", self.count));
        env.extend(self.names.iter().map(|names| format!("LISTEN_FDNAMES={names}")));
        env.push(PID.to_string());
    }
}

/// The variable with the process id that the sockets are meant for.
pub const PID: &str = "LISTEN_PID=";

/// The variable for this process, which is to become the program.
#[must_use]
pub fn own_pid() -> String {
    format!("{PID}{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_what_is_meant_for_this_process() {
        let read = |pid: &str, fds: &str| {
            let variable = |name: &str| match name {
                "LISTEN_PID" => Some(pid.to_string()),
                "LISTEN_FDS" => Some(fds.to_string()),
                _ => Some("a:b".to_string()),
            };
            Sockets::read(variable, 7)
        };
        assert_eq!([read("7", "2"), read("8", "2"), read("7", "x")].map(|s| s.before(0)), [2, 0, 0]);
        let mut env = vec!["A=b".to_string(), "LISTEN_FDS=9".into()];
        read("8", "2").tell(&mut env);
        assert_eq!(env, ["A=b", "LISTEN_FDS=9"]);
        read("7", "2").tell(&mut env);
        assert_eq!(env, ["A=b", "LISTEN_FDS=2", "LISTEN_FDNAMES=a:b", "LISTEN_PID="]);
    }
}
