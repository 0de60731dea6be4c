//! Temperatures against the device's own thresholds, and the site's. Hot begins at a threshold and ends a few
//! degrees below it, so that a GPU on the edge does not flap.
//!
//! Blackwell tells of no thresholds, but of the margin that is left until the hardware slows down.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, action, clear, reading, subscribe};

use crate::config::Config;
use crate::news::{NOT_JUDGED, News};

pub(crate) const CONDITION: &str = "Temperature";
pub(crate) const MEMORY: &str = "MemoryTemperature";

/// Changes up to this many degrees are not worth a signal: less than the hysteresis, and a GPU
/// under load moves by one all the time.
const DEADBAND_C: i64 = 1;

const DIE_KEYS: [&str; 2] = [reading::TEMPERATURE_GPU, reading::TEMPERATURE_MARGIN];
const MEMORY_KEYS: [&str; 1] = [reading::TEMPERATURE_MEMORY];

pub(crate) fn declare(info: Info) -> Info {
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
        .readings(&[
            reading::TEMPERATURE_SLOWDOWN,
            reading::TEMPERATURE_SHUTDOWN,
            reading::TEMPERATURE_MEMORY_MAX,
        ])
        .readings(&DIE_KEYS)
        .readings(&MEMORY_KEYS);
    DIE_KEYS
        .into_iter()
        .chain(MEMORY_KEYS)
        .fold(info, |info, key| {
            info.subscribe(subscribe::reading(key, DEADBAND_C))
        })
}

/// One threshold, and how far a reading is beyond it.
struct Limit {
    reason: &'static str,
    severity: Severity,
    action: &'static str,
    /// Degrees; 0 and above: reached.
    over: i64,
    reached: String,
    below: String,
}

pub(crate) fn judge_die(news: &mut News<'_>, config: &Config) {
    if !news.is_about(&DIE_KEYS) {
        return;
    }
    let now = news.int(reading::TEMPERATURE_GPU);
    let against = |key: &str| Some((now?, news.int(key)?));
    let mut limits = Vec::new();
    if let Some((now, limit)) = against(reading::TEMPERATURE_SHUTDOWN) {
        limits.push(Limit {
            reason: "NearShutdown",
            severity: Severity::Fatal,
            action: action::CONTACT_SUPPORT,
            over: now.saturating_sub(limit),
            reached: format!("The GPU has reached {limit} °C, where it shuts itself down"),
            below: format!("{limit} °C"),
        });
    }
    if let Some((now, limit)) = against(reading::TEMPERATURE_SLOWDOWN) {
        limits.push(Limit {
            over: now.saturating_sub(limit),
            reached: format!("The GPU has reached {limit} °C, where the hardware slows it down"),
            below: format!("{limit} °C"),
            ..slowdown()
        });
    } else if let Some(margin) = news.int(reading::TEMPERATURE_MARGIN) {
        limits.push(Limit {
            over: margin.saturating_neg(),
            reached: "The GPU has no margin left, and the hardware slows it down".to_owned(),
            below: "where the hardware slows it down".to_owned(),
            ..slowdown()
        });
    }
    limits.extend(site(now, config.temperature_max_c, "GPU"));
    say(news, CONDITION, &limits, config.hysteresis_c);
}

pub(crate) fn judge_memory(news: &mut News<'_>, config: &Config) {
    if !news.is_about(&MEMORY_KEYS) {
        return;
    }
    let now = news.int(reading::TEMPERATURE_MEMORY);
    let limit = news.int(reading::TEMPERATURE_MEMORY_MAX);
    let mut limits = Vec::new();
    if let (Some(now), Some(limit)) = (now, limit) {
        limits.push(Limit {
            over: now.saturating_sub(limit),
            reached: format!(
                "The memory has reached {limit} °C, where the GPU is slowed down for it"
            ),
            below: format!("{limit} °C"),
            ..slowdown()
        });
    }
    limits.extend(site(now, config.memory_temperature_max_c, "memory"));
    say(news, MEMORY, &limits, config.hysteresis_c);
}

fn slowdown() -> Limit {
    Limit {
        reason: "Slowdown",
        severity: Severity::Warning,
        action: action::NONE,
        over: 0,
        reached: String::new(),
        below: String::new(),
    }
}

fn site(now: Option<i64>, limit: Option<i64>, what: &str) -> Option<Limit> {
    let (now, limit) = (now?, limit?);
    Some(Limit {
        reason: "AboveSiteLimit",
        over: now.saturating_sub(limit),
        reached: format!("The {what} has reached {limit} °C, this site's limit"),
        below: format!("{limit} °C"),
        ..slowdown()
    })
}

/// `limits`: the worst first. Without any nothing is said.
fn say(news: &mut News<'_>, condition: &str, limits: &[Limit], hysteresis: i64) {
    let of_reason = |reason: &str| limits.iter().position(|limit| limit.reason == reason);
    let standing = news
        .standing_reason(condition)
        .map(|reason| of_reason(reason).unwrap_or(0));
    let hot = limits.iter().enumerate().find(|(at, limit)| {
        let stood = standing.is_some_and(|standing| standing <= *at);
        limit.over >= 0 || (stood && limit.over.saturating_add(hysteresis) > 0)
    });
    if let Some((_, limit)) = hot {
        let hot = news
            .problem(condition, limit.severity, limit.reason)
            .action(limit.action)
            .message(format!(
                "{}: check cooling. It is over {hysteresis} °C below.",
                limit.reached
            ))
            .clears(&[clear::POLICY, clear::OPERATOR]);
        news.say(hot);
    } else if let Some(nearest) = limits.iter().max_by_key(|limit| limit.over) {
        news.ok(
            condition,
            "WithinLimits",
            &format!("Below {}.", nearest.below),
        );
    }
}
