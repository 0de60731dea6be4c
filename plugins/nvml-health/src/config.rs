//! The policy's configuration: JSON, empty for the defaults.
//!
//! `{"hysteresis_c": 3, "throttle_quiet_s": 10, "disabled": ["ClockThrottle"]}`

use device_policy_sdk::config::Config as Json;

use crate::{ecc, row_remap, temperature, throttle};

/// Conditions that a node may do without. The loss of a GPU is not one of them.
const OPTIONAL: [&str; 4] = [
    temperature::CONDITION,
    ecc::CONDITION,
    row_remap::CONDITION,
    throttle::CONDITION,
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// How far below the threshold a hot GPU must cool, in degrees Celsius.
    pub(crate) hysteresis_c: i64,
    /// How long clocks must be free of a hardware throttle before it counts as over.
    pub(crate) throttle_quiet_s: u64,
    disabled: Vec<&'static str>,
}

impl Config {
    /// # Errors
    /// Which key is wrong, what was expected and what was found.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut json = Json::parse(text)?;
        let hysteresis_c = json.number("hysteresis_c", 0..=30, 3)?;
        let config = Self {
            hysteresis_c: i64::try_from(hysteresis_c).unwrap_or_default(),
            throttle_quiet_s: json.number("throttle_quiet_s", 1..=3600, 10)?,
            disabled: json.words("disabled", &OPTIONAL)?,
        };
        json.finish()?;
        Ok(config)
    }

    pub(crate) fn judges(&self, condition: &str) -> bool {
        !self.disabled.contains(&condition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_text_means_the_defaults() {
        let config = Config::parse("").unwrap();
        assert_eq!((config.hysteresis_c, config.throttle_quiet_s), (3, 10));
        assert!(OPTIONAL.iter().all(|condition| config.judges(condition)));
        let config = Config::parse(r#"{"disabled":["ClockThrottle"]}"#).unwrap();
        assert!(!config.judges(throttle::CONDITION) && config.judges(ecc::CONDITION));
    }

    #[test]
    fn errors_name_the_key() {
        for (text, part) in [
            (r#"{"hysteresis":3}"#, "hysteresis: unknown key"),
            (
                r#"{"hysteresis_c":-3}"#,
                "hysteresis_c: expected a whole number from 0 to 30, found -3",
            ),
            (
                r#"{"throttle_quiet_s":0}"#,
                "throttle_quiet_s: expected a whole number from 1 to 3600",
            ),
            (
                r#"{"disabled":["GpuLost"]}"#,
                "disabled: expected a list of Temperature",
            ),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
