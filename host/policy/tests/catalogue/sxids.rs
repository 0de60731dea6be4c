//! Errors of an NVSwitch: as bad as the driver says, in every profile, since those are of XIDs.

use device_api_core::action::Action;
use device_api_core::signal::{Attr, Signal, SignalKind};
use device_api_core::verdict::{ClearOn, Severity};

use crate::asked::{DRIVER, Gpu, alone, profile, signal};

const LINK_FAULT: &str =
    "nvidia-nvswitch0: SXid (PCI:0000:07:00.0): 20034, Fatal, Link 30 LTSSM Fault Up";
const INTERRUPT: &str = "nvidia-nvswitch3: SXid (PCI:0000:04:00.0): 22013, Non-fatal, Link 44 Minion Link DLREQ interrupt";

/// As the kernel log tells it.
fn sxid(code: u64, severity: &str, link: i64, evidence: &str) -> Signal {
    Signal {
        code: Some(code),
        evidence: evidence.to_owned(),
        attrs: vec![Attr::text("severity", severity), Attr::int("link", link)],
        ..signal(SignalKind::Sxid)
    }
}

#[test]
fn n4_an_nvswitch_error_is_as_bad_as_the_driver_says_in_every_profile() {
    for name in ["vendor", "device-plugin", "gke", "eks", "gpud"] {
        let policy = profile(name);
        let fatal = alone(&policy, DRIVER, sxid(20034, "fatal", 30, LINK_FAULT));
        assert_eq!(
            (&*fatal.condition, fatal.severity, fatal.action),
            ("NvSwitchError", Severity::Fatal, Action::ComponentReset),
            "{name}"
        );
        assert!(fatal.message.contains(LINK_FAULT), "{}", fatal.message);
        let clears: Vec<_> = fatal.clears.iter().map(|clear| clear.on).collect();
        assert!(clears.contains(&ClearOn::GpuReset) && !clears.contains(&ClearOn::Quiet));
        let mild = alone(&policy, DRIVER, sxid(22013, "non-fatal", 44, INTERRUPT));
        assert_eq!(
            (mild.severity, mild.action, &*mild.reason),
            (Severity::Info, Action::None, "NvSwitchNonFatal"),
            "{name}"
        );
    }
}

#[test]
fn n4_what_is_not_fatal_lowers_nothing() {
    let policy = profile("vendor");
    let mut gpu = Gpu::new(&policy, DRIVER);
    gpu.see(sxid(20034, "fatal", 30, LINK_FAULT));
    gpu.see(sxid(22013, "non-fatal", 44, INTERRUPT));
    let worst = gpu.worst().expect("it stands");
    assert_eq!(
        (worst.severity, &*worst.reason),
        (Severity::Fatal, "NvSwitchFatal")
    );
}
