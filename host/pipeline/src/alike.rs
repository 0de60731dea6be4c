//! Which signals tell of the same thing, and which make an older one void.

use device_api_core::floor;
use device_api_core::signal::{Attr, Signal, SignalKind, Value};

/// Attributes that tell faults of one code apart; others (pid, process, …) vary from repeat to repeat.
const TELLING: [&str; 10] = [
    "action",
    "error",
    "error-status",
    "intr-info",
    "key",
    "link",
    "name",
    "severity",
    "switch",
    "unit",
];

/// The attributes that tell faults of one code apart, in a fixed order.
pub(crate) fn telling(attrs: &[Attr]) -> impl Iterator<Item = Option<&Value>> {
    TELLING.iter().map(|key| attr(attrs, key))
}

/// Whether both tell of the same thing, so that one may stand for both.
pub(crate) fn is_same(a: &Signal, b: &Signal) -> bool {
    a.kind == b.kind
        && a.code == b.code
        && a.instance == b.instance
        && a.incident == b.incident
        && a.drill == b.drill
        && telling(&a.attrs).eq(telling(&b.attrs))
}

fn attr<'a>(attrs: &'a [Attr], key: &str) -> Option<&'a Value> {
    attrs
        .iter()
        .find(|attr| attr.key == key)
        .map(|attr| &attr.value)
}

/// Whether a signal tells of a fault: not of how the GPU is (a reading, that it answers), nor of the time.
pub(crate) fn is_incident(kind: SignalKind) -> bool {
    match kind {
        SignalKind::Xid
        | SignalKind::Sxid
        | SignalKind::Ecc
        | SignalKind::GpuLost
        | SignalKind::RecoveryAction => true,
        SignalKind::Reading | SignalKind::GpuFound | SignalKind::Timer => false,
    }
}

/// What a signal tells the newest state of, so that a newer one makes an older one void.
#[derive(Debug, PartialEq)]
pub(crate) enum Subject<'a> {
    /// Whether the GPU answers.
    Presence,
    RecoveryAction,
    Reading(Option<&'a Value>),
    Timer(Option<&'a Value>),
}

/// `None`: it tells of an event, not of a state.
pub(crate) fn subject(kind: SignalKind, code: Option<u64>, attrs: &[Attr]) -> Option<Subject<'_>> {
    match (kind, code) {
        (SignalKind::GpuLost | SignalKind::GpuFound, _) => Some(Subject::Presence),
        (SignalKind::RecoveryAction, _) | (SignalKind::Xid, Some(floor::XID_RECOVERY_ACTION)) => {
            Some(Subject::RecoveryAction)
        }
        (SignalKind::Reading, _) => Some(Subject::Reading(attr(attrs, "key"))),
        (SignalKind::Timer, _) => Some(Subject::Timer(attr(attrs, "name"))),
        (SignalKind::Xid | SignalKind::Sxid | SignalKind::Ecc, _) => None,
    }
}

pub(crate) fn subject_of(signal: &Signal) -> Option<Subject<'_>> {
    subject(signal.kind, signal.code, &signal.attrs)
}

/// Whether `new` makes `old` void. A drill makes nothing real void.
pub(crate) fn overtakes(new: &Signal, old: &Signal) -> bool {
    subject_of(new).is_some_and(|about| subject_of(old) == Some(about)) && (old.drill || !new.drill)
}
