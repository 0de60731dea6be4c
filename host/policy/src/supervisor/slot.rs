//! A policy as the supervisor has it: what the site wants, what judges, and what is set aside.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::limits::POLICY_RECORDS_MAX;
use device_api_core::policy_status::{FailureRecord, Mode, PolicyCounters, SetAside, Version};

use super::admit::Catalogue;
use super::set::{Key, Wanted};
use crate::loaded::LoadedPolicy;
use crate::shadow::Shadow;
use crate::telemetry::add;

/// By the name that the site knows.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) mode: Mode,
    /// What the site wants; `None` once nothing in the set is it.
    pub(crate) wanted: Option<Wanted>,
    pub(crate) active: Option<Active>,
    pub(crate) held: Option<Held>,
    pub(crate) refused: Option<Refused>,
    /// What is being compiled for it, in place of a refusal: what the site wants, or who is to stand in.
    pub(crate) compiling: Option<String>,
    /// What versions before the active one did.
    pub(crate) past: PolicyCounters,
    /// Their failures, newest first, bounded.
    pub(crate) past_failures: Vec<FailureRecord>,
    pub(crate) diff: Vec<String>,
    /// The pipeline was told why it is not asked.
    pub(crate) is_reported: bool,
    /// By an operator; as the ledger has it, while there is an active version.
    pub(crate) is_paused_by_hand: bool,
    /// Who was to stand in had no means to start, and may fare better in a while.
    pub(crate) wants_stand_in: bool,
}

/// The version that judges, or looks on.
#[derive(Debug)]
pub(crate) struct Active {
    /// Tells what is heard of it from what is heard late of another.
    pub(crate) serial: u64,
    pub(crate) policy: Arc<LoadedPolicy>,
    pub(crate) key: Key,
    pub(crate) version: Version,
    pub(crate) since: BootTime,
    pub(crate) catalogue: Catalogue,
    /// It stands in for what the site wants.
    pub(crate) is_stand_in: bool,
    /// No version is asked, and this one keeps the seat.
    pub(crate) is_out: bool,
    pub(crate) is_proved: bool,
    pub(crate) is_forgiven: bool,
    pub(crate) is_shadow: bool,
    /// It came to its seat while it was paused: open incidents are still to be judged by it, and the brake is
    /// still to come.
    pub(crate) is_unexamined: bool,
    /// Stopped once it is quarantined.
    pub(crate) shadow: Option<Arc<Shadow>>,
}

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) aside: SetAside,
    pub(crate) wanted: Wanted,
    pub(crate) policy: Arc<LoadedPolicy>,
}

#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) aside: SetAside,
    /// `None`: it could not be read.
    pub(crate) key: Option<Key>,
}

impl Slot {
    /// Why the active version may not be asked, though nobody has it paused any more.
    pub(crate) fn unexamined(&self) -> Option<&'static str> {
        let active = self.active.as_ref()?;
        let is_paused = self.mode == Mode::Paused || self.is_paused_by_hand;
        let is_it = active.is_unexamined && !is_paused;
        is_it.then_some("it came while it was paused, and is not admitted yet")
    }

    /// A version has the seat that may be asked, or is when the site lets it.
    pub(crate) fn judges(&self) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|active| !active.is_out) && self.unexamined().is_none()
    }

    /// Lets go of the active version; what it counted stays.
    pub(crate) fn retire(&mut self) -> Option<Active> {
        let active = self.active.take()?;
        active.count_into(&mut self.past);
        let mut failures = active.policy.failures();
        failures.append(&mut self.past_failures);
        failures.truncate(POLICY_RECORDS_MAX);
        self.past_failures = failures;
        Some(active)
    }
}

impl Active {
    /// So many decisions, and no back-off yet.
    pub(crate) fn is_proved_by(&self, calls: u64) -> bool {
        let desk = self.policy.desk();
        desk.good.load(Ordering::Relaxed) >= calls && desk.last_turn().is_none()
    }

    pub(crate) fn count_into(&self, counters: &mut PolicyCounters) {
        add(counters, &self.policy.counters());
        if let Some(shadow) = &self.shadow {
            shadow.record().count_into(counters);
        }
    }
}

/// A version out of use.
pub(crate) fn set_aside(
    digest: &Arc<str>,
    policy: Option<&LoadedPolicy>,
    origin: &str,
    since: WallTime,
    why: String,
) -> SetAside {
    use device_api_core::ports::Policy;
    SetAside {
        id: policy.map(|policy| policy.info().id.clone()),
        digest: Arc::clone(digest),
        origin: origin.into(),
        since,
        why,
    }
}
