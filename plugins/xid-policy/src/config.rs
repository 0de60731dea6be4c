//! The policy's configuration: JSON, empty for the vendor's profile. docs/xid-policy.md tells it to operators,
//! docs/schemas/xid-policy.schema.json to editors.
//!
//! `{"profile": "eks", "ignored": [43], "windows": {"13": {"same": "gpc-tpc", "count": 3, "within_s": 86400}}}`

use std::collections::{BTreeMap, BTreeSet};

use device_policy_sdk::config::Config as Json;
use device_policy_sdk::types::Severity;
use device_policy_sdk::words;

use crate::finding::Action;
use crate::place::Same;
use crate::profile::Profile;
use crate::window::{COUNT_MAX, WINDOWS_MAX, Window};

/// Every key, for whoever misspelt one.
const KEYS: &str = "profile, ignored, extra_fatal, overrides, windows, quiet_s";
const OVERRIDE_KEYS: &str = "severity, action";
const WINDOW_KEYS: &str = "same, count, within_s, apart_s, quiet_s, severity, action";

const DAY_S: u64 = 24 * 3600;
/// The longest window: as long as the host keeps a timer.
const WITHIN_S_MAX: u64 = 30 * DAY_S;
const WITHIN_S_MIN: u64 = 60;
/// One fault is told in several lines, and by NVML and the kernel log, within seconds.
const APART_S: u64 = 60;
/// A quiet application's fault is forgotten after this: as long as an incident stays open.
const QUIET_S: u64 = 600;
const COUNT: u64 = 3;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub profile: Profile,
    /// XIDs of which the policy says nothing. The host's floor still holds.
    pub ignored: BTreeSet<u64>,
    /// XIDs that make a GPU unhealthy here, whatever the profile says.
    pub extra_fatal: BTreeSet<u64>,
    pub overrides: BTreeMap<u64, Override>,
    pub windows: BTreeMap<u64, Window>,
    /// How long an application's fault is remembered.
    pub quiet_ms: u64,
}

/// What is left out stays as the profile has it; only that a fault lowered to info asks for nothing.
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
        let profile = json
            .word("profile", &Profile::WORDS)?
            .and_then(Profile::from_word)
            .unwrap_or_default();
        let mut config = Self {
            profile,
            ignored: json.codes("ignored")?.into_iter().collect(),
            extra_fatal: json.codes("extra_fatal")?.into_iter().collect(),
            overrides: BTreeMap::new(),
            windows: workflows(profile),
            quiet_ms: json.number("quiet_s", 60..=7 * DAY_S, QUIET_S)? * 1000,
        };
        for (code, mut inner) in json.by_code("overrides")? {
            config.overrides.insert(code, Override::parse(&mut inner)?);
            finish(inner, OVERRIDE_KEYS)?;
        }
        let windows = json.by_code("windows")?;
        if windows.len() > WINDOWS_MAX {
            let given = windows.len();
            return Err(format!(
                "config: windows: {given} codes, at most {WINDOWS_MAX} are counted; leave the least needed out"
            ));
        }
        for (code, mut inner) in windows {
            match Window::parse(code, &mut inner)? {
                Some(window) => config.windows.insert(code, window),
                None => config.windows.remove(&code),
            };
            finish(inner, WINDOW_KEYS)?;
        }
        finish(json, KEYS)?;
        config.agrees()?;
        Ok(config)
    }

    /// One code, one word of it.
    fn agrees(&mut self) -> Result<(), String> {
        if let Some(code) = self
            .ignored
            .iter()
            .find(|code| self.extra_fatal.contains(code) || self.overrides.contains_key(code))
        {
            return Err(format!(
                "config: ignored: {code} is also in extra_fatal or overrides; say one of them"
            ));
        }
        if let Some(code) = self
            .extra_fatal
            .iter()
            .find(|code| self.overrides.contains_key(code))
        {
            return Err(format!(
                "config: extra_fatal: {code} is also in overrides; say one of them"
            ));
        }
        // Of an ignored code nothing is said, its repeats included.
        self.windows.retain(|code, _| !self.ignored.contains(code));
        Ok(())
    }
}

/// `WORKFLOW_XID_13` and `WORKFLOW_XID_31` of data/xid-resolution-guidance.csv: repeats at one place ask for
/// diagnostics, and change no health. How many and how long the vendor does not say: three in a day is ours.
fn workflows(profile: Profile) -> BTreeMap<u64, Window> {
    if profile != Profile::Vendor {
        return BTreeMap::new();
    }
    let window = |same| Window {
        same,
        count: usize::try_from(COUNT).unwrap_or(usize::MAX),
        within_ms: DAY_S * 1000,
        apart_ms: APART_S * 1000,
        quiet_ms: DAY_S * 1000,
        severity: Severity::Info,
        action: Action::RunDcgmEud,
    };
    BTreeMap::from([(13, window(Same::GpcTpc)), (31, window(Same::Gpu))])
}

fn finish(json: Json, keys: &str) -> Result<(), String> {
    json.finish()
        .map_err(|why| format!("{why}; the keys here are {keys}"))
}

fn severity(json: &mut Json) -> Result<Option<Severity>, String> {
    let word = json.word("severity", &["info", "warning", "fatal"])?;
    Ok(word.map(|word| match word {
        "info" => Severity::Info,
        "warning" => Severity::Warning,
        _ => Severity::Fatal,
    }))
}

fn action(json: &mut Json) -> Result<Option<Action>, String> {
    let word = json.word("action", &words::action::ALL)?;
    Ok(word.and_then(Action::from_word))
}

impl Override {
    fn parse(json: &mut Json) -> Result<Self, String> {
        Ok(Self {
            severity: severity(json)?,
            action: action(json)?,
        })
    }
}

impl Window {
    /// `None`: a count of 0, which turns the profile's own window off.
    fn parse(code: u64, json: &mut Json) -> Result<Option<Self>, String> {
        let same = json
            .word("same", &Same::WORDS)?
            .and_then(Same::from_word)
            .unwrap_or_default();
        let count = json.number("count", 0..=COUNT_MAX, COUNT)?;
        let within_s = json.number("within_s", WITHIN_S_MIN..=WITHIN_S_MAX, DAY_S)?;
        let apart_s = json.number("apart_s", 0..=DAY_S, APART_S)?;
        let quiet_s = json.number("quiet_s", 0..=WITHIN_S_MAX, within_s)?;
        if count > 1 && apart_s * (count - 1) >= within_s {
            return Err(format!(
                "config: windows.{code}: {count} faults at least apart_s {apart_s} apart take longer than within_s \
                 {within_s}, so that it never fills; lower apart_s or count"
            ));
        }
        let window = Self {
            same,
            count: usize::try_from(count).unwrap_or(usize::MAX),
            within_ms: within_s * 1000,
            apart_ms: apart_s * 1000,
            quiet_ms: quiet_s * 1000,
            severity: severity(json)?.unwrap_or(Severity::Warning),
            action: action(json)?.unwrap_or(Action::RunDcgmEud),
        };
        Ok((count > 0).then_some(window))
    }
}

#[cfg(test)]
mod tests;
