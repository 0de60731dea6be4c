//! SXids: errors of an NVSwitch, told of each GPU that they reach. The driver says whether one is fatal; up to three
//! lines tell of one event, and only the first says so in words.
//!
//! What follows is from the vendor's Fabric Manager User Guide ("NVSwitch SXid Errors"): one that is not fatal is
//! information, and work goes on. A fatal one at a port is passed on to the GPU there, whose work is aborted: that GPU
//! and those that it works with are reset. One between two baseboards takes a reset of all GPUs and NVSwitches. If it
//! persists, a reboot or a power cycle.

use device_policy_sdk::attr;
use device_policy_sdk::types::{Severity, Signal};

use crate::finding::{Action, Finding, Reason, Until};

const AT_A_PORT: &str = "fatal at a link of an NVSwitch: work on the GPU there is aborted; reset the GPU with those that \
                         it works with, and where the link joins two baseboards all GPUs and NVSwitches; if it comes \
                         again, reboot or power-cycle the node";
const OF_THE_SWITCH: &str = "fatal for an NVSwitch: work on the GPUs behind it is aborted; reset all GPUs and NVSwitches \
                             together; if it comes again, reboot or power-cycle the node";

/// `None`: a line of detail that says nothing of how bad it is.
pub(crate) fn judge(signal: &Signal) -> Option<Finding> {
    let text = signal.evidence.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let fatal = match attr::text(&signal.attrs, "severity") {
        Some("fatal") => true,
        Some("non-fatal") => false,
        // A host that leaves it to the text.
        _ if says(&["non-fatal", "nonfatal", "severity 0"]) => false,
        _ if says(&["fatal", "severity 1"]) => true,
        _ if says(&["data {"]) => return None,
        _ => {
            let note = "an NVSwitch error whose text does not say how bad it is: contact support";
            return Some(Finding::support(Reason::NvSwitchUnclear, note));
        }
    };
    if !fatal {
        let note = "not fatal for the NVSwitch: the fabric goes on, the GPU stays healthy";
        return Some(Finding::healthy(Reason::NvSwitchNonFatal, note));
    }
    let is_at_a_port = attr::int(&signal.attrs, "link").is_some() || says(&[", link "]);
    Some(Finding {
        severity: Severity::Fatal,
        action: Action::ComponentReset,
        reason: Reason::NvSwitchFatal,
        until: Until::Reset,
        note: if is_at_a_port {
            AT_A_PORT
        } else {
            OF_THE_SWITCH
        }
        .into(),
    })
}
