//! The PCIe link against what board and slot can do. It is as wide as it was trained, whatever the load; its
//! generation falls when the GPU idles, so only under load does a low one tell. How long it must be so is the
//! site's to say: a link that trains again is back within it.

use device_policy_sdk::types::{Attr, Severity, Subscription, Value};
use device_policy_sdk::{Info, action, attr, clear, kind, reading, subscribe};

use crate::news::{NOT_JUDGED, News};
use crate::wait::{Now, Wait};

pub(crate) const CONDITION: &str = "PcieLink";
const WAKE: &str = "pcie-link";
const NARROW: &str = "LinkWidthReduced";
const SLOW: &str = "LinkGenerationReduced";

const KEYS: [&str; 5] = [
    reading::PCIE_LINK_WIDTH,
    reading::PCIE_LINK_WIDTH_MAX,
    reading::PCIE_LINK_GENERATION,
    reading::PCIE_LINK_GENERATION_MAX,
    reading::UTILIZATION_GPU,
];

/// A GPU that serves requests goes to and from idle all the time; so often is enough to notice a slow link.
const LOAD_INTERVAL_MS: i64 = 5_000;

pub(crate) fn declare(info: Info) -> Info {
    let info = info
        .owns(CONDITION, true, &["FullLink", NARROW, SLOW, NOT_JUDGED])
        .readings(&KEYS)
        .subscribe(load());
    KEYS.into_iter()
        .filter(|key| *key != reading::UTILIZATION_GPU)
        .fold(info, |info, key| info.subscribe(subscribe::reading(key, 0)))
}

/// From idle to load, and back.
fn load() -> Subscription {
    let above = Attr {
        key: "above".to_owned(),
        value: Value::Int(0),
    };
    Subscription {
        kind: kind::READING.to_owned(),
        where_: vec![
            attr::of_text("key", reading::UTILIZATION_GPU),
            above,
            attr::of_int("min-interval-ms", LOAD_INTERVAL_MS),
        ],
    }
}

/// Lanes or generation: now, and at most.
fn pair(news: &News<'_>, now: &str, max: &str) -> Option<(i64, i64)> {
    Some((news.int(now)?, news.int(max)?))
}

/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>, settle_s: u64) -> Result<(), String> {
    if !news.woke(WAKE) && !news.is_about(&KEYS) {
        return Ok(());
    }
    let width = pair(news, reading::PCIE_LINK_WIDTH, reading::PCIE_LINK_WIDTH_MAX);
    let generation = pair(
        news,
        reading::PCIE_LINK_GENERATION,
        reading::PCIE_LINK_GENERATION_MAX,
    );
    if width.is_none() && generation.is_none() {
        return Ok(());
    }
    let is_less = |(now, max): &(i64, i64)| now < max;
    let narrow = width.filter(is_less);
    let is_loaded = news
        .int(reading::UTILIZATION_GPU)
        .is_some_and(|percent| percent > 0);
    // What was slow under load is not over because the load is.
    let was_slow = news.standing_reason(CONDITION) == Some(SLOW);
    let slow = generation.filter(is_less).filter(|_| is_loaded || was_slow);
    let wait = Wait {
        condition: CONDITION,
        name: WAKE,
        begin_s: settle_s,
        end_s: settle_s,
    };
    match wait.judge(news, narrow.is_some() || slow.is_some())? {
        Now::Problem => problem(news, narrow, slow),
        Now::Ok => news.ok(
            CONDITION,
            "FullLink",
            "No PCIe link below what board and slot can do.",
        ),
        Now::Waits => {}
    }
    Ok(())
}

fn problem(news: &mut News<'_>, narrow: Option<(i64, i64)>, slow: Option<(i64, i64)>) {
    let lanes = narrow.map(|(now, max)| format!("has {now} of {max} lanes"));
    let generation =
        slow.map(|(now, max)| format!("runs at generation {now} of {max}, under load"));
    let what: Vec<String> = lanes.into_iter().chain(generation).collect();
    let reason = if narrow.is_some() { NARROW } else { SLOW };
    let reduced = news
        .problem(CONDITION, Severity::Warning, reason)
        .action(action::CONTACT_SUPPORT)
        .message(format!(
            "The PCIe link {}: check slot, riser and cables; the link is trained anew at a reset or reboot.",
            what.join(", and ")
        ))
        .clears(&[
            clear::POLICY,
            clear::GPU_RESET,
            clear::NODE_REBOOT,
            clear::REPLACEMENT,
            clear::OPERATOR,
        ]);
    news.say(reduced);
}
