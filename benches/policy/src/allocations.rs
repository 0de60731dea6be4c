//! What the pipeline and the cache allocate for a signal. The policy's own part is left out: it answers when
//! nobody counts.

mod rig;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bench_kit::{Figures, Row, Section, Spread};
use device_api_core::limits::STATE_BYTES_MAX;
use device_api_core::verdict::PolicyState;
use serde::{Deserialize, Serialize};

use self::rig::Rig;
use crate::plan::Plan;

/// The executable that counts, beside the one that measures time.
const COUNTER: &str = "policy-bench-allocations";

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
    LeftBehind,
}

impl Case {
    const ALL: [Self; 8] = [
        Self::Repeat,
        Self::NothingSaid,
        Self::Verdict,
        Self::FullState,
        Self::FullStateChanged,
        Self::SameReading,
        Self::ToldReading,
        Self::LeftBehind,
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
            Self::LeftBehind => "a new fault, one verdict, beside 32 policies' 64 KiB left behind",
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
            | Self::ToldReading
            | Self::LeftBehind => 0,
        };
        state_of(bytes)
    }
}

fn state_of(bytes: usize) -> PolicyState {
    // The key counts too.
    let values = (0..bytes / VALUE_BYTES).map(|at| (format!("{at:03}"), vec![0; VALUE_BYTES - 3]));
    values.collect()
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
        rig.close();
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
