//! The floor: faults that no policy may talk away, and the fallback where none can answer (H8).
//!
//! Pure rules. The pipeline keeps which floors stand and publishes them where no policy did.

use crate::action::Action;
use crate::signal::{Attr, Signal, SignalKind, Value, text_attr};
use crate::verdict::{ClearOn, Severity};
use crate::xid::{self, Class};

/// What at least must be said of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    pub class: Class,
    pub reason: &'static str,
    /// What takes it away, besides an operator.
    pub clears: &'static [ClearOn],
}

const RESET: &[ClearOn] = &[ClearOn::GpuReset, ClearOn::NodeReboot, ClearOn::Operator];
const REBOOT: &[ClearOn] = &[ClearOn::NodeReboot, ClearOn::Replacement, ClearOn::Operator];
const RECOVERY: &[ClearOn] = &[
    ClearOn::RecoveryNone,
    ClearOn::GpuReset,
    ClearOn::NodeReboot,
    ClearOn::Operator,
];
/// Answering again is what clears a lost GPU: the host itself sees it.
const LOST: &[ClearOn] = &[
    ClearOn::Policy,
    ClearOn::NodeReboot,
    ClearOn::Replacement,
    ClearOn::Operator,
];

/// XIDs of the floor; each a row of the vendor's catalogue with RESET_GPU or RESTART_BM.
const XIDS: [u64; 4] = [64, 79, 95, 140];

/// The double-bit error: becomes part of the floor unless 63 or 94 tells that it was contained.
pub const XID_DOUBLE_BIT: u64 = 48;

/// The XID whose text carries the driver's recovery action.
pub const XID_RECOVERY_ACTION: u64 = 154;

/// XIDs that say that a double-bit error was contained or its row remapped.
pub const XIDS_CONTAINED: [u64; 2] = [63, 94];

/// The name of the floor of a recovery action that the driver asks for.
pub const RECOVERY_ACTION: &str = "recovery-action";

/// The floors by the names under which a site may let a policy lower them (design H8).
pub const NAMES: [&str; 7] = [
    "gpu-lost",
    RECOVERY_ACTION,
    "xid-48",
    "xid-64",
    "xid-79",
    "xid-95",
    "xid-140",
];

/// The name of a signal's floor, of [`NAMES`]: `xid-48` stands for the double-bit error that nothing contained.
pub fn name(signal: &Signal) -> Option<&'static str> {
    match (signal.kind, signal.code) {
        (SignalKind::GpuLost, _) => Some("gpu-lost"),
        (SignalKind::RecoveryAction, _) | (SignalKind::Xid, Some(XID_RECOVERY_ACTION)) => {
            Some(RECOVERY_ACTION)
        }
        (SignalKind::Xid, Some(XID_DOUBLE_BIT)) => Some("xid-48"),
        (SignalKind::Xid, Some(64)) => Some("xid-64"),
        (SignalKind::Xid, Some(79)) => Some("xid-79"),
        (SignalKind::Xid, Some(95)) => Some("xid-95"),
        (SignalKind::Xid, Some(140)) => Some("xid-140"),
        (
            SignalKind::Xid
            | SignalKind::Sxid
            | SignalKind::Ecc
            | SignalKind::Reading
            | SignalKind::GpuFound
            | SignalKind::Timer,
            _,
        ) => None,
    }
}

/// The floor of a signal, where it has one.
pub fn of(signal: &Signal) -> Option<Floor> {
    match signal.kind {
        SignalKind::GpuLost => Some(Floor {
            class: Class::fatal(Action::RestartBm),
            reason: "GpuLost",
            clears: LOST,
        }),
        SignalKind::Xid => match signal.code? {
            79 => Some(Floor {
                class: xid::vendor_class(79),
                reason: "FallenOffTheBus",
                clears: REBOOT,
            }),
            code if XIDS.contains(&code) => Some(Floor {
                class: xid::vendor_class(code),
                reason: "GpuResetRequired",
                clears: RESET,
            }),
            XID_RECOVERY_ACTION => {
                asked_for(signal.kind, signal.code, &signal.attrs).and_then(recovery_floor)
            }
            _ => None,
        },
        SignalKind::RecoveryAction => {
            let action = asked_for(signal.kind, signal.code, &signal.attrs);
            recovery_floor(action.unwrap_or(u64::MAX))
        }
        SignalKind::Sxid
        | SignalKind::Ecc
        | SignalKind::Reading
        | SignalKind::GpuFound
        | SignalKind::Timer => None,
    }
}

/// Whether a fault is the whole GPU's, whatever MIG instance it is attributed to (design N9): one of the floor
/// takes a reset of the GPU, or a reboot. A double-bit error is not yet: it may be contained.
pub fn is_of_whole_gpu(kind: SignalKind, code: Option<u64>) -> bool {
    match kind {
        SignalKind::GpuLost | SignalKind::GpuFound | SignalKind::RecoveryAction => true,
        SignalKind::Xid => {
            code.is_some_and(|code| XIDS.contains(&code) || code == XID_RECOVERY_ACTION)
        }
        SignalKind::Sxid | SignalKind::Ecc | SignalKind::Reading | SignalKind::Timer => false,
    }
}

/// The floor of a double-bit error that nothing contained in time.
pub const UNCONTAINED_DOUBLE_BIT: Floor = Floor {
    class: Class::fatal(Action::ComponentReset),
    reason: "DoubleBitEccError",
    clears: RESET,
};

/// Whether it tells that the driver asks for no recovery action.
pub fn asks_for_nothing(kind: SignalKind, code: Option<u64>, attrs: &[Attr]) -> bool {
    asked_for(kind, code, attrs) == Some(0)
}

/// The recovery action that is told of.
fn asked_for(kind: SignalKind, code: Option<u64>, attrs: &[Attr]) -> Option<u64> {
    match (kind, code) {
        (SignalKind::RecoveryAction, code) => recovery_action(attrs).or(code),
        (SignalKind::Xid, Some(XID_RECOVERY_ACTION)) => recovery_action(attrs),
        (
            SignalKind::Xid
            | SignalKind::Sxid
            | SignalKind::Ecc
            | SignalKind::GpuLost
            | SignalKind::Reading
            | SignalKind::GpuFound
            | SignalKind::Timer,
            _,
        ) => None,
    }
}

/// The recovery action that is carried in `attrs`, under `action`.
fn recovery_action(attrs: &[Attr]) -> Option<u64> {
    attrs.iter().find_map(|attr| match attr.value {
        Value::Int(action) if attr.key == "action" => u64::try_from(action).ok(),
        Value::Int(_) | Value::Flag(_) | Value::Real(_) | Value::Text(_) | Value::Bytes(_) => None,
    })
}

fn recovery_floor(action: u64) -> Option<Floor> {
    let class = xid::recovery_class(action);
    let reason = match class.severity {
        Severity::Info => return None,
        Severity::Warning if action <= 4 => "NoNewWork",
        Severity::Warning => "UnknownRecoveryAction",
        Severity::Fatal => "RecoveryActionRequired",
    };
    Some(Floor {
        class,
        reason,
        clears: RECOVERY,
    })
}

/// What to assume of a signal that no policy could judge: the vendor's class for it.
pub fn fallback(signal: &Signal) -> Class {
    if let Some(floor) = of(signal) {
        return floor.class;
    }
    match signal.kind {
        SignalKind::Xid => signal.code.map_or(Class::SUPPORT, xid::vendor_class),
        // The driver says itself how bad it is for the GPUs behind the switch.
        SignalKind::Sxid => match text_attr(&signal.attrs, "severity") {
            Some("fatal") => Class::fatal(Action::ComponentReset),
            Some("non-fatal") => Class::APPLICATION,
            Some(_) | None => Class::SUPPORT,
        },
        SignalKind::Ecc if text_attr(&signal.attrs, "error") == Some("corrected") => {
            Class::APPLICATION
        }
        SignalKind::Ecc => Class::SUPPORT,
        SignalKind::RecoveryAction
        | SignalKind::GpuLost
        | SignalKind::Reading
        | SignalKind::GpuFound
        | SignalKind::Timer => Class::APPLICATION,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{BootTime, WallTime};
    use crate::ids::{DeviceUuid, IncidentId, SignalSeq};
    use crate::signal::{Samples, Source};

    fn signal(kind: SignalKind, code: Option<u64>, attrs: Vec<Attr>) -> Signal {
        Signal {
            seq: SignalSeq(1),
            device: DeviceUuid::new("GPU-0"),
            kind,
            code,
            observed_at: WallTime::default(),
            observed_boot: BootTime::default(),
            repeats: 1,
            incident: IncidentId(1),
            root: None,
            drill: false,
            instance: None,
            sources: vec![Source::Nvml],
            evidence: String::new(),
            attrs,
            samples: None::<Arc<Samples>>,
        }
    }

    #[track_caller]
    fn check(signal: &Signal, expected: Option<(Severity, Action)>) {
        assert_eq!(
            of(signal).map(|floor| (floor.class.severity, floor.class.action)),
            expected
        );
    }

    #[test]
    fn h8_the_floor_is_the_designs_list() {
        use Action::{ComponentReset, ContactSupport, None as NoAction, RestartBm};
        use Severity::{Fatal, Warning};
        check(
            &signal(SignalKind::GpuLost, None, vec![]),
            Some((Fatal, RestartBm)),
        );
        for (code, action) in [
            (79, RestartBm),
            (95, ComponentReset),
            (140, ComponentReset),
            (64, ComponentReset),
        ] {
            check(
                &signal(SignalKind::Xid, Some(code), vec![]),
                Some((Fatal, action)),
            );
        }
        for code in [13, 31, 43, 48, 63, 94, 154] {
            check(&signal(SignalKind::Xid, Some(code), vec![]), None);
        }
        let recovery = |action| {
            signal(
                SignalKind::RecoveryAction,
                None,
                vec![Attr::int("action", action)],
            )
        };
        check(&recovery(0), None);
        check(&recovery(1), Some((Fatal, ComponentReset)));
        check(&recovery(2), Some((Fatal, RestartBm)));
        check(&recovery(3), Some((Warning, NoAction)));
        check(&recovery(4), Some((Warning, ComponentReset)));
        check(&recovery(9), Some((Warning, ContactSupport)));
        check(
            &signal(SignalKind::Xid, Some(154), vec![Attr::int("action", 1)]),
            Some((Fatal, ComponentReset)),
        );
    }

    #[test]
    fn n7_that_nothing_is_asked_for_is_told_by_who_tells_of_recovery_actions_alone() {
        #[track_caller]
        fn check(kind: SignalKind, code: Option<u64>, action: Option<i64>, expected: bool) {
            let attrs: Vec<Attr> = action
                .map(|action| Attr::int("action", action))
                .into_iter()
                .collect();
            assert_eq!(asks_for_nothing(kind, code, &attrs), expected);
        }
        let (asked, xid) = (SignalKind::RecoveryAction, SignalKind::Xid);
        check(asked, None, Some(0), true);
        check(asked, Some(0), None, true);
        check(asked, None, None, false);
        check(asked, Some(0), Some(1), false);
        check(xid, Some(154), Some(0), true);
        check(xid, Some(154), None, false);
        check(xid, Some(31), Some(0), false);
        check(SignalKind::Ecc, None, Some(0), false);
    }

    #[test]
    fn h8_the_fallback_is_the_vendors_class() {
        assert_eq!(
            fallback(&signal(SignalKind::Xid, Some(31), vec![])),
            Class::APPLICATION
        );
        assert_eq!(
            fallback(&signal(SignalKind::Xid, Some(119), vec![])),
            Class::fatal(Action::ComponentReset)
        );
        assert_eq!(
            fallback(&signal(SignalKind::Xid, Some(9999), vec![])),
            Class::SUPPORT
        );
        let ecc = |error| signal(SignalKind::Ecc, None, vec![Attr::text("error", error)]);
        assert_eq!(fallback(&ecc("corrected")), Class::APPLICATION);
        assert_eq!(fallback(&ecc("uncorrected")), Class::SUPPORT);
        let sxid = |attrs| fallback(&signal(SignalKind::Sxid, Some(20034), attrs));
        let severity = |word| vec![Attr::text("severity", word)];
        let reset = Class::fatal(Action::ComponentReset);
        assert_eq!(sxid(severity("fatal")), reset);
        assert_eq!(sxid(severity("non-fatal")), Class::APPLICATION);
        assert_eq!(sxid(vec![]), Class::SUPPORT);
    }
}
