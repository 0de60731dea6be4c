//! The policy's configuration: JSON, empty for the defaults. docs/nvml-health.md tells it to operators,
//! docs/schemas/nvml-health.schema.json to editors.
//!
//! `{"throttle_quiet_s": 30, "disabled": ["PcieLink"], "rates": {"ecc.volatile.corrected": {"count": 100}}}`

use std::collections::BTreeMap;

use device_policy_sdk::config::Config as Json;
use device_policy_sdk::types::Severity;
use device_policy_sdk::{action, reading, words};

use crate::rates::{self, Rate};
use crate::{
    ecc, fabric, nvlink, pcie, power, retired_pages, row_remap, sram, temperature, throttle,
};

/// Conditions that a node may do without. The loss of a GPU, and NVML's, are none of them.
pub(crate) const OPTIONAL: [&str; 14] = [
    temperature::CONDITION,
    temperature::MEMORY,
    throttle::CONDITION,
    power::CONDITION,
    ecc::CONDITION,
    rates::ECC,
    sram::CONDITION,
    row_remap::CONDITION,
    retired_pages::CONDITION,
    pcie::CONDITION,
    rates::PCIE,
    nvlink::CONDITION,
    rates::NVLINK,
    fabric::CONDITION,
];

/// Every key, for whoever misspelt one.
const KEYS: &str = "disabled, hysteresis_c, temperature_max_c, memory_temperature_max_c, throttle_quiet_s, \
                    power_limit_min_w, retired_pages_max, pcie_settle_s, nvlink_settle_s, fabric_settle_s, rates";
const RATE_KEYS: &str = "count, within_s, quiet_s, severity, action";

const DAY_S: u64 = 24 * 3600;
/// A window or a quiet time: as long as the host keeps a timer.
const WITHIN_S_MAX: u64 = 30 * DAY_S;
/// The coldest that a site may call too hot, and the hottest that a sensor reads.
const CELSIUS: std::ops::RangeInclusive<u64> = 30..=150;
/// More than any board draws.
const WATTS_MAX: u64 = 10_000;
const COUNT_MAX: u64 = 1_000_000_000;

/// DCGM's limit (`DCGM_LIMIT_MAX_RETIRED_PAGES`), which is that of the vendor's field diagnostic.
const RETIRED_PAGES_MAX: u64 = 63;
/// DCGM's: more than 8 replays a minute (`DCGM_LIMIT_MAX_PCIREPLAY_RATE`, "the maximum recommended by RM").
const REPLAYS: i64 = 9;
/// DCGM's: CRC errors "only matter at rates of 100+ per second" (`DCGM_LIMIT_MAX_NVLINK_CRC_ERROR`); over a minute,
/// as they are read every few seconds.
const CRC_ERRORS: i64 = 6000;
const MINUTE_S: u64 = 60;
/// How long without before a rate is over: as long as an incident stays open.
const RATE_QUIET_S: u64 = 600;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    disabled: Vec<&'static str>,
    /// How far below the threshold a hot GPU must cool, in degrees Celsius.
    pub(crate) hysteresis_c: i64,
    /// The site's own, besides the device's.
    pub(crate) temperature_max_c: Option<i64>,
    pub(crate) memory_temperature_max_c: Option<i64>,
    /// How long clocks must be free of a throttle before it counts as over.
    pub(crate) throttle_quiet_s: u64,
    pub(crate) power_limit_min_w: Option<i64>,
    pub(crate) retired_pages_max: i64,
    /// How long a PCIe link must be reduced, and full again.
    pub(crate) pcie_settle_s: u64,
    /// How long NVLinks may take to train, and must be up again.
    pub(crate) nvlink_settle_s: u64,
    /// How long registration with the fabric may take.
    pub(crate) fabric_settle_s: u64,
    /// By reading.
    pub(crate) rates: BTreeMap<&'static str, Rate>,
}

impl Config {
    /// # Errors
    /// Which key is wrong, what was expected and what was found.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut json = Json::parse(text)?;
        let mut config = Self {
            disabled: json.words("disabled", &OPTIONAL)?,
            hysteresis_c: signed(json.number("hysteresis_c", 0..=30, 3)?),
            temperature_max_c: json.number_given("temperature_max_c", CELSIUS)?.map(signed),
            memory_temperature_max_c: json
                .number_given("memory_temperature_max_c", CELSIUS)?
                .map(signed),
            throttle_quiet_s: json.number("throttle_quiet_s", 1..=3600, 10)?,
            power_limit_min_w: json
                .number_given("power_limit_min_w", 1..=WATTS_MAX)?
                .map(signed),
            retired_pages_max: signed(json.number(
                "retired_pages_max",
                1..=64,
                RETIRED_PAGES_MAX,
            )?),
            pcie_settle_s: json.number("pcie_settle_s", 1..=3600, 10)?,
            nvlink_settle_s: json.number("nvlink_settle_s", 1..=3600, 30)?,
            fabric_settle_s: json.number("fabric_settle_s", 1..=3600, 300)?,
            rates: defaults(),
        };
        for (key, mut inner) in json.by_word("rates", &rates::keys())? {
            match rate(&mut inner)? {
                Some(rate) => config.rates.insert(key, rate),
                None => config.rates.remove(key),
            };
            finish(inner, RATE_KEYS)?;
        }
        finish(json, KEYS)?;
        Ok(config)
    }

    pub(crate) fn judges(&self, condition: &str) -> bool {
        !self.disabled.contains(&condition)
    }
}

fn defaults() -> BTreeMap<&'static str, Rate> {
    let rate = |count| Rate {
        count,
        within_s: MINUTE_S,
        quiet_s: RATE_QUIET_S,
        severity: Severity::Warning,
        action: action::RUN_FIELDDIAG,
    };
    BTreeMap::from([
        (reading::PCIE_REPLAYS, rate(REPLAYS)),
        (reading::NVLINK_CRC_FLIT_ERRORS, rate(CRC_ERRORS)),
        (reading::NVLINK_CRC_DATA_ERRORS, rate(CRC_ERRORS)),
    ])
}

/// `None`: a count of 0, which turns a default off.
fn rate(json: &mut Json) -> Result<Option<Rate>, String> {
    let count = json.number_needed("count", 0..=COUNT_MAX)?;
    let within_s = json.number("within_s", 1..=WITHIN_S_MAX, MINUTE_S)?;
    let quiet_s = json.number("quiet_s", 1..=WITHIN_S_MAX, RATE_QUIET_S)?;
    let severity = match json.word("severity", &["info", "warning", "fatal"])? {
        Some("info") => Severity::Info,
        Some("fatal") => Severity::Fatal,
        Some(_) | None => Severity::Warning,
    };
    let action = json
        .word("action", &words::action::ALL)?
        .unwrap_or(action::RUN_FIELDDIAG);
    let rate = Rate {
        count: signed(count),
        within_s,
        quiet_s,
        severity,
        action,
    };
    Ok((count > 0).then_some(rate))
}

/// All ranges are far below where this would saturate.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn finish(json: Json, keys: &str) -> Result<(), String> {
    json.finish().map_err(|why| {
        format!("{why}; the keys here are {keys} (the end of a name is its unit: _s seconds, _c degrees Celsius, _w watts)")
    })
}

#[cfg(test)]
mod tests;
