//! The die's temperature against the device's own thresholds. Hot begins at the slowdown threshold
//! and ends a few degrees below it, so that a GPU on the edge does not flap.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, action, clear, reading, subscribe};

use crate::news::News;

pub(crate) const CONDITION: &str = "Temperature";

/// Changes up to this many degrees are not worth a signal: less than the hysteresis, and a GPU
/// under load moves by one all the time.
const DEADBAND_C: i64 = 1;

pub(crate) fn declare(info: Info) -> Info {
    info.owns(
        CONDITION,
        true,
        &["WithinLimits", "Slowdown", "NearShutdown"],
    )
    .readings(&[
        reading::TEMPERATURE_GPU,
        reading::TEMPERATURE_SLOWDOWN,
        reading::TEMPERATURE_SHUTDOWN,
    ])
    .subscribe(subscribe::reading(reading::TEMPERATURE_GPU, DEADBAND_C))
}

pub(crate) fn judge(news: &mut News<'_>, hysteresis_c: i64) {
    if !news.is_about(&[reading::TEMPERATURE_GPU]) {
        return;
    }
    let Some(now) = news.int(reading::TEMPERATURE_GPU) else {
        return;
    };
    let slowdown = news.int(reading::TEMPERATURE_SLOWDOWN);
    let shutdown = news.int(reading::TEMPERATURE_SHUTDOWN);
    let clears = [clear::POLICY, clear::OPERATOR];
    if let Some(limit) = shutdown.filter(|limit| now >= *limit) {
        let hot = news
            .problem(CONDITION, Severity::Fatal, "NearShutdown")
            .action(action::CONTACT_SUPPORT)
            .message(format!(
                "The GPU is at or above {limit} °C, where it shuts itself down: check cooling."
            ))
            .clears(&clears);
        news.say(hot);
        return;
    }
    let Some(limit) = slowdown.or(shutdown) else {
        return;
    };
    let ends_at = limit.saturating_sub(hysteresis_c);
    let is_hot = slowdown.is_some() && now >= limit;
    if is_hot || (news.stands(CONDITION) && now > ends_at) {
        let hot = news
            .problem(CONDITION, Severity::Warning, "Slowdown")
            .message(format!(
                "The GPU has reached {limit} °C, where the hardware slows it down: check cooling. \
                 It is over at {ends_at} °C."
            ))
            .clears(&clears);
        news.say(hot);
    } else {
        news.ok(CONDITION, "WithinLimits", &format!("Below {limit} °C."));
    }
}
