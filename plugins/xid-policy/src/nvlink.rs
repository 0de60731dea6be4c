//! XID 74: seven registers in the text, of which the first, third, fourth and fifth say something on
//! Hopper (`WORKFLOW_NVLINK_ERR` of data/xid-resolution-guidance.csv).
//!
//! `NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)`

use device_policy_sdk::types::Signal;

use crate::finding::{Finding, Reason};
use crate::nvlink5::hex;

/// What a set bit means. Descending by weight: the first that is found is the one said.
#[derive(Clone, Copy, Debug)]
struct Bits {
    register: usize,
    bits: &'static [u32],
    note: &'static str,
}

const ECC: &str = "an ECC or parity error of the link, likely hardware";

const TELLING: &[Bits] = &[
    Bits {
        register: 0,
        bits: &[4, 5],
        note: ECC,
    },
    Bits {
        register: 2,
        bits: &[0, 1, 2, 6],
        note: ECC,
    },
    Bits {
        register: 4,
        bits: &[18, 19, 21, 22, 24, 25, 27, 28],
        note: ECC,
    },
    Bits {
        register: 0,
        bits: &[8, 9, 12, 16, 17, 24, 28],
        note: "possibly hardware: check the link's mechanical connections, then run diagnostics",
    },
    Bits {
        register: 0,
        bits: &[21, 22],
        note: "marginal signal integrity: check the link's connections",
    },
    Bits {
        register: 2,
        bits: &[16, 19],
        note: "run field diagnostics if it comes again",
    },
    Bits {
        register: 2,
        bits: &[13],
        note: "not expected in production",
    },
    Bits {
        register: 0,
        bits: &[27, 29],
        note: "report it if it comes again",
    },
    Bits {
        register: 2,
        bits: &[17, 18],
        note: "report it if it comes again",
    },
    Bits {
        register: 3,
        bits: &[18],
        note: "follows another error, and the fabric must be reset",
    },
    Bits {
        register: 0,
        bits: &[1, 20],
        note: "follows another error",
    },
    Bits {
        register: 3,
        bits: &[16, 17],
        note: "follows another error",
    },
];

/// Bits that ask for nothing: safe to ignore, or a threshold of corrected errors.
const HARMLESS: &[(usize, u32)] = &[(0, 0), (0, 23), (0, 30), (4, 20), (4, 23), (4, 26), (4, 29)];

/// Whether it is told what [`judge`] asks for.
pub(crate) fn is_told(signal: &Signal) -> bool {
    registers(&signal.evidence).is_some()
}

/// Judges XID 74.
pub(crate) fn judge(evidence: &str) -> Finding {
    let Some(registers) = registers(evidence) else {
        let note = "an NVLink error; its registers were not told: check the link, contact support";
        return Finding::support(Reason::NvLinkError, note);
    };
    let set = |register: usize, bit: u32| {
        registers
            .get(register)
            .is_some_and(|word| word >> bit & 1 == 1)
    };
    let hit = |bits: &&Bits| bits.bits.iter().any(|bit| set(bits.register, *bit));
    if let Some(bits) = TELLING.iter().find(hit) {
        let note = format!(
            "an NVLink error: {}; if it persists, contact support",
            bits.note
        );
        return Finding::support(Reason::NvLinkError, note);
    }
    let harmless = HARMLESS
        .iter()
        .fold([0u32; 7], |mut masks, (register, bit)| {
            if let Some(mask) = masks.get_mut(*register) {
                *mask |= 1 << bit;
            }
            masks
        });
    let stray = registers
        .iter()
        .zip(harmless)
        .any(|(word, mask)| word & !mask != 0);
    if stray || registers.iter().all(|word| *word == 0) {
        let note = "an NVLink error that the vendor's guidance does not describe: report it, contact support";
        return Finding::support(Reason::NvLinkError, note);
    }
    let note = "an NVLink event that the vendor says to ignore; the GPU stays healthy";
    Finding::healthy(Reason::Informational, note)
}

/// The seven numbers between the last parentheses.
fn registers(evidence: &str) -> Option<[u32; 7]> {
    let (_, inner) = evidence.rsplit_once('(')?;
    let (inner, _) = inner.split_once(')')?;
    let numbers = inner
        .split(',')
        .map(|part| hex(part.trim()))
        .collect::<Option<Vec<u32>>>()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use device_policy_sdk::types::Severity;

    #[track_caller]
    fn check(registers: &str, severity: Severity, part: &str) {
        let finding = judge(&format!(
            "NVLink: fatal error detected on link 14({registers})"
        ));
        assert_eq!(finding.severity, severity, "{registers}: {}", finding.note);
        assert!(finding.note.contains(part), "{registers}: {}", finding.note);
    }

    #[test]
    fn n6_xid_74_follows_the_registers() {
        let (info, warning) = (Severity::Info, Severity::Warning);
        check(
            "0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0",
            warning,
            "field diagnostics",
        );
        check("0x1, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0", info, "ignore");
        check(
            "0x40800001, 0x0, 0x0, 0x0, 0x100000, 0x0, 0x0",
            info,
            "ignore",
        );
        check(
            "0x11, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0",
            warning,
            "ECC or parity",
        );
        check(
            "0x0, 0x0, 0x0, 0x40000, 0x0, 0x0, 0x0",
            warning,
            "fabric must be reset",
        );
        check(
            "0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0",
            warning,
            "does not describe",
        );
        check(
            "0x1, 0x8, 0x0, 0x0, 0x0, 0x0, 0x0",
            warning,
            "does not describe",
        );
        check("0x1, 0x0, 0x0", warning, "not told");
        check("", warning, "not told");
    }
}
