//! The NVML source: what the driver's library says of the GPUs, put into words of the house.
//!
//! ```text
//!              ┌──────────────── one session ─────────────────┐
//!   look for ─▶ open ─▶ inventory ─▶ register events ─▶ snapshot ─▶ run ──▶ stopped
//!      ▲                                                            │
//!      └── back-off 1 … 60 s ◀── drop the library ◀── driver gone ◀─┘
//! ```
//!
//! Three OS threads, since NVML calls block and on sick GPUs hang: `nvml` owns the library's life
//! (`lifecycle`), `nvml-events` waits for events (`events`), `nvml-poll` takes the readings (`poll`).
//! The last two are apart, so that a hung call in one does not silence the other.
//!
//! **Invariant:** no NVML call is made on a thread of the caller's: [`Nvml::start`] and
//! [`Handle::stop`] are safe to call from anywhere, and the latter returns within [`STOP_MAX`].
//!
//! **Invariant:** a library under a running call is never closed. Whoever makes calls holds an
//! `Arc` of the library; a hung thread keeps its own for ever, and so the library stays mapped.

mod call;
mod config;
mod control;
mod counters;
mod devices;
mod event_set;
mod events;
mod inventory;
mod library;
mod lifecycle;
mod poll;
mod raw;
mod readings;
mod session;

pub use config::{Config, DRIVER_ROOT, POLL_INTERVAL};
pub use counters::{Counters, Counts};
pub use library::{IDENTITY_SYMBOL, LIBRARY_NAME, LibraryError};
pub use lifecycle::{Handle, Nvml, STOP_MAX, Stopped};
