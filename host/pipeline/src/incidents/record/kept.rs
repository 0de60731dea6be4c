//! A record as the store has it.

use std::sync::Arc;

use device_api_core::condition::{Condition, Owner};
use device_api_core::durable::{Change, IncidentMemory};
use device_api_core::incident::Incident;

use super::Record;
use crate::incidents::Save;
use crate::journal::Moment;

/// What of a record the store does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unsaved {
    Nothing,
    /// Counts and times alone.
    Repeats,
    Change,
}

impl Record {
    /// As an earlier run left it.
    pub(in crate::incidents) fn kept(memory: IncidentMemory) -> Self {
        let IncidentMemory {
            incident,
            last,
            last_boot,
            raised,
        } = memory;
        Self {
            last: Moment {
                seq: last,
                boot: last_boot,
                wall: incident.last_seen,
            },
            incident: Arc::new(incident),
            raised,
            is_floored: false,
            unsaved: Unsaved::Nothing,
            is_kept: true,
        }
    }

    /// What the store lacks of it, if that is to be written.
    pub(in crate::incidents) fn take_unsaved(&mut self, save: Save) -> Option<Change> {
        let least = match save {
            Save::News => Unsaved::Change,
            Save::All => Unsaved::Repeats,
        };
        if self.unsaved < least {
            return None;
        }
        self.unsaved = Unsaved::Nothing;
        self.is_kept = true;
        Some(Change::Incident(IncidentMemory {
            incident: Incident::clone(&self.incident),
            last: self.last.seq,
            last_boot: self.last.boot,
            raised: self.raised.clone(),
        }))
    }

    /// Whether something is to be written with the next decision.
    pub(in crate::incidents) fn has_news(&self) -> bool {
        self.unsaved == Unsaved::Change
    }

    pub(in crate::incidents) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Whether something of it stands, by the conditions that an earlier run left.
    pub(in crate::incidents) fn stand_by(&mut self, conditions: &[Condition]) {
        self.keep_raised(conditions);
        let id = Some(self.incident.id);
        let is_its = |c: &Condition| c.is_problem() && c.owner == Owner::Host && c.incident == id;
        self.is_floored = conditions.iter().any(is_its);
    }

    /// A floor, or what is assumed, stands for it.
    pub(in crate::incidents) fn be_floored(&mut self) {
        self.is_floored = true;
    }
}
