//! Whether the GPU answers at all: `GpuLost`, and `NvmlReachable`, its counterpart that other node
//! agents know (True is healthy).

use device_policy_sdk::types::Severity;
use device_policy_sdk::verdict::quote;
use device_policy_sdk::{Info, action, clear, kind};

use crate::news::News;

pub(crate) const LOST: &str = "GpuLost";
pub(crate) const READY: &str = "NvmlReachable";

pub(crate) fn declare(info: Info) -> Info {
    info.owns(LOST, true, &["NoAnswer", "Answers"])
        .owns(READY, false, &["NoAnswer", "Answers"])
}

pub(crate) fn judge(news: &mut News<'_>) {
    if news.is(kind::GPU_FOUND) {
        news.ok(LOST, "Answers", "The GPU answers.");
        news.ok(READY, "Answers", "NVML answers for this GPU.");
    }
    if news.is(kind::GPU_LOST) {
        let evidence = match quote(&news.signal.evidence) {
            quoted if quoted.is_empty() => String::new(),
            quoted => format!(" Evidence: \"{quoted}\""),
        };
        let lost = news
            .problem(LOST, Severity::Fatal, "NoAnswer")
            .action(action::RESTART_BM)
            .message(format!(
                "The GPU no longer answers: reboot the node, unless it comes back.{evidence}"
            ))
            .clears(&[
                clear::POLICY,
                clear::NODE_REBOOT,
                clear::REPLACEMENT,
                clear::OPERATOR,
            ]);
        news.say(lost);
        let silent = news
            .problem(READY, Severity::Warning, "NoAnswer")
            .message("NVML can tell nothing of this GPU: it does not answer.")
            .clears(&[
                clear::POLICY,
                clear::NODE_REBOOT,
                clear::REPLACEMENT,
                clear::OPERATOR,
            ]);
        news.say(silent);
    }
}
