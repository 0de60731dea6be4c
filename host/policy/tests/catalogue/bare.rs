//! 74 and 144 to 150, as a node with both sources has them: the bare code from NVML, and the kernel's line with the
//! words that it is judged by.

use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::signal::{Signal, Source};
use device_api_core::verdict::{Judgement, Severity, Verdict};

use crate::asked::{DRIVER, Gpu, alone, profile, xid};
use crate::decode::{DRIVERS, cases, sample};
use crate::profiles::NAMES;

const CODES: [u64; 8] = [74, 144, 145, 146, 147, 148, 149, 150];

/// As NVML tells it.
pub(crate) fn bare(code: u64) -> Signal {
    Signal {
        sources: vec![Source::Nvml],
        ..xid(code, &format!("NVML event XidCriticalError {code}"))
    }
}

fn problems<'a>(gpu: &'a Gpu<'_>) -> Vec<&'a Verdict> {
    let said = gpu.said.values();
    said.filter(|verdict| verdict.state == Judgement::Problem)
        .collect()
}

#[test]
fn n5_every_row_told_by_both_sources_is_judged_once_by_its_line_in_every_profile() {
    let policies = NAMES.map(|name| (name, profile(name)));
    let mut asked = 0;
    for case in cases() {
        for (driver, generation) in DRIVERS {
            let info = sample(&case.patterns[generation.unwrap_or(1)]);
            let status = case.statuses.first().copied().unwrap_or_default();
            let line = case.line(info, status);
            // The other profiles do not ask for the driver.
            let policies = policies.iter();
            let asks = |name: &str| name == "vendor" || driver == DRIVER;
            for (name, policy) in policies.filter(|(name, _)| asks(name)) {
                let expected = alone(policy, driver, line.clone());
                for line_first in [true, false] {
                    let mut pair = [bare(case.code), line.clone()];
                    if line_first {
                        pair.swap(0, 1);
                    }
                    let mut gpu = Gpu::new(policy, driver);
                    for signal in pair {
                        gpu.see_at_once(signal);
                        gpu.pass(Duration::from_millis(5));
                    }
                    let problems = problems(&gpu);
                    let said = format!("{name}, driver {driver:?}, {line:?}, {line_first}");
                    assert_eq!(problems.len(), 1, "{said}: {problems:?}");
                    let told = problems[0];
                    assert_eq!(
                        (&told.condition, told.severity, told.action, &told.reason),
                        (
                            &expected.condition,
                            expected.severity,
                            expected.action,
                            &expected.reason
                        ),
                        "{said}"
                    );
                    asked += 1;
                }
            }
        }
    }
    assert!(asked >= 98 * (3 + 4) * 2, "{asked}");
}

#[test]
fn n6_a_bare_code_waits_degraded_and_is_for_support_where_no_line_comes() {
    let policy = profile("vendor");
    for code in CODES {
        let mut gpu = Gpu::new(&policy, DRIVER);
        gpu.see_at_once(bare(code));
        let waits = gpu.worst().unwrap();
        assert_eq!(
            (waits.severity, waits.action, &*waits.reason),
            (Severity::Warning, Action::None, "AwaitingKernelLine"),
            "{code}"
        );
        let verdict = alone(&policy, DRIVER, bare(code));
        let reason = match code {
            74 => "NvLinkError",
            _ => "UndecodedNvLinkError",
        };
        assert_eq!(
            (verdict.severity, verdict.action, &*verdict.reason),
            (Severity::Warning, Action::ContactSupport, reason),
            "{code}"
        );
    }
}

#[test]
fn a_line_that_comes_after_the_wake_has_the_last_word() {
    let policy = profile("vendor");
    for (status, severity) in [(8, Severity::Info), (2, Severity::Fatal)] {
        let mut gpu = Gpu::new(&policy, DRIVER);
        gpu.see(bare(144));
        gpu.pass(Duration::from_secs(20));
        gpu.see(xid(
            144,
            &format!("SAW_MVB Link 0 (0x00000001 {status:#010x})"),
        ));
        let problems = problems(&gpu);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].severity, severity);
    }
}
