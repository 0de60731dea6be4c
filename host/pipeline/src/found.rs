//! GPUs that were found before a policy took its seat: it is asked of them then (design C7, H6).
//!
//! That a GPU answers is said once, and what was fine is Unknown until then. A policy whose code is compiled
//! while GPUs are found, or that returns, would say nothing of them until something else happens. So it is asked
//! of the newest such signal alone, unless it has judged it: on its seat, or on the journal with nothing
//! remembered. What is newer stands: it was judged by who knew of it.

use device_api_core::condition;
use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::seating::Rejudgement;
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::Decision;

use crate::alike::{Subject, subject_of};
use crate::batch::{Flight, Pending};
use crate::pipeline::{Shared, State};
use crate::rejudged::makes_less;
use crate::seats::Seat;

impl Shared {
    /// Has a policy that takes its seat asked that the GPU was found, where it has not judged it.
    /// `judged`: what it said of the journal, where its state is what that left.
    pub(crate) fn ask_of_found(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, new): (usize, &Seat),
        judged: Option<&Rejudgement>,
    ) {
        if self.cache.device(uuid).is_none() {
            return;
        }
        let lane = self.lane(state, uuid);
        let Some(found) = lane.journal.found().cloned() else {
            return;
        };
        let has_judged = judged.is_some_and(|judged| {
            let mut shown = lane.journal.shown(judged.revision);
            shown.any(|(signal, _)| signal.seq == found.seq)
        });
        let waits = lane.pending().any(|pending| {
            let is_for_it = !pending.alone || pending.recipients & (1 << at) != 0;
            is_for_it && subject_of(&pending.signal) == Some(Subject::Presence)
        });
        let Some(slot) = lane.slots.get_mut(at) else {
            return;
        };
        slot.has_judged_found |= has_judged;
        if slot.has_judged_found || waits || !new.info().wants(&found) {
            return;
        }
        // Now, and not when what failed is tried again.
        slot.failed.retain(|failed| failed.seq != found.seq);
        lane.floors.policy_is_awaited(new.name());
        let again = Pending {
            through: SignalSeq::default(),
            // On what is known of it now.
            signal: Signal {
                samples: None,
                ..Signal::clone(&found)
            },
            recipients: 1 << at,
            deadline: None,
            alone: true,
            is_floored: true,
        };
        lane.queue.push_front(again);
    }

    /// Drops from a decision on a GPU that was found what would make less of a problem that is newer: it is
    /// asked of it late, and may not have been told of the rest.
    pub(crate) fn keep_newer(&self, uuid: &DeviceUuid, flight: &Flight, decision: &mut Decision) {
        let [pending] = &*flight.batch else { return };
        let found = &pending.signal;
        if !pending.alone || found.kind != SignalKind::GpuFound {
            return;
        }
        let conditions = self.cache.conditions(uuid);
        decision.verdicts.retain(|verdict| {
            let standing = condition::find(&conditions, &verdict.condition);
            !standing.is_some_and(|standing| {
                standing.is_problem()
                    && standing.cause > Some(found.seq)
                    && makes_less(verdict, standing, self.config.platform)
            })
        });
    }
}
