//! How much is measured.

/// Sizes of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds of each lane in a case, the warm-up apart.
    pub rounds: usize,
    /// Signals judged in one round.
    pub signals: usize,
    /// Signals of one kind in a round of the pipeline.
    pub observations: usize,
    /// Observations in one storm.
    pub storm: usize,
    pub storms: usize,
    /// Other GPUs that have their first fault during one storm, and before it.
    pub others: usize,
    /// GPUs whose journals are shown, and judged again.
    pub gpus: usize,
    pub swaps: usize,
}

impl Plan {
    /// About a minute.
    #[must_use]
    pub fn full() -> Self {
        Self {
            rounds: 51,
            signals: 1_280,
            observations: 200,
            // What the issue asks for; a real burst had 800,000.
            storm: 100_000,
            storms: 21,
            others: 8,
            // What the store has room for.
            gpus: 1_024,
            swaps: 11,
        }
    }

    /// A few seconds of an unoptimised build: does it run, and are the numbers numbers? They are good
    /// for nothing else.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            rounds: 3,
            signals: 64,
            observations: 20,
            storm: 2_000,
            storms: 2,
            others: 2,
            gpus: 16,
            swaps: 2,
        }
    }
}
