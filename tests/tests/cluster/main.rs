//! The chart in a real API server of Kubernetes, by the real Helm: install, upgrade, rollback, uninstall, what Pod
//! Security refuses, and what the server has to say of every kind that the chart renders.
//!
//! Slow, hence ignored; `cargo xtask e2e` builds the programs and runs them. There is no kubelet, no scheduler and no
//! controller: what those make of the objects is not asked here.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value that lacks what is asked for is null, and a test says so"
)]

mod accepted;
mod documents;
#[expect(dead_code, reason = "of the chart's tests, which use the rest")]
#[path = "../chart/helm.rs"]
mod helm;
mod identity;
mod install;
#[path = "../chart/matrix.rs"]
mod matrix;
mod pod_security;
mod policies;
mod refused;
mod release;
mod server;
mod shared;
mod test_hook;
mod upgrade;
