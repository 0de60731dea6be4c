//! The chart `charts/device-api-server`, without a cluster: what it renders over a matrix of values, what it
//! refuses, and whether its README, its alerts and its dashboard say what is so.
//!
//! Helm is the one that `DEVICE_API_HELM` names, the one on the path, or one that Go builds into `target/tools`;
//! promtool (Debian: package `prometheus`) is the one on the path. Where there is none, tests that need it say
//! `SKIPPED`, or fail with `DEVICE_API_REQUIRE_TOOLCHAINS=1`.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value that lacks what is asked for is null, and a test says so"
)]

mod alerts;
mod cluster;
mod contradictions;
mod dashboard;
mod dependency;
mod documents;
mod helm;
mod matrix;
mod metrics;
mod names;
mod nulls;
mod pod;
mod readme;
mod refused;
mod rendered;
mod schemas;
mod settings;
