//! What the caller asks for of a container's health checks, on top of what its image says.

use super::{Error, HEALTH_ANNOTATION, Result};
use crate::oci::Health;
use std::collections::HashMap;
use std::time::Duration;

/// What is other than in the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthChange {
    /// `CMD-SHELL` and a line, `CMD` and words, or `NONE`.
    pub test: Option<Vec<String>>,
    /// From the end of a check to the next.
    pub interval: Option<Duration>,
    /// After which a check has failed.
    pub timeout: Option<Duration>,
    /// In which failures do not count.
    pub start_period: Option<Duration>,
    /// From the end of a check to the next in the start period.
    pub start_interval: Option<Duration>,
    /// How many failures in a row make it unhealthy.
    pub retries: Option<u32>,
}

impl HealthChange {
    /// Changes the annotation that asks for health checks.
    ///
    /// # Errors
    /// [`Error::Setting`] where there is nothing to change.
    pub fn apply(&self, annotations: &mut HashMap<String, String>) -> Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        let json = |e: serde_json::Error| Error::Spec(e.into());
        let image = annotations.get(HEALTH_ANNOTATION).map(|text| serde_json::from_str(text));
        let mut health: Health = image.transpose().map_err(json)?.unwrap_or_default();
        if let Some(test) = &self.test {
            health.test.clone_from(test);
        }
        if health.test.is_empty() {
            let reason = "the image has no health check, and no --health-cmd is given";
            return Err(Error::Setting { option: "--health-…", value: String::new(), reason });
        }
        for (new, field) in [
            (self.interval, &mut health.interval),
            (self.timeout, &mut health.timeout),
            (self.start_period, &mut health.start_period),
            (self.start_interval, &mut health.start_interval),
        ] {
            if let Some(new) = new {
                *field = u64::try_from(new.as_nanos()).unwrap_or(u64::MAX);
            }
        }
        health.retries = self.retries.unwrap_or(health.retries);
        annotations.insert(HEALTH_ANNOTATION.to_string(), serde_json::to_string(&health).map_err(json)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_what_the_image_says() {
        let image =
            || HashMap::from([(HEALTH_ANNOTATION.to_string(), r#"{"Test":["CMD","/x"]}"#.to_string())]);
        let slower = HealthChange { interval: Some(Duration::from_secs(7)), ..HealthChange::default() };
        let mut annotations = image();
        slower.apply(&mut annotations).unwrap();
        let health: Health = serde_json::from_str(&annotations[HEALTH_ANNOTATION]).unwrap();
        assert_eq!(
            (health.command().unwrap(), health.pause(false)),
            (vec!["/x".into()], Duration::from_secs(7))
        );
        assert!(slower.apply(&mut HashMap::new()).is_err());
        let none = HealthChange { test: Some(vec!["NONE".into()]), ..HealthChange::default() };
        none.apply(&mut annotations).unwrap();
        let health: Health = serde_json::from_str(&annotations[HEALTH_ANNOTATION]).unwrap();
        assert_eq!(health.command(), None);
        let mut same = image();
        HealthChange::default().apply(&mut same).unwrap();
        assert_eq!(same, image());
    }
}
