//! The policy's configuration: JSON, empty for the vendor's profile.
//!
//! `{"ignored": [43], "extra_fatal": [13], "overrides": {"45": {"severity": "warning", "action": "CONTACT_SUPPORT"}}}`

use std::collections::{BTreeMap, BTreeSet};

use device_policy_sdk::config::Config as Json;
use device_policy_sdk::types::Severity;
use device_policy_sdk::words;

use crate::finding::Action;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Config {
    /// XIDs of which the policy says nothing. The host's floor still holds.
    pub ignored: BTreeSet<u64>,
    /// XIDs that make a GPU unhealthy here, whatever the vendor says.
    pub extra_fatal: BTreeSet<u64>,
    pub overrides: BTreeMap<u64, Override>,
}

/// What is left out stays as the vendor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Override {
    pub severity: Option<Severity>,
    pub action: Option<Action>,
}

impl Config {
    /// # Errors
    /// Which key is wrong, what was expected and what was found.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut json = Json::parse(text)?;
        let ignored: BTreeSet<u64> = json.codes("ignored")?.into_iter().collect();
        let extra_fatal: BTreeSet<u64> = json.codes("extra_fatal")?.into_iter().collect();
        let mut overrides = BTreeMap::new();
        for (code, mut inner) in json.by_code("overrides")? {
            overrides.insert(code, Override::parse(&mut inner)?);
            inner.finish()?;
        }
        json.finish()?;
        if let Some(code) = ignored
            .iter()
            .find(|code| extra_fatal.contains(code) || overrides.contains_key(code))
        {
            return Err(format!(
                "config: ignored: {code} is also in extra_fatal or overrides; say one of them"
            ));
        }
        if let Some(code) = extra_fatal.iter().find(|code| overrides.contains_key(code)) {
            return Err(format!(
                "config: extra_fatal: {code} is also in overrides; say one of them"
            ));
        }
        Ok(Self {
            ignored,
            extra_fatal,
            overrides,
        })
    }
}

impl Override {
    fn parse(json: &mut Json) -> Result<Self, String> {
        let severity =
            json.word("severity", &["info", "warning", "fatal"])?
                .map(|word| match word {
                    "info" => Severity::Info,
                    "warning" => Severity::Warning,
                    _ => Severity::Fatal,
                });
        let action = json
            .word("action", &words::action::ALL)?
            .and_then(Action::from_word);
        Ok(Self { severity, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_text_is_the_vendors_profile() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn everything_can_be_said() {
        let config = Config::parse(
            r#"{"ignored":[43],"extra_fatal":[13,31],"overrides":{"45":{"severity":"warning","action":"CONTACT_SUPPORT"}}}"#,
        )
        .unwrap();
        assert!(config.ignored.contains(&43) && config.extra_fatal.contains(&31));
        let expected = Override {
            severity: Some(Severity::Warning),
            action: Some(Action::ContactSupport),
        };
        assert_eq!(config.overrides.get(&45), Some(&expected));
    }

    #[test]
    fn errors_name_the_key() {
        for (text, part) in [
            (r#"{"ignore":[43]}"#, "ignore: unknown key"),
            (
                r#"{"ignored":["43"]}"#,
                "ignored: expected a list of numbers",
            ),
            (
                r#"{"ignored":[-1]}"#,
                "ignored: expected a list of numbers like [43, 63], found -1",
            ),
            (
                r#"{"overrides":{"43":{"severity":"bad"}}}"#,
                "overrides.43.severity: expected one of info",
            ),
            (
                r#"{"overrides":{"43":{"action":"RESET"}}}"#,
                "overrides.43.action: expected one of NONE",
            ),
            (
                r#"{"overrides":{"43":{"because":1}}}"#,
                "overrides.43.because: unknown key",
            ),
            (
                r#"{"overrides":{"x43":{}}}"#,
                "overrides.x43: the key must be a code",
            ),
            (
                r#"{"ignored":[43],"extra_fatal":[43]}"#,
                "ignored: 43 is also in",
            ),
            (
                r#"{"extra_fatal":[43],"overrides":{"43":{}}}"#,
                "extra_fatal: 43 is also in",
            ),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
