//! Whose condition types are: of him who has the seat, over a restart too, whoever is loaded first (design P1).

use device_api_core::policy_status::Mode;
use device_api_core::ports::Policy as _;

use super::worker::Worker;
use crate::error::PolicyError;
use crate::loaded::LoadedPolicy;

impl Worker {
    /// Names and types have one owner each; shadows own nothing. What has the same file gives its own up.
    pub(super) fn refuse_taken_types(
        &self,
        name: &str,
        policy: &LoadedPolicy,
    ) -> Result<(), PolicyError> {
        let origin = policy.origin();
        for owned in &policy.info().owns {
            let condition = &owned.condition;
            let other = self.owner_now(name, origin, condition);
            if let Some(other) = other.or_else(|| self.owner_before(name, origin, condition)) {
                return Err(PolicyError::DuplicateType {
                    origin: origin.to_owned(),
                    condition: condition.clone(),
                    other,
                });
            }
        }
        Ok(())
    }

    /// The origin of another one in a seat.
    fn owner_now(&self, name: &str, origin: &str, condition: &str) -> Option<String> {
        let others = self.slots.iter().filter(|(other, _)| ***other != *name);
        let mut active = others
            .filter_map(|(_, slot)| slot.active.as_ref())
            .filter(|active| !active.is_shadow && active.policy.origin() != origin);
        let owner = active.find(|active| active.policy.info().owned(condition).is_some())?;
        Some(owner.policy.origin().to_owned())
    }

    /// Of another one that the site still wants, and that is on its way back to its seat.
    fn owner_before(&self, name: &str, origin: &str, condition: &str) -> Option<String> {
        let mut others = self.books.ledger.policies.iter();
        let owner = others.find_map(|(other, entry)| {
            let is_shadow = |slot: &super::slot::Slot| slot.mode == Mode::Shadow;
            let kept = entry.seated.as_ref()?;
            let is_other = **other != *name
                && kept.origin != origin
                && !self.slots.get(other.as_str()).is_some_and(is_shadow);
            (is_other && kept.owns.iter().any(|owned| owned == condition)).then_some(kept)
        })?;
        Some(owner.origin.clone())
    }
}
