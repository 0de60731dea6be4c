//! SXids: errors of an NVSwitch. The driver's text says whether one is fatal; up to three lines
//! tell of one event, and only the first says so in words.

use device_policy_sdk::types::{Severity, Signal};

use crate::finding::{Action, Finding, Reason, Until};

/// `None`: a line of detail that says nothing of how bad it is.
pub(crate) fn judge(signal: &Signal) -> Option<Finding> {
    let text = signal.evidence.to_ascii_lowercase();
    let fatal =
        if text.contains("non-fatal") || text.contains("nonfatal") || text.contains("severity 0") {
            false
        } else if text.contains("fatal") || text.contains("severity 1") {
            true
        } else if text.contains("data {") {
            return None;
        } else {
            let note = "an NVSwitch error whose text does not say how bad it is: contact support";
            return Some(Finding::support(Reason::NvSwitchUnclear, note));
        };
    Some(if fatal {
        Finding {
            severity: Severity::Fatal,
            action: Action::ContactSupport,
            reason: Reason::NvSwitchFatal,
            until: Until::Reset,
            note:
                "fatal for the NVSwitch: the GPUs on its fabric can't work together until GPUs and \
                   switches are reset; if it comes again, contact support"
                    .into(),
        }
    } else {
        let note = "not fatal for the NVSwitch: the fabric goes on, the GPU stays healthy";
        Finding::healthy(Reason::NvSwitchNonFatal, note)
    })
}
