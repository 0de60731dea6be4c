//! What a provider says of a GPU: its conditions, and the types that it comes to own with them (design P1, P3).

use std::sync::Arc;

use device_api_core::action::Action;
use device_api_core::clock::WallTime;
use device_api_core::condition::{self, Condition, Owner, Polarity};
use device_api_core::durable::{Change, Claim};
use device_api_core::error::ApiError;
use device_api_core::gpu::{Gpu, is_echo};
use device_api_core::provider::{Caller, Merge, ProviderCondition, StatusUpdate};
use device_api_core::verdict::Judgement;

use crate::cache::{Cache, check_version};
use crate::state::{State, Transaction, provider_bytes};

impl Cache {
    /// Writes provider conditions to an object, after the checks that `update` asks for.
    pub(crate) fn write_status(
        &self,
        transaction: &mut Transaction<'_>,
        caller: &Caller,
        update: &StatusUpdate,
    ) -> Result<Arc<Gpu>, ApiError> {
        let owner = Owner::Provider(caller.provider.clone());
        let current = check_version(transaction.state, &update.key, update.expected)?;
        // Not what is shown: that of a MIG instance is its GPU's too.
        let record = transaction.state.record(&current.uuid);
        let before = record.map(|record| record.conditions.clone());
        let before = before.unwrap_or_default();
        let mut conditions = before.to_vec();
        if update.merge == Merge::Lenient && update.expected.is_some() {
            let record = transaction.state.record(&current.uuid);
            let left_out = |old: &Condition| {
                old.owner.same(&owner)
                    && record.and_then(|record| record.written_over.get(&old.type_))
                        == Some(&caller.connection)
                    && !update.conditions.iter().any(|new| *new.type_ == *old.type_)
            };
            conditions.retain(|old| !left_out(old));
        }
        let mut written: Vec<Claim> = Vec::new();
        for new in &update.conditions {
            if new.type_ == condition::READY {
                if !is_echo(&new.message) {
                    let vote = vote(new, &owner, transaction.now);
                    condition::upsert(&mut conditions, vote);
                }
                continue;
            }
            match self.owner_of(transaction.state, &new.type_) {
                Some(other) if !other.same(&owner) => match update.merge {
                    Merge::Lenient => continue,
                    Merge::Strict => return Err(not_yours(&new.type_, &other)),
                },
                Some(_) | None => {}
            }
            let claim = claim(transaction.state, new, &owner, caller);
            let polarity = claim
                .polarity
                .or_else(|| self.config.polarity.of(&new.type_));
            let mut condition = from_provider(new, &claim, polarity, transaction.now);
            if update.merge == Merge::Lenient {
                keep_action(&mut condition, &conditions);
            }
            condition::upsert(&mut conditions, condition);
            written.push(claim);
        }
        self.check_room(transaction.state, &before, &conditions)?;
        self.take_claims(transaction, caller, &current, written)?;
        transaction.change(&current.uuid, |record| {
            *record = conditions;
            observed(record);
        });
        let key = &update.key;
        let written = transaction.state.object(key).cloned();
        written.ok_or_else(|| ApiError::NotFound { key: key.clone() })
    }

    /// Whether there is room for what providers say now.
    fn check_room(
        &self,
        state: &State,
        before: &[Condition],
        new: &[Condition],
    ) -> Result<(), ApiError> {
        let bounds = &self.config.bounds;
        let counted = new
            .iter()
            .filter(|c| !matches!(c.owner, Owner::Host) && c.instance.is_none());
        if counted.count() > bounds.conditions_per_gpu {
            return Err(ApiError::Exhausted {
                limit: "conditions-per-gpu",
                max: bounds.conditions_per_gpu,
            });
        }
        let others = state.provider_bytes() - provider_bytes(before);
        if others + provider_bytes(new) > bounds.condition_bytes {
            return Err(ApiError::Exhausted {
                limit: "condition-bytes",
                max: bounds.condition_bytes,
            });
        }
        Ok(())
    }

    fn take_claims(
        &self,
        transaction: &mut Transaction<'_>,
        caller: &Caller,
        gpu: &Gpu,
        written: Vec<Claim>,
    ) -> Result<(), ApiError> {
        let state = &mut *transaction.state;
        let is_new = |claim: &&Claim| !state.claims.contains_key(&claim.type_);
        let max = self.config.bounds.condition_types;
        if state.claims.len() + written.iter().filter(is_new).count() > max {
            let limit = "condition-types";
            return Err(ApiError::Exhausted { limit, max });
        }
        for claim in written {
            let state = &mut *transaction.state;
            if let Some(record) = state.records.get_mut(&gpu.uuid) {
                record
                    .written_over
                    .insert(claim.type_.clone(), caller.connection);
            }
            let before = state.claims.insert(claim.type_.clone(), claim.clone());
            if before.as_ref() == Some(&claim) {
                continue;
            }
            let listed = || self.config.polarity.of(&claim.type_);
            if before.is_none() && claim.polarity.or_else(listed).is_none() {
                transaction.warn_uncounted(&claim.type_);
            }
            transaction.note(Change::Claim(claim));
        }
        Ok(())
    }
}

/// What a write says of its type: the writer owns it, and it is this way round.
fn claim(state: &State, new: &ProviderCondition, owner: &Owner, caller: &Caller) -> Claim {
    let before = state.claims.get(&*new.type_);
    Claim {
        type_: before.map_or_else(|| new.type_.as_str().into(), |claim| claim.type_.clone()),
        owner: owner.clone(),
        identity: caller.identity.clone(),
        polarity: new
            .polarity
            .or_else(|| before.and_then(|claim| claim.polarity)),
    }
}

/// A provider's own word on `Ready`: one vote each.
fn vote(new: &ProviderCondition, owner: &Owner, now: WallTime) -> Condition {
    let provider = match owner {
        Owner::Provider(name) => &**name,
        Owner::Host | Owner::Policy(_) => "",
    };
    let claim = Claim {
        type_: condition::vote_of(provider),
        owner: owner.clone(),
        identity: "".into(),
        polarity: None,
    };
    from_provider(new, &claim, Some(Polarity::TrueIsHealthy), now)
}

/// A condition that says what it said before keeps its action: the one that is written with it may be
/// an echo of the published one, which follows from others, too.
fn keep_action(new: &mut Condition, conditions: &[Condition]) {
    let same = condition::find(conditions, &new.type_).filter(|old| {
        (old.state, &old.reason, &old.message) == (new.state, &new.reason, &new.message)
    });
    if let Some(old) = same {
        new.action = old.action;
    }
}

/// Somebody has observed the GPU since the restart.
fn observed(conditions: &mut Vec<Condition>) {
    conditions.retain(|condition| !condition.is_unobserved());
}

fn not_yours(type_: &str, owner: &Owner) -> ApiError {
    ApiError::Forbidden {
        why: format!("condition type {type_:?} belongs to {owner}; write under a type of your own"),
    }
}

fn from_provider(
    new: &ProviderCondition,
    claim: &Claim,
    polarity: Option<Polarity>,
    now: WallTime,
) -> Condition {
    let shown = polarity.unwrap_or(Polarity::TrueIsHealthy);
    let state = shown.judgement(new.status);
    let is_problem = state == Judgement::Problem && polarity.is_some();
    Condition {
        type_: claim.type_.clone(),
        instance: None,
        state,
        polarity: shown,
        severity: new.severity,
        reason: new.reason.clone(),
        message: new.message.clone(),
        action: if is_problem { new.action } else { Action::None },
        // Only its owner can say.
        clears: Vec::new(),
        owner: claim.owner.clone(),
        transition: new.transition.unwrap_or(now),
        heartbeat: now,
        incident: None,
        cause: None,
        drill: false,
        counted: polarity.is_some(),
        evidence: Vec::new(),
    }
}
