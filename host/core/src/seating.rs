//! Who sits where policies are asked, and what is handed over when one takes another's seat: the
//! words between the pipeline and whoever loads policies (design H6, H8, H9, H11).

use std::fmt;
use std::sync::Arc;

use crate::clock::BootTime;
use crate::condition::{Condition, Owner};
use crate::device::DeviceInfo;
use crate::ids::{DeviceUuid, SignalSeq};
use crate::policy::PolicyId;
use crate::ports::Policy;
use crate::signal::Signal;
use crate::verdict::{Decision, PolicyState, Verdict};

/// What is assumed of a signal that a policy could not judge (design H8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// The vendor's class for the signal.
    #[default]
    Catalogue,
    /// Fatal, whatever it is.
    Unhealthy,
    /// Nothing. Readers may then be told healthy while a fault waits: it waives design C2.
    Ignore,
}

impl Fallback {
    pub const ALL: [Self; 3] = [Self::Catalogue, Self::Unhealthy, Self::Ignore];

    /// The word of policies.yaml and of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Catalogue => "catalogue",
            Self::Unhealthy => "unhealthy",
            Self::Ignore => "ignore",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == word)
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A floor that a policy may lower: its decision on such a signal counts, whatever it says. The names
/// are those of [`crate::floor::NAMES`]: `gpu-lost`, `xid-79`, `recovery-action` …
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant(pub Arc<str>);

/// On what terms a site runs a policy (policies.yaml, design H7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub fallback: Fallback,
    /// Sorted, without duplicates.
    pub grants: Vec<Grant>,
}

impl Terms {
    /// Whether the floor of that name may be lowered.
    pub fn may_lower(&self, floor: &str) -> bool {
        self.grants.iter().any(|grant| &*grant.0 == floor)
    }
}

/// What was seen of one device lately: what its policies were asked, in the order of `seq`.
#[derive(Clone, Debug)]
pub struct DeviceJournal {
    pub device: Arc<DeviceInfo>,
    /// Committed signals. Each carries the samples that its evaluation saw, so that a replay gives the
    /// same answer. Of a reading the newest per key is kept. No timers: each is one policy's alone.
    pub signals: Arc<[Arc<Signal>]>,
    /// When each of `signals` was seen last, in their order: repeats fold into the first.
    pub last_seen: Arc<[BootTime]>,
    /// What was in it when it was shown.
    pub revision: Revision,
    /// From when on no incident is missing: older signals were dropped for want of room or by age, or
    /// were before this run. Not so of readings, of which the newest alone is kept.
    pub complete_since: BootTime,
    /// Signals of this run were dropped.
    pub is_cut: bool,
    /// As they stand now, the host's included.
    pub conditions: Arc<[Condition]>,
}

impl DeviceJournal {
    /// The newest signal in it; zero where it is empty.
    pub fn through(&self) -> SignalSeq {
        self.signals
            .last()
            .map(|signal| signal.seq)
            .unwrap_or_default()
    }

    /// The signal of that number, and when it was seen last.
    pub fn signal(&self, seq: SignalSeq) -> Option<(&Signal, BootTime)> {
        let at = self.signals.binary_search_by_key(&seq, |signal| signal.seq);
        let at = at.ok()?;
        let signal = self.signals.get(at)?;
        let seen = self.last_seen.get(at).copied();
        Some((signal, seen.unwrap_or(signal.observed_boot)))
    }
}

/// What a journal held when it was shown: what came since is told from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Signals that were ever entered.
    pub entered: u64,
    /// The newest, folded repeats included.
    pub newest: SignalSeq,
}

/// What a version says of the journal of one device, judged in order on an empty state, beside the
/// pipeline.
#[derive(Clone, Debug)]
pub struct Rejudgement {
    pub device: DeviceUuid,
    /// [`DeviceJournal::through`] of what was judged.
    pub through: SignalSeq,
    /// [`DeviceJournal::revision`] of what was judged.
    pub revision: Revision,
    /// Of all batches together: of two verdicts on a condition the later; but a drill's takes no real one's
    /// place (design N8).
    pub decision: Decision,
    /// Those of its wakes that drills alone have set off.
    pub drill_wakes: Vec<String>,
    /// What the policy then remembers; counts where its state schema is new to the device.
    pub state: Arc<PolicyState>,
}

/// A policy takes its seat, in place of one of the same name if there is one.
#[derive(Clone, Debug)]
pub struct Seating {
    pub policy: Arc<dyn Policy>,
    pub rejudged: Vec<Arc<Rejudgement>>,
    /// Where a journal has moved on since: take the seat, and leave that device as it was judged.
    pub insist: bool,
}

/// Why a policy did not take its seat. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeatError {
    /// The journals of these have moved on: judge them again.
    Moved(Vec<DeviceUuid>),
    /// A condition type of it is another's.
    Taken { condition: String, owner: Owner },
    /// All seats are taken.
    Full { max: usize },
}

impl fmt::Display for SeatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(devices) => write!(
                f,
                "signals of {} GPUs came while it was being admitted",
                devices.len()
            ),
            Self::Taken {
                condition,
                owner: owner @ Owner::Provider(_),
            } => write!(
                f,
                "the condition type {condition:?} belongs to {owner}; rename it, or `devicectl provider forget` the owner"
            ),
            Self::Taken { condition, owner } => write!(
                f,
                "the condition type {condition:?} belongs to {owner}; rename it, or take the owner's place by its name"
            ),
            Self::Full { max } => write!(f, "there are {max} policies, which is the most allowed"),
        }
    }
}

impl std::error::Error for SeatError {}

/// A batch that was committed, for those who look on (shadow policies).
#[derive(Clone, Debug)]
pub struct Committed {
    pub device: Arc<DeviceInfo>,
    /// In order, each with the samples that its evaluation saw. Those that raise no barrier included.
    pub signals: Arc<[Signal]>,
    /// Who said what; a policy that failed, or was not asked, is not among them.
    pub said: Vec<(PolicyId, Vec<Verdict>)>,
    /// After the commit.
    pub conditions: Arc<[Condition]>,
}
