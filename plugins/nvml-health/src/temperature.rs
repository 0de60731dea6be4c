//! Temperatures against the device's own thresholds, and the site's. Hot begins at a threshold and ends a few
//! degrees below it, so that a GPU on the edge does not flap.
//!
//! Blackwell tells of no thresholds, but of the margin that is left until the hardware slows down.

use device_policy_sdk::types::{Attr, Severity, Subscription};
use device_policy_sdk::{Info, action, attr, clear, kind, reading};

use crate::config::Config;
use crate::faults::{self, Fault, Judged, Told};
use crate::news::{NOT_JUDGED, News};

pub(crate) const CONDITION: &str = "Temperature";
pub(crate) const MEMORY: &str = "MemoryTemperature";

const DIE_KEYS: [&str; 2] = [reading::TEMPERATURE_GPU, reading::TEMPERATURE_MARGIN];
const MEMORY_KEYS: [&str; 1] = [reading::TEMPERATURE_MEMORY];

/// What each is judged against, where the device tells it.
const THRESHOLDS: [(&str, &str); 3] = [
    (reading::TEMPERATURE_GPU, reading::TEMPERATURE_SLOWDOWN),
    (reading::TEMPERATURE_GPU, reading::TEMPERATURE_SHUTDOWN),
    (reading::TEMPERATURE_MEMORY, reading::TEMPERATURE_MEMORY_MAX),
];

pub(crate) fn declare(info: Info, config: &Config) -> Info {
    let info = info
        .owns(
            CONDITION,
            true,
            &[
                "WithinLimits",
                "NearShutdown",
                "Slowdown",
                "AboveSiteLimit",
                NOT_JUDGED,
            ],
        )
        .owns(
            MEMORY,
            true,
            &["WithinLimits", "Slowdown", "AboveSiteLimit", NOT_JUDGED],
        )
        .readings(&THRESHOLDS.map(|(_, threshold)| threshold))
        .readings(&DIE_KEYS)
        .readings(&MEMORY_KEYS);
    let sites = [
        (reading::TEMPERATURE_GPU, config.temperature_max_c),
        (reading::TEMPERATURE_MEMORY, config.memory_temperature_max_c),
    ];
    let hysteresis = config.hysteresis_c;
    let devices = THRESHOLDS.map(|(key, threshold)| {
        let from = attr::of_text("relative-to", threshold);
        crossing(key, Some(from), (0, -hysteresis))
    });
    let sites = sites.into_iter().filter_map(|(key, limit)| {
        limit.map(|limit| crossing(key, None, (limit, limit - hysteresis)))
    });
    let margin = crossing(reading::TEMPERATURE_MARGIN, None, (hysteresis, 0));
    devices
        .into_iter()
        .chain(sites)
        .chain([margin])
        .fold(info, Info::subscribe)
}

/// Where heat begins and where it ends, and nothing else: a GPU under load moves by a degree all the time, and what
/// is between these two is no news.
fn crossing(key: &str, from: Option<Attr>, (below, above): (i64, i64)) -> Subscription {
    let narrowed = [
        attr::of_text("key", key),
        attr::of_int("below", below),
        attr::of_int("above", above),
    ];
    Subscription {
        kind: kind::READING.to_owned(),
        where_: narrowed.into_iter().chain(from).collect(),
    }
}

/// One threshold, and how far a reading is beyond it.
struct Limit {
    /// Its place in the state.
    name: &'static str,
    reason: &'static str,
    how: (Severity, &'static str),
    /// Degrees; 0 and above: reached. `None`: one of the two can't be had.
    over: Option<i64>,
    reached: String,
    below: String,
}

/// # Errors
/// The host's state quota.
pub(crate) fn judge_die(news: &mut News<'_>, config: &Config) -> Result<(), String> {
    if !news.is_about(&DIE_KEYS) {
        return Ok(());
    }
    let now = news.int(reading::TEMPERATURE_GPU);
    let mut limits = vec![
        Limit {
            name: "NearShutdown",
            reason: "NearShutdown",
            how: (Severity::Fatal, action::CONTACT_SUPPORT),
            ..slowdown(now, news.int(reading::TEMPERATURE_SHUTDOWN), |limit| {
                format!("The GPU has reached {limit} °C, where it shuts itself down")
            })
        },
        slowdown(now, news.int(reading::TEMPERATURE_SLOWDOWN), |limit| {
            format!("The GPU has reached {limit} °C, where the hardware slows it down")
        }),
    ];
    if news.lacks(reading::TEMPERATURE_SLOWDOWN) {
        let margin = news.int(reading::TEMPERATURE_MARGIN);
        limits.push(Limit {
            name: "NoMargin",
            below: "where the hardware slows it down".to_owned(),
            ..slowdown(margin.map(i64::saturating_neg), Some(0), |_| {
                "The GPU has no margin left, and the hardware slows it down".to_owned()
            })
        });
    }
    limits.extend(site(now, config.temperature_max_c, "GPU"));
    say(news, CONDITION, &limits, config.hysteresis_c)
}

/// # Errors
/// The host's state quota.
pub(crate) fn judge_memory(news: &mut News<'_>, config: &Config) -> Result<(), String> {
    if !news.is_about(&MEMORY_KEYS) {
        return Ok(());
    }
    let now = news.int(reading::TEMPERATURE_MEMORY);
    let limit = news.int(reading::TEMPERATURE_MEMORY_MAX);
    let mut limits = vec![slowdown(now, limit, |limit| {
        format!("The memory has reached {limit} °C, where the GPU is slowed down for it")
    })];
    limits.extend(site(now, config.memory_temperature_max_c, "memory"));
    say(news, MEMORY, &limits, config.hysteresis_c)
}

fn slowdown(now: Option<i64>, limit: Option<i64>, reached: impl Fn(i64) -> String) -> Limit {
    let both = now.zip(limit);
    Limit {
        name: "Slowdown",
        reason: "Slowdown",
        how: (Severity::Warning, action::NONE),
        over: both.map(|(now, limit)| now.saturating_sub(limit)),
        reached: limit.map(reached).unwrap_or_default(),
        below: limit.map(|limit| format!("{limit} °C")).unwrap_or_default(),
    }
}

fn site(now: Option<i64>, limit: Option<i64>, what: &str) -> Option<Limit> {
    limit.map(|limit| Limit {
        name: "AboveSiteLimit",
        reason: "AboveSiteLimit",
        ..slowdown(now, Some(limit), |limit| {
            format!("The {what} has reached {limit} °C, this site's limit")
        })
    })
}

/// `limits`: the worst first.
///
/// # Errors
/// The host's state quota.
fn say(
    news: &mut News<'_>,
    condition: &str,
    limits: &[Limit],
    hysteresis: i64,
) -> Result<(), String> {
    let told = |limit: &Limit| {
        let is_hot = |over: i64| {
            let stood = faults::stood(news, condition, (limit.name, limit.reason));
            over >= 0 || (stood && over.saturating_add(hysteresis) > 0)
        };
        Told::when(limit.over.map(is_hot), || {
            format!(
                "{}: check cooling. It is over {hysteresis} °C below.",
                limit.reached
            )
        })
    };
    let fault = |limit: &Limit| Fault::new(limit.reason, limit.how, told(limit)).named(limit.name);
    let faults: Vec<Fault> = limits.iter().map(fault).collect();
    match faults::judge(news, condition, false, &faults)? {
        Judged::Wrong(wrong) => {
            news.worst(condition, &wrong, |_| &[clear::POLICY, clear::OPERATOR]);
        }
        Judged::Fine => {
            let told = limits.iter().filter_map(|limit| Some((limit.over?, limit)));
            if let Some((_, nearest)) = told.max_by_key(|(over, _)| *over) {
                news.ok(
                    condition,
                    "WithinLimits",
                    &format!("Below {}.", nearest.below),
                );
            }
        }
        Judged::Unknown => {}
    }
    Ok(())
}
