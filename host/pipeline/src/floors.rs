//! Which floors and fallbacks stand for a GPU, and the conditions that say so (design H8).

mod ended;
mod publish;

use std::sync::Arc;

use device_api_core::action::Action;
use device_api_core::durable::{AssumedFault, LoweredFloor};
use device_api_core::floor::{self, Floor};
use device_api_core::ids::SignalSeq;
use device_api_core::limits;
use device_api_core::seating::Fallback;
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::Severity;
use device_api_core::xid::Class;

use crate::recover::Over;

/// A floor that stands for one fault: what it demands, and the signal that demanded it.
#[derive(Debug)]
struct Standing {
    floor: Floor,
    /// The first of its incident.
    signal: Signal,
    /// All signals that demand it, while they are few enough to be told apart; then nothing lowers it
    /// but what clears it.
    demanded_by: Vec<SignalSeq>,
    is_fixed: bool,
}

/// A floor that does not stand while one of these policies has a seat and the grant for it.
#[derive(Debug)]
struct Lowered {
    floor: Floor,
    by: Vec<Arc<str>>,
    /// The newest of those that they have judged alike: what ends the fault has to come after it.
    signal: Signal,
}

/// Signals of one GPU that demand the same floor and are told apart, so that a policy that may lower it
/// does so for each: as many as it may have failed on.
const DEMANDS_MAX: usize = limits::FAILED_PER_POLICY_MAX;

/// Incidents of one GPU, of the same code, whose floors stand for themselves. While its floor stands an incident goes
/// on, so that there are several only where incidents were closed to make room.
const INCIDENTS_PER_FLOOR_MAX: usize = 8;

/// What is assumed of a signal that a policy (or none at all) did not judge.
#[derive(Debug)]
pub(crate) struct Assumed {
    /// `None`: it was not judged in time, or nobody subscribed to it.
    pub(crate) policy: Option<Arc<str>>,
    pub(crate) rule: Fallback,
    pub(crate) why: String,
    pub(crate) signal: Signal,
}

impl Assumed {
    fn class(&self) -> Class {
        let vendors = floor::fallback(&self.signal);
        match (self.rule, vendors.action) {
            (Fallback::Catalogue | Fallback::Ignore, _) => vendors,
            (Fallback::Unhealthy, Action::None) => Class::fatal(Action::ContactSupport),
            (Fallback::Unhealthy, action) => Class::fatal(action),
        }
    }

    fn rank(&self) -> (bool, Severity, Action) {
        let class = self.class();
        (!self.signal.drill, class.severity, class.action)
    }

    fn is_of(&self, other: &Signal) -> bool {
        let own = &self.signal;
        own.kind == other.kind
            && own.code == other.code
            && own.instance == other.instance
            && own.drill == other.drill
    }
}

pub(crate) use ended::FALLBACK_CLEARS;

/// Floors, fallbacks and failed policies of one GPU.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    standing: Vec<Standing>,
    lowered: Vec<Lowered>,
    fallbacks: Vec<Assumed>,
    /// Policies whose last evaluation failed: name, kind and detail.
    failing: Vec<(Arc<str>, String)>,
    /// Policies that are asked for the first time since they took their seat.
    awaited: Vec<Arc<str>>,
    /// The GPU was seen in this run.
    is_found: bool,
}

impl Floors {
    /// Takes a signal's floor into account, and what the signal itself takes away. `lowered_by`: who has
    /// judged it and may lower it.
    /// `over`: what of it has ended already.
    pub(crate) fn observe(&mut self, signal: &Signal, lowered_by: &[Arc<str>], over: Over) {
        self.is_found |= signal.kind == SignalKind::GpuFound;
        self.take_away(signal);
        if let Some(floor) = floor::of(signal).filter(|_| !over.floor) {
            self.demand(floor, signal, lowered_by);
        }
    }

    /// Policies that may have judged a signal, and all up to `through` that were folded into it: they
    /// demand their floor no more, while one of those has a seat and may.
    pub(crate) fn lower(&mut self, signal: &Signal, through: SignalSeq, by: &[Arc<str>]) {
        let Some(demanded) = demanded_by(signal) else {
            return;
        };
        let folded = signal.seq..=through.max(signal.seq);
        let mut was_demanded = false;
        self.standing.retain_mut(|standing| {
            if standing.floor != demanded || standing.signal.drill != signal.drill {
                return true;
            }
            let before = standing.demanded_by.len();
            standing.demanded_by.retain(|seq| !folded.contains(seq));
            was_demanded |= standing.demanded_by.len() < before;
            standing.is_fixed || !standing.demanded_by.is_empty()
        });
        let lowered = self.lowered.iter_mut();
        for lowered in lowered.filter(|lowered| folded.contains(&lowered.signal.seq)) {
            let new = by.iter().filter(|name| !lowered.by.contains(name));
            let new: Vec<_> = new.cloned().collect();
            lowered.by.extend(new);
        }
        if was_demanded {
            self.demand(demanded, signal, by);
        }
    }

    /// A signal demands a floor: it stands, or is lowered by those who have judged it and may.
    pub(crate) fn demand(&mut self, floor: Floor, signal: &Signal, lowered_by: &[Arc<str>]) {
        if lowered_by.is_empty() {
            self.stand(floor, signal);
            return;
        }
        let is_alike = |known: &&mut Lowered| {
            known.floor == floor && *known.by == *lowered_by && is_alike(&known.signal, signal)
        };
        if let Some(known) = self.lowered.iter_mut().find(is_alike) {
            if known.signal.seq < signal.seq {
                known.signal = signal.clone();
            }
        } else if self.lowered.len() >= DEMANDS_MAX {
            // Whoever lowered what for whom is past telling.
            self.stand(floor, signal);
        } else {
            self.lowered.push(Lowered {
                floor,
                by: lowered_by.to_vec(),
                signal: signal.clone(),
            });
        }
    }

    fn stand(&mut self, floor: Floor, signal: &Signal) {
        let alike = |known: &&mut Standing| known.floor == floor && is_alike(&known.signal, signal);
        let mut known = self.standing.iter_mut().filter(alike);
        if let Some(standing) = known.find(|known| known.signal.incident == signal.incident) {
            if standing.demanded_by.len() < DEMANDS_MAX {
                standing.demanded_by.push(signal.seq);
            } else {
                standing.is_fixed = true;
            }
            return;
        }
        let mut known = self.standing.iter_mut().filter(alike);
        if let Some(newest) = known.nth(INCIDENTS_PER_FLOOR_MAX - 1) {
            newest.signal = signal.clone();
            newest.is_fixed = true;
            return;
        }
        self.standing.push(Standing {
            floor,
            signal: signal.clone(),
            demanded_by: vec![signal.seq],
            is_fixed: false,
        });
    }

    /// What is to be remembered: the signals whose floor stands, those whose floor is lowered, and what is
    /// assumed of others.
    pub(crate) fn memory(&self) -> (Vec<Signal>, Vec<LoweredFloor>, Vec<AssumedFault>) {
        let standing = self.standing.iter().map(|standing| standing.signal.clone());
        let lowered = self.lowered.iter().map(|lowered| LoweredFloor {
            by: lowered.by.clone(),
            signal: lowered.signal.clone(),
        });
        let assumed = self.fallbacks.iter().map(|fallback| AssumedFault {
            policy: fallback.policy.clone(),
            rule: fallback.rule,
            why: fallback.why.clone(),
            signal: fallback.signal.clone(),
        });
        (standing.collect(), lowered.collect(), assumed.collect())
    }

    /// A signal's floor stands, as it did in an earlier run.
    pub(crate) fn restand(&mut self, signal: &Signal) {
        if let Some(floor) = demanded_by(signal) {
            self.stand(floor, signal);
        }
    }

    /// A floor is lowered, as it was in an earlier run.
    pub(crate) fn restore_lowered(&mut self, lowered: LoweredFloor) {
        if let Some(floor) = demanded_by(&lowered.signal) {
            self.demand(floor, &lowered.signal, &lowered.by);
        }
    }

    /// Assumes something of a fault by its rule: once for each, whatever its repeats.
    pub(crate) fn fall_back(&mut self, fallback: Assumed) {
        self.resolve(fallback.policy.as_deref(), &fallback.signal);
        if fallback.rule == Fallback::Ignore {
            return;
        }
        if self.fallbacks.len() < limits::FALLBACKS_PER_GPU_MAX {
            self.fallbacks.push(fallback);
            return;
        }
        let mildest = self.fallbacks.iter_mut().min_by_key(|known| known.rank());
        if let Some(mildest) = mildest.filter(|mildest| mildest.rank() < fallback.rank()) {
            *mildest = fallback;
        }
    }

    /// The policy (or, with `None`, everybody who was asked) has judged this fault after all.
    pub(crate) fn resolve(&mut self, policy: Option<&str>, signal: &Signal) {
        self.fallbacks
            .retain(|fallback| fallback.policy.as_deref() != policy || !fallback.is_of(signal));
    }

    /// What is assumed on a policy's account, or on nobody's.
    pub(crate) fn assumed(&self, policy: &str) -> impl Iterator<Item = &Signal> {
        let is_its =
            move |fallback: &&Assumed| fallback.policy.as_deref().is_none_or(|name| name == policy);
        self.fallbacks
            .iter()
            .filter(is_its)
            .map(|fallback| &fallback.signal)
    }

    /// A new version of a policy is asked of now on: by its rule, and not of what it does not want. That
    /// is nobody's then, or settled where others were asked (`is_judged`).
    pub(crate) fn hand_on(
        &mut self,
        policy: &str,
        rule: Fallback,
        wants: impl Fn(&Signal) -> bool,
        is_judged: impl Fn(&Signal) -> bool,
    ) {
        self.fallbacks.retain_mut(|fallback| {
            if fallback.policy.as_deref() != Some(policy) {
                return true;
            }
            if wants(&fallback.signal) {
                fallback.rule = rule;
                return rule != Fallback::Ignore;
            }
            fallback.policy = None;
            fallback.rule = Fallback::Catalogue;
            !is_judged(&fallback.signal)
        });
    }

    /// Policies have left: what is assumed on their account is on nobody's, or settled where others were
    /// asked (`is_judged`). The site's rule for it stays.
    pub(crate) fn leave(
        &mut self,
        is_here: impl Fn(&str) -> bool,
        is_judged: impl Fn(&Signal) -> bool,
    ) {
        self.fallbacks.retain_mut(|fallback| {
            let policy = fallback.policy.as_deref();
            if policy.is_none_or(&is_here) {
                return true;
            }
            fallback.policy = None;
            !is_judged(&fallback.signal)
        });
    }

    pub(crate) fn policy_failed(&mut self, name: &Arc<str>, detail: String) {
        self.policy_works(name);
        self.failing.push((name.clone(), detail));
    }

    pub(crate) fn policy_works(&mut self, name: &Arc<str>) {
        self.failing.retain(|(failing, _)| failing != name);
        self.awaited.retain(|awaited| awaited != name);
    }

    pub(crate) fn policy_is_awaited(&mut self, name: &Arc<str>) {
        self.awaited.push(name.clone());
    }
}

/// Whether the same fault demands both. A drill's stands beside the real one: only reported, it would hide it.
fn is_alike(a: &Signal, b: &Signal) -> bool {
    floor::name(a) == floor::name(b) && a.drill == b.drill
}

/// The floor that a signal may come to demand: that of a double-bit error waits for what contains it.
fn demanded_by(signal: &Signal) -> Option<Floor> {
    if floor::name(signal) == Some("xid-48") {
        return Some(floor::UNCONTAINED_DOUBLE_BIT);
    }
    floor::of(signal)
}

#[cfg(test)]
mod tests {
    use device_api_core::clock::{BootTime, WallTime};
    use device_api_core::ids::{DeviceUuid, IncidentId};
    use device_api_core::signal::Source;
    use device_api_core::verdict::ClearOn;

    use super::*;

    /// XID 95, as an incident of its own.
    fn demand(floors: &mut Floors, number: u64) {
        let signal = Signal {
            seq: SignalSeq(number),
            device: DeviceUuid::new("GPU-0"),
            kind: SignalKind::Xid,
            code: Some(95),
            observed_at: WallTime::default(),
            observed_boot: BootTime::default(),
            repeats: 1,
            incident: IncidentId(number),
            root: None,
            drill: false,
            instance: None,
            sources: vec![Source::Kmsg],
            evidence: String::new(),
            attrs: Vec::new(),
            samples: None,
        };
        floors.observe(&signal, &[], Over::default());
    }

    #[test]
    fn h8_incidents_of_one_code_past_the_bound_share_a_floor_that_the_newest_holds() {
        let mut floors = Floors::default();
        let last = 3 * INCIDENTS_PER_FLOOR_MAX as u64;
        (1..=last).for_each(|number| demand(&mut floors, number));
        assert_eq!(floors.standing.len(), INCIDENTS_PER_FLOOR_MAX);
        floors.end(ClearOn::GpuReset, |signal| signal.seq.0 < last);
        let left: Vec<_> = floors.incidents();
        assert_eq!(left, [IncidentId(last)]);
        floors.end(ClearOn::GpuReset, |_| true);
        assert_eq!(floors.incidents(), []);
    }
}
