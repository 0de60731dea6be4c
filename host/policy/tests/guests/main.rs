//! The policy host with real components: the bundled ones, and small ones that misbehave on purpose.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod admission;
mod bench;
mod brake;
mod bundled;
mod cold;
mod component;
mod directory;
mod failures;
mod house;
mod ledger;
mod life;
mod loading;
mod manifest;
mod reading;
mod shadows;
mod site;
mod start;
mod state;
mod told;
