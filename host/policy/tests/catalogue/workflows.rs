//! The codes whose action is a workflow, or that have none: a case each, with its reason.

use std::collections::BTreeSet;

use device_api_core::action::Action::{self, ComponentReset, ContactSupport, RestartBm};
use device_api_core::signal::{Attr, Signal};
use device_api_core::verdict::Severity::{self, Fatal, Info, Warning};
use device_api_core::verdict::Verdict;

use crate::asked::{DRIVER, Gpu, alone, profile, xid};
use crate::profiles::data;

/// What a code comes to, and why that is right.
struct Case {
    code: u64,
    evidence: &'static str,
    expected: (Severity, Action, &'static str),
    why: &'static str,
}

const fn case(
    code: u64,
    evidence: &'static str,
    expected: (Severity, Action, &'static str),
    why: &'static str,
) -> Case {
    Case {
        code,
        evidence,
        expected,
        why,
    }
}

const NONE: Action = Action::None;
const UNPUBLISHED: (Severity, Action, &str) = (Warning, ContactSupport, "UnpublishedXid");
const NO_ACTION: &str = "the vendor names the code and publishes no action: someone must look, nobody must lose the GPU";

const CASES: &[Case] = &[
    case(
        13,
        "Graphics SM Warp Exception on (GPC 7, TPC 7, SM 0): Illegal Instruction Parameter",
        (Info, NONE, "ApplicationFault"),
        "solo, no burst: check the application; repeats at one place are the window's",
    ),
    case(
        31,
        "MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_8 faulted @ 0x73ac_1c000000",
        (Info, NONE, "ApplicationFault"),
        "solo: check the application; repeats on the GPU are the window's",
    ),
    case(
        45,
        "Ch 00000001 caused by previous Xid 149",
        (Info, NONE, "FollowsEarlierFault"),
        "not solo: follow the other XID, which has its own verdict",
    ),
    case(
        48,
        "An uncorrectable double bit error (DBE) has been detected",
        (Fatal, ComponentReset, "GpuResetRequired"),
        "solo: neither 63 nor 94 says that it was contained",
    ),
    case(
        54,
        "",
        (Warning, ContactSupport, "CheckMechanicals"),
        "auxiliary power: hands on the machine, which no restart replaces",
    ),
    case(
        74,
        "NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)",
        (Warning, ContactSupport, "NvLinkError"),
        "third register, bit 16: field diagnostics if it comes again",
    ),
    case(
        74,
        "NVLink: fatal error detected on link 14(0x1, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)",
        (Info, NONE, "Informational"),
        "first register, bit 0: can be safely ignored",
    ),
    case(
        78,
        "Guest driver is incompatible with host driver",
        (Warning, ContactSupport, "UpdateSoftware"),
        "software that does not go together: the GPU is not broken",
    ),
    case(
        108,
        "",
        (Info, NONE, "Informational"),
        "IGNORE at once; what to investigate is the application",
    ),
    case(
        137,
        "",
        (Info, NONE, "Informational"),
        "a remote MMU fault: typically an application's illegal peer access",
    ),
    case(
        144,
        "SAW_MVB Nonfatal XC0 i0 Link 0 (0x00000001 0x00000008 0x00000000)",
        (Info, NONE, "Informational"),
        "the decode table's row says IGNORE",
    ),
    case(
        145,
        "RLW_SRC_TRACK Nonfatal XC1 i0 Link 17 (0x04084507 0x00000004 0x00000000 0x00000000",
        (Info, NONE, "ApplicationFault"),
        "the row says to follow a 154, or to restart the application; the line is cut and yet decoded",
    ),
    case(
        146,
        "",
        (Warning, ContactSupport, "UndecodedNvLinkError"),
        "NVML tells no words to decode: what can't be decoded is looked at, not ignored",
    ),
    case(
        147,
        "TREX (0xffffffff 0xffffffff)",
        (Warning, ContactSupport, "UndecodedNvLinkError"),
        "words that no row knows",
    ),
    case(
        148,
        "",
        (Warning, ContactSupport, "UndecodedNvLinkError"),
        "as 146",
    ),
    case(
        149,
        "NETIR_INT Fatal XC0 i0 Link 01 (0x00000018 0x00000000 0x00000000)",
        (Fatal, ComponentReset, "GpuResetRequired"),
        "fatal for the link: the row says RESET_GPU",
    ),
    case(
        150,
        "MSE (0x00000000 0xffffffff)",
        (Fatal, ComponentReset, "GpuResetRequired"),
        "the row says RESET_GPU",
    ),
    case(
        154,
        "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
        (Fatal, RestartBm, "NodeRebootRequired"),
        "the driver itself says what it needs",
    ),
    case(
        154,
        "GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)",
        (Warning, ComponentReset, "DrainAndReset"),
        "what runs may finish: Degraded, not Unhealthy",
    ),
    case(
        154,
        "",
        (Warning, ContactSupport, "UnknownRecoveryAction"),
        "it changed, but to what was not told: never taken for none",
    ),
    case(
        159,
        "",
        (Warning, ContactSupport, "CheckUvm"),
        "reset where unified memory or vGPU is in use, else ignore: which of them only the site knows",
    ),
    case(162, "", UNPUBLISHED, NO_ACTION),
    case(163, "", UNPUBLISHED, NO_ACTION),
    case(164, "", UNPUBLISHED, NO_ACTION),
    case(165, "", UNPUBLISHED, NO_ACTION),
    case(166, "", UNPUBLISHED, NO_ACTION),
    case(167, "", UNPUBLISHED, NO_ACTION),
    case(168, "", UNPUBLISHED, NO_ACTION),
    case(169, "", UNPUBLISHED, NO_ACTION),
    case(170, "", UNPUBLISHED, NO_ACTION),
    case(
        171,
        "",
        UNPUBLISHED,
        "details of a 48, which has its own verdict; itself without an action",
    ),
    case(
        172,
        "",
        UNPUBLISHED,
        "details of a 48, which has its own verdict; itself without an action",
    ),
    case(173, "", UNPUBLISHED, "known from driver headers alone"),
    case(174, "", UNPUBLISHED, "known from driver headers alone"),
    case(175, "", UNPUBLISHED, "known from driver headers alone"),
    case(176, "", UNPUBLISHED, "known from driver headers alone"),
    case(185, "", UNPUBLISHED, "known from driver headers alone"),
];

#[test]
fn n6_every_workflow_and_every_code_without_an_action() {
    let policy = profile("vendor");
    for Case {
        code,
        evidence,
        expected,
        why,
    } in CASES
    {
        let Verdict {
            severity,
            action,
            reason,
            message,
            ..
        } = alone(&policy, DRIVER, xid(*code, evidence));
        assert_eq!(
            (severity, action, &*reason),
            *expected,
            "XID {code} {evidence:?}: expected since {why}; it says: {message}"
        );
    }
}

/// The cases are those that the catalogue asks for: one that grows asks for a new case.
#[test]
fn no_such_code_is_without_a_case() {
    let mut reader = csv::Reader::from_path(data("xid-catalog.csv")).unwrap();
    let headers = reader.headers().unwrap().clone();
    let column = |name: &str| headers.iter().position(|head| head == name).unwrap();
    let (immediate, later) = (column("immediate_action"), column("investigatory_action"));
    let plain = [
        "RESTART_APP",
        "IGNORE",
        "RESET_GPU",
        "RESTART_BM",
        "RESTART_VM",
        "CONTACT_SUPPORT",
    ];
    let asked: BTreeSet<u64> = reader
        .records()
        .map(Result::unwrap)
        .filter(|record| {
            !plain.contains(&&record[immediate])
                || record[later].contains("WORKFLOW")
                || record[later].contains("FLOW")
        })
        .map(|record| record[0].parse().unwrap())
        .collect();
    let cases: BTreeSet<u64> = CASES.iter().map(|case| case.code).collect();
    assert_eq!(cases, asked);
    assert!(asked.len() >= 33, "{}", asked.len());
}

#[test]
fn n6_a_48_with_a_63_or_a_94_drains() {
    let policy = profile("vendor");
    for codes in [[48, 63], [63, 48], [48, 94], [94, 48]] {
        let mut gpu = Gpu::new(&policy, DRIVER);
        for code in codes {
            // Without the wake that a later call would bring: the second comes first.
            gpu.see_at_once(xid(code, ""));
        }
        let worst = gpu.worst().unwrap();
        assert_eq!(
            (worst.severity, worst.action, &*worst.reason),
            (Warning, ComponentReset, "DrainAndReset"),
            "{codes:?}"
        );
    }
}

#[test]
fn n6_a_45_names_its_root() {
    let policy = profile("vendor");
    let signal = Signal {
        attrs: vec![Attr::int("caused-by", 149)],
        ..xid(45, "Ch 00000001")
    };
    let verdict = alone(&policy, DRIVER, signal);
    assert!(verdict.message.contains("XID 149"), "{}", verdict.message);
}
