//! Clocks that are held down. Idle clocks and the software's power cap are normal and not judged. That the
//! software slows down for heat is worth knowing, and no fault of the GPU's. A throttle comes and goes with the
//! load, so it counts as over only after it has been away for a while.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, clear, reading, subscribe};

use crate::news::{NOT_JUDGED, News};
use crate::wait::{Now, Wait};

pub(crate) const CONDITION: &str = "ClockThrottle";
const WAKE: &str = "throttle-over";
const KEYS: [&str; 1] = [reading::CLOCKS_THROTTLE_REASONS];

/// The bits that are judged, in the order in which they name the reason (nvml.h,
/// `nvmlClocksEventReason…`).
const BITS: [(i64, Severity, &str, &str); 4] = [
    (
        0x80,
        Severity::Warning,
        "HardwarePowerBrake",
        "the power brake: check the power supply",
    ),
    (
        0x40,
        Severity::Warning,
        "HardwareThermalSlowdown",
        "the hardware's thermal slowdown: check cooling",
    ),
    (
        0x8,
        Severity::Warning,
        "HardwareSlowdown",
        "the hardware's slowdown: check power and cooling",
    ),
    (
        0x20,
        Severity::Info,
        "SoftwareThermalSlowdown",
        "the driver, to stay below the temperature at which the hardware would: look at cooling",
    ),
];

pub(crate) fn declare(info: Info) -> Info {
    let [
        (_, _, brake, _),
        (_, _, thermal, _),
        (_, _, slowdown, _),
        (_, _, software, _),
    ] = BITS;
    info.owns(
        CONDITION,
        true,
        &[
            "NotThrottled",
            brake,
            thermal,
            slowdown,
            software,
            NOT_JUDGED,
        ],
    )
    .readings(&KEYS)
    .subscribe(subscribe::reading(reading::CLOCKS_THROTTLE_REASONS, 0))
}

/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>, quiet_s: u64) -> Result<(), String> {
    if !news.woke(WAKE) && !news.is_about(&KEYS) {
        return Ok(());
    }
    let wait = Wait {
        condition: CONDITION,
        name: WAKE,
        begin_s: 0,
        end_s: quiet_s,
    };
    let Some(mask) = news.int(reading::CLOCKS_THROTTLE_REASONS) else {
        wait.put_off(news);
        return Ok(());
    };
    let held: Vec<_> = BITS.iter().filter(|(bit, ..)| mask & bit != 0).collect();
    match (wait.judge(news, !held.is_empty())?, held.first()) {
        (Now::Problem, Some((_, severity, reason, _))) => {
            let by: Vec<&str> = held.iter().map(|(.., what)| *what).collect();
            let throttled = news
                .problem(CONDITION, *severity, reason)
                .message(format!("Clocks are held down by {}.", by.join("; by ")))
                .clears(&[clear::POLICY, clear::OPERATOR]);
            news.say(throttled);
        }
        (Now::Ok, _) => news.ok(
            CONDITION,
            "NotThrottled",
            "Nothing judged holds the clocks down.",
        ),
        (Now::Waits | Now::Problem, _) => {}
    }
    Ok(())
}
