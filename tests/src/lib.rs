//! The harness of the black-box tests, and of the demo: starts the real daemon over a simulated
//! node and talks to it as its users do, over a real socket.
//!
//! Start with [`Node::builder`]. Nothing here waits by sleeping: the daemon's log, its sockets and
//! its watch streams tell when something has happened.

mod binaries;
mod client;
mod configmap;
mod daemon;
pub mod history;
pub mod hostile;
mod http;
pub mod linear;
pub mod markdown;
mod node;
mod program;
pub mod shell;
pub mod soak;
pub mod tools;

pub use binaries::{binary, copy_binary};
pub use client::{Native, Upstream, Watch, condition_of, health_of};
pub use configmap::ConfigMap;
pub use daemon::{Daemon, LogLine};
pub use http::http;
pub use node::{Builder, Node};
pub use program::{Program, leashed};

/// The guest fixtures, as components.
pub mod guests {
    include!(concat!(env!("OUT_DIR"), "/guests.rs"));
}

/// How long anything may take before a test gives up on it: far beyond what a busy machine with two
/// cores needs, so that only what never happens fails.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
