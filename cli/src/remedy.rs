//! What to do about a problem: the words of docs/actions.md and docs/clears.md in a sentence, and what to run.

use crate::text::shell_word;

/// As it stands it does nothing, since there is no such node: who puts the name there has thought of the drain,
/// and where it fails nothing is rebooted.
const DRAIN_AND_REBOOT: &str = "kubectl drain NODE --ignore-daemonsets && systemctl reboot";

/// What an action means, and the command that does it where there is one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Remedy {
    pub(crate) says: &'static str,
    pub(crate) command: Option<String>,
}

/// `pci`: the address of the GPU, where it is known.
pub(crate) fn of_action(action: &str, pci: &str) -> Remedy {
    let remedy = |says, command: &str| Remedy {
        says,
        command: Some(command.to_owned()).filter(|command| !command.is_empty()),
    };
    match action {
        "" | "NONE" => remedy(
            "nothing to the GPU; restart the application if it failed",
            "",
        ),
        "COMPONENT_RESET" => Remedy {
            says: "drain the GPU and reset it",
            command: Some(reset(pci)),
        },
        "RESTART_VM" => remedy("drain the VM and restart it", DRAIN_AND_REBOOT),
        "RESTART_BM" => remedy("drain the machine and reboot it", DRAIN_AND_REBOOT),
        "RUN_DCGMEUD" => remedy(
            "drain the GPU and run DCGM's end-user diagnostics",
            "dcgmi diag -r eud",
        ),
        "RUN_FIELDDIAG" => remedy(
            "drain the machine and run the vendor's field diagnostics, which the vendor's support hands out",
            "",
        ),
        "CONTACT_SUPPORT" => remedy(
            "no known remedy: ask the vendor, with the evidence",
            "nvidia-bug-report.sh",
        ),
        "REPLACE_VM" => remedy("give the machine back and take another", ""),
        _ => remedy(
            "an action that this devicectl does not know; see docs/actions.md",
            "",
        ),
    }
}

/// A reset needs a GPU that nobody has open; the daemon has, and lets go of it for that long.
fn reset(pci: &str) -> String {
    // Without an address it would be all GPUs.
    let gpu = if pci.is_empty() {
        "GPU".to_owned()
    } else {
        shell_word(pci)
    };
    format!(
        "devicectl nvml release --for reset --ttl 10m && nvidia-smi --gpu-reset -i {gpu}; devicectl nvml attach"
    )
}

/// When it clears.
pub(crate) fn of_clear(word: &str) -> &'static str {
    match word {
        "gpu-reset" => "once the GPU was reset",
        "driver-rebind" => "once the driver was unbound and bound again",
        "node-reboot" => "once the machine was rebooted",
        "replacement" => "once another GPU is in the slot",
        "recovery-none" => "once the driver asks for no recovery action any more",
        "quiet" => "by itself, when it has not been seen for that long",
        "policy" => "when its policy says so",
        "operator" => "by hand",
        _ => "as docs/clears.md says",
    }
}

/// Whether a condition of the host's own is an operator's to clear.
pub(crate) fn is_clearable_by_hand(condition: &str) -> bool {
    matches!(condition, "FaultFloor" | "PolicyFallback")
}

/// Why the host itself holds a condition, and where to look.
pub(crate) fn of_host(condition: &str) -> (&'static str, Option<&'static str>) {
    let policies = Some("devicectl policy list");
    match condition {
        "FaultFloor" => (
            "the host's floor: a fault that no policy may talk away",
            None,
        ),
        "PolicyFallback" => ("the host's fallback: no policy has judged it", policies),
        "PolicyReady" => ("the host: a policy is not asked, or fails", policies),
        "Probing" => ("the host: it is being looked which GPU it was", None),
        _ => ("the host", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_and_clear_that_is_documented_is_known() {
        let row = |line: &'static str| {
            line.strip_prefix("| `")?
                .split_once('`')
                .map(|(word, _)| word)
        };
        let unknown = of_action("SOMETHING_ELSE", "").says;
        let actions: Vec<_> = include_str!("../../docs/actions.md")
            .lines()
            .filter_map(row)
            .collect();
        assert!(actions.len() >= 8, "{actions:?}");
        for action in actions {
            assert_ne!(of_action(action, "").says, unknown, "{action}");
        }
        let clears: Vec<_> = include_str!("../../docs/clears.md")
            .lines()
            .filter_map(row)
            .collect();
        assert!(clears.len() >= 8, "{clears:?}");
        for clear in clears {
            assert_ne!(of_clear(clear), of_clear("something-else"), "{clear}");
        }
    }

    #[test]
    fn a_reset_names_its_gpu() {
        let command = |pci| of_action("COMPONENT_RESET", pci).command;
        assert_eq!(
            command("0000:a1:00.0").as_deref(),
            Some(
                "devicectl nvml release --for reset --ttl 10m && nvidia-smi --gpu-reset -i 0000:a1:00.0; devicectl nvml attach"
            )
        );
        assert_eq!(
            command("0; reboot").as_deref(),
            Some(
                "devicectl nvml release --for reset --ttl 10m && nvidia-smi --gpu-reset -i '0; reboot'; devicectl nvml attach"
            )
        );
        assert_eq!(
            command("").as_deref(),
            Some(
                "devicectl nvml release --for reset --ttl 10m && nvidia-smi --gpu-reset -i GPU; devicectl nvml attach"
            )
        );
    }
}
