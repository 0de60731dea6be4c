//! The brake: a version that would make too many GPUs Unhealthy waits for an operator (design H9).

use std::sync::Arc;

use device_api_core::ids::DeviceUuid;
use device_api_core::limits::NEWLY_UNHEALTHY_MAX;
use device_api_core::policy_status::{ReloadChange, ReloadOutcome};
use device_api_core::ports::Policy;

use super::admit::{Trial, some_of};
use super::reload::outcome;
use super::seat::Candidate;
use super::set::Wanted;
use super::slot::{Held, set_aside};
use super::worker::Worker;
use crate::error::{PolicyError, command};
use crate::ledger::{HeldBack, Kept};
use crate::loaded::LoadedPolicy;

impl Worker {
    /// What it would do to this node; or would have done, when the run before still had the journal.
    pub(super) fn why_held(&self, name: &str, wanted: &Wanted, trial: &Trial) -> Option<String> {
        if trial.newly_unhealthy.len() > NEWLY_UNHEALTHY_MAX {
            let gpus = trial.newly_unhealthy.iter();
            let gpus: Vec<&str> = gpus.map(|uuid| uuid.as_str()).collect();
            let accept = command("accept", name, &wanted.key.digest);
            return Some(format!(
                "it would make {} GPUs Unhealthy that are not ({}): look at the verdict diff with `devicectl policy \
                 describe {name}`, then `{accept}`, or replace it",
                gpus.len(),
                some_of(&gpus)
            ));
        }
        if let Some(why) = self.why_doubted(name, wanted) {
            return Some(why);
        }
        let held = self.books.ledger.policies.get(name)?.held.as_ref()?;
        held.is(&wanted.key.digest, &wanted.key.setting())
            .then(|| held.why.clone())
    }

    pub(super) fn hold(
        &mut self,
        name: &Arc<str>,
        wanted: &Wanted,
        policy: Arc<LoadedPolicy>,
        why: String,
    ) -> ReloadOutcome {
        self.books.ledger.of(name).held = Some(HeldBack {
            digest: wanted.key.digest.to_string(),
            setting: wanted.key.setting(),
            why: why.clone(),
        });
        self.books.save();
        tracing::warn!(policy = %policy.info().id, why, "policy held");
        let digest = Arc::clone(&wanted.key.digest);
        let aside = set_aside(
            &digest,
            Some(&policy),
            &wanted.source.origin,
            self.clock.wall(),
            why.clone(),
        );
        let slot = self.slots.entry(Arc::clone(name)).or_default();
        slot.refused = None;
        slot.compiling = None;
        slot.held = Some(Held {
            aside,
            wanted: wanted.clone(),
            policy,
        });
        if !slot.judges() {
            let instead = self.bundled(name);
            self.stand_in_or_report(name, instead, &why);
        }
        self.pause_or_resume(name);
        outcome(name, ReloadChange::Held, Some(&digest), why)
    }

    /// An operator lets the held version in.
    pub(crate) fn accept(
        &mut self,
        name: &Arc<str>,
        held: Held,
    ) -> Result<Vec<DeviceUuid>, PolicyError> {
        // Much may have happened since it was tried.
        self.refuse_quarantined(name, &held.wanted)?;
        self.refuse_taken_types(name, &held.policy)?;
        let journals = self.seats.journals();
        let mut trial = self.examiner(&held.policy).examine(&journals)?;
        trial.newly_unhealthy.clear();
        let candidate = Candidate {
            policy: held.policy,
            key: held.wanted.key.clone(),
            trial,
            is_stand_in: false,
        };
        self.take_seat(name, &held.wanted, candidate)
    }

    /// It came to its seat while it was paused, and may be asked from now on: it is looked over as if it came
    /// now. `None`: that is left to the next look at the directory.
    pub(super) fn admit_again(&mut self, name: &Arc<str>) -> Option<ReloadOutcome> {
        let slot = self.slots.get(name)?;
        let active = slot.active.as_ref()?;
        let kept = Kept::of(active, slot.mode);
        let digest = Arc::clone(&active.key.digest);
        if active.is_stand_in {
            return self.stand_in(name, None).then(|| {
                let detail = "it stands in".to_owned();
                outcome(name, ReloadChange::Swapped, Some(&digest), detail)
            });
        }
        let Some(wanted) = self.wanted_again(name, &kept) else {
            self.looked = None;
            return None;
        };
        let outcome = self.replace(name, &wanted, None).unwrap_or_else(|error| {
            tracing::error!("{}", error.chain());
            let origin = wanted.source.origin.clone();
            self.refuse(name, Some(wanted), &origin, &error, None)
        });
        self.let_go_of_bytes();
        self.plan_retry();
        Some(outcome)
    }
}
