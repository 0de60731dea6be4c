//! The read-blocking cache: what consumers read, and when they may (design sections 2 and 3).
//!
//! ```text
//!  readers ──▶ barrier (waits for decisions under way) ──▶ gate (read) ──▶ a GPU at one version
//!  writers ──▶ hub (one at a time) ──▶ gate (write) ──▶ versions ──▶ disk, history, watchers
//! ```
//!
//! **Invariant:** no lock guard leaves a function: the gate and the hub take closures. So none lives
//! across an `.await` (C4).
//!
//! **Invariant:** a reader waits at the barrier before it takes the gate, never while it holds it.

mod api;
mod author;
mod barrier;
#[cfg(test)]
mod barrier_tests;
mod cache;
mod gate;
#[cfg(test)]
mod gate_tests;
mod hub;
mod instances;
mod leases;
mod providers;
mod restore;
mod state;
mod transaction;
mod watcher;

pub use author::Author;
pub use cache::{Cache, CacheObserver, Config, Unobserved};
pub use transaction::Turn;
pub use watcher::Watcher;
