//! Whose conditions are whose, in the small store.

use std::collections::BTreeSet;
use std::sync::Arc;

use device_api_core::action::Action;
use device_api_core::clock::WallTime;
use device_api_core::condition::{Condition, Owner, Polarity};
use device_api_core::provider::{PolarityTable, ProviderCondition};
use device_api_core::verdict::Judgement;

use crate::store::State;

pub(crate) fn stored(condition: ProviderCondition, owner: Owner, now: u64) -> Condition {
    let known = condition
        .polarity
        .or_else(|| PolarityTable::default().of(&condition.type_));
    let polarity = known.unwrap_or(Polarity::TrueIsProblem);
    let state = polarity.judgement(condition.status);
    let problem = state == Judgement::Problem;
    Condition {
        type_: condition.type_.into(),
        instance: None,
        state,
        polarity,
        severity: condition.severity,
        reason: condition.reason,
        message: condition.message,
        action: if problem {
            condition.action
        } else {
            Action::None
        },
        clears: Vec::new(),
        owner,
        transition: condition.transition.unwrap_or(WallTime::from_ms(now)),
        heartbeat: WallTime::from_ms(now),
        incident: None,
        cause: None,
        drill: false,
        counted: known.is_some(),
        evidence: Vec::new(),
    }
}

pub(crate) fn is_of(condition: &Condition, provider: &str) -> bool {
    matches!(&condition.owner, Owner::Provider(owner) if **owner == *provider)
}

pub(crate) fn types_of(state: &State, provider: &str) -> Vec<Arc<str>> {
    let conditions = state.gpus.values().flat_map(|gpu| gpu.conditions.iter());
    let types: BTreeSet<_> = conditions
        .filter(|condition| is_of(condition, provider))
        .map(|condition| condition.type_.clone())
        .collect();
    types.into_iter().collect()
}
