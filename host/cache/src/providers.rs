//! What providers write, whose it is, and what becomes of it when they are gone (design section 4).

use std::collections::BTreeMap;
use std::sync::Arc;

use device_api_core::action::Action;
use device_api_core::clock::WallTime;
use device_api_core::condition::{self, Condition, HOST_OWNED, Owner, Polarity, RESTARTED};
use device_api_core::durable::{Change, Claim};
use device_api_core::error::ApiError;
use device_api_core::gpu::{Gpu, is_echo};
use device_api_core::message;
use device_api_core::provider::{
    Caller, Lease, Merge, ProviderCondition, ProviderInfo, Registration, StatusUpdate,
};
use device_api_core::verdict::Judgement;

use crate::cache::{Cache, check_version};
use crate::leases::lease_of;
use crate::state::{State, Transaction, provider_bytes};

/// Reason of a condition whose provider is gone.
const PROVIDER_LOST: &str = "ProviderLost";

impl Cache {
    /// Marks the conditions of providers whose lease has run out (design P2): what was fine is
    /// Unknown, problems stay. Returns their names. One write, so that who registers again meanwhile
    /// does so before or after all of it.
    pub fn expire_leases(&self) -> Vec<Arc<str>> {
        let now = self.clock.boot();
        if !self.leases.with(|leases| leases.is_due(now)) {
            return Vec::new();
        }
        self.write(|transaction| {
            let lost = self.leases.with(|leases| leases.expire(now));
            for provider in &lost {
                transaction.note(Change::LeaseGone(provider.clone()));
                mark_lost(transaction, provider);
            }
            lost
        })
    }

    pub(crate) async fn register(&self, wanted: Registration) -> Result<Lease, ApiError> {
        let providers_max = self.config.bounds.providers;
        let (now, provider) = (self.clock.boot(), wanted.provider.clone());
        self.client_write(|transaction| {
            check_name(transaction.state, &wanted)?;
            let held = self
                .leases
                .with(|leases| leases.register(wanted, now, providers_max))?;
            transaction.note(Change::Lease(held.clone()));
            Ok(Lease {
                rewrite: is_doubted(transaction.state, &provider),
                ..lease_of(&held)
            })
        })
        .await
    }

    /// Renews a lease. Nobody waits for the disk: after a restart the whole duration is before it.
    pub(crate) fn renew(&self, lease_id: &str) -> Result<Lease, ApiError> {
        let now = self.clock.boot();
        let held = self.leases.with(|leases| leases.renew(lease_id, now))?;
        Ok(Lease {
            rewrite: self.read(|state| is_doubted(state, &held.provider)),
            ..lease_of(&held)
        })
    }

    pub(crate) fn known_providers(&self) -> Vec<ProviderInfo> {
        let mut known = BTreeMap::new();
        let entry = |name: &Arc<str>, identity: &Arc<str>| ProviderInfo {
            name: name.clone(),
            identity: identity.clone(),
            lease: None,
            types: Vec::new(),
        };
        let now = self.clock.boot();
        self.leases.with(|leases| {
            for held in leases.held() {
                let mut info = entry(&held.provider, &held.identity);
                info.lease = Some(held.ends.since(now));
                known.insert(held.provider.clone(), info);
            }
        });
        self.read(|state| {
            for claim in state.claims.values() {
                if let Owner::Provider(name) = &claim.owner {
                    known
                        .entry(name.clone())
                        .or_insert_with(|| entry(name, &claim.identity))
                        .types
                        .push(claim.type_.clone());
                }
            }
        });
        known.into_values().collect()
    }

    /// Releases what a provider owns: its types, its conditions, its lease.
    pub(crate) async fn forget(&self, provider: &str) -> Result<Vec<Arc<str>>, ApiError> {
        let owner = Owner::Provider(provider.into());
        self.client_write(|transaction| {
            let types: Vec<Arc<str>> = transaction
                .state
                .claims
                .extract_if(.., |_, claim| claim.owner.same(&owner))
                .map(|(type_, _)| type_)
                .collect();
            let held = self.leases.with(|leases| leases.end(provider));
            if types.is_empty() && !held {
                return Err(ApiError::Invalid {
                    field: "name",
                    why: format!(
                        "{provider:?} is no provider that owns a condition type or holds a lease; ListProviders tells which are"
                    ),
                });
            }
            transaction.note(Change::LeaseGone(provider.into()));
            for type_ in &types {
                transaction.note(Change::ClaimGone(type_.clone()));
            }
            for uuid in transaction.state.uuids() {
                transaction.change(&uuid, |conditions| {
                    conditions.retain(|condition| !condition.owner.same(&owner));
                });
            }
            Ok(types)
        })
        .await
    }

    /// Whose a type is: the host's own and the policies' before any condition is written. What stands
    /// of a policy that is not loaded now is still that one's.
    fn owner_of(&self, state: &State, type_: &str) -> Option<Owner> {
        if HOST_OWNED.contains(&type_) || condition::is_vote(type_) {
            return Some(Owner::Host);
        }
        let claimed = || state.claims.get(type_).map(|claim| claim.owner.clone());
        let standing = || {
            let mut conditions = state.records.values().map(|record| &record.conditions);
            conditions.find_map(|conditions| {
                let at = conditions.partition_point(|c| *c.type_ < *type_);
                let found = conditions.get(at).filter(|c| *c.type_ == *type_)?;
                Some(found.owner.clone())
            })
        };
        self.reserved_for(type_).or_else(claimed).or_else(standing)
    }

    fn reserved_for(&self, type_: &str) -> Option<Owner> {
        self.reserved.with(|types| {
            let reserved = types.iter().find(|(reserved, _)| reserved == type_);
            reserved.map(|(_, owner)| owner.clone())
        })
    }

    /// Whose a type is to a policy that would own it. What a policy left behind that is not asked now is
    /// free: a policy can be replaced by one of another name, which then judges what stands.
    pub(crate) fn owner_among_policies(&self, state: &State, type_: &str) -> Option<Owner> {
        let owner = self.owner_of(state, type_)?;
        let is_left = matches!(owner, Owner::Policy(_)) && self.reserved_for(type_).is_none();
        (!is_left).then_some(owner)
    }

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

fn mark_lost(transaction: &mut Transaction<'_>, provider: &Arc<str>) {
    let (owner, now) = (Owner::Provider(provider.clone()), transaction.now);
    // Of deleted GPUs too: their conditions come back with them.
    for uuid in transaction.state.uuids() {
        transaction.change(&uuid, |conditions| {
            let own = |condition: &&mut Condition| condition.owner.same(&owner);
            for condition in conditions.iter_mut().filter(own) {
                if condition.state == Judgement::Ok {
                    condition.state = Judgement::Unknown;
                    condition.transition = now;
                }
                if condition.reason != PROVIDER_LOST {
                    if condition.reason != RESTARTED {
                        condition.message = message::last_said(condition);
                    }
                    PROVIDER_LOST.clone_into(&mut condition.reason);
                }
            }
        });
    }
}

/// A name that owns condition types is its owner's, also when no lease runs: or whoever may write could
/// take it over, and heal what its owner reported.
fn check_name(state: &State, wanted: &Registration) -> Result<(), ApiError> {
    let owner = Owner::Provider(wanted.provider.clone());
    let mut claims = state.claims.values();
    let others = claims.find(|claim| claim.owner.same(&owner) && claim.identity != wanted.identity);
    match others {
        None => Ok(()),
        Some(claim) => Err(ApiError::Forbidden {
            why: format!(
                "provider {:?} is {}'s, who owns condition type {:?} under it; use another name, or have the provider forgotten",
                wanted.provider, claim.identity, claim.type_
            ),
        }),
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

/// The daemon does not trust all that the provider once called healthy.
fn is_doubted(state: &State, provider: &Arc<str>) -> bool {
    let owner = Owner::Provider(provider.clone());
    let shown = state.records.values();
    let mut shown = shown.filter(|record| !record.objects.is_empty());
    shown.any(|record| {
        record.conditions.iter().any(|condition| {
            condition.owner.same(&owner)
                && (condition.reason == PROVIDER_LOST || condition.reason == RESTARTED)
        })
    })
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
