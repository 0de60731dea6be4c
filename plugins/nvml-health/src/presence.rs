//! Whether the GPU answers at all: `GpuLost`; and whether NVML tells of it: `NvmlReachable`, its counterpart that
//! other node agents know (True is healthy).
//!
//! That a call hangs, or that the driver is gone, says nothing of the GPU: nobody knows, which is no problem of
//! its own. A driver that an operator has let go of is no reason to doubt what was known a moment ago.

use device_policy_sdk::clear::On;
use device_policy_sdk::types::Severity;
use device_policy_sdk::verdict::quote;
use device_policy_sdk::{Info, action, clear, kind, reading, subscribe};

use crate::news::News;

pub(crate) const LOST: &str = "GpuLost";
pub(crate) const READY: &str = "NvmlReachable";

const CLEARS: [On; 4] = [
    clear::POLICY,
    clear::NODE_REBOOT,
    clear::REPLACEMENT,
    clear::OPERATOR,
];

/// `nvml.state`: it answers with errors only.
const ERRORS: i64 = 4;

pub(crate) fn declare(info: Info) -> Info {
    info.owns(LOST, true, &["NoAnswer", "Answers"])
        .owns(
            READY,
            false,
            &[
                "NoAnswer",
                "Answers",
                "CallHangs",
                "Released",
                "DriverGone",
                "Errors",
                "NotTold",
            ],
        )
        .readings(&[
            reading::NVML_STATE,
            reading::NVML_HUNG_CALL,
            reading::NVML_ERROR,
        ])
        .subscribe(subscribe::reading(reading::NVML_STATE, 0))
}

pub(crate) fn judge(news: &mut News<'_>) {
    // One that gives errors only is found once it answers: it may be the one that was lost.
    if news.is(kind::GPU_FOUND) && news.int(reading::NVML_STATE) != Some(ERRORS) {
        news.ok(LOST, "Answers", "The GPU answers.");
    }
    if news.is(kind::GPU_LOST) {
        lost(news);
    }
    let is_state = news.read_key() == Some(reading::NVML_STATE);
    if (is_state || news.is(kind::GPU_FOUND)) && !news.stands(LOST) {
        // A host that does not tell has found it, and so it answers.
        reached(news, news.int(reading::NVML_STATE).unwrap_or(0));
    }
}

fn lost(news: &mut News<'_>) {
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
        .clears(&CLEARS);
    news.say(lost);
    let silent = news
        .problem(READY, Severity::Warning, "NoAnswer")
        .message("NVML can tell nothing of this GPU: it does not answer.")
        .clears(&CLEARS);
    news.say(silent);
}

/// `state`: as docs/readings.md has it.
fn reached(news: &mut News<'_>, state: i64) {
    let said = match state {
        0 => {
            news.ok(READY, "Answers", "NVML answers for this GPU.");
            return;
        }
        1 => {
            let call = match news.text(reading::NVML_HUNG_CALL) {
                call if call.is_empty() => "a call".to_owned(),
                call => call,
            };
            news.unknown(READY, "CallHangs").message(format!(
                "Nobody knows how this GPU is: {call} does not return. It is asked again when it has."
            ))
        }
        2 => news
            .problem(READY, Severity::Info, "Released")
            .message("The driver is let go of, as an operator asked: the last readings stay.")
            .clears(&[clear::POLICY]),
        3 => news.unknown(READY, "DriverGone").message(
            "Nobody knows how this GPU is: its driver, or the driver's library, is gone. It is looked for.",
        ),
        ERRORS => {
            let error = match quote(&news.text(reading::NVML_ERROR)) {
                error if error.is_empty() => String::new(),
                error => format!(" ({error})"),
            };
            news.unknown(READY, "Errors").message(format!(
                "Nobody knows how this GPU is: NVML answers with errors only{error}. It is asked on."
            ))
        }
        more => news
            .unknown(READY, "NotTold")
            .message(format!("Nobody knows how this GPU is: NVML's state is {more}.")),
    };
    news.say(said);
}
