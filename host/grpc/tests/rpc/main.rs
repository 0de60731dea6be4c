//! The services over real sockets, with the generated clients, on a small second store.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: a panic is a failed test"
)]

mod access;
mod attack;
mod audit;
mod bounded;
mod changes;
mod daemon;
mod daemon_host;
mod encoded;
mod excess;
mod harness;
mod hostile;
mod incidents;
mod input;
mod introspection;
mod native;
mod nvml;
mod observer;
mod operated;
mod owned;
mod policies;
mod policy_commands;
mod policy_host;
mod providers;
mod raw;
mod select;
mod shutdown;
mod store;
mod tls;
mod upstream;
mod verbatim;
mod watch;
mod wellformed;
