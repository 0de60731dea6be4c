//! What a swap costs those who read meanwhile: journals of many GPUs are shown, and a policy takes its seat
//! with a verdict on each. A read whose bound has passed takes the pipeline's lock to write the fallback, so
//! what it waits for that is what comes on top of its bound.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use bench_kit::{Figures, Goal, Row, Section, Spread};
use device_api_core::action::Action;
use device_api_core::ids::SignalSeq;
use device_api_core::limits::JOURNAL_SIGNALS_PER_GPU_MAX;
use device_api_core::ports::DeviceCache as _;
use device_api_core::seating::{DeviceJournal, Rejudgement, Seating};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity, Verdict};

use crate::desk::{CONDITION, REASON, Silent};
use crate::house::{House, uuid, xid};
use crate::plan::Plan;

/// A tenth of what a read waits at most (design C3).
const WAIT_MS_MAX: f64 = 5.0;

/// Codes that the catalogue does not have, so that no floor stands for them.
const CODES_FROM: u64 = 1_000;

/// Between two reads: as often as it does not take a core for itself.
const PACE: Duration = Duration::from_micros(200);

/// What a row is called, and which look of a round it is about.
type Case = (&'static str, fn(&Round) -> &Looked);

const CASES: [Case; 2] = [
    (
        "longest wait of a reader while journals are shown",
        |round| &round.shown,
    ),
    (
        "longest wait of a reader while a policy takes its seat",
        |round| &round.seated,
    ),
];

/// # Errors
/// The pipeline does not show or seat what it should.
pub(crate) fn measure(plan: &Plan) -> Result<Section> {
    eprintln!("seats");
    let rig = Rig::new(plan.gpus)?;
    // Grows to its size.
    rig.round(0)?;
    let rounds = (1..=plan.swaps).map(|round| rig.round(round));
    let rounds = rounds.collect::<Result<Vec<_>>>()?;
    rig.house.close();
    let title = format!(
        "A swap over {} GPUs, {JOURNAL_SIGNALS_PER_GPU_MAX} signals in the journal of each",
        plan.gpus
    );
    let mut section = Section::new("seats", title);
    for (case, of) in CASES {
        let spread = |what: fn(&Looked) -> f64| {
            Spread::of(rounds.iter().map(|round| what(of(round)))).context("no rounds")
        };
        let whole = Figures {
            lane: "all of it".to_owned(),
            values: vec![
                ("ms", spread(|looked| millis(looked.took))?.median),
                ("reads", spread(|looked| looked.reads as f64)?.median),
            ],
        };
        let row = Row::new(case, "ms", spread(|looked| millis(looked.longest))?);
        section
            .rows
            .push(row.goal(Goal::AtMost(WAIT_MS_MAX)).with([whole]));
    }
    Ok(section)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[derive(Debug)]
struct Round {
    shown: Looked,
    seated: Looked,
}

/// What readers found while something was done.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    took: Duration,
    longest: Duration,
    reads: usize,
}

struct Rig {
    house: House,
    gpus: usize,
}

impl Rig {
    fn new(gpus: usize) -> Result<Self> {
        let house = House::new(&Silent::new(), gpus)?;
        // That the GPU was found is in the journal too.
        for code in 1..JOURNAL_SIGNALS_PER_GPU_MAX as u64 {
            for gpu in 0..gpus {
                house.sink.observe(xid(&uuid(gpu), CODES_FROM + code));
            }
        }
        Ok(Self { house, gpus })
    }

    fn round(&self, number: usize) -> Result<Round> {
        let mut journals = Vec::new();
        let shown = self.beside(|| {
            journals = self.house.seats.journals();
            Ok(())
        })?;
        let is_full =
            |journal: &DeviceJournal| journal.signals.len() == JOURNAL_SIGNALS_PER_GPU_MAX;
        ensure!(
            journals.len() == self.gpus && journals.iter().all(is_full),
            "journals are missing, or are not full"
        );
        let message = format!("Swap {number} of a benchmark.");
        let rejudged = journals.iter().map(|journal| judged(journal, &message));
        let seating = Seating {
            policy: Silent::new(),
            rejudged: rejudged.map(Into::into).collect(),
            insist: false,
        };
        let seated = self.beside(|| {
            self.house.seats.seat(seating)?;
            Ok(())
        })?;
        for gpu in 0..self.gpus {
            let conditions = self.house.cache.conditions(&uuid(gpu));
            let mut ours = conditions.iter().filter(|own| &*own.type_ == CONDITION);
            ensure!(
                ours.any(|own| own.message == message),
                "nothing came of what was judged again of GPU {gpu}"
            );
        }
        Ok(Round { shown, seated })
    }

    /// Does something while another thread reads GPU after GPU.
    fn beside(&self, work: impl FnOnce() -> Result<()>) -> Result<Looked> {
        let (reader, is_done) = (self.house.overdue(), AtomicBool::new(false));
        thread::scope(|scope| {
            let (begun, begins) = std::sync::mpsc::sync_channel(0);
            let reads = scope.spawn(|| {
                let mut looked = Looked::default();
                let begun = begun;
                for gpu in (0..self.gpus).cycle() {
                    let began = Instant::now();
                    reader.overdue(&uuid(gpu), SignalSeq(0));
                    looked.longest = looked.longest.max(began.elapsed());
                    looked.reads += 1;
                    if looked.reads == 1 {
                        // Nobody waits for a second one.
                        let _ = begun.send(());
                    }
                    if is_done.load(Ordering::Relaxed) {
                        break;
                    }
                    thread::park_timeout(PACE);
                }
                looked
            });
            begins.recv().context("nobody reads")?;
            let began = Instant::now();
            let worked = work();
            let took = began.elapsed();
            is_done.store(true, Ordering::Relaxed);
            let looked = reads.join().map_err(|_| anyhow!("the reader panicked"))?;
            worked?;
            Ok(Looked { took, ..looked })
        })
    }
}

/// One verdict, on the newest signal.
fn judged(journal: &DeviceJournal, message: &str) -> Rejudgement {
    let verdict = Verdict {
        condition: CONDITION.to_owned(),
        state: Judgement::Problem,
        severity: Severity::Warning,
        reason: REASON.to_owned(),
        message: message.to_owned(),
        action: Action::None,
        clears: vec![Clear::on(ClearOn::Operator)],
        instance: None,
        cause: journal.through(),
    };
    Rejudgement {
        device: journal.device.uuid.clone(),
        through: journal.through(),
        revision: journal.revision,
        decision: Decision {
            verdicts: vec![verdict],
            ..Decision::default()
        },
        drill_wakes: Vec::new(),
        state: Default::default(),
    }
}
