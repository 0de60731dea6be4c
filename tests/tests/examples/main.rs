//! The examples of `examples/`, in each language, on a real daemon: what docs/api.md promises of resuming
//! and of listing again is what they see.
//!
//! Those in Go and Python run where their toolchain is present and their packages can be had; else they say
//! so and pass, or fail where `DEVICE_API_REQUIRE_TOOLCHAINS=1`.

mod consumers;
mod example;
mod generated;
mod informers;
mod providers;
mod toolchains;
