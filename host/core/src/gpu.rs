//! The object the API serves.

use std::sync::Arc;

use crate::clock::WallTime;
use crate::condition::{Condition, Evidence, Owner, Polarity, READY};
use crate::device::DeviceInfo;
use crate::health::{self, Derived, Health};
use crate::ids::{DeviceUuid, ObjectKey, ResourceVersion};
use crate::verdict::{Judgement, Severity};

/// One GPU as consumers see it: immutable, one per version.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    pub key: ObjectKey,
    /// UUID v4 of the object, not of the device: a deleted and re-created GPU gets another.
    pub uid: Arc<str>,
    /// +1 whenever the spec changes.
    pub generation: u64,
    pub created: WallTime,
    pub version: ResourceVersion,
    /// The spec: which device it is.
    pub uuid: DeviceUuid,
    pub device: Arc<DeviceInfo>,
    /// In the order of their types; the derived `Ready` is not among them.
    pub conditions: Vec<Condition>,
    pub derived: Derived,
    /// When `Ready` last changed its status.
    pub ready_since: WallTime,
}

impl Gpu {
    /// Derives health anew after `conditions` changed; `now` is the transition time if `Ready` flips.
    pub fn rederive(&mut self, now: WallTime) {
        let derived = health::derive(&self.conditions);
        if derived.health.ready() != self.derived.health.ready() {
            self.ready_since = now;
        }
        self.derived = derived;
    }

    /// The published conditions: the derived `Ready`, then the others. A provider's own `Ready` is
    /// a vote and not shown.
    pub fn published(&self) -> impl Iterator<Item = Condition> + '_ {
        let others = self
            .conditions
            .iter()
            .filter(|c| &*c.type_ != READY)
            .cloned();
        std::iter::once(self.ready()).chain(others)
    }

    /// The condition `Ready`, made of the derived health.
    pub fn ready(&self) -> Condition {
        let decider = self
            .derived
            .health_from
            .as_deref()
            .and_then(|type_| crate::condition::find(&self.conditions, type_));
        let message = match (self.derived.health, decider) {
            (Health::Healthy, _) => "No counted problem stands.".to_owned(),
            (Health::Unknown, None) => "Nothing has been observed of it yet.".to_owned(),
            (health, Some(c)) => format!("{health} because of {}: {}", c.type_, c.message),
            (health, None) => health.to_string(),
        };
        Condition {
            type_: READY.into(),
            state: match self.derived.health {
                Health::Healthy | Health::Degraded => Judgement::Ok,
                Health::Unhealthy => Judgement::Problem,
                Health::Unknown => Judgement::Unknown,
            },
            polarity: Polarity::TrueIsHealthy,
            severity: match self.derived.health {
                Health::Unhealthy => Severity::Fatal,
                Health::Degraded | Health::Unknown => Severity::Warning,
                Health::Healthy => Severity::Info,
            },
            reason: decider.map_or_else(|| self.derived.health.to_string(), |c| c.reason.clone()),
            message,
            action: self.derived.action,
            clears: Vec::new(),
            owner: Owner::Host,
            transition: self.ready_since,
            heartbeat: decider.map_or(self.ready_since, |c| c.heartbeat),
            incident: decider.and_then(|c| c.incident),
            cause: decider.and_then(|c| c.cause),
            drill: decider.is_some_and(|c| c.drill),
            counted: false,
            evidence: decider.map_or_else(Vec::<Evidence>::new, |c| c.evidence.clone()),
        }
    }
}
