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
mod found;
mod incidents;
mod journal;
mod load;
mod log;
mod mig;
mod recoveries;
mod restart;
mod rig;
mod rules;
mod seats;
mod shelf;
mod swaps;
mod terms;
mod turns;
mod vacant;
