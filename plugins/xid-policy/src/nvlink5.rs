//! XIDs 144–150: the text carries two words, `intrInfo` and `errorStatus`, whose layout depends on
//! the driver generation (data/xid-144-150-decode.csv).
//!
//! `RLW_SRC_TRACK Nonfatal XC1 i0 Link 17 (0x04084507 0x00000004 …)`

use device_policy_sdk::attr;
use device_policy_sdk::types::Signal;

use crate::finding::{Finding, Reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    BeforeR575,
    R575,
}

/// Ascending by severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    Ignore,
    /// Follow XID 154 if it comes, else restart the application.
    FollowRecovery,
    ResetGpu,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    xid: u64,
    unit: &'static str,
    generation: Generation,
    mask: u32,
    value: u32,
    /// Empty: any.
    status: &'static [u32],
    bucket: Bucket,
    investigate: &'static str,
}

static RULES: &[Rule] = &include!(concat!(env!("OUT_DIR"), "/nvlink5.rs"));

/// Units whose error status numbers a case; the others' is a set of bits.
const NUMBERED: [u64; 2] = [149, 150];

/// Whether it is told what [`judge`] asks for.
pub(crate) fn is_told(signal: &Signal) -> bool {
    words(signal).is_some()
}

/// Judges an XID from 144 to 150.
pub(crate) fn judge(xid: u64, driver: &str, signal: &Signal) -> Finding {
    let Some((info, status)) = words(signal) else {
        let note = "an NVLink error whose intrInfo and errorStatus were not told, so that the vendor's table \
                    can't be asked: contact support";
        return Finding::support(Reason::UndecodedNvLinkError, note);
    };
    let rules: Vec<&Rule> = match generation(driver) {
        Some(generation) => matching(xid, generation, info, status),
        None => [Generation::R575, Generation::BeforeR575]
            .into_iter()
            .flat_map(|generation| matching(xid, generation, info, status))
            .collect(),
    };
    let known = rules
        .iter()
        .flat_map(|rule| rule.status)
        .fold(0, |bits, bit| bits | bit);
    let stray = !NUMBERED.contains(&xid) && status & !known != 0;
    let worst = rules.iter().max_by_key(|rule| rule.bucket);
    match worst {
        Some(rule) if rule.bucket == Bucket::ResetGpu || !stray => finding(rule),
        _ => {
            let note = format!(
                "an NVLink error that the vendor's table does not decode (intrInfo {info:#010x}, errorStatus \
                 {status:#010x}, driver {}): contact support",
                if driver.is_empty() { "unknown" } else { driver },
            );
            Finding::support(Reason::UndecodedNvLinkError, note)
        }
    }
}

fn finding(rule: &Rule) -> Finding {
    let Rule {
        unit, investigate, ..
    } = rule;
    let later = if matches!(*investigate, "" | "IGNORE") {
        String::new()
    } else {
        format!("; if it comes again: {investigate}")
    };
    match rule.bucket {
        Bucket::Ignore => {
            let note = format!(
                "decoded as {unit}: the vendor advises no action, the GPU stays healthy{later}"
            );
            Finding::healthy(Reason::Informational, note)
        }
        Bucket::FollowRecovery => {
            let note = format!(
                "decoded as {unit}: restart the application unless the driver asks for a recovery action; \
                 the GPU stays healthy{later}"
            );
            Finding::healthy(Reason::ApplicationFault, note)
        }
        Bucket::ResetGpu => {
            Finding::reset_gpu(format!("decoded as {unit}: the GPU must be reset{later}"))
        }
    }
}

fn matching(xid: u64, generation: Generation, info: u32, status: u32) -> Vec<&'static Rule> {
    let fits = |rule: &&Rule| {
        let numbered = NUMBERED.contains(&xid);
        rule.xid == xid
            && rule.generation == generation
            && info & rule.mask == rule.value
            && (rule.status.is_empty()
                || rule.status.iter().any(|want| {
                    if numbered {
                        status == *want
                    } else {
                        status & want != 0
                    }
                }))
    };
    RULES.iter().filter(fits).collect()
}

/// `None`: nobody told the driver's version; both layouts are tried.
fn generation(driver: &str) -> Option<Generation> {
    let major: u32 = driver.split('.').next()?.parse().ok()?;
    Some(if major < 575 {
        Generation::BeforeR575
    } else {
        Generation::R575
    })
}

/// The two words, from the attributes or out of the text.
fn words(signal: &Signal) -> Option<(u32, u32)> {
    let from_attr = |key| attr::int(&signal.attrs, key).and_then(|value| u32::try_from(value).ok());
    if let (Some(info), Some(status)) = (from_attr("intr-info"), from_attr("error-status")) {
        return Some((info, status));
    }
    let (_, inner) = signal.evidence.rsplit_once('(')?;
    let mut numbers = inner
        .split([' ', ',', ')'])
        .filter(|part| !part.is_empty())
        .map(hex);
    Some((numbers.next()??, numbers.next()??))
}

pub(crate) fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use device_policy_sdk::types::Severity;

    #[track_caller]
    fn check(
        xid: u64,
        driver: &str,
        evidence: &str,
        severity: Severity,
        reason: Reason,
    ) -> Finding {
        let mut bench = device_policy_sdk::testing::Bench::<crate::XidPolicy>::new("");
        let finding = judge(xid, driver, &bench.xid(xid, evidence));
        assert_eq!(
            (finding.severity, finding.reason),
            (severity, reason),
            "{evidence}: {}",
            finding.note
        );
        finding
    }

    #[test]
    fn n6_the_real_lines_decode_by_driver_generation() {
        use Reason::{ApplicationFault, GpuResetRequired, Informational, UndecodedNvLinkError};
        use Severity::{Fatal, Info, Warning};
        let (old, new) = ("570.124.06", "580.82.07");
        let line =
            "RLW_SRC_TRACK Nonfatal XC1 i0 Link 17 (0x04084507 0x00000004 0x00000000 0x00000000";
        check(145, new, line, Info, ApplicationFault);
        check(145, old, line, Warning, UndecodedNvLinkError);
        let line = "SAW_MVB Nonfatal XC0 i0 Link 0 (0x00000001 0x00000008 0x00000000)";
        check(144, new, line, Info, Informational);
        check(
            144,
            new,
            "SAW_MVB Fatal XC0 i0 Link 0 (0x00000001 0x00000002 0x00000000)",
            Fatal,
            GpuResetRequired,
        );
        let line =
            "RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0409a0c2 0x00000008 0x00000001 0x00000000)";
        check(145, old, line, Info, Informational);
        let line = "RLW_SRC_TRACK Nonfatal XC1 i0 Link 03 (0x040868e2 0x00000008 0x00000000)";
        check(145, old, line, Info, ApplicationFault);
        let line = "NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000 0x00000000)";
        let finding = check(149, old, line, Fatal, GpuResetRequired);
        assert!(finding.note.contains("NETIR_LINK_EVT"), "{}", finding.note);
        check(
            149,
            old,
            "NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x00000000 0x0)",
            Fatal,
            GpuResetRequired,
        );
        let line = "NETIR_BER_EVENT Nonfatal XC0 i0 Link 03 (0x00086226 0x00000001 0x00000000)";
        check(149, old, line, Info, Informational);
        check(149, "", line, Info, Informational);
    }

    #[test]
    fn the_second_case_of_a_row_and_several_bits_take_the_worst() {
        use Reason::{GpuResetRequired, Informational, UndecodedNvLinkError};
        let new = "580.82.07";
        check(
            145,
            new,
            "RLW_RXPIPE (0x00000006 0x00000001)",
            Severity::Info,
            Informational,
        );
        check(
            145,
            new,
            "RLW_RXPIPE (0x00000086 0x00000001)",
            Severity::Fatal,
            GpuResetRequired,
        );
        check(
            144,
            new,
            "SAW_MVB (0x00000001 0x00000003)",
            Severity::Fatal,
            GpuResetRequired,
        );
        check(
            144,
            new,
            "SAW_MVB (0x00000001 0x40000001)",
            Severity::Warning,
            UndecodedNvLinkError,
        );
        check(
            144,
            new,
            "SAW_MVB (0x00000001 0x40000002)",
            Severity::Fatal,
            GpuResetRequired,
        );
        check(
            150,
            new,
            "MSE (0x00000000 0xffffffff)",
            Severity::Fatal,
            GpuResetRequired,
        );
    }

    #[test]
    fn what_carries_no_words_is_degraded() {
        for evidence in [
            "",
            "SAW_MVB",
            "SAW_MVB ()",
            "SAW_MVB (0x1",
            "SAW_MVB (zz 0x1)",
            "(0x1ffffffff 0x1)",
        ] {
            check(
                144,
                "580",
                evidence,
                Severity::Warning,
                Reason::UndecodedNvLinkError,
            );
        }
    }

    #[test]
    fn every_row_of_the_table_is_reached_by_its_own_pattern() {
        assert_eq!(
            RULES
                .iter()
                .filter(|rule| rule.generation == Generation::R575)
                .count(),
            98
        );
        for rule in RULES {
            let statuses = if rule.status.is_empty() {
                &[0][..]
            } else {
                rule.status
            };
            for status in statuses {
                let hits = matching(rule.xid, rule.generation, rule.value, *status);
                assert!(hits.iter().any(|hit| std::ptr::eq(*hit, rule)), "{rule:?}");
            }
        }
    }
}
