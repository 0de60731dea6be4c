//! The driver's recovery action: field 230 through NVML, XID 154's text in the kernel log. One fact
//! with one condition; the newest word of it is the truth.

use device_policy_sdk::types::{Severity, Signal, Verdict};
use device_policy_sdk::verdict::{self, quote};
use device_policy_sdk::{Host, HostExt as _, attr, clear, reading};

use crate::finding::{Action, RECOVERY, Reason};

const CLEARS: &[clear::On] = &[
    clear::RECOVERY_NONE,
    clear::GPU_RESET,
    clear::NODE_REBOOT,
    clear::OPERATOR,
];

/// The verdict on an XID 154 or a `recovery-action` signal.
pub(crate) fn judge(host: &dyn Host, signal: &Signal) -> Verdict {
    let told = told(signal).or_else(|| sampled(host, signal));
    of(told, signal)
}

/// The verdict from the reading of a device that was just found; `None` where it does not tell.
pub(crate) fn on_found(host: &dyn Host, signal: &Signal) -> Option<Verdict> {
    host.int(reading::RECOVERY_ACTION)
        .map(|action| of(Some(action), signal))
}

fn of(action: Option<i64>, signal: &Signal) -> Verdict {
    use Severity::{Fatal, Warning};
    let (severity, recommended, reason, note) = match action {
        Some(0) => {
            let ok = verdict::ok(RECOVERY, Reason::NoRecoveryAction.word(), signal);
            return ok.message("The driver asks for no recovery action.").into();
        }
        Some(1) => (
            Fatal,
            Action::ComponentReset,
            Reason::GpuResetRequired,
            "a GPU reset".to_owned(),
        ),
        Some(2) => (
            Fatal,
            Action::RestartBm,
            Reason::NodeRebootRequired,
            "a reboot of the node".to_owned(),
        ),
        Some(3) => {
            let note =
                "a drain of peer-to-peer (NVLink) work: let what runs finish, place nothing new"
                    .to_owned();
            (Warning, Action::None, Reason::DrainPeerToPeer, note)
        }
        Some(4) => {
            let note =
                "a drain and a reset: let what runs finish, place nothing new, then reset the GPU"
                    .to_owned();
            (Warning, Action::ComponentReset, Reason::DrainAndReset, note)
        }
        Some(other) => {
            let note = format!("a recovery action that this policy does not know ({other})");
            (
                Warning,
                Action::ContactSupport,
                Reason::UnknownRecoveryAction,
                note,
            )
        }
        None => {
            let note = "a recovery action, but not which; see nvidia-smi -q, GPU Recovery Action"
                .to_owned();
            (
                Warning,
                Action::ContactSupport,
                Reason::UnknownRecoveryAction,
                note,
            )
        }
    };
    let evidence = match quote(&signal.evidence) {
        quoted if quoted.is_empty() => String::new(),
        quoted => format!(" Evidence: \"{quoted}\""),
    };
    verdict::problem(RECOVERY, severity, reason.word(), signal)
        .action(recommended.word())
        .message(format!("The driver asks for {note}.{evidence}"))
        .clears(CLEARS)
        .into()
}

/// What the signal itself says: an attribute, else `… to 0x1 (GPU Reset Required)`.
fn told(signal: &Signal) -> Option<i64> {
    if let Some(action) = attr::int(&signal.attrs, "action") {
        return Some(action);
    }
    if let Some(action) = attr::text(&signal.attrs, "action").and_then(word) {
        return Some(action);
    }
    let (_, target) = signal.evidence.rsplit_once(" to ")?;
    let number = target
        .split_whitespace()
        .next()?
        .trim_end_matches([',', '.']);
    word(number).or_else(|| word(target))
}

/// A number, hexadecimal or not, or the driver's and our words.
fn word(text: &str) -> Option<i64> {
    let plain: String = text
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase();
    match plain.as_str() {
        "none" => Some(0),
        "gpureset" | "gpuresetrequired" => Some(1),
        "nodereboot" | "noderebootrequired" => Some(2),
        "drainp2p" => Some(3),
        "drainandreset" => Some(4),
        digits => match digits.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        },
    }
}

/// The reading that travels along: where it asks for something it holds, where it says none it
/// must not be older than the signal.
fn sampled(host: &dyn Host, signal: &Signal) -> Option<i64> {
    let action = host.int(reading::RECOVERY_ACTION)?;
    let at_ms = host.reading(reading::RECOVERY_ACTION).ok()?.at_ms;
    (action != 0 || at_ms >= signal.at_ms).then_some(action)
}
