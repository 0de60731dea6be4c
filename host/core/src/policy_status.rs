//! How a policy fares: what is readable over the API and as metrics (design H12).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::WallTime;
use crate::policy::{FailureKind, OwnedType, PolicyId, Subscription};
use crate::seating::Terms;

/// What a site wants of a policy (policies.yaml `mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It judges.
    #[default]
    Enforce,
    /// It looks on: what it would have said is compared and counted.
    Shadow,
    /// It is loaded and not asked; the fallback applies to its signals.
    Paused,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Enforce, Self::Shadow, Self::Paused];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Paused => "paused",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a policy is in its life (the diagram is on top of `host/wasm/src/lifecycle.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The version that the site wants judges.
    Running,
    /// It failed repeatedly and is not asked for a while.
    BackOff,
    /// What the site wants is quarantined or unusable, and the last good version judges.
    LastGood,
    /// The same, without a last good version: the bundled one judges, or who did in the run before.
    StandIn,
    /// No version of it is asked.
    Quarantined,
    /// Its mode, or an operator, has it so.
    Paused,
    /// No version of it could ever be admitted.
    Refused,
    /// No version of it judges yet: the first to come is being compiled.
    Compiling,
}

impl Phase {
    pub const ALL: [Self; 8] = [
        Self::Running,
        Self::BackOff,
        Self::LastGood,
        Self::StandIn,
        Self::Quarantined,
        Self::Paused,
        Self::Refused,
        Self::Compiling,
    ];

    /// A metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::BackOff => "back-off",
            Self::LastGood => "last-good",
            Self::StandIn => "stand-in",
            Self::Quarantined => "quarantined",
            Self::Paused => "paused",
            Self::Refused => "refused",
            Self::Compiling => "compiling",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One version of a policy, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub id: PolicyId,
    /// A file, or `bundled/NAME`.
    pub origin: Arc<str>,
    /// When it was taken up, or set aside.
    pub since: WallTime,
}

/// A version that is not in use, and why: held, quarantined or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// `None`: it was refused before it could say who it is.
    pub id: Option<PolicyId>,
    /// SHA-256 of the file, lower-case hex; empty where it could not be read.
    pub digest: Arc<str>,
    pub origin: Arc<str>,
    pub since: WallTime,
    /// One line: what is wrong, and what to do.
    pub why: String,
}

/// Upper bounds of the latency histogram, in µs; one more bucket holds what is above. The goal for a
/// call is 10 µs, the default deadline 5 ms.
pub const LATENCY_BUCKETS_MICROS: [u64; 12] =
    [1, 2, 5, 10, 20, 50, 100, 250, 500, 1_000, 5_000, 25_000];

/// A limit that a guest ran into in a call (design H2); what else bounds it has a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitHit {
    Deadline,
    Memory,
    Tables,
    HostCalls,
    Crossing,
    Stack,
    /// It could not be instantiated: memories, tables, instances, or the start deadline.
    Start,
    /// A write to its state was refused.
    State,
}

impl LimitHit {
    pub const ALL: [Self; 8] = [
        Self::Deadline,
        Self::Memory,
        Self::Tables,
        Self::HostCalls,
        Self::Crossing,
        Self::Stack,
        Self::Start,
        Self::State,
    ];

    /// A metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Tables => "tables",
            Self::HostCalls => "host-calls",
            Self::Crossing => "crossing",
            Self::Stack => "stack",
            Self::Start => "start",
            Self::State => "state",
        }
    }
}

/// What a policy has done since it was first loaded, over its versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyCounters {
    /// Calls of `evaluate`, however they ended.
    pub calls: u64,
    /// By [`FailureKind::ALL`].
    pub failures: [u64; FailureKind::ALL.len()],
    /// By [`LimitHit::ALL`].
    pub limits_hit: [u64; LimitHit::ALL.len()],
    /// Calls by wall time: one for each bound of [`LATENCY_BUCKETS_MICROS`], not cumulative, and one above.
    pub latency: [u64; LATENCY_BUCKETS_MICROS.len() + 1],
    /// Wall time in calls.
    pub busy: Duration,
    /// Processor time in calls.
    pub busy_cpu: Duration,
    /// Instances started.
    pub instances: u64,
    /// The most linear memory that an instance of it ever had, in bytes.
    pub memory_bytes_peak: u64,
    /// The most state that it ever left for one GPU, in bytes of keys and values.
    pub state_bytes_peak: u64,
    pub log_lines_suppressed: u64,
    /// Words that this host does not know and read as the contract has it.
    pub unknown_words: u64,
    pub swaps: u64,
    pub quarantines: u64,
    /// Shadow policies only: batches that were compared, that differed, and that were dropped because
    /// it could not keep up.
    pub shadow_compared: u64,
    pub shadow_disagreements: u64,
    pub shadow_dropped: u64,
}

/// A policy as `devicectl policy list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    pub name: Arc<str>,
    pub mode: Mode,
    pub phase: Phase,
    /// One line for people: why it is in that phase; empty while all is well.
    pub detail: String,
    /// The version that judges (or looks on), or would if it were not paused; `None`: none.
    pub active: Option<Version>,
    /// The newest version that has proved itself; its bytes are kept.
    pub last_good: Option<Version>,
    /// A version that waits for `devicectl policy accept`.
    pub held: Option<SetAside>,
    /// Newest first, bounded.
    pub quarantined: Vec<SetAside>,
    /// What the site wants and can't have.
    pub refused: Option<SetAside>,
    pub counters: PolicyCounters,
}

impl PolicyStatus {
    /// Who is shown where there is no room for all; the smaller first: who judges, whose seat is empty, who
    /// looks on, and last what never was a policy here. Files that are none can be as many as a directory holds.
    pub fn rank(&self) -> u8 {
        let was_one =
            self.last_good.is_some() || self.held.is_some() || !self.quarantined.is_empty();
        match (&self.active, self.mode) {
            (Some(_), Mode::Enforce | Mode::Paused) => 0,
            (None, _) if self.phase == Phase::Refused && !was_one => 3,
            (_, Mode::Shadow) => 2,
            (None, Mode::Enforce | Mode::Paused) => 1,
        }
    }

    /// A version of it decides what is asked now; not one that looks on, is paused or is backing off.
    pub fn judges(&self) -> bool {
        let is_asked = match self.phase {
            Phase::Running | Phase::LastGood | Phase::StandIn => true,
            Phase::BackOff
            | Phase::Quarantined
            | Phase::Paused
            | Phase::Refused
            | Phase::Compiling => false,
        };
        is_asked && self.active.is_some() && self.mode != Mode::Shadow
    }
}

/// How the policy host itself fares, beside its policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyHostStatus {
    /// Why the set as a whole is refused; what ran before runs on.
    pub refused: Option<String>,
    /// Sets that were refused as a whole in this run; the same for the same reason is one.
    pub sets_refused: u64,
    /// Why what is decided of versions does not outlast this run, and what to do.
    pub unsaved: Option<String>,
    /// What was forgotten when this run began, as what was saved could not be read.
    pub damage: Option<String>,
}

/// A policy as `devicectl policy describe` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyDetail {
    pub status: PolicyStatus,
    pub terms: Terms,
    pub owns: Vec<OwnedType>,
    pub subscriptions: Vec<Subscription>,
    pub readings: Vec<String>,
    pub state_schema: u32,
    /// Every limit by its name, as policies.yaml would write it.
    pub limits: Vec<(String, String)>,
    /// What the version that was admitted (or is held) last judges otherwise than the one before, one line
    /// for each difference, bounded; the last line says so when it was cut.
    pub verdict_diff: Vec<String>,
    /// The latest failures, newest first, bounded.
    pub failures: Vec<FailureRecord>,
    /// The latest disagreements of a shadow policy, newest first, bounded.
    pub disagreements: Vec<Disagreement>,
}

/// A call that gave no decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRecord {
    pub at: WallTime,
    pub kind: FailureKind,
    pub digest: Arc<str>,
    pub detail: String,
}

/// Where a shadow policy says something else than what stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    pub at: WallTime,
    pub digest: Arc<str>,
    pub device: Arc<str>,
    pub condition: String,
    /// `xid 63`: the signal that it answered.
    pub signal: String,
    /// `problem fatal RESTART_BM`, or `nothing`.
    pub enforced: String,
    pub shadow: String,
}

/// What came of a reload, by policy; in the order of the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    pub outcomes: Vec<ReloadOutcome>,
    /// Why the set as a whole was refused; the running set stays, and `outcomes` tells what became of the part of
    /// it that was still to be compiled.
    pub refused: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadOutcome {
    /// The policy's name; the file's where that is not known.
    pub name: Arc<str>,
    pub change: ReloadChange,
    /// Digest of the version that it is about; empty where there is none.
    pub digest: Arc<str>,
    /// One line; empty where there is nothing to say.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReloadChange {
    Unchanged,
    Swapped,
    Held,
    Refused,
    Removed,
    /// It is being compiled, and takes its seat once that is done; what judged before judges meanwhile.
    Compiling,
}

impl ReloadChange {
    pub const ALL: [Self; 6] = [
        Self::Unchanged,
        Self::Swapped,
        Self::Held,
        Self::Refused,
        Self::Removed,
        Self::Compiling,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Swapped => "swapped",
            Self::Held => "held",
            Self::Refused => "refused",
            Self::Removed => "removed",
            Self::Compiling => "compiling",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(mode: Mode, phase: Phase, is_active: bool) -> PolicyStatus {
        let version = Version {
            id: PolicyId {
                name: "p".into(),
                version: "1".into(),
                digest: "d".into(),
            },
            origin: "p.wasm".into(),
            since: WallTime::default(),
        };
        PolicyStatus {
            name: "p".into(),
            mode,
            phase,
            detail: String::new(),
            active: is_active.then_some(version),
            last_good: None,
            held: None,
            quarantined: Vec::new(),
            refused: None,
            counters: PolicyCounters::default(),
        }
    }

    #[test]
    fn h12_what_never_was_a_policy_comes_last() {
        use Mode::{Enforce, Paused, Shadow};
        let junk = status(Enforce, Phase::Refused, false);
        let held = PolicyStatus {
            held: Some(SetAside {
                id: None,
                digest: "e".into(),
                origin: "p.wasm".into(),
                since: WallTime::default(),
                why: String::new(),
            }),
            ..junk.clone()
        };
        let ranks = [
            status(Enforce, Phase::Running, true),
            status(Paused, Phase::Paused, true),
            status(Enforce, Phase::Quarantined, false),
            held,
            status(Shadow, Phase::Running, true),
            status(Shadow, Phase::Quarantined, false),
            junk,
        ];
        let ranks: Vec<u8> = ranks.iter().map(PolicyStatus::rank).collect();
        assert_eq!(ranks, [0, 0, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn h12_who_looks_on_is_paused_or_backs_off_does_not_judge() {
        for phase in Phase::ALL {
            let is_asked = matches!(phase, Phase::Running | Phase::LastGood | Phase::StandIn);
            assert_eq!(status(Mode::Enforce, phase, true).judges(), is_asked);
            assert!(!status(Mode::Shadow, phase, true).judges());
            assert!(!status(Mode::Enforce, phase, false).judges());
        }
    }
}
