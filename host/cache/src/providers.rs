//! What providers write, whose it is, and what becomes of it when they are gone (design section 4).

use std::collections::BTreeMap;
use std::sync::Arc;

use device_api_core::action::Action;
use device_api_core::clock::WallTime;
use device_api_core::condition::{self, Condition, HOST_OWNED, Owner, Polarity};
use device_api_core::durable::{Change, Claim};
use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::ports::DeviceCache as _;
use device_api_core::provider::{
    Caller, Lease, Merge, ProviderCondition, ProviderInfo, Registration, StatusUpdate,
};
use device_api_core::verdict::{Clear, ClearOn, Judgement};

use crate::cache::{Cache, check_version};
use crate::leases::lease_of;
use crate::restore::{RESTARTED, last_said};
use crate::state::{State, Transaction};

/// Reason of a condition whose provider is gone.
const PROVIDER_LOST: &str = "ProviderLost";

impl Cache {
    /// Marks the conditions of providers whose lease has run out (design P2): what was fine is
    /// Unknown, problems stay. Returns their names.
    pub fn expire_leases(&self) -> Vec<Arc<str>> {
        let now = self.clock.boot();
        let lost = self.leases.with(|leases| leases.expire(now));
        for provider in &lost {
            self.write(|transaction| transaction.note(Change::LeaseGone(provider.clone())));
            self.mark_lost(provider);
        }
        lost
    }

    fn mark_lost(&self, provider: &Arc<str>) {
        let owner = Owner::Provider(provider.clone());
        // Of deleted GPUs too: their conditions come back with them.
        for uuid in self.read(State::uuids) {
            self.change(&uuid, &mut |conditions: &mut Vec<Condition>| {
                let own = |condition: &&mut Condition| condition.owner.same(&owner);
                for condition in conditions.iter_mut().filter(own) {
                    if condition.state == Judgement::Ok {
                        condition.state = Judgement::Unknown;
                        condition.transition = self.clock.wall();
                    }
                    if condition.reason != PROVIDER_LOST {
                        if condition.reason != RESTARTED {
                            condition.message = last_said(condition);
                        }
                        PROVIDER_LOST.clone_into(&mut condition.reason);
                    }
                }
            });
        }
    }

    pub(crate) async fn register(&self, wanted: Registration) -> Result<Lease, ApiError> {
        let providers_max = self.config.bounds.providers;
        let (now, provider) = (self.clock.boot(), wanted.provider.clone());
        self.client_write(|transaction| {
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
                        .or_insert_with(|| entry(name, name))
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

    /// Whose a type is: the host's own and the policies' before any condition is written, but for
    /// `Ready`, on which providers may vote.
    fn owner_of(&self, state: &State, type_: &str) -> Option<Owner> {
        if HOST_OWNED.contains(&type_) && type_ != condition::READY {
            return Some(Owner::Host);
        }
        let reserved = self
            .reserved
            .get()
            .and_then(|types| types.iter().find(|(reserved, _)| reserved == type_));
        reserved
            .map(|(_, owner)| owner.clone())
            .or_else(|| state.claims.get(type_).map(|claim| claim.owner.clone()))
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
        let mut conditions = current.conditions.to_vec();
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
            match self.owner_of(transaction.state, &new.type_) {
                Some(other) if !other.same(&owner) => match update.merge {
                    Merge::Lenient => continue,
                    Merge::Strict => return Err(not_yours(&new.type_, &other)),
                },
                Some(_) | None => {}
            }
            let claim = self.claim(transaction.state, new, &owner);
            condition::upsert(&mut conditions, from_provider(new, &claim, transaction.now));
            written.push(claim);
        }
        let max = self.config.bounds.conditions_per_gpu;
        if conditions.len() > max {
            let limit = "conditions-per-gpu";
            return Err(ApiError::Exhausted { limit, max });
        }
        self.take_claims(transaction, caller, &current, written)?;
        transaction.change(&current.uuid, |record| *record = conditions);
        let key = &update.key;
        let written = transaction.state.object(key).cloned();
        written.ok_or_else(|| ApiError::NotFound { key: key.clone() })
    }

    /// What a write says of its type: the writer owns it, and it is this way round.
    fn claim(&self, state: &State, new: &ProviderCondition, owner: &Owner) -> Claim {
        let before = state.claims.get(&*new.type_);
        let polarity = new
            .polarity
            .or_else(|| before.and_then(|claim| claim.polarity))
            .or_else(|| self.config.polarity.of(&new.type_));
        Claim {
            type_: before.map_or_else(|| new.type_.as_str().into(), |claim| claim.type_.clone()),
            owner: owner.clone(),
            polarity,
        }
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
            if before.is_none() && claim.polarity.is_none() {
                self.observer.uncounted_type(&caller.provider, &claim.type_);
            }
            transaction.note(Change::Claim(claim));
        }
        Ok(())
    }
}

/// The daemon does not trust all that the provider once called healthy.
fn is_doubted(state: &State, provider: &Arc<str>) -> bool {
    let owner = Owner::Provider(provider.clone());
    state.records.values().any(|record| {
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

fn from_provider(new: &ProviderCondition, claim: &Claim, now: WallTime) -> Condition {
    let shown = claim.polarity.unwrap_or(Polarity::TrueIsHealthy);
    let state = shown.judgement(new.status);
    let is_problem = state == Judgement::Problem && claim.polarity.is_some();
    Condition {
        type_: claim.type_.clone(),
        state,
        polarity: shown,
        severity: new.severity,
        reason: new.reason.clone(),
        message: new.message.clone(),
        action: if is_problem { new.action } else { Action::None },
        clears: if is_problem {
            vec![Clear::on(ClearOn::Policy)]
        } else {
            Vec::new()
        },
        owner: claim.owner.clone(),
        transition: new.transition.unwrap_or(now),
        heartbeat: now,
        incident: None,
        cause: None,
        drill: false,
        counted: claim.polarity.is_some(),
        evidence: Vec::new(),
    }
}
