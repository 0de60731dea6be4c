//! Clocks held down by the hardware. Idle clocks and the software's power cap are normal and not
//! judged. A throttle comes and goes with the load, so it counts as over only after it has been
//! away for a while: the wake that was set when it went.

use device_policy_sdk::types::Severity;
use device_policy_sdk::verdict::timer_name;
use device_policy_sdk::{HostExt as _, Info, clear, reading, subscribe};

use crate::news::News;

pub(crate) const CONDITION: &str = "ClockThrottle";
const WAKE: &str = "throttle-over";

/// State: since when the hardware has let go, while the condition still stands.
const FREE_SINCE: &str = "throttle/free-since-ms";

/// The bits that are judged, in the order in which they name the reason (nvml.h,
/// `nvmlClocksEventReason…`).
const BITS: [(i64, &str, &str); 3] = [
    (
        0x80,
        "HardwarePowerBrake",
        "the power brake: check the power supply",
    ),
    (
        0x40,
        "HardwareThermalSlowdown",
        "the hardware's thermal slowdown: check cooling",
    ),
    (
        0x8,
        "HardwareSlowdown",
        "the hardware's slowdown: check power and cooling",
    ),
];

pub(crate) fn declare(info: Info) -> Info {
    let [(_, brake, _), (_, thermal, _), (_, slowdown, _)] = BITS;
    info.owns(CONDITION, true, &["NotThrottled", brake, thermal, slowdown])
        .readings(&[reading::CLOCKS_THROTTLE_REASONS])
        .subscribe(subscribe::reading(reading::CLOCKS_THROTTLE_REASONS, 0))
}

/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>, quiet_s: u64) -> Result<(), String> {
    let is_wake = timer_name(news.signal) == Some(WAKE);
    if !is_wake && !news.is_about(&[reading::CLOCKS_THROTTLE_REASONS]) {
        return Ok(());
    }
    let Some(mask) = news.int(reading::CLOCKS_THROTTLE_REASONS) else {
        return Ok(());
    };
    let held: Vec<_> = BITS.iter().filter(|(bit, ..)| mask & bit != 0).collect();
    match held.first() {
        Some((_, reason, _)) => {
            let by: Vec<&str> = held.iter().map(|(_, _, what)| *what).collect();
            held_down(news, reason, &by.join("; by "));
            Ok(())
        }
        None => free(news, quiet_s.saturating_mul(1000), is_wake),
    }
}

fn held_down(news: &mut News<'_>, reason: &str, by: &str) {
    if news.host.get(FREE_SINCE).is_some() {
        news.host.delete(FREE_SINCE);
        news.wake(WAKE, 0);
    }
    let throttled = news
        .problem(CONDITION, Severity::Warning, reason)
        .message(format!("Clocks are held down by {by}."))
        .clears(&[clear::POLICY, clear::OPERATOR]);
    news.say(throttled);
}

/// Other bits change all the time while the wait runs; they do not put its end off.
fn free(news: &mut News<'_>, quiet_ms: u64, is_wake: bool) -> Result<(), String> {
    if news.stands(CONDITION) && !is_wake {
        if news.host.get(FREE_SINCE).is_none() {
            news.host.put_display(FREE_SINCE, news.signal.at_ms)?;
            news.wake(WAKE, quiet_ms);
        }
        return Ok(());
    }
    news.host.delete(FREE_SINCE);
    news.ok(
        CONDITION,
        "NotThrottled",
        "The hardware does not hold the clocks down.",
    );
    Ok(())
}
