//! A signal: one thing observed about one GPU.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::clock::{BootTime, WallTime};
use crate::ids::{DeviceUuid, IncidentId, PciAddress, SignalSeq};

/// What kind of thing was observed. The words are those of the WIT contract (docs/signals.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignalKind {
    /// An XID from NVML or the kernel log; `code` is its number.
    Xid,
    /// An NVSwitch error; `code` is its number.
    Sxid,
    /// An ECC event of NVML (`attrs`: `error` = `corrected` or `uncorrected`).
    Ecc,
    /// A sampled reading crossed what a policy subscribed to. Raises no barrier (C2).
    Reading,
    /// NVML or the kernel says that the GPU does not answer.
    GpuLost,
    /// The GPU answers: seen for the first time, or again. Raises no barrier.
    GpuFound,
    /// The driver asks for a recovery action (field 230, XID 154); `attrs`: `action`.
    RecoveryAction,
    /// A timer that a policy, or the host's floor, has set. Raises no barrier.
    Timer,
}

impl SignalKind {
    pub const ALL: [Self; 8] = [
        Self::Xid,
        Self::Sxid,
        Self::Ecc,
        Self::Reading,
        Self::GpuLost,
        Self::GpuFound,
        Self::RecoveryAction,
        Self::Timer,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xid => "xid",
            Self::Sxid => "sxid",
            Self::Ecc => "ecc",
            Self::Reading => "reading",
            Self::GpuLost => "gpu-lost",
            Self::GpuFound => "gpu-found",
            Self::RecoveryAction => "recovery-action",
            Self::Timer => "timer",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether readers of the GPU wait until the decision is in the cache (design C2).
    pub fn raises_barrier(self) -> bool {
        match self {
            Self::Xid | Self::Sxid | Self::Ecc | Self::GpuLost | Self::RecoveryAction => true,
            Self::Reading | Self::GpuFound | Self::Timer => false,
        }
    }
}

impl fmt::Display for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who told of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The NVML event set, or a call that answered `GPU_IS_LOST`.
    Nvml,
    /// The kernel log.
    Kmsg,
    /// NVML field 230, the recovery action.
    Field230,
    /// A provider on the API.
    Provider(Arc<str>),
    /// The host itself (timers).
    Host,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nvml => f.write_str("nvml"),
            Self::Kmsg => f.write_str("kmsg"),
            Self::Field230 => f.write_str("field-230"),
            Self::Provider(name) => write!(f, "provider:{name}"),
            Self::Host => f.write_str("host"),
        }
    }
}

/// An open-ended value. Closed set for ever: it is the WIT contract's `value`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Flag(bool),
    Int(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A named value.
#[derive(Clone, Debug, PartialEq)]
pub struct Attr {
    pub key: String,
    pub value: Value,
}

impl Attr {
    pub fn text(key: &str, value: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            value: Value::Text(value.into()),
        }
    }

    pub fn int(key: &str, value: i64) -> Self {
        Self {
            key: key.to_owned(),
            value: Value::Int(value),
        }
    }

    pub fn real(key: &str, value: f64) -> Self {
        Self {
            key: key.to_owned(),
            value: Value::Real(value),
        }
    }

    pub fn flag(key: &str, value: bool) -> Self {
        Self {
            key: key.to_owned(),
            value: Value::Flag(value),
        }
    }
}

/// The text attribute named `key`, where there is one.
pub fn text_attr<'a>(attrs: &'a [Attr], key: &str) -> Option<&'a str> {
    attrs.iter().find_map(|attr| match &attr.value {
        Value::Text(text) if attr.key == key => Some(text.as_str()),
        Value::Text(_) | Value::Flag(_) | Value::Int(_) | Value::Real(_) | Value::Bytes(_) => None,
    })
}

/// One sampled reading and when it was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub value: Value,
    pub at: WallTime,
}

/// Why there is no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The device has no such thing: absent, not zero.
    NotSupported,
    /// Not sampled yet.
    NotYet,
    /// The device did not answer when it was sampled.
    Unreachable,
}

/// The readings of one device at one moment, by key (docs/readings.md).
pub type Samples = BTreeMap<String, Result<Reading, Miss>>;

/// Which device a source says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Uuid(DeviceUuid),
    Pci(PciAddress),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.fmt(f),
            Self::Pci(pci) => pci.fmt(f),
        }
    }
}

/// What a source hands in; the pipeline makes a [`Signal`] of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    pub kind: SignalKind,
    pub code: Option<u64>,
    pub target: Target,
    pub source: Source,
    /// Injected or simulated (design N8).
    pub drill: bool,
    /// MIG instance it is attributed to: its UUID, or where it is in the source's words (`GPU-I:05`,
    /// `GPU-I:05 GPU-CI:02`); else the whole GPU.
    pub instance: Option<String>,
    /// The XID that this one says it was caused by.
    pub caused_by: Option<u64>,
    /// Raw text as the source gave it; escaped and cut to its bound by the pipeline.
    pub evidence: String,
    pub attrs: Vec<Attr>,
    /// Readings taken along with it; without them the device's newest travel with the signal.
    pub samples: Option<Arc<Samples>>,
}

impl Observation {
    /// A bare observation; the fields it leaves out are filled by struct update.
    pub fn new(kind: SignalKind, target: Target, source: Source) -> Self {
        Self {
            kind,
            code: None,
            target,
            source,
            drill: false,
            instance: None,
            caused_by: None,
            evidence: String::new(),
            attrs: Vec::new(),
            samples: None,
        }
    }
}

/// An observation the host has taken in: numbered, resolved to a device, part of an incident.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    pub seq: SignalSeq,
    pub device: DeviceUuid,
    pub kind: SignalKind,
    pub code: Option<u64>,
    /// When the host observed it, before the barrier was raised for it.
    pub observed_at: WallTime,
    pub observed_boot: BootTime,
    /// How many like this one were folded into it, itself included.
    pub repeats: u32,
    pub incident: IncidentId,
    pub root: Option<IncidentId>,
    pub drill: bool,
    /// UUID of the MIG instance it is attributed to, else the whole GPU.
    pub instance: Option<String>,
    pub sources: Vec<Source>,
    pub evidence: String,
    pub attrs: Vec<Attr>,
    pub samples: Option<Arc<Samples>>,
}

/// Makes text safe to show: control characters (ANSI sequences among them) escaped, cut at a
/// character boundary to `bytes_max`.
pub fn printable(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars() {
        let before = out.len();
        if c.is_control() || is_bidi_control(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        if out.len() > bytes_max {
            out.truncate(before);
            break;
        }
    }
    out
}

/// Characters that reorder what a terminal shows.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_a_round_trip() {
        for kind in SignalKind::ALL {
            assert_eq!(SignalKind::from_word(kind.as_str()), Some(kind));
        }
        assert_eq!(SignalKind::from_word("nonsense"), None);
    }

    #[test]
    fn printable_escapes_controls_and_keeps_its_bound() {
        assert_eq!(printable("a\x1b[31mb\n", 64), "a\\u{1b}[31mb\\n");
        assert_eq!(printable("ab\u{202e}c", 64), "ab\\u{202e}c");
        assert_eq!(printable("ééé", 5), "éé");
        for bytes_max in 0..40 {
            assert!(printable("\x07é\n日本語 plain \u{2066}", bytes_max).len() <= bytes_max);
        }
    }
}
