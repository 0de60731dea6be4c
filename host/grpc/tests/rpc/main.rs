//! The services over real sockets, with the generated clients, on a small second store.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: a panic is a failed test"
)]

mod access;
mod harness;
mod introspection;
mod native;
mod observer;
mod providers;
mod shutdown;
mod store;
mod upstream;
mod watch;
