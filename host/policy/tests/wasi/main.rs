//! Policies of WASI toolchains, built from source by those toolchains, loaded with nothing granted; a
//! component that was published and must load for ever; and that an instance's age changes nothing.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod guests;
#[expect(dead_code, reason = "the other test program uses all of it")]
#[path = "../guests/house.rs"]
mod house;
mod inert;
mod logged;
mod measured;
mod published;
mod toolchains;
mod warm_and_fresh;
