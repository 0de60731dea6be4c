//! The PCIe link against what board and slot can do. It is as wide as it was trained, whatever the load; its
//! generation falls when the GPU idles, so only under load does a low one tell. How long it must be so is the
//! site's to say: a link that trains again is back within it.

use device_policy_sdk::types::{Attr, Severity, Subscription, Value};
use device_policy_sdk::{Info, action, attr, clear, kind, reading, subscribe};

use crate::faults::{self, Fault, Judged, Told, Wrong};
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

fn narrow(news: &News<'_>) -> Told {
    match pair(news, reading::PCIE_LINK_WIDTH, reading::PCIE_LINK_WIDTH_MAX) {
        None => Told::Absent,
        Some((now, max)) if now < max => Told::Wrong(format!("has {now} of {max} lanes")),
        Some(_) => Told::Fine,
    }
}

fn slow(news: &News<'_>) -> Told {
    let generation = pair(
        news,
        reading::PCIE_LINK_GENERATION,
        reading::PCIE_LINK_GENERATION_MAX,
    );
    match (generation, news.int(reading::UTILIZATION_GPU)) {
        (None, _) => Told::Absent,
        (Some((now, max)), _) if now >= max => Told::Fine,
        (Some((now, max)), Some(percent)) if percent > 0 => {
            Told::Wrong(format!("runs at generation {now} of {max}, under load"))
        }
        // What was slow under load is not over because the load is; one that has not been so for long may be.
        (Some(_), Some(_)) if !news.stands(CONDITION) => Told::Fine,
        (Some(_), _) => Told::Absent,
    }
}

/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>, settle_s: u64) -> Result<(), String> {
    if !news.woke(WAKE) && !news.is_about(&KEYS) {
        return Ok(());
    }
    let wait = Wait {
        condition: CONDITION,
        name: WAKE,
        begin_s: settle_s,
        end_s: settle_s,
    };
    let how = (Severity::Warning, action::CONTACT_SUPPORT);
    let faults = [
        Fault::new(NARROW, how, narrow(news)),
        Fault::new(SLOW, how, slow(news)),
    ];
    let judged = faults::judge(news, CONDITION, wait.begins(news), &faults)?;
    let wrong = match judged {
        Judged::Wrong(wrong) => wrong,
        Judged::Fine => Vec::new(),
        Judged::Unknown => {
            wait.put_off(news);
            return Ok(());
        }
    };
    match wait.judge(news, !wrong.is_empty())? {
        Now::Problem => problem(news, &wrong),
        Now::Ok => news.ok(
            CONDITION,
            "FullLink",
            "No PCIe link below what board and slot can do.",
        ),
        Now::Waits => {}
    }
    Ok(())
}

fn problem(news: &mut News<'_>, wrong: &[Wrong]) {
    let Some(worst) = wrong.first() else { return };
    let what: Vec<&str> = wrong.iter().map(|wrong| wrong.words.as_str()).collect();
    let reduced = news
        .problem(CONDITION, worst.severity, worst.reason)
        .action(worst.action)
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
