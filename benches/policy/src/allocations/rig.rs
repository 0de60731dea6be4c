//! What is done again and again: GPU, cache, pipeline, and a policy that is answered for.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use device_api_core::action::Action;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits::{ABSENT_MEMORIES_PER_GPU_MAX, STATE_BYTES_MAX};
use device_api_core::policy::{Evaluated, Evaluation};
use device_api_core::ports::DeviceCache as _;
use device_api_core::seating::Seating;
use device_api_core::signal::{Observation, Samples};
use device_api_core::verdict::{
    Clear, ClearOn, Decision, Judgement, PolicyState, Severity, Verdict,
};

use super::{Case, Counter, Spent, state_of};
use crate::desk::{CONDITION, Desk, REASON, Waiting};
use crate::house::{House, IDLE_CELSIUS, attrs, readings, uuid, xid};

/// Codes that the catalogue does not have, so that no floor stands for them, and as many as it has.
const CODES: std::ops::Range<u64> = 1_000..1_172;

pub(super) struct Rig<'a> {
    house: House,
    gpu: DeviceUuid,
    desk: Arc<Desk>,
    counter: Counter<'a>,
    /// What the policy remembers.
    state: PolicyState,
    /// XIDs so far.
    faults: u64,
    celsius: i64,
}

impl<'a> Rig<'a> {
    pub(super) fn new(case: Case, counter: Counter<'a>) -> Result<Self> {
        let desk = Desk::new();
        let mut rig = Self {
            house: House::new(&desk, 1)?,
            gpu: uuid(0),
            desk,
            counter,
            state: case.state(),
            faults: 0,
            celsius: IDLE_CELSIUS,
        };
        if case == Case::LeftBehind {
            rig.leave_behind(&state_of(STATE_BYTES_MAX))?;
        }
        Ok(rig)
    }

    /// Adds what `work` costs.
    fn spend(&self, spent: &mut Spent, work: impl FnOnce()) {
        let (before, began) = ((self.counter)(), Instant::now());
        work();
        spent.time += began.elapsed();
        let after = (self.counter)();
        spent.counts.allocations += after.allocations - before.allocations;
        spent.counts.bytes += after.bytes - before.bytes;
    }

    pub(super) fn round(&mut self, case: Case, signals: usize) -> Result<Spent> {
        match case {
            Case::Repeat => self.repeats(signals),
            Case::NothingSaid
            | Case::Verdict
            | Case::FullState
            | Case::FullStateChanged
            | Case::LeftBehind => self.faults(case, signals),
            Case::SameReading => self.same_readings(signals),
            Case::ToldReading => self.told_readings(signals),
        }
    }

    /// One XID is being judged, one waits, and the others are like it.
    fn repeats(&mut self, signals: usize) -> Result<Spent> {
        let flying = self.next_xid();
        self.house.sink.observe(flying);
        let first = self.next_xid();
        let repeat = |pid: usize| Observation {
            attrs: attrs(pid),
            ..first.clone()
        };
        let repeats: Vec<Observation> = (0..signals).map(repeat).collect();
        self.house.sink.observe(first.clone());
        let mut spent = Spent::default();
        self.spend(&mut spent, || {
            for repeat in repeats {
                self.house.sink.observe(repeat);
            }
        });
        self.answer(Decision::default())?;
        let waiting = self.desk.take()?;
        let folded = waiting
            .evaluation
            .signals
            .first()
            .map(|signal| signal.repeats);
        let expected = u32::try_from(signals + 1)?;
        ensure!(
            folded == Some(expected),
            "{folded:?} repeats instead of {expected}"
        );
        (waiting.reply)(Ok(Evaluated::default()));
        Ok(spent)
    }

    fn faults(&mut self, case: Case, signals: usize) -> Result<Spent> {
        let mut spent = Spent::default();
        for _ in 0..signals {
            let fault = self.next_xid();
            self.spend(&mut spent, || self.house.sink.observe(fault));
            let Waiting { evaluation, reply } = self.desk.take()?;
            let mut decision = Decision::default();
            if case != Case::NothingSaid {
                decision.verdicts.push(verdict(&evaluation, self.faults)?);
            }
            if case == Case::FullStateChanged {
                let value = self
                    .state
                    .values_mut()
                    .next()
                    .and_then(|value| value.first_mut());
                *value.context("no state")? ^= 1;
            }
            drop(evaluation);
            let state = self.state.clone();
            self.spend(&mut spent, || reply(Ok(Evaluated { decision, state })));
        }
        if case != Case::NothingSaid {
            self.is_published()?;
        }
        Ok(spent)
    }

    /// The last verdict is what readers are told.
    fn is_published(&self) -> Result<()> {
        let conditions = self.house.cache.conditions(&self.gpu);
        let ours = conditions
            .iter()
            .find(|condition| &*condition.type_ == CONDITION);
        let message = &ours.context("no condition came of a verdict")?.message;
        ensure!(
            *message == message_of(self.faults),
            "an older verdict stands: {message}"
        );
        Ok(())
    }

    fn same_readings(&mut self, signals: usize) -> Result<Spent> {
        let samples: Vec<Arc<Samples>> = (0..signals)
            .map(|_| Arc::new(readings(IDLE_CELSIUS)))
            .collect();
        let mut spent = Spent::default();
        self.spend(&mut spent, || {
            for samples in samples {
                self.house.sink.sampled(&self.gpu, samples);
            }
        });
        ensure!(
            self.desk.take().is_err(),
            "a reading that is the same was told"
        );
        Ok(spent)
    }

    fn told_readings(&mut self, signals: usize) -> Result<Spent> {
        let mut spent = Spent::default();
        for _ in 0..signals {
            // Beyond the deadband each time.
            self.celsius = IDLE_CELSIUS + (self.celsius - IDLE_CELSIUS + 4) % 24;
            let samples = Arc::new(readings(self.celsius));
            self.spend(&mut spent, || self.house.sink.sampled(&self.gpu, samples));
            let reply = self.desk.take()?.reply;
            self.spend(&mut spent, || reply(Ok(Evaluated::default())));
        }
        Ok(spent)
    }

    fn answer(&self, decision: Decision) -> Result<()> {
        let reply = self.desk.take()?.reply;
        let state = self.state.clone();
        reply(Ok(Evaluated { decision, state }));
        Ok(())
    }

    /// A fault unlike those before it.
    fn next_xid(&mut self) -> Observation {
        self.faults += 1;
        let code = CODES.start + self.faults % (CODES.end - CODES.start);
        xid(&self.gpu, code)
    }

    /// As many policies as are remembered come, remember something and leave.
    fn leave_behind(&mut self, state: &PolicyState) -> Result<()> {
        for at in 0..ABSENT_MEMORIES_PER_GPU_MAX {
            let name = format!("left-{at}");
            let desk = Desk::named(&name, &format!("Left{at}"));
            let seating = Seating {
                policy: desk.clone(),
                rejudged: Vec::new(),
                insist: true,
            };
            self.house.seats.seat(seating)?;
            let fault = self.next_xid();
            self.house.sink.observe(fault);
            let state = state.clone();
            (desk.take()?.reply)(Ok(Evaluated {
                state,
                ..Evaluated::default()
            }));
            self.answer(Decision::default())?;
            self.house.seats.unseat(&name);
        }
        Ok(())
    }

    pub(super) fn close(self) {
        self.house.close();
    }
}

fn message_of(fault: u64) -> String {
    format!("Fault {fault} of a benchmark: the application must be restarted.")
}

/// One that differs from the one before.
fn verdict(evaluation: &Evaluation, fault: u64) -> Result<Verdict> {
    let cause = evaluation
        .signals
        .last()
        .context("asked about nothing")?
        .seq;
    Ok(Verdict {
        condition: CONDITION.to_owned(),
        state: Judgement::Problem,
        severity: Severity::Warning,
        reason: REASON.to_owned(),
        message: message_of(fault),
        action: Action::None,
        clears: vec![Clear::on(ClearOn::Operator)],
        instance: None,
        cause,
    })
}
