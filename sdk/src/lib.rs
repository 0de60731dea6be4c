//! What a policy author adds to `Cargo.toml`: the guest side of `gpu:device-policy`.
//!
//! A policy is a [`Policy`]: its fields are what `configure` made of the config text, and all else
//! it remembers goes through its [`Host`], which is the daemon in a component and
//! [`testing::FakeHost`] in a native unit test. `docs/writing-policies.md` walks through one.
//!
//! ```
//! use device_policy_sdk::{Host, Info, Policy, clear, info, kind, subscribe};
//! use device_policy_sdk::types::{Decision, Device, Severity, Signal};
//! use device_policy_sdk::verdict::problem;
//!
//! struct Lost;
//!
//! impl Policy for Lost {
//!     fn configure(_config: &str) -> Result<(Self, Info), String> {
//!         let info = info("lost", "1.0.0")
//!             .owns("Lost", true, &["NoAnswer", "Answers"])
//!             .subscribe(subscribe::all(kind::GPU_LOST));
//!         Ok((Self, info))
//!     }
//!
//!     fn evaluate(&self, _: &mut dyn Host, _: &Device, signals: &[Signal]) -> Result<Decision, String> {
//!         let mut decision = Decision::default();
//!         for signal in signals.iter().filter(|signal| signal.kind == kind::GPU_LOST) {
//!             let verdict = problem("Lost", Severity::Fatal, "NoAnswer", signal)
//!                 .message("the GPU does not answer")
//!                 .clears(&[clear::POLICY]);
//!             decision.verdicts.push(verdict.into());
//!         }
//!         Ok(decision)
//!     }
//! }
//!
//! device_policy_sdk::export!(Lost);
//! ```

pub mod attr;
#[doc(hidden)]
pub mod bindings;
pub mod config;
mod describe;
mod guest;
mod host;
pub mod testing;
pub mod verdict;
pub mod words;

pub use describe::{Info, info, subscribe};
#[doc(hidden)]
pub use guest::Configured;
pub use guest::Policy;
pub use host::{Host, HostExt, Imports, Level, Miss, Reading};
pub use words::{action, clear, kind, reading};

/// The records of the contract, as `wit/types.wit` has them.
pub mod types {
    pub use crate::bindings::gpu::device_policy::types::{
        Attr, Clear, Decision, Device, Info, Instance, Judgement, Owned, Severity, Signal,
        Standing, Subscription, Value, Verdict, Wake,
    };
}
