//! The pure heart of the daemon: what a GPU, a signal, a verdict and a condition *are*, and the
//! rules that need no I/O to state. Synchronous, `std` only; every other crate depends on this one.
//!
//! Start with [`signal`] (what was seen), [`verdict`] (what a policy says of it), [`condition`]
//! (what the cache keeps), [`health`] (what follows from it) and [`ports`] (who talks to whom).

pub mod action;
pub mod allowance;
pub mod clock;
pub mod condition;
pub mod daemon;
pub mod device;
pub mod durable;
pub mod error;
pub mod floor;
pub mod gpu;
pub mod health;
pub mod ids;
pub mod incident;
pub mod limits;
pub mod message;
pub mod policy;
pub mod policy_status;
pub mod ports;
pub mod provider;
pub mod recovery;
pub mod repeats;
pub mod seating;
pub mod selector;
pub mod signal;
pub mod verdict;
pub mod watch;
pub mod xid;
