//! The pipeline against a cache and policies that are small second implementations of their ports.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod anew;
mod clearing;
mod drills;
mod failures;
mod floors;
mod found;
mod incidents;
mod journal;
mod kept;
mod lister;
mod load;
mod log;
mod mig;
mod one_fault;
mod recoveries;
mod reported;
mod restart;
mod rig;
mod rules;
mod seats;
mod shelf;
mod swaps;
mod switches;
mod table;
mod terms;
mod turns;
mod vacant;
