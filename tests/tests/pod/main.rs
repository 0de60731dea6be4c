//! The daemon's pod, without a kubelet: containers are started from the chart's rendered manifest as a container runtime
//! would start them, each in namespaces of its own, with the image's files, the manifest's mounts, user, capabilities and
//! memory limit, and nothing else; the test is the kubelet that asks the probes and ends them.
//!
//! Needs root on Linux with `unshare` and `ip`, and Helm; says `SKIPPED` where one is missing. What is not the real thing: no seccomp
//! filter is set, and the image is the build's programs with this machine's C library, not the one that the Dockerfile makes.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value that lacks what is asked for is null, and a test says so"
)]

mod cgroup;
mod consumers;
mod container;
mod context;
mod dockerfile;
mod ending;
#[expect(dead_code, reason = "of the chart's tests, which use the rest")]
#[path = "../chart/helm.rs"]
mod helm;
mod image;
mod machine;
mod manifest;
mod memory;
mod owned;
mod page;
mod policies;
mod privileged;
mod probe;
mod release;
mod state;
mod tls;
mod unprivileged;
