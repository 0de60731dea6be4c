//! What a verdict becomes in the cache.

use device_api_core::action::{Action, Platform};
use device_api_core::clock::WallTime;
use device_api_core::condition::{self, Condition, Evidence, Owner, Polarity};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::message;
use device_api_core::policy::PolicyInfo;
use device_api_core::signal::Signal;
use device_api_core::verdict::{Decision, Judgement, Verdict};

use crate::admission::{Admission, Admitted};
use crate::alike::is_incident;
use crate::instances;

/// Whether what is injected or simulated may change health (design N8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drills {
    /// A drill's problems are shown, marked, and do not count.
    #[default]
    Report,
    /// A drill's problems count like real ones.
    Enforce,
}

impl Drills {
    /// Whether a problem counts towards health.
    pub(crate) fn count(self, drill: bool) -> bool {
        !drill || self == Self::Enforce
    }
}

/// What a commit needs to know besides the decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) info: &'a PolicyInfo,
    /// The GPU, with the instances that it has.
    pub(crate) device: &'a DeviceInfo,
    pub(crate) signals: &'a [Signal],
    pub(crate) drills: Drills,
    pub(crate) platform: Platform,
    pub(crate) now: WallTime,
}

/// Writes a policy's verdicts into the conditions of the GPU, and says which of them count: not one
/// of a drill that is only reported, where something real stands.
pub(crate) fn apply<'a>(
    conditions: &mut Vec<Condition>,
    decision: &'a Decision,
    context: Context<'_>,
    admission: &mut Admission<'_>,
) -> Vec<&'a Verdict> {
    let mut written = Vec::new();
    for verdict in &decision.verdicts {
        let Some(new) = condition_of(verdict, context) else {
            continue;
        };
        let hides = |old: &Condition| old.is_problem() && !old.drill && new.drill;
        let instance = new.instance.as_ref().map(DeviceUuid::as_str);
        let old = condition::find_on(conditions, &new.type_, instance);
        if context.drills == Drills::Report && old.is_some_and(hides) {
            continue;
        }
        match admission.admit(old, (verdict, decision), new) {
            Admitted::AsSaid(mut new) => {
                admission.attribute(&context.device.uuid, conditions, &mut new);
                condition::upsert(conditions, new);
                written.push(verdict);
            }
            Admitted::Instead(held) => {
                condition::upsert(conditions, held);
            }
            Admitted::Nothing => {}
        }
    }
    written
}

fn condition_of(verdict: &Verdict, context: Context<'_>) -> Option<Condition> {
    let Context {
        info,
        device,
        signals,
        drills,
        platform,
        now,
    } = context;
    let owned = info.owned(&verdict.condition)?;
    let Ok(instance) = instances::instance_of(device, verdict.instance.as_deref()) else {
        tracing::debug!(gpu = %device.uuid, policy = %info.id, instance = verdict.instance, "verdict on an instance that is not there");
        return None;
    };
    let cause = signals.iter().find(|signal| signal.seq == verdict.cause);
    let drill = cause.map_or_else(
        || signals.iter().any(|signal| signal.drill),
        |signal| signal.drill,
    );
    let is_problem = verdict.state == Judgement::Problem;
    let evidence = cause.filter(|_| is_problem).map(|cause| {
        let same_fault = signals
            .iter()
            .filter(|signal| signal.incident == cause.incident);
        same_fault
            .flat_map(evidence_of)
            .take(limits::EVIDENCE_PER_CONDITION_MAX)
            .collect()
    });
    Some(Condition {
        type_: owned.condition.as_str().into(),
        instance,
        state: verdict.state,
        polarity: if owned.true_is_problem {
            Polarity::TrueIsProblem
        } else {
            Polarity::TrueIsHealthy
        },
        severity: verdict.severity,
        reason: verdict.reason.clone(),
        message: verdict.message.clone(),
        action: verdict.action.on(platform),
        clears: if is_problem {
            verdict.clears.clone()
        } else {
            Vec::new()
        },
        owner: Owner::Policy(info.id.clone()),
        transition: now,
        heartbeat: now,
        // What is no fault is one only where something was raised on it.
        incident: cause
            .filter(|signal| is_problem || is_incident(signal.kind))
            .map(|signal| signal.incident),
        cause: Some(verdict.cause),
        drill,
        counted: !is_problem || drills.count(drill),
        evidence: evidence.unwrap_or_default(),
    })
}

/// A problem that is over, for a reason of the host's.
pub(crate) fn cleared(old: &Condition, reason: &str, why: &str, now: WallTime) -> Condition {
    Condition {
        state: Judgement::Ok,
        reason: reason.to_owned(),
        message: message::cut(format!("{why} Last: {}", old.message)),
        action: Action::None,
        clears: Vec::new(),
        transition: now,
        heartbeat: now,
        incident: None,
        counted: true,
        ..old.clone()
    }
}

/// A signal as evidence: one piece for each source that told of it.
pub(crate) fn evidence_of(signal: &Signal) -> Vec<Evidence> {
    let piece = |source: &_| Evidence {
        source: Clone::clone(source),
        observed_at: signal.observed_at,
        text: signal.evidence.clone(),
    };
    signal.sources.iter().map(piece).collect()
}
