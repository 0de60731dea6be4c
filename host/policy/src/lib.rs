//! The health-policy world on the engine room: loads policy components, configures them, and
//! evaluates them behind the port [`Policy`](device_api_core::ports::Policy).
//!
//! ```text
//!  bytes ──PolicyHost::load──▶ Arc<LoadedPolicy> ──merge──▶ the set that the pipeline asks
//!          compile, link, configure,       │
//!          validate what it says           └─ own OS thread ── warm instance ── Evaluation ▶ Outcome
//! ```
//!
//! One file per interface of `wit/`: `state`, `nvml`, `host`. Everything a guest says is validated
//! before the house hears of it (`validate`): a decision outside the contract is
//! [`FailureKind::Invalid`](device_api_core::policy::FailureKind), never a half-applied one.
//!
//! **Invariant:** what a guest wrote during a call leaves this crate only in the `Evaluated` of a
//! call that succeeded (design H3, H4).

mod bindings;
mod convert;
mod data;
mod directory;
mod error;
mod features;
mod host;
mod load;
mod merge;
mod nvml;
mod runner;
mod state;
mod telemetry;
mod validate;
mod world;

pub use device_api_wasm::Limits as GuestLimits;
pub use directory::{DirectoryLoad, Settings};
pub use error::{PolicyError, PolicyHostError};
pub use load::{PolicyHost, PolicySource};
pub use merge::{Merged, merge};
pub use runner::LoadedPolicy;
pub use telemetry::PolicyCounters;
