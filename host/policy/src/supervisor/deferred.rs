//! Answers that wait for what is being compiled (design H5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use device_api_core::policy_status::{ReloadChange, ReloadOutcome, ReloadReport};

use super::answer::{Answer, Promise};
use super::compiling::CompileQueue;
use super::worker::Worker;

/// How long a command waits for what is being compiled; then it is answered with what there is. Less than
/// the API gives a call (30 s), so that who asked hears what goes on.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// Who waits until what they asked for is compiled, and what came of it so far.
#[derive(Debug)]
pub(crate) struct Deferred {
    promises: Vec<Promise>,
    outcomes: BTreeMap<Arc<str>, ReloadOutcome>,
    until: Instant,
}

impl Worker {
    /// Answers now, or once what is being compiled is.
    pub(super) fn defer(&mut self, promises: Vec<Promise>, answer: Answer) {
        if promises.is_empty() {
            return;
        }
        let is_idle = self.queue.as_ref().is_none_or(CompileQueue::is_idle);
        match answer {
            Ok(report) if !is_idle && report.refused.is_none() => {
                let deferred = self.deferred.get_or_insert_with(|| Deferred {
                    promises: Vec::new(),
                    outcomes: BTreeMap::new(),
                    until: Instant::now() + ANSWER_WAIT,
                });
                deferred.promises.extend(promises);
                deferred.take(&report);
            }
            answer => {
                for promise in promises {
                    promise.keep(answer.clone());
                }
            }
        }
    }

    pub(super) fn answer_deferred(&mut self) {
        let is_idle = self.queue.as_ref().is_none_or(CompileQueue::is_idle);
        let is_due = |deferred: &mut Deferred| is_idle || Instant::now() >= deferred.until;
        let Some(deferred) = self.deferred.take_if(is_due) else {
            return;
        };
        // A file that was compiled to hear the policy's name has that one now.
        let mut outcomes = deferred.outcomes;
        outcomes.retain(|name, outcome| {
            outcome.change != ReloadChange::Compiling || self.slots.contains_key(name)
        });
        let report = ReloadReport {
            outcomes: outcomes.into_values().collect(),
            refused: self.refused.clone(),
        };
        for promise in deferred.promises {
            promise.keep(Ok(report.clone()));
        }
    }
}

impl Deferred {
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// The latest word on each policy that is one: that nothing changed since is none.
    pub(super) fn take(&mut self, report: &ReloadReport) {
        for outcome in &report.outcomes {
            let before = self.outcomes.get(&outcome.name);
            let is_open = |before: &ReloadOutcome| {
                matches!(
                    before.change,
                    ReloadChange::Refused | ReloadChange::Compiling
                )
            };
            if outcome.change != ReloadChange::Unchanged || before.is_none_or(is_open) {
                self.outcomes
                    .insert(Arc::clone(&outcome.name), outcome.clone());
            }
        }
    }
}
