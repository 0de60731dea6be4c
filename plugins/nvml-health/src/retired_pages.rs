//! Retired pages, on boards that remap no rows (before Ampere): a page that waits is retired by the next reset;
//! of those that are, a board has room for so many.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, action, clear, reading, subscribe};

use crate::news::{NOT_JUDGED, News};

pub(crate) const CONDITION: &str = "RetiredPages";
const KEYS: [&str; 3] = [
    reading::RETIRED_PAGES_CORRECTED,
    reading::RETIRED_PAGES_UNCORRECTED,
    reading::RETIRED_PAGES_PENDING,
];

pub(crate) fn declare(info: Info) -> Info {
    KEYS.into_iter()
        .fold(
            info.owns(
                CONDITION,
                true,
                &[
                    "BelowLimit",
                    "RetirementPending",
                    "LimitReached",
                    NOT_JUDGED,
                ],
            ),
            |info, key| info.subscribe(subscribe::reading(key, 0)),
        )
        .readings(&KEYS)
}

/// `max`: so many, for whichever cause, and the board is used up.
pub(crate) fn judge(news: &mut News<'_>, max: i64) {
    if !news.is_about(&KEYS) {
        return;
    }
    let [corrected, uncorrected, pending] = KEYS.map(|key| news.int(key));
    let retired = match (corrected, uncorrected) {
        (None, None) => None,
        (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
    };
    if retired.is_some_and(|retired| retired >= max) {
        let full = news
            .problem(CONDITION, Severity::Fatal, "LimitReached")
            .action(action::RUN_FIELDDIAG)
            .message(format!(
                "{max} memory pages or more are retired, after which the board is to be replaced: run the field \
                 diagnostic, and hand its result in."
            ))
            .clears(&[clear::POLICY, clear::REPLACEMENT, clear::OPERATOR]);
        news.say(full);
    } else if pending.is_some_and(|flag| flag != 0) {
        let waiting = news
            .problem(CONDITION, Severity::Warning, "RetirementPending")
            .action(action::COMPONENT_RESET)
            .message("A memory page waits to be retired: let what runs finish, then reset the GPU.")
            .clears(&[
                clear::POLICY,
                clear::GPU_RESET,
                clear::NODE_REBOOT,
                clear::REPLACEMENT,
                clear::OPERATOR,
            ]);
        news.say(waiting);
    } else if retired.is_some() || pending.is_some() {
        news.ok(
            CONDITION,
            "BelowLimit",
            &format!("No page waits to be retired; fewer than {max} are."),
        );
    }
}
