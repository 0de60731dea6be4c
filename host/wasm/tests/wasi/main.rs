//! WASI as a component sees it: all of 0.2 links, in every patch version, and nothing else does.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod guest;
mod linking;
mod world;
