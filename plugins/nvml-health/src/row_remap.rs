//! Row remapping: a pending remap is done by the next reset; one that failed says that the spare
//! rows are used up.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, action, clear, reading, subscribe};

use crate::news::{NOT_JUDGED, News};

pub(crate) const CONDITION: &str = "RowRemap";
const KEYS: [&str; 2] = [reading::ROW_REMAP_PENDING, reading::ROW_REMAP_FAILURE];

pub(crate) fn declare(info: Info) -> Info {
    KEYS.into_iter()
        .fold(
            info.owns(
                CONDITION,
                true,
                &["NonePending", "RemapPending", "RemapFailed", NOT_JUDGED],
            ),
            |info, key| info.subscribe(subscribe::reading(key, 0)),
        )
        .readings(&KEYS)
}

pub(crate) fn judge(news: &mut News<'_>) {
    if !news.is_about(&KEYS) {
        return;
    }
    let (pending, failure) = (
        news.int(reading::ROW_REMAP_PENDING),
        news.int(reading::ROW_REMAP_FAILURE),
    );
    if failure.is_some_and(|flag| flag != 0) {
        let failed = news
            .problem(CONDITION, Severity::Fatal, "RemapFailed")
            .action(action::CONTACT_SUPPORT)
            .message("A memory row could not be remapped, its spare rows are used up: the GPU qualifies for replacement.")
            .clears(&[clear::POLICY, clear::REPLACEMENT, clear::OPERATOR]);
        news.say(failed);
    } else if pending.is_some_and(|flag| flag != 0) {
        let waiting = news
            .problem(CONDITION, Severity::Warning, "RemapPending")
            .action(action::COMPONENT_RESET)
            .message("A memory row waits to be remapped: let what runs finish, then reset the GPU.")
            .clears(&[
                clear::POLICY,
                clear::GPU_RESET,
                clear::NODE_REBOOT,
                clear::REPLACEMENT,
                clear::OPERATOR,
            ]);
        news.say(waiting);
    } else if pending.is_some() || failure.is_some() {
        news.ok(
            CONDITION,
            "NonePending",
            "No row waits to be remapped, none failed.",
        );
    }
}
