//! What providers write, and what becomes of it when they are gone (design section 4).

use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::condition::{self, Condition, HOST_OWNED, Owner, Polarity};
use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::limits;
use device_api_core::ports::DeviceCache as _;
use device_api_core::provider::{self, Caller, Merge, ProviderCondition, StatusUpdate};
use device_api_core::verdict::{Clear, ClearOn, Judgement};

use crate::state::State;
use crate::store::{Store, check_version};

/// Reason of a condition whose provider is gone.
const PROVIDER_LOST: &str = "ProviderLost";

impl Store {
    /// Marks the conditions of providers whose lease has run out (design P2): what was fine is
    /// Unknown, problems stay. Returns their names.
    pub fn expire_leases(&self) -> Vec<Arc<str>> {
        let now = self.clock.boot();
        let lost = self.leases.with(|leases| leases.expire(now));
        for provider in &lost {
            self.mark_lost(provider);
        }
        lost
    }

    fn mark_lost(&self, provider: &Arc<str>) {
        let owner = Owner::Provider(provider.clone());
        // Of deleted GPUs too: their conditions come back with them.
        for uuid in self.read(State::uuids) {
            self.change(&uuid, &mut |conditions| {
                for condition in conditions
                    .iter_mut()
                    .filter(|condition| condition.owner.same(&owner))
                {
                    if condition.state == Judgement::Ok {
                        condition.state = Judgement::Unknown;
                        condition.transition = self.clock.wall();
                    }
                    if condition.reason != PROVIDER_LOST {
                        condition.message =
                            format!("Last said: {}: {}", condition.reason, condition.message);
                        PROVIDER_LOST.clone_into(&mut condition.reason);
                    }
                }
            });
        }
    }

    /// Whose a type is: the host's own and the policies' before any condition is written, but for
    /// `Ready`, on which providers may vote.
    fn owner_of(&self, conditions: &[Condition], type_: &str) -> Option<Owner> {
        if HOST_OWNED.contains(&type_) && type_ != condition::READY {
            return Some(Owner::Host);
        }
        let reserved = self
            .reserved
            .get()
            .and_then(|types| types.iter().find(|(reserved, _)| reserved == type_));
        reserved
            .map(|(_, owner)| owner.clone())
            .or_else(|| condition::find(conditions, type_).map(|condition| condition.owner.clone()))
    }

    /// Writes provider conditions to an object, after the checks that `update` asks for.
    pub(crate) fn write_status(
        &self,
        caller: &Caller,
        update: &StatusUpdate,
    ) -> Result<Arc<Gpu>, ApiError> {
        let owner = Owner::Provider(caller.provider.clone());
        self.write(|transaction| {
            let current = check_version(transaction.state, &update.key, update.expected)?;
            let mut conditions = current.conditions.clone();
            if update.merge == Merge::Lenient && update.expected.is_some() {
                let named = |type_: &str| update.conditions.iter().any(|new| new.type_ == type_);
                conditions.retain(|old| !old.owner.same(&owner) || named(&old.type_));
            }
            let echo = current.ready();
            for new in &update.conditions {
                // An upstream client that reads, changes and writes back repeats the derived
                // `Ready`: that is no vote of its own.
                if new.type_ == condition::READY
                    && (new.status, &new.reason, &new.message)
                        == (echo.status(), &echo.reason, &echo.message)
                {
                    continue;
                }
                match self.owner_of(&conditions, &new.type_) {
                    Some(other) if !other.same(&owner) => match update.merge {
                        Merge::Lenient => continue,
                        Merge::Strict => return Err(not_yours(&new.type_, &other)),
                    },
                    Some(_) | None => {}
                }
                condition::upsert(&mut conditions, from_provider(new, &owner, transaction.now));
            }
            if conditions.len() > limits::CONDITIONS_PER_GPU_MAX {
                return Err(ApiError::Exhausted {
                    limit: "CONDITIONS_PER_GPU_MAX",
                    max: limits::CONDITIONS_PER_GPU_MAX,
                });
            }
            transaction.change(&current.uuid, &mut |record| record.clone_from(&conditions));
            transaction
                .state
                .object(&update.key)
                .cloned()
                .ok_or_else(|| ApiError::NotFound {
                    key: update.key.clone(),
                })
        })
    }
}

fn not_yours(type_: &str, owner: &Owner) -> ApiError {
    ApiError::Forbidden {
        why: format!("condition type {type_:?} belongs to {owner}; write under a type of your own"),
    }
}

fn from_provider(new: &ProviderCondition, owner: &Owner, now: WallTime) -> Condition {
    let polarity = new
        .polarity
        .or_else(|| provider::known_polarity(&new.type_));
    let shown = polarity.unwrap_or(Polarity::TrueIsHealthy);
    let state = shown.judgement(new.status);
    Condition {
        type_: new.type_.as_str().into(),
        state,
        polarity: shown,
        severity: new.severity,
        reason: new.reason.clone(),
        message: new.message.clone(),
        action: new.action,
        clears: if state == Judgement::Problem {
            vec![Clear::on(ClearOn::Policy)]
        } else {
            Vec::new()
        },
        owner: owner.clone(),
        transition: new.transition.unwrap_or(now),
        heartbeat: now,
        incident: None,
        cause: None,
        drill: false,
        counted: polarity.is_some(),
        evidence: Vec::new(),
    }
}
