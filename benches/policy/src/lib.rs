//! Measures policies and the pipeline from inside, where a client can't tell one from the other.
//! `cargo xtask bench policy` builds and runs it; docs/benchmarks.md tells how it is measured and how to
//! read it.
//!
//! ```text
//!  calls, record   recorded XIDs, readings ─▶ pipeline ─▶ what the policy is asked ─┬▶ component
//!                                                                                   └▶ its native twin
//!  allocations     observations ─▶ pipeline, cache ─▶ a policy that is answered for
//!  storm           one GPU, as fast as it goes ─┬▶ pipeline, cache, policy thread ─▶ readers
//!                  other GPUs, once each ───────┘
//!  seats           1,024 full journals ─▶ shown, judged again, a seat that changes hands ─▶ readers meanwhile
//! ```

mod allocations;
mod asked;
mod calls;
mod desk;
mod house;
mod judges;
mod native;
mod plan;
mod record;
mod recorded;
mod seats;
mod storm;
mod turns;

use anyhow::Result;
use bench_kit::Section;

pub use allocations::{Counter, Counts, count};
pub use plan::Plan;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// A warm call, over the same logic in native Rust.
    Calls,
    /// What a smaller record would save.
    Record,
    /// What pipeline and cache allocate for a signal.
    Allocations,
    /// One GPU repeats an XID.
    Storm,
    /// How long a reader waits while a policy takes its seat.
    Seats,
}

impl Part {
    /// # Errors
    /// A policy can't be loaded or fails, or what is measured does not do what it should. A goal that is
    /// missed is no error.
    pub fn measure(self, plan: &Plan, is_quick: bool) -> Result<Section> {
        match self {
            Self::Calls => calls::measure(plan),
            Self::Record => record::measure(plan),
            Self::Allocations => allocations::measure(plan, is_quick),
            Self::Storm => storm::measure(plan),
            Self::Seats => seats::measure(plan),
        }
    }
}
