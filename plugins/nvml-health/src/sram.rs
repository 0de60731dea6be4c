//! Uncorrected SRAM errors beyond the vendor's own threshold, which the driver compares: no other reading tells
//! it.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, action, clear, reading, subscribe};

use crate::news::{NOT_JUDGED, News};

pub(crate) const CONDITION: &str = "SramErrors";
const KEYS: [&str; 1] = [reading::ECC_SRAM_THRESHOLD_EXCEEDED];

pub(crate) fn declare(info: Info) -> Info {
    info.owns(
        CONDITION,
        true,
        &["BelowThreshold", "ThresholdExceeded", NOT_JUDGED],
    )
    .readings(&KEYS)
    .subscribe(subscribe::reading(reading::ECC_SRAM_THRESHOLD_EXCEEDED, 0))
}

pub(crate) fn judge(news: &mut News<'_>) {
    if !news.is_about(&KEYS) {
        return;
    }
    match news.int(reading::ECC_SRAM_THRESHOLD_EXCEEDED) {
        Some(0) => news.ok(
            CONDITION,
            "BelowThreshold",
            "Uncorrected SRAM errors are below the vendor's threshold.",
        ),
        Some(_) => {
            let worn = news
                .problem(CONDITION, Severity::Warning, "ThresholdExceeded")
                .action(action::CONTACT_SUPPORT)
                .message(
                    "Uncorrected SRAM errors have passed the vendor's threshold: the GPU qualifies for replacement.",
                )
                .clears(&[clear::POLICY, clear::REPLACEMENT, clear::OPERATOR]);
            news.say(worn);
        }
        None => {}
    }
}
