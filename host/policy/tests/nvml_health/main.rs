//! `nvml-health` as the component that the daemon carries: every reason that it may give, what gives it and what
//! ends it; and docs/nvml-health.md, which is made of that.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod absent;
mod bench;
mod page;
mod settings;
mod stories;
