//! The host's own conditions, which say what floors, fallbacks and failing policies stand.

use std::sync::Arc;

use device_api_core::action::Platform;
use device_api_core::clock::WallTime;
use device_api_core::condition::{
    self, Condition, FALLBACK, FAULT_FLOOR, Owner, POLICY_READY, Polarity,
};
use device_api_core::floor::{self, Floor};
use device_api_core::ids::DeviceUuid;
use device_api_core::message;
use device_api_core::seating::Fallback;
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{Clear, Judgement};
use device_api_core::xid::{self, Class};

use super::{Assumed, Floors};
use crate::instances;
use crate::pipeline::Config;
use crate::recover::Ending;
use crate::seats::Bench;
use crate::verdicts::{Drills, evidence_of};

impl Floors {
    /// Writes the host's own conditions: where nothing is wrong, only those that stood before.
    pub(crate) fn publish(
        &self,
        conditions: &mut Vec<Condition>,
        bench: &Bench,
        config: Config,
        (ending, now): (Option<&Ending>, WallTime),
    ) {
        let (drills, platform) = (config.drills, config.platform);
        let host = Host {
            drills,
            platform,
            ending,
            now,
        };
        host.write(
            conditions,
            (FAULT_FLOOR, None),
            self.unmet(conditions, bench, (drills, platform))
                .map(|(floor, signal)| Said {
                    class: floor.class,
                    reason: floor.reason,
                    message: format!(
                        "{}: no policy may report less, and none does.",
                        what(signal)
                    ),
                    clears: floor.clears.iter().map(|on| Clear::on(*on)).collect(),
                    signal,
                }),
        );
        self.publish_fallback(conditions, &host, None);
        let mut instances = instances::with(conditions, FALLBACK);
        let assumed = self.fallbacks.iter();
        let assumed = assumed.filter_map(|fallback| fallback.signal.instance.as_deref());
        instances.extend(assumed.map(DeviceUuid::new));
        instances.sort();
        instances.dedup();
        for instance in &instances {
            self.publish_fallback(conditions, &host, Some(instance));
        }
        if config.safe_mode {
            self.publish_safe_mode(conditions, now);
        } else {
            self.publish_policy_ready(conditions, bench, now);
        }
    }

    /// Nobody else judges: a GPU that answers is as the faults that the host knows of make it.
    fn publish_safe_mode(&self, conditions: &mut Vec<Condition>, now: WallTime) {
        let is_assumed = |fallback: &Condition| fallback.is_problem();
        if self.is_found && !condition::find(conditions, FALLBACK).is_some_and(is_assumed) {
            let fine = Condition {
                counted: true,
                message: "The GPU answers, and the host knows of no fault; no policy is run."
                    .to_owned(),
                ..Condition::of_host(FALLBACK, Judgement::Ok, "NoFaultKnown", now)
            };
            condition::upsert(conditions, fine);
        }
        let ready = Condition {
            counted: false,
            polarity: Polarity::TrueIsHealthy,
            message: "Safe mode: no policy is run, and floor and fallback judge; start without --safe-mode."
                .to_owned(),
            ..Condition::of_host(POLICY_READY, Judgement::Problem, "SafeMode", now)
        };
        condition::upsert(conditions, ready);
    }

    /// What is assumed of the GPU, or of one of its instances.
    fn publish_fallback(
        &self,
        conditions: &mut Vec<Condition>,
        host: &Host<'_>,
        instance: Option<&DeviceUuid>,
    ) {
        let worst = self.worst_fallback(host.drills, instance);
        let said = worst.map(|(class, fallback)| Said {
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
            clears: Self::fallback_clears(),
            signal: &fallback.signal,
        });
        host.write(conditions, (FALLBACK, instance), said);
    }

    /// `PolicyReady` tells of failing policies, and of those that are not asked; health never follows
    /// from it.
    fn publish_policy_ready(&self, conditions: &mut Vec<Condition>, bench: &Bench, now: WallTime) {
        let unasked = bench.unasked();
        let before = condition::find(conditions, POLICY_READY);
        let is_well = self.failing.is_empty() && unasked.is_empty();
        if is_well && before.is_none() {
            return;
        }
        // Whose seat was empty is well once it has judged; where nothing was wrong before, nothing is.
        let awaited = before.filter(|before| before.is_problem());
        let awaited = awaited.map_or(&[][..], |_| &self.awaited);
        let is_well = is_well && awaited.is_empty();
        let untold = |name: &Arc<str>| !unasked.contains_key(name);
        let failing = self.failing.iter().filter(|(name, _)| untold(name));
        let failing = failing.map(|(name, why)| (name, &**why));
        let awaited = awaited.iter().filter(|name| untold(name));
        let awaited =
            awaited.map(|name| (name, "it took its seat, and has not judged this GPU yet"));
        let unasked = unasked.iter().map(|(name, why)| (name, &**why));
        let said: Vec<_> = failing
            .chain(awaited)
            .chain(unasked)
            .map(|(name, why)| format!("{name}: {why}"))
            .collect();
        let (state, reason, message) = if is_well {
            (
                Judgement::Ok,
                "PoliciesWork",
                "Every policy is asked, and none failed on its last signals.".to_owned(),
            )
        } else {
            let reason = if self.failing.is_empty() {
                "PolicyNotAsked"
            } else {
                "PolicyFailed"
            };
            (Judgement::Problem, reason, message::cut(said.join("; ")))
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

    /// The worst floor that no policy's condition reaches, nor a policy lowers that may; one that counts
    /// before one that does not.
    fn unmet(
        &self,
        conditions: &[Condition],
        bench: &Bench,
        (drills, platform): (Drills, Platform),
    ) -> Option<(Floor, &Signal)> {
        let met = |(floor, signal): &(Floor, &Signal)| {
            conditions.iter().any(|c| {
                matches!(c.owner, Owner::Policy(_))
                    && c.instance.is_none()
                    && c.is_problem()
                    && (c.counted || signal.drill)
                    && c.severity >= floor.class.severity
                    && c.action >= floor.class.action.on(platform)
            })
        };
        let standing = self.standing.iter();
        let standing = standing.map(|standing| (standing.floor, &standing.signal));
        let lowered = self.lowered.iter().filter(|lowered| {
            let name = floor::name(&lowered.signal);
            !name.is_some_and(|name| bench.still_lowers(&lowered.by, name))
        });
        let lowered = lowered.map(|lowered| (lowered.floor, &lowered.signal));
        let unmet = standing.chain(lowered).filter(|demanded| !met(demanded));
        // Of equals the first stays.
        unmet.rev().max_by_key(|(floor, signal)| {
            let class = floor.class;
            (drills.count(signal.drill), class.severity, class.action)
        })
    }

    fn worst_fallback(
        &self,
        drills: Drills,
        instance: Option<&DeviceUuid>,
    ) -> Option<(Class, &Assumed)> {
        let instance = instance.map(DeviceUuid::as_str);
        let fallbacks = self.fallbacks.iter();
        let on_it = fallbacks.filter(|fallback| fallback.signal.instance.as_deref() == instance);
        let worst = on_it.max_by_key(|fallback| {
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

struct Host<'a> {
    drills: Drills,
    platform: Platform,
    ending: Option<&'a Ending>,
    now: WallTime,
}

impl Host<'_> {
    fn write(
        &self,
        conditions: &mut Vec<Condition>,
        (type_, instance): (&str, Option<&DeviceUuid>),
        said: Option<Said<'_>>,
    ) {
        let Some(said) = said else {
            // Once it is over it says what ended it, for as long as it is.
            let is_over = |old: &Condition| old.state == Judgement::Ok;
            if condition::find_on(conditions, type_, instance.map(DeviceUuid::as_str))
                .is_some_and(|old| !is_over(old))
            {
                let (reason, message) = self.ending.map_or(("Cleared", ""), |ending| {
                    (ending.reason, ending.message.as_str())
                });
                let over = Condition {
                    message: message.to_owned(),
                    instance: instance.cloned(),
                    ..Condition::of_host(type_, Judgement::Ok, reason, self.now)
                };
                condition::upsert(conditions, over);
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
                instance: instance.cloned(),
                ..Condition::of_host(type_, Judgement::Problem, said.reason, self.now)
            },
        );
    }
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
