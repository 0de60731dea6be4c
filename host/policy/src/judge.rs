//! Asking a policy beside the pipeline: when it is looked over before its admission, and in the shadow.
//!
//! What the pipeline does for a policy in its seat is done here in small: batches of one sample each, what
//! it said stands when it is asked next, and its state is handed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::name_on;
use device_api_core::device::DeviceInfo;
use device_api_core::ids::IncidentId;
use device_api_core::limits::SIGNALS_PER_CALL_MAX;
use device_api_core::policy::{Evaluation, Outcome, PolicyFailure, Standing};
use device_api_core::ports::Policy;
use device_api_core::signal::{Samples, Signal};
use device_api_core::verdict::{Decision, Judgement, PolicyState, Severity, Verdict};

use crate::loaded::LoadedPolicy;

/// Times that a call is repeated which failed for want of processor time.
const STARVED_TRIES: u32 = 5;

/// Longer than a call and a start of an instance may take together: nothing but a bug lasts so long.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Why there is no decision.
#[derive(Debug)]
pub(crate) enum Unanswered {
    Failed(PolicyFailure),
    /// The node had no processor time or memory for it, time and again.
    Starved,
}

/// One policy's view of one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) state: PolicyState,
    /// What it said last of each condition, by its name.
    pub(crate) said: BTreeMap<String, Verdict>,
    standing: BTreeMap<String, Standing>,
}

impl View {
    /// Asks about one batch; a decision changes the view, a failure does not.
    pub(crate) fn ask(
        &mut self,
        policy: &LoadedPolicy,
        device: &Arc<DeviceInfo>,
        signals: Arc<[Signal]>,
    ) -> Result<Decision, Unanswered> {
        let newest = signals.last();
        let evaluation = Evaluation {
            device: Arc::clone(device),
            standing: self.standing.values().cloned().collect(),
            samples: newest
                .and_then(|signal| signal.samples.clone())
                .unwrap_or_default(),
            state: self.state.clone(),
            attrs: Vec::new(),
            signals: Arc::clone(&signals),
        };
        for _ in 0..STARVED_TRIES {
            let starved = &policy.desk().starved;
            let before = starved.load(Ordering::Relaxed);
            let Some(outcome) = answer(policy, evaluation.clone()) else {
                break;
            };
            match outcome {
                Ok(evaluated) => {
                    self.state = evaluated.state;
                    self.take(&evaluated.decision.verdicts, &signals);
                    return Ok(evaluated.decision);
                }
                Err(_) if starved.load(Ordering::Relaxed) != before => {}
                Err(failure) => return Err(Unanswered::Failed(failure)),
            }
        }
        Err(Unanswered::Starved)
    }

    fn take(&mut self, verdicts: &[Verdict], signals: &[Signal]) {
        for verdict in verdicts {
            let name = name_on(&verdict.condition, verdict.instance.as_deref());
            self.said.insert(name.to_string(), verdict.clone());
            if verdict.state == Judgement::Ok {
                self.standing.remove(&*name);
                continue;
            }
            let cause = signals.iter().find(|signal| signal.seq == verdict.cause);
            let stands = Standing {
                condition: verdict.condition.clone(),
                state: verdict.state,
                reason: verdict.reason.clone(),
                since: cause.map(|cause| cause.observed_at).unwrap_or_default(),
                instance: verdict.instance.clone(),
                incident: cause.map_or(IncidentId(0), |cause| cause.incident),
            };
            self.standing.insert(name.into_owned(), stands);
        }
    }

    /// The host cleared it.
    pub(crate) fn clear(&mut self, condition: &str) {
        self.said.remove(condition);
        self.standing.remove(condition);
    }

    /// When what it holds to stand of that condition began.
    pub(crate) fn stands(&self, condition: &str) -> Option<&Standing> {
        self.standing.get(condition)
    }

    /// Keys and values of the state.
    pub(crate) fn state_bytes(&self) -> usize {
        let size = |(key, value): (&String, &Vec<u8>)| key.len() + value.len();
        self.state.iter().map(size).sum()
    }
}

/// `None`: its thread did not come to it.
fn answer(policy: &LoadedPolicy, evaluation: Evaluation) -> Option<Outcome> {
    let (reply, replies) = mpsc::sync_channel(1);
    // Nobody waits any more where it can't be sent.
    policy.evaluate(
        evaluation,
        Box::new(move |outcome| drop(reply.try_send(outcome))),
    );
    replies.recv_timeout(ANSWER_WAIT).ok()
}

/// In batches as one call may have them: an evaluation has one sample of readings.
pub(crate) fn batches<'a>(signals: impl Iterator<Item = &'a Signal>) -> Vec<Arc<[Signal]>> {
    let mut batches: Vec<Vec<Signal>> = Vec::new();
    for signal in signals {
        let fits = batches.last().is_some_and(|batch| {
            let same = batch.last().is_some_and(|last| same_sample(last, signal));
            same && batch.len() < SIGNALS_PER_CALL_MAX
        });
        match batches.last_mut().filter(|_| fits) {
            Some(batch) => batch.push(signal.clone()),
            None => batches.push(vec![signal.clone()]),
        }
    }
    batches.into_iter().map(Into::into).collect()
}

fn same_sample(a: &Signal, b: &Signal) -> bool {
    let pointer = |samples: &Option<Arc<Samples>>| samples.as_ref().map(Arc::as_ptr);
    pointer(&a.samples) == pointer(&b.samples)
}

/// `problem fatal RESTART_BM`; an `ok` has no more to say.
pub(crate) fn summary(state: Judgement, severity: Severity, action: Action) -> String {
    match state {
        Judgement::Ok => state.to_string(),
        Judgement::Problem | Judgement::Unknown => format!("{state} {severity} {action}"),
    }
}

pub(crate) fn summary_of(verdict: &Verdict) -> String {
    summary(verdict.state, verdict.severity, verdict.action)
}

/// `xid 63`, or the kind alone.
pub(crate) fn signal_words(signal: &Signal) -> String {
    match signal.code {
        Some(code) => format!("{} {code}", signal.kind),
        None => signal.kind.to_string(),
    }
}
