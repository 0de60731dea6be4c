//! What the pipeline and the cache allocate for a signal. The policy's own part is left out: it answers when
//! nobody counts.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench_kit::{Figures, Row, Section, Spread};
use device_api_core::action::Action;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits::STATE_BYTES_MAX;
use device_api_core::policy::{Evaluated, Evaluation};
use device_api_core::ports::DeviceCache as _;
use device_api_core::signal::{Attr, Observation, Samples, SignalKind, Source, Target};
use device_api_core::verdict::{
    Clear, ClearOn, Decision, Judgement, PolicyState, Severity, Verdict,
};
use serde::{Deserialize, Serialize};

use crate::house::{House, IDLE_CELSIUS, readings, uuid};
use crate::judges::{CONDITION, Desk, REASON, Waiting};
use crate::plan::Plan;

/// The executable that counts, beside the one that measures time.
const COUNTER: &str = "policy-bench-allocations";

/// Codes that the catalogue does not have, so that no floor stands for them, and as many as it has.
const CODES: std::ops::Range<u64> = 1_000..1_172;

/// A state at its bound, in values of this size.
const VALUE_BYTES: usize = 1024;

/// What was allocated so far, by the whole process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    pub allocations: u64,
    pub bytes: u64,
}

/// Says what was allocated so far.
pub type Counter<'a> = &'a dyn Fn() -> Counts;

/// What is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Case {
    Repeat,
    NothingSaid,
    Verdict,
    FullState,
    FullStateChanged,
    SameReading,
    ToldReading,
}

impl Case {
    const ALL: [Self; 7] = [
        Self::Repeat,
        Self::NothingSaid,
        Self::Verdict,
        Self::FullState,
        Self::FullStateChanged,
        Self::SameReading,
        Self::ToldReading,
    ];

    fn text(self) -> &'static str {
        match self {
            Self::Repeat => "a repeat, folded into one that waits",
            Self::NothingSaid => "a new fault, nothing decided",
            Self::Verdict => "a new fault, one verdict that changes the GPU",
            Self::FullState => "the same, 64 KiB of state that stays",
            Self::FullStateChanged => "the same, 64 KiB of state of which 1 KiB changes",
            Self::SameReading => "a sample in which nothing changed",
            Self::ToldReading => "a reading that is told, nothing decided",
        }
    }

    /// What the policy remembers.
    fn state(self) -> PolicyState {
        let bytes = match self {
            Self::FullState | Self::FullStateChanged => STATE_BYTES_MAX,
            Self::Repeat
            | Self::NothingSaid
            | Self::Verdict
            | Self::SameReading
            | Self::ToldReading => 0,
        };
        // The key counts too.
        (0..bytes / VALUE_BYTES)
            .map(|at| (format!("{at:03}"), vec![0; VALUE_BYTES - 3]))
            .collect()
    }
}

/// What rounds of one case gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    case: Case,
    /// A signal, of each round.
    rounds: Vec<PerSignal>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct PerSignal {
    allocations: f64,
    bytes: f64,
    us: f64,
}

/// # Errors
/// The executable that counts is not there, or the pipeline does not do what is to be measured.
pub(crate) fn measure(plan: &Plan, is_quick: bool) -> Result<Section> {
    eprintln!("allocations");
    let timed = rounds(plan, &Counts::default)?;
    let mut counter = Command::new(std::env::current_exe()?.with_file_name(COUNTER));
    counter.args(is_quick.then_some("quick"));
    let counted = counter.output().with_context(|| {
        let program = Path::new(counter.get_program());
        format!(
            "cannot start {}: build all bins of this package",
            program.display()
        )
    })?;
    ensure!(
        counted.status.success(),
        "{COUNTER} failed: {}",
        String::from_utf8_lossy(&counted.stderr)
    );
    let counted: Vec<Measured> = serde_json::from_slice(&counted.stdout)?;
    let mut section = Section::new(
        "allocations",
        "What pipeline and cache allocate for a signal, the policy's part left out",
    );
    for (counted, timed) in counted.iter().zip(&timed) {
        ensure!(counted.case == timed.case, "{COUNTER} is of another build");
        let spread = |of: &Measured, what: fn(&PerSignal) -> f64| {
            Spread::of(of.rounds.iter().map(what)).context("no rounds")
        };
        let bytes = spread(counted, |round| round.bytes)?.median;
        let us = spread(timed, |round| round.us)?.median;
        let figures = Figures {
            lane: "a signal".to_owned(),
            values: vec![("bytes", bytes), ("µs", us)],
        };
        let allocations = spread(counted, |round| round.allocations)?;
        let row = Row::new(counted.case.text(), "allocs", allocations);
        section.rows.push(row.with([figures]));
    }
    Ok(section)
}

/// The executable that counts: measures, and says what came of it.
///
/// # Errors
/// The pipeline does not do what is to be measured.
pub fn count(plan: &Plan, counter: Counter<'_>) -> Result<String> {
    Ok(serde_json::to_string(&rounds(plan, counter)?)?)
}

fn rounds(plan: &Plan, counter: Counter<'_>) -> Result<Vec<Measured>> {
    let of_case = |case: Case| {
        let mut rig = Rig::new(case, counter)?;
        let mut rounds = Vec::new();
        for round in 0..=plan.rounds {
            let spent = rig.round(case, plan.observations)?;
            // The first is to warm up: maps and the journal grow to their size.
            if round > 0 {
                rounds.push(spent.per(plan.observations));
            }
        }
        rig.house.close();
        Ok(Measured { case, rounds })
    };
    Case::ALL.into_iter().map(of_case).collect()
}

/// What some signals cost.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    counts: Counts,
    time: Duration,
}

impl Spent {
    fn per(self, signals: usize) -> PerSignal {
        let signals = signals as f64;
        PerSignal {
            allocations: self.counts.allocations as f64 / signals,
            bytes: self.counts.bytes as f64 / signals,
            us: self.time.as_secs_f64() * 1e6 / signals,
        }
    }
}

struct Rig<'a> {
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
    fn new(case: Case, counter: Counter<'a>) -> Result<Self> {
        let desk = Desk::new();
        Ok(Self {
            house: House::new(&desk, 1)?,
            gpu: uuid(0),
            desk,
            counter,
            state: case.state(),
            faults: 0,
            celsius: IDLE_CELSIUS,
        })
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

    fn round(&mut self, case: Case, signals: usize) -> Result<Spent> {
        match case {
            Case::Repeat => self.repeats(signals),
            Case::NothingSaid | Case::Verdict | Case::FullState | Case::FullStateChanged => {
                self.faults(case, signals)
            }
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

    /// A fault unlike those before it, as the kernel log tells of it.
    fn next_xid(&mut self) -> Observation {
        self.faults += 1;
        let code = CODES.start + self.faults % (CODES.end - CODES.start);
        Observation {
            code: Some(code),
            evidence: format!(
                "NVRM: Xid (PCI:0000:00:00): {code}, pid=1818990, name=python3, Ch 00000001, engmask 00000101, intr 00000000"
            ),
            attrs: attrs(1_818_990),
            ..Observation::new(
                SignalKind::Xid,
                Target::Uuid(self.gpu.clone()),
                Source::Kmsg,
            )
        }
    }
}

fn attrs(pid: usize) -> Vec<Attr> {
    let pid = i64::try_from(pid).unwrap_or(i64::MAX);
    vec![Attr::int("pid", pid), Attr::text("process", "python3")]
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
