//! A condition: a verdict in the cache, with owner, provenance and transition time.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::action::Action;
use crate::clock::WallTime;
use crate::ids::{DeviceUuid, IncidentId, SignalSeq};
use crate::limits;
use crate::policy::PolicyId;
use crate::signal::Source;
use crate::verdict::{Clear, Judgement, Severity};

/// The derived condition; only the host writes it.
pub const READY: &str = "Ready";
/// Host-owned: a fault that no policy may talk away (design H8) and that none reported.
pub const FAULT_FLOOR: &str = "FaultFloor";
/// Host-owned: a policy gave no decision, and what was assumed instead (design H8).
pub const POLICY_READY: &str = "PolicyReady";
/// Host-owned: the vendor's class of a signal that no policy could judge.
pub const FALLBACK: &str = "PolicyFallback";
/// Host-owned: NVML said that *a* GPU was lost, and this one is being asked (design C2).
pub const PROBING: &str = "Probing";

/// Host-owned: the GPU is not in the machine any more. Unknown, whatever else stands.
pub const GONE: &str = "Gone";

/// Whether the GPU that these are of is not in the machine any more.
pub fn is_gone(conditions: &[Condition]) -> bool {
    find(conditions, GONE).is_some_and(|gone| gone.state != Judgement::Ok)
}

/// Between type and instance in a condition's name: in no type.
const ON: char = '@';

/// Reason of what was not observed since the daemon started (design C7).
pub const RESTARTED: &str = "Restarted";

/// How the type of a provider's vote on `Ready` begins; its provider follows. Not shown: the published
/// `Ready` is derived (design P3).
pub const VOTE: &str = "Ready/";

/// The type under which a provider's vote is kept.
pub fn vote_of(provider: &str) -> Arc<str> {
    format!("{VOTE}{provider}").into()
}

/// Whether it is the type of a vote.
pub fn is_vote(type_: &str) -> bool {
    type_.starts_with(VOTE)
}

/// The types that no policy and no provider may own.
pub const HOST_OWNED: [&str; 6] = [READY, FAULT_FLOOR, POLICY_READY, FALLBACK, PROBING, GONE];

/// What the wire says of a condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    True,
    False,
    #[default]
    Unknown,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        [Self::True, Self::False, Self::Unknown]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which way round a type is. Declared by its owner, never guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Polarity {
    TrueIsHealthy,
    TrueIsProblem,
}

impl Polarity {
    pub fn status(self, state: Judgement) -> Status {
        match (self, state) {
            (_, Judgement::Unknown) => Status::Unknown,
            (Self::TrueIsHealthy, Judgement::Ok) | (Self::TrueIsProblem, Judgement::Problem) => {
                Status::True
            }
            (Self::TrueIsHealthy, Judgement::Problem) | (Self::TrueIsProblem, Judgement::Ok) => {
                Status::False
            }
        }
    }

    pub fn judgement(self, status: Status) -> Judgement {
        match (self, status) {
            (_, Status::Unknown) => Judgement::Unknown,
            (Self::TrueIsHealthy, Status::True) | (Self::TrueIsProblem, Status::False) => {
                Judgement::Ok
            }
            (Self::TrueIsHealthy, Status::False) | (Self::TrueIsProblem, Status::True) => {
                Judgement::Problem
            }
        }
    }
}

/// Whose a condition type is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    Host,
    Policy(PolicyId),
    Provider(Arc<str>),
}

impl Owner {
    /// Whether both are the same owner; another version of a policy is the same policy.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host, Self::Host) => true,
            (Self::Policy(a), Self::Policy(b)) => a.name == b.name,
            (Self::Provider(a), Self::Provider(b)) => a == b,
            (Self::Host | Self::Policy(_) | Self::Provider(_), _) => false,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Policy(id) => write!(f, "policy:{}", id.name),
            Self::Provider(name) => write!(f, "provider:{name}"),
        }
    }
}

/// One piece of raw evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub source: Source,
    /// When the host observed it: from then on readers of the GPU waited for the decision.
    pub observed_at: WallTime,
    pub text: String,
}

/// One condition of one GPU.
///
/// `heartbeat`, `incident`, `cause` and `evidence` tell of the newest and the first signal; a
/// change in them alone is no new version (design C5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub type_: Arc<str>,
    /// The MIG instance that it is about; `None`: the GPU and, by inheritance, all its instances (design N9).
    pub instance: Option<DeviceUuid>,
    pub state: Judgement,
    pub polarity: Polarity,
    pub severity: Severity,
    pub reason: String,
    pub message: String,
    pub action: Action,
    pub clears: Vec<Clear>,
    pub owner: Owner,
    /// When the status last changed.
    pub transition: WallTime,
    /// When the owner last confirmed it.
    pub heartbeat: WallTime,
    pub incident: Option<IncidentId>,
    pub cause: Option<SignalSeq>,
    /// Caused by something injected or simulated.
    pub drill: bool,
    /// Whether health is derived from it. False for types of unknown polarity (design P3) and for
    /// drills that are only reported (design N8).
    pub counted: bool,
    pub evidence: Vec<Evidence>,
}

impl Condition {
    /// A condition of the host's with nothing but its judgement.
    pub fn of_host(type_: &str, state: Judgement, reason: &str, now: WallTime) -> Self {
        Self {
            type_: type_.into(),
            instance: None,
            state,
            polarity: Polarity::TrueIsProblem,
            severity: Severity::Info,
            reason: reason.to_owned(),
            message: String::new(),
            action: Action::None,
            clears: Vec::new(),
            owner: Owner::Host,
            transition: now,
            heartbeat: now,
            incident: None,
            cause: None,
            drill: false,
            // That the host has nothing to say proves no health: policies and readings do.
            counted: state != Judgement::Ok,
            evidence: Vec::new(),
        }
    }

    /// The host's mark that nothing was observed of the GPU since the daemon started (design C7).
    pub fn is_unobserved(&self) -> bool {
        &*self.type_ == PROBING && self.reason == RESTARTED
    }

    pub fn status(&self) -> Status {
        self.polarity.status(self.state)
    }

    /// What it is called among those of its GPU: [`name_on`] its instance.
    pub fn name(&self) -> Arc<str> {
        match &self.instance {
            None => self.type_.clone(),
            Some(instance) => name_on(&self.type_, Some(instance.as_str())).into(),
        }
    }

    /// Where it stands among those of its GPU.
    fn place(&self) -> (&str, Option<&str>) {
        (&self.type_, self.instance.as_ref().map(DeviceUuid::as_str))
    }

    pub fn is_problem(&self) -> bool {
        self.state == Judgement::Problem
    }

    /// Whether `other` says the same, what is not part of the versioned object left out.
    pub fn same_content(&self, other: &Self) -> bool {
        self.place() == other.place()
            && self.state == other.state
            && self.polarity == other.polarity
            && self.severity == other.severity
            && self.reason == other.reason
            && self.message == other.message
            && self.action == other.action
            && self.clears == other.clears
            && self.owner == other.owner
            && self.drill == other.drill
            && self.counted == other.counted
    }
}

/// Puts `new` into the conditions: in place of its type's on the same instance, or in the order of types.
///
/// Keeps the transition time where the status stays. Where the content stays, only the heartbeat
/// moves, so that the write is none (design C5). Says whether the versioned content changed.
pub fn upsert(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    match conditions.binary_search_by(|old| old.place().cmp(&new.place())) {
        Err(at) => {
            conditions.insert(at, new);
            true
        }
        Ok(at) => {
            let Some(old) = conditions.get_mut(at) else {
                return false;
            };
            if old.same_content(&new) {
                old.heartbeat = new.heartbeat;
                absorb_evidence(&mut old.evidence, new.evidence);
                return false;
            }
            if old.status() == new.status() {
                new.transition = old.transition;
            }
            // The same fault, seen anew or by another source: what was known of it stays.
            if old.incident.is_some() && old.incident == new.incident {
                let newer = std::mem::replace(&mut new.evidence, std::mem::take(&mut old.evidence));
                absorb_evidence(&mut new.evidence, newer);
            }
            *old = new;
            true
        }
    }
}

/// Adds the evidence of sources that had not told of it yet: the first word of each is kept.
fn absorb_evidence(kept: &mut Vec<Evidence>, new: Vec<Evidence>) {
    for evidence in new {
        let known = kept.iter().any(|old| old.source == evidence.source);
        if !known && kept.len() < limits::EVIDENCE_PER_CONDITION_MAX {
            kept.push(evidence);
        }
    }
}

/// The condition of that type, of the whole GPU.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    find_on(conditions, type_, None)
}

/// The condition of that type on a MIG instance, or, with `None`, of the whole GPU.
pub fn find_on<'a>(
    conditions: &'a [Condition],
    type_: &str,
    instance: Option<&str>,
) -> Option<&'a Condition> {
    let at = conditions
        .binary_search_by(|old| old.place().cmp(&(type_, instance)))
        .ok()?;
    conditions.get(at)
}

/// The condition of that name ([`Condition::name`]).
pub fn find_named<'a>(conditions: &'a [Condition], name: &str) -> Option<&'a Condition> {
    match name.split_once(ON) {
        Some((type_, instance)) => find_on(conditions, type_, Some(instance)),
        None => find(conditions, name),
    }
}

/// UUID of the MIG instance that a condition of that name is on, as [`name_on`] names it.
pub fn instance_in(name: &str) -> Option<&str> {
    name.split_once(ON).map(|(_, instance)| instance)
}

/// The name of a type on a MIG instance, as in `XidCritical@MIG-8f1a…`; of the whole GPU's it is the type alone.
pub fn name_on<'a>(type_: &'a str, instance: Option<&str>) -> Cow<'a, str> {
    match instance {
        Some(instance) => format!("{type_}{ON}{instance}").into(),
        None => type_.into(),
    }
}

/// The order in which conditions stand.
pub fn sort(conditions: &mut [Condition]) {
    conditions.sort_by(|a, b| a.place().cmp(&b.place()));
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn condition(type_: &str, state: Judgement, severity: Severity) -> Condition {
        Condition {
            type_: type_.into(),
            instance: None,
            state,
            polarity: Polarity::TrueIsProblem,
            severity,
            reason: "Because".to_owned(),
            message: String::new(),
            action: Action::None,
            clears: Vec::new(),
            owner: Owner::Host,
            transition: WallTime::from_ms(1),
            heartbeat: WallTime::from_ms(1),
            incident: None,
            cause: None,
            drill: false,
            counted: true,
            evidence: Vec::new(),
        }
    }

    #[test]
    fn polarity_turns_both_ways() {
        for polarity in [Polarity::TrueIsHealthy, Polarity::TrueIsProblem] {
            for state in [Judgement::Ok, Judgement::Problem, Judgement::Unknown] {
                assert_eq!(polarity.judgement(polarity.status(state)), state);
            }
        }
        assert_eq!(
            Polarity::TrueIsProblem.status(Judgement::Problem),
            Status::True
        );
        assert_eq!(
            Polarity::TrueIsHealthy.status(Judgement::Problem),
            Status::False
        );
    }

    #[test]
    fn c5_the_same_content_again_moves_the_heartbeat_and_nothing_else() {
        let mut conditions = Vec::new();
        assert!(upsert(
            &mut conditions,
            condition("B", Judgement::Problem, Severity::Fatal)
        ));
        assert!(upsert(
            &mut conditions,
            condition("A", Judgement::Ok, Severity::Info)
        ));
        let again = Condition {
            heartbeat: WallTime::from_ms(9),
            transition: WallTime::from_ms(9),
            cause: Some(SignalSeq(7)),
            ..condition("B", Judgement::Problem, Severity::Fatal)
        };
        assert!(!upsert(&mut conditions, again));
        let kept = find(&conditions, "B").expect("kept");
        assert_eq!(
            (kept.heartbeat.unix_ms(), kept.transition.unix_ms()),
            (9, 1)
        );
        assert!(conditions.is_sorted_by(|a, b| a.type_ < b.type_));
    }

    #[test]
    fn n9_a_type_stands_on_each_instance_for_itself() {
        let on = |instance: Option<&str>, severity| Condition {
            instance: instance.map(DeviceUuid::new),
            ..condition("A", Judgement::Problem, severity)
        };
        let mut conditions = Vec::new();
        upsert(&mut conditions, on(Some("MIG-2"), Severity::Fatal));
        upsert(
            &mut conditions,
            condition("B", Judgement::Ok, Severity::Info),
        );
        upsert(&mut conditions, on(None, Severity::Info));
        upsert(&mut conditions, on(Some("MIG-1"), Severity::Warning));
        let severity = |name: &str| find_named(&conditions, name).map(|found| found.severity);
        assert_eq!(severity("A"), Some(Severity::Info));
        assert_eq!(severity("A@MIG-1"), Some(Severity::Warning));
        assert_eq!(severity("A@MIG-2"), Some(Severity::Fatal));
        assert_eq!(severity("B@MIG-2"), None);
        for known in &conditions {
            assert_eq!(find_named(&conditions, &known.name()), Some(known));
        }
        assert!(!upsert(
            &mut conditions,
            on(Some("MIG-1"), Severity::Warning)
        ));
        assert_eq!(conditions.len(), 4);
    }

    #[test]
    fn n5_evidence_of_one_incident_gathers_and_each_source_keeps_its_first_word() {
        let told = |source, text: &str, reason: &str, incident| Condition {
            reason: reason.to_owned(),
            incident: Some(IncidentId(incident)),
            evidence: vec![Evidence {
                source,
                observed_at: WallTime::default(),
                text: text.to_owned(),
            }],
            ..condition("A", Judgement::Problem, Severity::Fatal)
        };
        let mut conditions = Vec::new();
        upsert(&mut conditions, told(Source::Nvml, "1", "Because", 1));
        upsert(&mut conditions, told(Source::Kmsg, "2", "Because", 1));
        upsert(&mut conditions, told(Source::Kmsg, "3", "Otherwise", 1));
        let texts = |conditions: &[Condition]| {
            conditions[0]
                .evidence
                .iter()
                .map(|e| e.text.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(&conditions), ["1", "2"]);
        upsert(&mut conditions, told(Source::Kmsg, "4", "Another", 2));
        assert_eq!(texts(&conditions), ["4"], "another incident begins anew");
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let mut conditions = vec![condition("A", Judgement::Problem, Severity::Warning)];
        let later = |state, severity| Condition {
            transition: WallTime::from_ms(5),
            ..condition("A", state, severity)
        };
        assert!(upsert(
            &mut conditions,
            later(Judgement::Problem, Severity::Fatal)
        ));
        assert_eq!(conditions[0].transition.unix_ms(), 1);
        assert!(upsert(
            &mut conditions,
            later(Judgement::Ok, Severity::Fatal)
        ));
        assert_eq!(conditions[0].transition.unix_ms(), 5);
    }
}
