//! Row remapping: a pending remap is done by the next reset; one that failed says that the spare
//! rows are used up.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, action, clear, reading, subscribe};

use crate::faults::{self, Fault, Judged, Told};
use crate::news::{NOT_JUDGED, News};

pub(crate) const CONDITION: &str = "RowRemap";
const FAILED: &str = "RemapFailed";
const PENDING: &str = "RemapPending";
const KEYS: [&str; 2] = [reading::ROW_REMAP_PENDING, reading::ROW_REMAP_FAILURE];

pub(crate) fn declare(info: Info) -> Info {
    KEYS.into_iter()
        .fold(
            info.owns(
                CONDITION,
                true,
                &["NonePending", PENDING, FAILED, NOT_JUDGED],
            ),
            |info, key| info.subscribe(subscribe::reading(key, 0)),
        )
        .readings(&KEYS)
}

/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>) -> Result<(), String> {
    if !news.is_about(&KEYS) {
        return Ok(());
    }
    let told = |news: &News<'_>, key, words: &str| {
        Told::when(news.int(key).map(|flag| flag != 0), || words.to_owned())
    };
    let failure = told(
        news,
        reading::ROW_REMAP_FAILURE,
        "A memory row could not be remapped, its spare rows are used up: the GPU qualifies for replacement.",
    );
    let pending = told(
        news,
        reading::ROW_REMAP_PENDING,
        "A memory row waits to be remapped: let what runs finish, then reset the GPU.",
    );
    let faults = [
        Fault::new(FAILED, (Severity::Fatal, action::CONTACT_SUPPORT), failure),
        Fault::new(
            PENDING,
            (Severity::Warning, action::COMPONENT_RESET),
            pending,
        ),
    ];
    match faults::judge(news, CONDITION, false, &faults)? {
        Judged::Wrong(wrong) => news.worst(CONDITION, &wrong, |reason| match reason {
            FAILED => &[clear::POLICY, clear::REPLACEMENT, clear::OPERATOR],
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
            "NonePending",
            "No row waits to be remapped, none failed.",
        ),
        Judged::Unknown => {}
    }
    Ok(())
}
