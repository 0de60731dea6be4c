//! What to do about a problem: the words of docs/actions.md and docs/clears.md in a sentence, and what to run.

use crate::text::shell_word;

/// As it stands it does nothing, since there is no such node: who puts the name there has thought of the drain,
/// and where it fails nothing is rebooted.
const DRAIN_AND_REBOOT: &str = "kubectl drain NODE --ignore-daemonsets && systemctl reboot";

/// A GPU as commands name it; a MIG instance is what it is part of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// In the API.
    pub(crate) name: String,
    /// Its address; empty where that is not known.
    pub(crate) pci: String,
}

/// What an action means, and the command that does it where there is one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Remedy {
    pub(crate) says: &'static str,
    pub(crate) command: Option<String>,
}

pub(crate) fn of_action(action: &str, gpu: &Named) -> Remedy {
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
            command: Some(reset(gpu)),
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

/// What is to be done about a GPU that is not in the machine any more.
pub(crate) const OF_GONE: &str =
    "it is not in the machine any more; if it is not to come back, delete its entry";

/// The same, with the command.
pub(crate) fn of_gone(gpu: &Named) -> Remedy {
    Remedy {
        says: OF_GONE,
        command: Some(format!("devicectl gpu delete {}", shell_word(&gpu.name))),
    }
}

/// A reset needs a GPU that nobody has open; the daemon has, and lets go of it for that long. One that went well is
/// reported, as most show in nothing that NVML tells, and before NVML tells of what comes after it.
fn reset(gpu: &Named) -> String {
    // Without an address it would be all GPUs.
    let at = if gpu.pci.is_empty() {
        "GPU".to_owned()
    } else {
        shell_word(&gpu.pci)
    };
    let report = report_reset(gpu, "nvidia-smi --gpu-reset");
    format!(
        "devicectl nvml release --for reset --ttl 10m && nvidia-smi --gpu-reset -i {at} && {report}; devicectl nvml attach"
    )
}

/// Tells the daemon of a reset; `reason`: how it is known.
pub(crate) fn report_reset(gpu: &Named, reason: &str) -> String {
    let (name, reason) = (shell_word(&gpu.name), shell_word(reason));
    format!("devicectl gpu report-reset {name} --reason {reason}")
}

/// When what clears with a reset does; `is_shown`: by something that stands against the GPU and that a reset changes.
pub(crate) fn of_reset(is_shown: bool) -> &'static str {
    if is_shown {
        "once the GPU was reset, which NVML will show"
    } else {
        "once the GPU was reset; NVML may not show it here: report it"
    }
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

/// When it is known again how it is; `None`: by its owner's word, whoever that is.
pub(crate) fn of_unknown(condition: &str, reason: &str) -> Option<&'static str> {
    Some(match (condition, reason) {
        ("NvmlReachable", "CallHangs") => {
            "by itself, once the call has returned; where it never does, the machine needs a reboot"
        }
        ("NvmlReachable", "DriverGone") => "by itself, once the driver is loaded and NVML answers",
        ("NvmlReachable", "Errors") => {
            "by itself, once NVML tells anything of it but errors; where it never does, reset the GPU"
        }
        ("Probing", "Restarted") => "by itself, once NVML finds it, or a provider speaks of it",
        ("Probing", _) => "by itself, once it answers, or it is known that it is the one",
        ("Gone", _) => "by itself, once it is in the machine again",
        _ => return None,
    })
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
        "Gone" => ("the host: NVML shows another GPU in its slot", None),
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
        let unknown = of_action("SOMETHING_ELSE", &Named::default()).says;
        let actions: Vec<_> = include_str!("../../docs/actions.md")
            .lines()
            .filter_map(row)
            .collect();
        assert!(actions.len() >= 8, "{actions:?}");
        for action in actions {
            assert_ne!(
                of_action(action, &Named::default()).says,
                unknown,
                "{action}"
            );
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
    fn a_reset_names_its_gpu_and_is_reported() {
        #[track_caller]
        fn check(pci: &str, at: &str) {
            let gpu = Named {
                name: "GPU-1".to_owned(),
                pci: pci.to_owned(),
            };
            let expected = format!(
                "devicectl nvml release --for reset --ttl 10m && nvidia-smi --gpu-reset -i {at} && devicectl gpu \
                 report-reset GPU-1 --reason 'nvidia-smi --gpu-reset'; devicectl nvml attach"
            );
            let command = of_action("COMPONENT_RESET", &gpu).command;
            assert_eq!(command.as_deref(), Some(&*expected));
        }
        check("0000:a1:00.0", "0000:a1:00.0");
        check("0; reboot", "'0; reboot'");
        check("", "GPU");
    }
}
