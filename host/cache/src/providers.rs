//! What providers write, whose it is, and what becomes of it when they are gone (design section 4).

mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use device_api_core::condition::{self, Condition, HOST_OWNED, Owner, RESTARTED};
use device_api_core::durable::Change;
use device_api_core::error::ApiError;
use device_api_core::message;
use device_api_core::provider::{Lease, ProviderInfo, Registration};
use device_api_core::verdict::Judgement;

use crate::cache::Cache;
use crate::leases::lease_of;
use crate::state::{State, Transaction};

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
