//! The health-policy world on the engine room: loads policy components, configures them, and
//! evaluates them behind the port [`Policy`](device_api_core::ports::Policy).
//!
//! ```text
//!  bytes ──PolicyHost::load──▶ Arc<LoadedPolicy> ──Supervisor──▶ the seats of the pipeline
//!          compile, link, configure,       │        admit, hold, swap, roll back
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
mod instance;
mod judge;
mod ledger;
mod load;
mod loaded;
mod manifest;
mod marker;
mod nvml;
mod recipe;
mod runner;
mod shadow;
mod source;
mod state;
mod supervisor;
mod telemetry;
mod validate;
mod world;

pub use device_api_wasm::{
    COMPILE_DEADLINE_DEFAULT, CompileCounters, CompileRefusal, CompilerSettings,
    Limits as GuestLimits, Patience, Worker as CompileWorker, compile_memory_bytes, compile_worker,
};
pub use error::{PolicyError, PolicyHostError};
pub use instance::Instance;
pub use load::PolicyHost;
pub use loaded::LoadedPolicy;
pub use manifest::POLICIES_FILE;
pub use shadow::Shadows;
pub use source::{Bytes, PolicySource, bundled_name, bundled_origin};
pub use supervisor::{
    Loading, POLL_INTERVAL_DEFAULT, Proof, SEATED_WAIT, Supervisor, SupervisorConfig, Unlisted,
};

#[cfg(test)]
#[path = "../tests/guests/component.rs"]
#[expect(
    dead_code,
    reason = "most of these guests are for the tests from outside"
)]
mod component;
