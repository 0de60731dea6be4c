//! From signal to condition.
//!
//! ```text
//!  observe ─▶ number, incident, barrier up ─▶ lane of the GPU ─▶ policies (own threads)
//!                                                  │                    │ decisions
//!                                                  ▼                    ▼
//!                                    timers ─▶ overdue: fallback ─▶ commit: verdicts, floor ─▶ cache ─▶ barrier down
//! ```
//!
//! Each GPU has a lane: its signals are judged in order, one batch at a time; repeats fold into the
//! signal that waits. A batch goes to every policy that subscribed, and what they decide is committed
//! to the cache as one write, with the policies' state and timers. A policy that fails or is late
//! costs its own opinion only: the fallback is written instead.
//!
//! Policies take their seats and leave them while signals come: [`Pipeline::seats`], and `swap.rs` for
//! what is handed over. What was committed lately is kept in a journal for those who come.
//!
//! There is no dispatcher thread: the source that observes hands the batch to the policies, and the
//! policy that answers last commits. One thread fires timers.
//!
//! **Invariant:** a policy is never called, and never answers, while the pipeline's lock is held.

mod admission;
mod alarms;
mod alike;
mod anew;
mod batch;
mod commit;
mod complaints;
mod containment;
mod dispatch;
mod flaps;
mod floors;
mod found;
mod incidents;
mod instances;
mod journal;
mod lane;
mod logmark;
mod looks;
mod memory;
mod numbers;
mod ownerless;
mod pipeline;
mod policy_memory;
mod readings;
mod recover;
mod recoveries;
mod rejudged;
mod seating;
mod seats;
mod settled;
mod shelf;
mod sink;
mod swap;
mod switches;
mod timers;
mod undecided;
mod verdicts;
mod wakes;
mod write;

pub use memory::Memories;
pub use pipeline::{Config, Observer, Pipeline, Unobserved};
pub use verdicts::Drills;
