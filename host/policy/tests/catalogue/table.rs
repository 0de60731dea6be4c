//! The vendor's profile: every code of the catalogue.

use device_api_core::action::Action;
use device_api_core::verdict::Severity;
use device_api_core::xid::catalog;

use crate::asked::{DRIVER, alone, profile, xid};

/// What design N6 makes of the vendor's words, for a code that comes alone and without a text.
fn expected(immediate: &str) -> (Severity, Action) {
    match immediate {
        "RESTART_APP" | "IGNORE" | "WORKFLOW_XID_45" => (Severity::Info, Action::None),
        "RESET_GPU" | "WORKFLOW_XID_48" => (Severity::Fatal, Action::ComponentReset),
        "RESTART_BM" => (Severity::Fatal, Action::RestartBm),
        "RESTART_VM" => (Severity::Fatal, Action::RestartVm),
        "CONTACT_SUPPORT"
        | "CHECK_MECHANICALS"
        | "CHECK_UVM"
        | "UPDATE_SWFW"
        | "WORKFLOW_NVLINK_ERR"
        | "WORKFLOW_NVLINK5_ERR"
        | "XID_154"
        | "" => (Severity::Warning, Action::ContactSupport),
        other => panic!("a word that nobody has read: {other}"),
    }
}

#[test]
fn n6_the_component_follows_the_vendor_for_every_code() {
    let policy = profile("vendor");
    assert!(catalog().len() >= 177, "{}", catalog().len());
    for entry in catalog() {
        let verdict = alone(&policy, DRIVER, xid(entry.code, ""));
        assert_eq!(
            (verdict.severity, verdict.action),
            expected(entry.immediate),
            "{entry:?}: {}",
            verdict.message
        );
        assert!(!verdict.clears.is_empty() && !verdict.message.is_empty());
    }
}

#[test]
fn n6_what_no_catalogue_knows_is_never_fatal() {
    let policy = profile("vendor");
    for code in [0, 177, 186, 9999, u64::MAX] {
        let verdict = alone(&policy, DRIVER, xid(code, ""));
        assert_eq!(
            (verdict.severity, verdict.action, &*verdict.reason),
            (Severity::Warning, Action::ContactSupport, "UnknownXid"),
            "{code}"
        );
    }
}
