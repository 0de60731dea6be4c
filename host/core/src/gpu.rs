//! The object the API serves.

use std::sync::{Arc, OnceLock};

use crate::clock::WallTime;
use crate::condition::{self, Condition, Evidence, Owner, Polarity, READY};
use crate::device::DeviceInfo;
use crate::health::{self, Derived, Health};
use crate::ids::{DeviceUuid, ObjectKey, ResourceVersion};
use crate::verdict::{Judgement, Severity};

/// What the derived `Ready` says where no condition stands out.
const NO_PROBLEM: &str = "No counted problem stands.";
const NOTHING_KNOWN: &str = "Nothing has been observed of it yet.";
/// Between the health and the condition it comes from.
const BECAUSE: &str = " because of ";

/// Whether the message is one of a derived `Ready`, of now or of before. A client that reads, changes
/// and writes back a whole status repeats it, and that is no vote of its own (design P3).
pub fn is_echo(message: &str) -> bool {
    let because = |health: Health| {
        let rest = message.strip_prefix(health.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(BECAUSE))
    };
    message == NO_PROBLEM || message == NOTHING_KNOWN || Health::ALL.into_iter().any(because)
}

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
    pub conditions: Arc<[Condition]>,
    pub derived: Derived,
    /// When `Ready` last changed its status.
    pub ready_since: WallTime,
    pub encoded: Encodings,
}

/// Room for the bytes that protocols make of a GPU, so that they are made once and not once a reader.
/// No part of what the GPU is: equal to any other's, and a clone's, which is about to be changed, is
/// empty.
#[derive(Debug, Default)]
pub struct Encodings([OnceLock<Arc<[u8]>>; Self::SLOTS]);

impl Encodings {
    /// Forms that are kept: one for each dialect of the API.
    pub const SLOTS: usize = 2;

    /// The bytes in a slot; `make` makes them, once. Past [`Self::SLOTS`], each time.
    pub fn get_or_make(&self, slot: usize, make: impl FnOnce() -> Arc<[u8]>) -> Arc<[u8]> {
        match self.0.get(slot) {
            Some(slot) => slot.get_or_init(make).clone(),
            None => make(),
        }
    }
}

impl Clone for Encodings {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Encodings {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
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

    /// The published conditions: the derived `Ready`, then the others. Providers' votes are not shown.
    pub fn published(&self) -> impl Iterator<Item = Condition> + '_ {
        let others = self.shown().cloned();
        std::iter::once(self.ready()).chain(others)
    }

    /// Whether it publishes what `other` does, what is not part of the versioned object left out. A vote
    /// that changes nothing is not seen.
    pub fn shows_the_same(&self, other: &Self) -> bool {
        let (mut own, mut others) = (self.shown(), other.shown());
        let conditions = loop {
            match (own.next(), others.next()) {
                (Some(a), Some(b)) if a.same_content(b) => {}
                (None, None) => break true,
                (_, _) => break false,
            }
        };
        conditions && self.derived == other.derived && self.ready().same_content(&other.ready())
    }

    /// The conditions but for the votes, which are not shown.
    fn shown(&self) -> impl Iterator<Item = &Condition> {
        let conditions = self.conditions.iter();
        conditions.filter(|condition| !condition::is_vote(&condition.type_))
    }

    /// The condition `Ready`, made of the derived health.
    pub fn ready(&self) -> Condition {
        let decider = self
            .derived
            .health_from
            .as_deref()
            .and_then(|type_| condition::find(&self.conditions, type_));
        let message = match (self.derived.health, decider) {
            (Health::Healthy, _) => NO_PROBLEM.to_owned(),
            (Health::Unknown, None) => NOTHING_KNOWN.to_owned(),
            (health, Some(c)) => format!("{health}{BECAUSE}{}: {}", c.type_, c.message),
            (health, None) => health.to_string(),
        };
        Condition {
            type_: READY.into(),
            instance: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_made_once_a_slot_and_a_clone_starts_empty() {
        let encodings = Encodings::default();
        let get = |encodings: &Encodings, slot, byte: u8| {
            encodings.get_or_make(slot, || vec![byte].into()).to_vec()
        };
        assert_eq!(get(&encodings, 0, 1), [1]);
        assert_eq!(get(&encodings, 0, 2), [1]);
        assert_eq!(get(&encodings, 1, 3), [3]);
        assert_eq!(get(&encodings.clone(), 0, 4), [4]);
        assert_eq!(get(&encodings, Encodings::SLOTS, 5), [5]);
        assert_eq!(get(&encodings, Encodings::SLOTS, 6), [6]);
        assert_eq!(encodings, Encodings::default());
    }
}
