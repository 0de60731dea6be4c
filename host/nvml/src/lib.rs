//! The NVML source: what the driver's library says of the GPUs, put into words of the house.
//!
//! ```text
//!              ┌──────────────── one session ─────────────────┐
//!   look for ─▶ open ─▶ inventory ─▶ register events ─▶ snapshot ─▶ run ──▶ stopped
//!      ▲                                                            │
//!      ├── back-off 1 … 60 s ◀── drop the library ◀── driver gone ◀─┤
//!      └── attach, or its time is over ◀── released ◀── operator ◀──┘
//! ```
//!
//! Four OS threads, since NVML calls block and on sick GPUs hang: `nvml` owns the library's life
//! (`lifecycle`), `nvml-events` waits for events (`events`), `nvml-poll` takes inventory and readings (`poll`),
//! and `nvml-watch` makes no call and looks at those of the others (`watchdog`). Where one of the middle two
//! hangs, another takes its place, and leaves the GPU that hangs alone until the call comes back.
//!
//! **Invariant:** no NVML call is made on a thread of the caller's: [`Nvml::start`], [`Handle::stop`] and
//! [`Operator`] are safe to call from anywhere, and the second returns within [`STOP_MAX`].
//!
//! **Invariant:** every NVML call goes through `call::called`, which notes its start (or, for those that are made
//! while the library opens and closes, through `watch::begin`).
//!
//! **Invariant:** a library under a running call is never closed. Whoever makes calls holds an
//! `Arc` of the library; a hung thread keeps its own for ever, and so the library stays mapped.

mod action;
mod answer;
mod answering;
mod attempts;
mod backoff;
mod call;
mod config;
mod control;
mod counters;
mod devices;
mod earlier;
mod event_set;
mod events;
mod evidence;
mod handle;
mod hearing;
mod holding;
mod inventory;
mod library;
mod lifecycle;
mod nvlink;
mod operator;
mod poll;
mod queries;
mod raw;
mod readings;
mod schedule;
mod session;
mod watch;
mod watchdog;

pub use config::{
    COUNTER_INTERVAL, Config, DRIVER_ROOT, FAULT_INTERVAL, HUNG_AFTER, INVENTORY_INTERVAL,
    LIMIT_INTERVAL, POLL_INTERVAL, STALE_AFTER,
};
pub use counters::{Counters, Counts};
pub use handle::{Handle, Monitor, Nvml, STOP_MAX, Stopped};
pub use library::{IDENTITY_SYMBOL, LIBRARY_NAME, LibraryError};
pub use operator::{Operator, TurnedOff};
pub use watch::HungCall;
