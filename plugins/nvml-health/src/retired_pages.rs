//! Retired pages, on boards that remap no rows (before Ampere): a page that waits is retired by the next reset;
//! of those that are, a board has room for so many.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, action, clear, reading, subscribe};

use crate::faults::{self, Fault, Judged, Told};
use crate::news::{NOT_JUDGED, News};

pub(crate) const CONDITION: &str = "RetiredPages";
const FULL: &str = "LimitReached";
const PENDING: &str = "RetirementPending";
const KEYS: [&str; 3] = [
    reading::RETIRED_PAGES_CORRECTED,
    reading::RETIRED_PAGES_UNCORRECTED,
    reading::RETIRED_PAGES_PENDING,
];

pub(crate) fn declare(info: Info) -> Info {
    KEYS.into_iter()
        .fold(
            info.owns(CONDITION, true, &["BelowLimit", PENDING, FULL, NOT_JUDGED]),
            |info, key| info.subscribe(subscribe::reading(key, 0)),
        )
        .readings(&KEYS)
}

/// `max`: so many, for whichever cause, and the board is used up.
///
/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>, max: i64) -> Result<(), String> {
    if !news.is_about(&KEYS) {
        return Ok(());
    }
    let [corrected, uncorrected, pending] = KEYS.map(|key| news.int(key));
    let is_full = match (corrected, uncorrected) {
        (Some(one), Some(other)) => Some(one.saturating_add(other) >= max),
        // Of the whole nobody knows, unless one is too many already.
        (one, other) => one.or(other).filter(|part| *part >= max).map(|_| true),
    };
    let full = Told::when(is_full, || {
        format!(
            "{max} memory pages or more are retired, after which the board is to be replaced: run the field \
             diagnostic, and hand its result in."
        )
    });
    let waiting = Told::when(pending.map(|flag| flag != 0), || {
        "A memory page waits to be retired: let what runs finish, then reset the GPU.".to_owned()
    });
    let faults = [
        Fault::new(FULL, (Severity::Fatal, action::RUN_FIELDDIAG), full),
        Fault::new(
            PENDING,
            (Severity::Warning, action::COMPONENT_RESET),
            waiting,
        ),
    ];
    match faults::judge(news, CONDITION, false, &faults)? {
        Judged::Wrong(wrong) => news.worst(CONDITION, &wrong, |reason| match reason {
            FULL => &[clear::POLICY, clear::REPLACEMENT, clear::OPERATOR],
            _ => &[
                clear::POLICY,
                clear::GPU_RESET,
                clear::NODE_REBOOT,
                clear::REPLACEMENT,
                clear::OPERATOR,
            ],
        }),
        Judged::Fine => news.ok(
            CONDITION,
            "BelowLimit",
            &format!("No page waits to be retired; fewer than {max} are."),
        ),
        Judged::Unknown => {}
    }
    Ok(())
}
