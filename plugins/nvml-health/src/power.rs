//! The power limit that is in force. An operator may lower it within the board's range, which is no fault; below
//! the range only something else holds it down: the chassis, or a power supply that is missing.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, action, clear, reading, subscribe};

use crate::faults::{self, Fault, Judged, Told};
use crate::news::{NOT_JUDGED, News};

pub(crate) const CONDITION: &str = "PowerLimit";
const KEYS: [&str; 2] = [reading::POWER_LIMIT, reading::POWER_LIMIT_MIN];

const MW_PER_W: i64 = 1000;

pub(crate) fn declare(info: Info) -> Info {
    let info = info
        .owns(
            CONDITION,
            true,
            &[
                "WithinRange",
                "BelowBoardRange",
                "BelowSiteLimit",
                NOT_JUDGED,
            ],
        )
        .readings(&KEYS);
    KEYS.into_iter()
        .fold(info, |info, key| info.subscribe(subscribe::reading(key, 0)))
}

/// `site_w`: the least that this site wants, in watts.
///
/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>, site_w: Option<i64>) -> Result<(), String> {
    if !news.is_about(&KEYS) {
        return Ok(());
    }
    let now = news.int(reading::POWER_LIMIT);
    let below = |limit: Option<i64>, reason, what| {
        let both = now.zip(limit);
        let is_below = both.map(|(now, limit)| now < limit);
        let told = Told::when(is_below, || {
            let (now, limit) = both.unwrap_or_default();
            format!(
                "The power limit in force is {} W, below {} W, {what}.",
                now / MW_PER_W,
                limit / MW_PER_W
            )
        });
        Fault::new(reason, (Severity::Warning, action::NONE), told)
    };
    let mut faults = vec![below(
        news.int(reading::POWER_LIMIT_MIN),
        "BelowBoardRange",
        "the least that this board can be set to; the chassis or its power supply holds it down: check them",
    )];
    faults.extend(site_w.map(|watts| {
        below(
            Some(watts.saturating_mul(MW_PER_W)),
            "BelowSiteLimit",
            "the least that this site wants: find out who lowered it",
        )
    }));
    match faults::judge(news, CONDITION, false, &faults)? {
        Judged::Wrong(wrong) => {
            news.worst(CONDITION, &wrong, |_| &[clear::POLICY, clear::OPERATOR]);
        }
        Judged::Fine => news.ok(
            CONDITION,
            "WithinRange",
            "The power limit in force is not below what is expected.",
        ),
        Judged::Unknown => {}
    }
    Ok(())
}
