//! The power limit that is in force. An operator may lower it within the board's range, which is no fault; below
//! the range only something else holds it down: the chassis, or a power supply that is missing.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, clear, reading, subscribe};

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
pub(crate) fn judge(news: &mut News<'_>, site_w: Option<i64>) {
    if !news.is_about(&KEYS) {
        return;
    }
    let Some(now) = news.int(reading::POWER_LIMIT) else {
        return;
    };
    let board = news.int(reading::POWER_LIMIT_MIN);
    let site = site_w.map(|watts| watts.saturating_mul(MW_PER_W));
    let limits = [
        (
            board,
            "BelowBoardRange",
            "the least that this board can be set to; the chassis or its power supply holds it down: check them",
        ),
        (
            site,
            "BelowSiteLimit",
            "the least that this site wants: find out who lowered it",
        ),
    ];
    let below = limits.iter().find_map(|(limit, reason, what)| {
        Some((limit.filter(|limit| now < *limit)?, reason, what))
    });
    if let Some((limit, reason, what)) = below {
        let low = news
            .problem(CONDITION, Severity::Warning, reason)
            .message(format!(
                "The power limit in force is {} W, below {} W, {what}.",
                now / MW_PER_W,
                limit / MW_PER_W
            ))
            .clears(&[clear::POLICY, clear::OPERATOR]);
        news.say(low);
    } else if board.is_some() || site.is_some() {
        news.ok(
            CONDITION,
            "WithinRange",
            "The power limit in force is not below what is expected.",
        );
    }
}
