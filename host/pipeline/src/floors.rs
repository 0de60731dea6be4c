//! Which floors and fallbacks stand for a GPU, and the conditions that say so (design H8).

use std::collections::BTreeMap;
use std::sync::Arc;

use device_api_core::action::{Action, Platform};
use device_api_core::clock::WallTime;
use device_api_core::condition::{
    self, Condition, FALLBACK, FAULT_FLOOR, Owner, POLICY_READY, Polarity,
};
use device_api_core::durable::AssumedFault;
use device_api_core::floor::{self, Floor};
use device_api_core::ids::SignalSeq;
use device_api_core::limits;
use device_api_core::seating::Fallback;
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{Clear, ClearOn, Judgement, Severity};
use device_api_core::xid::{self, Class};

use crate::verdicts::{Drills, evidence_of};

/// A floor that stands: what it demands, and the signal that demanded it.
#[derive(Debug)]
struct Standing {
    floor: Floor,
    signal: Signal,
    /// All signals that demand it, while they are few enough to be told apart; then nothing lowers it
    /// but what clears it.
    demanded_by: Vec<SignalSeq>,
    is_fixed: bool,
}

/// Signals of one GPU that demand the same floor and are told apart, so that a policy that may lower it
/// does so for each: as many as it may have failed on.
const DEMANDS_MAX: usize = limits::FAILED_PER_POLICY_MAX;

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

/// Floors, fallbacks and failed policies of one GPU.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    standing: Vec<Standing>,
    fallbacks: Vec<Assumed>,
    /// Policies whose last evaluation failed: name, kind and detail.
    failing: Vec<(Arc<str>, String)>,
}

impl Floors {
    /// Takes a signal's floor into account, unless it `is_lowered`, and what the signal itself takes away.
    pub(crate) fn observe(&mut self, signal: &Signal, is_lowered: bool) {
        if signal.kind == SignalKind::GpuFound {
            self.clear(ClearOn::Policy);
            self.fallbacks
                .retain(|fallback| fallback.signal.kind != SignalKind::GpuLost);
        }
        if floor::recovery_action(&signal.attrs) == Some(0) {
            self.clear(ClearOn::RecoveryNone);
            self.fallbacks
                .retain(|fallback| floor::recovery_action(&fallback.signal.attrs).is_none());
        }
        if let Some(floor) = floor::of(signal).filter(|_| !is_lowered) {
            self.stand(floor, signal);
        }
    }

    /// A policy that may has judged a signal, and all up to `through` that were folded into it: they
    /// demand their floor no more.
    pub(crate) fn lower(&mut self, signal: &Signal, through: SignalSeq) {
        let demanded = if floor::name(signal) == Some("xid-48") {
            Some(floor::UNCONTAINED_DOUBLE_BIT)
        } else {
            floor::of(signal)
        };
        let folded = signal.seq..=through.max(signal.seq);
        self.standing.retain_mut(|standing| {
            if Some(standing.floor) != demanded || standing.signal.drill != signal.drill {
                return true;
            }
            standing.demanded_by.retain(|seq| !folded.contains(seq));
            standing.is_fixed || !standing.demanded_by.is_empty()
        });
    }

    pub(crate) fn stand(&mut self, floor: Floor, signal: &Signal) {
        // A drill's stands beside the real one: only reported, it would hide it.
        let stands =
            |standing: &Standing| standing.floor == floor && standing.signal.drill == signal.drill;
        let Some(standing) = self.standing.iter_mut().find(|known| stands(known)) else {
            self.standing.push(Standing {
                floor,
                signal: signal.clone(),
                demanded_by: vec![signal.seq],
                is_fixed: false,
            });
            return;
        };
        if standing.demanded_by.len() < DEMANDS_MAX {
            standing.demanded_by.push(signal.seq);
        } else {
            standing.is_fixed = true;
        }
    }

    /// What is to be remembered: the signals whose floor stands, and what is assumed of others.
    pub(crate) fn memory(&self) -> (Vec<Signal>, Vec<AssumedFault>) {
        let standing = self.standing.iter().map(|standing| standing.signal.clone());
        let assumed = self.fallbacks.iter().map(|fallback| AssumedFault {
            policy: fallback.policy.clone(),
            rule: fallback.rule,
            why: fallback.why.clone(),
            signal: fallback.signal.clone(),
        });
        (standing.collect(), assumed.collect())
    }

    /// A signal's floor stands, as it did in an earlier run.
    pub(crate) fn restand(&mut self, signal: &Signal) {
        match floor::of(signal) {
            Some(floor) => self.stand(floor, signal),
            None if signal.code == Some(floor::XID_DOUBLE_BIT) => {
                self.stand(floor::UNCONTAINED_DOUBLE_BIT, signal);
            }
            None => {}
        }
    }

    /// Something happened that clears: floors end that name it.
    fn clear(&mut self, event: ClearOn) {
        self.standing
            .retain(|standing| !standing.floor.clears.contains(&event));
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

    pub(crate) fn policy_failed(&mut self, name: &Arc<str>, detail: String) {
        self.policy_works(name);
        self.failing.push((name.clone(), detail));
    }

    pub(crate) fn policy_works(&mut self, name: &Arc<str>) {
        self.failing.retain(|(failing, _)| failing != name);
    }

    /// Writes the host's own conditions: where nothing is wrong, only those that stood before.
    pub(crate) fn publish(
        &self,
        conditions: &mut Vec<Condition>,
        unasked: &BTreeMap<Arc<str>, String>,
        (drills, platform): (Drills, Platform),
        now: WallTime,
    ) {
        let host = Host {
            drills,
            platform,
            now,
        };
        host.write(
            conditions,
            FAULT_FLOOR,
            self.unmet(conditions, drills, platform)
                .map(|standing| Said {
                    class: standing.floor.class,
                    reason: standing.floor.reason,
                    message: format!(
                        "{}: no policy may report less, and none does.",
                        what(&standing.signal)
                    ),
                    clears: standing
                        .floor
                        .clears
                        .iter()
                        .map(|on| Clear::on(*on))
                        .collect(),
                    signal: &standing.signal,
                }),
        );
        host.write(
            conditions,
            FALLBACK,
            self.worst_fallback(drills).map(|(class, fallback)| Said {
                class,
                reason: if fallback.policy.is_some() {
                    "PolicyFailed"
                } else {
                    "NotJudged"
                },
                message: format!(
                    "{}: {}; {}.",
                    what(&fallback.signal),
                    fallback.why,
                    match fallback.rule {
                        Fallback::Unhealthy => "assumed to be fatal, as the site has it",
                        Fallback::Catalogue | Fallback::Ignore => "assumed the vendor's class",
                    }
                ),
                clears: vec![
                    Clear::on(ClearOn::Policy),
                    Clear::on(ClearOn::GpuReset),
                    Clear::on(ClearOn::NodeReboot),
                    Clear::on(ClearOn::Operator),
                ],
                signal: &fallback.signal,
            }),
        );
        self.publish_policy_ready(conditions, unasked, now);
    }

    /// `PolicyReady` tells of failing policies, and of those that are not asked; health never follows
    /// from it.
    fn publish_policy_ready(
        &self,
        conditions: &mut Vec<Condition>,
        unasked: &BTreeMap<Arc<str>, String>,
        now: WallTime,
    ) {
        let is_well = self.failing.is_empty() && unasked.is_empty();
        if is_well && condition::find(conditions, POLICY_READY).is_none() {
            return;
        }
        let failing = self.failing.iter().map(|(name, why)| (name, why));
        let failing = failing.filter(|(name, _)| !unasked.contains_key(*name));
        let said: Vec<_> = failing
            .chain(unasked)
            .map(|(name, why)| format!("{name}: {why}"))
            .collect();
        let (state, reason, message) = if is_well {
            (
                Judgement::Ok,
                "PoliciesWork",
                "Every policy judged its last signals.".to_owned(),
            )
        } else {
            let reason = if self.failing.is_empty() {
                "PolicyNotAsked"
            } else {
                "PolicyFailed"
            };
            (Judgement::Problem, reason, bounded(said.join("; ")))
        };
        condition::upsert(
            conditions,
            Condition {
                counted: false,
                polarity: Polarity::TrueIsHealthy,
                message,
                ..Condition::of_host(POLICY_READY, state, reason, now)
            },
        );
    }

    /// The worst floor that no policy's condition reaches; one that counts before one that does not.
    fn unmet(
        &self,
        conditions: &[Condition],
        drills: Drills,
        platform: Platform,
    ) -> Option<&Standing> {
        let met = |standing: &Standing| {
            let class = standing.floor.class;
            conditions.iter().any(|c| {
                matches!(c.owner, Owner::Policy(_))
                    && c.is_problem()
                    && (c.counted || standing.signal.drill)
                    && c.severity >= class.severity
                    && c.action >= class.action.on(platform)
            })
        };
        let unmet = self.standing.iter().filter(|standing| !met(standing));
        unmet.max_by_key(|standing| {
            let class = standing.floor.class;
            (
                drills.count(standing.signal.drill),
                class.severity,
                class.action,
            )
        })
    }

    fn worst_fallback(&self, drills: Drills) -> Option<(Class, &Assumed)> {
        let worst = self.fallbacks.iter().max_by_key(|fallback| {
            let class = fallback.class();
            (
                drills.count(fallback.signal.drill),
                class.severity,
                class.action,
            )
        });
        worst.map(|fallback| (fallback.class(), fallback))
    }
}

/// What a host-owned condition says.
struct Said<'a> {
    class: Class,
    reason: &'static str,
    message: String,
    clears: Vec<Clear>,
    signal: &'a Signal,
}

struct Host {
    drills: Drills,
    platform: Platform,
    now: WallTime,
}

impl Host {
    fn write(&self, conditions: &mut Vec<Condition>, type_: &str, said: Option<Said<'_>>) {
        let Some(said) = said else {
            if condition::find(conditions, type_).is_some() {
                condition::upsert(
                    conditions,
                    Condition::of_host(type_, Judgement::Ok, "Cleared", self.now),
                );
            }
            return;
        };
        condition::upsert(
            conditions,
            Condition {
                severity: said.class.severity,
                message: said.message,
                action: said.class.action.on(self.platform),
                clears: said.clears,
                incident: Some(said.signal.incident),
                cause: Some(said.signal.seq),
                drill: said.signal.drill,
                counted: self.drills.count(said.signal.drill),
                evidence: evidence_of(said.signal),
                ..Condition::of_host(type_, Judgement::Problem, said.reason, self.now)
            },
        );
    }
}

/// Within the bound of a message.
fn bounded(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(limits::MESSAGE_BYTES_MAX));
    message
}

/// The signal in words: `XID 79 (GPU has fallen off the bus)`.
fn what(signal: &Signal) -> String {
    match (signal.kind, signal.code) {
        (SignalKind::Xid, Some(code)) => {
            let name = xid::lookup(code).map_or("not in the catalogue", |entry| entry.name);
            format!("XID {code} ({name})")
        }
        (SignalKind::Sxid, Some(code)) => format!("SXid {code}"),
        (kind, _) => kind.to_string(),
    }
}
