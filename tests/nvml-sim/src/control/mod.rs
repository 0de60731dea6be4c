//! Breaking GPUs on command: one JSON request a line over a Unix stream socket, one JSON answer
//! a line back. [`Client`] speaks it; so does `nvml-sim`, and so does
//! `socat - UNIX-CONNECT:$NVML_SIM_SOCKET`:
//!
//! ```json
//! {"command":"xid","gpu":5,"codes":[79]}
//! {"ok":true,"done":"XID 79 on GPU 5","delivered":true,"delivered_unix_ns":1763694000000000000}
//! ```
//!
//! A command that raises NVML events answers when all of them were handed to a waiter
//! (`delivered`), or after a second; what nobody took stays queued.

pub(crate) mod act;
mod answer;
mod client;
mod request;
pub(crate) mod server;
mod status;

pub use answer::{Answer, GpuStatus, MigStatus, ScenarioStatus, SetStatus, Status};
pub use client::{Client, ClientError};
pub use request::{EccKind, EccLocation, Only, Readings, Reasons, Request};

/// A request is a few codes and names, at most a scenario; more is a mistake.
pub const LINE_MAX: u64 = 512 * 1024;
