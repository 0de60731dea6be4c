//! Who is asked: the policies on their seats, and those that are not asked and why (design H6, H8).
//!
//! A seat's number is the bit by which a signal that waits says who is to judge it. The bench is
//! replaced as a whole under the pipeline's lock, so that whoever holds it sees one set of policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use device_api_core::condition::Owner;
use device_api_core::limits;
use device_api_core::policy::PolicyInfo;
use device_api_core::ports::Policy;
use device_api_core::seating::{Fallback, Terms};
use device_api_core::signal::Signal;

/// A policy on its seat.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) policy: Arc<dyn Policy>,
    /// Of all that ever took a seat: the answer of another one is void.
    pub(crate) generation: u64,
}

impl Seat {
    pub(crate) fn info(&self) -> &PolicyInfo {
        self.policy.info()
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.info().id.name
    }

    pub(crate) fn terms(&self) -> &Terms {
        self.policy.terms()
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Bench {
    seats: Vec<Option<Seat>>,
    /// Policies that are not asked, and why.
    unasked: BTreeMap<Arc<str>, String>,
}

impl Bench {
    pub(crate) fn get(&self, at: usize) -> Option<&Seat> {
        self.seats.get(at)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Seat)> {
        let all = self.seats.iter().enumerate();
        all.filter_map(|(at, seat)| Some((at, seat.as_ref()?)))
    }

    pub(crate) fn named(&self, name: &str) -> Option<(usize, &Seat)> {
        self.iter().find(|(_, seat)| **seat.name() == *name)
    }

    pub(crate) fn infos(&self) -> impl Iterator<Item = (usize, &PolicyInfo)> {
        self.iter().map(|(at, seat)| (at, seat.info()))
    }

    /// A seat that nobody has.
    pub(crate) fn free(&self) -> Option<usize> {
        (0..limits::POLICIES_MAX).find(|at| self.get(*at).is_none())
    }

    /// The same, but for one seat.
    pub(crate) fn with(&self, at: usize, seat: Option<Seat>) -> Self {
        let mut bench = self.clone();
        bench
            .seats
            .resize(bench.seats.len().max(at + 1), None::<Seat>);
        if let Some(place) = bench.seats.get_mut(at) {
            *place = seat;
        }
        bench
    }

    /// Whether somebody has that seat who may be asked: not paused, and not quarantined.
    pub(crate) fn is_asked(&self, at: usize) -> bool {
        let seat = self.get(at);
        seat.is_some_and(|seat| !self.unasked.contains_key(seat.name()))
    }

    pub(crate) fn unasked(&self) -> &BTreeMap<Arc<str>, String> {
        &self.unasked
    }

    /// The same, but for why one is not asked.
    pub(crate) fn with_unasked(&self, name: &str, why: Option<String>) -> Self {
        let mut bench = self.clone();
        match why {
            None => drop(bench.unasked.remove(name)),
            Some(why)
                if bench.unasked.contains_key(name)
                    || bench.unasked.len() < limits::UNASKED_POLICIES_MAX =>
            {
                bench.unasked.insert(name.into(), why);
            }
            Some(why) => {
                let max = limits::UNASKED_POLICIES_MAX;
                tracing::warn!(policy = name, why, max, "not told in PolicyReady: too many");
            }
        }
        bench
    }

    /// Bit N: the policy on seat N subscribed to it.
    pub(crate) fn recipients(&self, signal: &Signal) -> u32 {
        let subscribed = |(at, seat): (usize, &Seat)| u32::from(seat.info().wants(signal)) << at;
        self.iter().map(subscribed).sum()
    }

    /// Whether a policy of that name has a seat and owns the type.
    pub(crate) fn owns(&self, name: &str, condition: &str) -> bool {
        let seat = self.named(name);
        seat.is_some_and(|(_, seat)| seat.info().owned(condition).is_some())
    }

    /// All types that policies own, with their owners.
    pub(crate) fn types(&self) -> Vec<(String, Owner)> {
        let types = self.iter().flat_map(|(_, seat)| {
            let info = seat.info();
            let owner = || Owner::Policy(info.id.clone());
            info.owns
                .iter()
                .map(move |owned| (owned.condition.clone(), owner()))
        });
        types.collect()
    }

    /// What is assumed where several policies owe their word: the gravest of their rules. Where nobody
    /// was asked it is the vendor's class.
    pub(crate) fn rule(&self, recipients: u32) -> Fallback {
        let asked = self.iter().filter(|(at, _)| recipients & (1 << at) != 0);
        let rules = asked.map(|(_, seat)| seat.terms().fallback);
        rules.max_by_key(|rule| gravity(*rule)).unwrap_or_default()
    }

    /// Which of these may lower that floor.
    pub(crate) fn lowering(&self, by: u32, floor: &str) -> Vec<Arc<str>> {
        let asked = self.iter().filter(|(at, _)| by & (1 << at) != 0);
        let lowering = asked.filter(|(_, seat)| seat.terms().may_lower(floor));
        lowering.map(|(_, seat)| seat.name().clone()).collect()
    }

    /// Whether one of those names has a seat now, and may lower that floor.
    pub(crate) fn still_lowers(&self, by: &[Arc<str>], floor: &str) -> bool {
        let mut seats = by.iter().filter_map(|name| self.named(name));
        seats.any(|(_, seat)| seat.terms().may_lower(floor))
    }
}

fn gravity(rule: Fallback) -> u8 {
    match rule {
        Fallback::Ignore => 0,
        Fallback::Catalogue => 1,
        Fallback::Unhealthy => 2,
    }
}
