//! The health check of an image: Docker's extension of the image configuration
//! (moby, image spec v1.2, `Healthcheck`), which the OCI image-spec has no field for.

use serde::{Deserialize, Deserializer, Serialize};
use std::time::Duration;

/// How to find out whether what a container serves is well. Times are in nanoseconds, 0 is the
/// default: 30 s between checks and for one, 0 s to begin in, 5 s between checks while it begins,
/// 3 failures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `CMD` and a program with arguments, `CMD-SHELL` and a line for `/bin/sh`, or `NONE`.
    #[serde(deserialize_with = "nullable")]
    pub test: Vec<String>,
    /// From the end of a check to the next.
    pub interval: u64,
    /// After which a check has failed.
    pub timeout: u64,
    /// In which failures do not count.
    pub start_period: u64,
    /// From the end of a check to the next in the start period.
    pub start_interval: u64,
    /// How many failures in a row make it unhealthy.
    pub retries: u32,
}

fn nullable<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

fn or(nanoseconds: u64, seconds: u64) -> Duration {
    if nanoseconds == 0 { Duration::from_secs(seconds) } else { Duration::from_nanos(nanoseconds) }
}

impl Health {
    /// That of an image configuration; none where it has none, or one that makes no sense.
    #[must_use]
    pub fn of_config(config: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document {
            config: Section,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Section {
            healthcheck: Health,
        }
        let health = serde_json::from_slice::<Document>(config).ok()?.config.healthcheck;
        health.command().is_some().then_some(health)
    }

    /// The program and its arguments; none where nothing is to be checked.
    #[must_use]
    pub fn command(&self) -> Option<Vec<String>> {
        let (kind, words) = self.test.split_first()?;
        match kind.as_str() {
            "CMD" if !words.is_empty() => Some(words.to_vec()),
            "CMD-SHELL" if !words.is_empty() => {
                Some(["/bin/sh".to_string(), "-c".to_string(), words.join(" ")].to_vec())
            }
            _ => None,
        }
    }

    /// From the end of a check to the next, `starting` or not.
    #[must_use]
    pub fn pause(&self, starting: bool) -> Duration {
        if starting { or(self.start_interval, 5).min(or(self.interval, 30)) } else { or(self.interval, 30) }
    }

    /// After which a check has failed.
    #[must_use]
    pub fn limit(&self) -> Duration {
        or(self.timeout, 30)
    }

    /// In which failures do not count.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_nanos(self.start_period)
    }

    /// How many failures in a row make it unhealthy.
    #[must_use]
    pub fn tries(&self) -> u32 {
        if self.retries == 0 { 3 } else { self.retries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_configurations() {
        let of =
            |check: &str| Health::of_config(format!("{{\"config\":{{\"Healthcheck\":{check}}}}}").as_bytes());
        let health =
            of(r#"{"Test":["CMD-SHELL","curl -f http://localhost/ || exit 1"],"Interval":5000000000}"#);
        let health = health.unwrap();
        assert_eq!(health.command().unwrap()[..2], ["/bin/sh", "-c"]);
        assert_eq!((health.pause(false), health.limit()), (Duration::from_secs(5), Duration::from_secs(30)));
        assert_eq!((health.tries(), health.grace()), (3, Duration::ZERO));
        assert_eq!(
            of(r#"{"Test":["CMD","/check","-x"],"Retries":1}"#).unwrap().command().unwrap(),
            ["/check", "-x"]
        );
        for none in [
            r#"{"Test":["NONE"]}"#,
            r#"{"Test":null}"#,
            r#"{"Test":["CMD"]}"#,
            r#"{"Interval":-1}"#,
            "7",
            "{}",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
