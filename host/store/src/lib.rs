//! What survives a restart (design C5 to C8): the [`StateLog`](device_api_core::ports::StateLog)
//! behind which there is a file, and the loader of what a run begins with.
//!
//! One thread writes. What is appended folds by key in memory and is committed as one transaction
//! with one fsync (group commit); nobody who appends waits for the disk.
//!
//! ```text
//! append ─▶ pending (folded by key) ─▶ thread `store` ─▶ redb ─▶ Disk
//! synced ─▶ waiters ◀──────────────── Ok after fsync │ Err, and kept for the next try
//! ```
//!
//! **Invariant:** no old state is ever deleted, nor written over unless it was read. What was read and
//! is damaged is set aside under another name; what the disk does not let us read is left where it is,
//! and nothing is written in this run.
//!
//! **Invariant:** one record that can't be decoded or encoded costs itself alone. Of the first the bytes
//! are kept in the table `unread`, and its device is Unknown; of the second an older one stays. While
//! either may hide what was decided on a device, the log's position does not go past it, so that the
//! kernel log is read again. Whoever waits for a commit that lacks a record is told [`NotDurable`]:
//! nobody knows whose it was, and outcome unknown is always true; those of other commits are not.
//!
//! [`NotDurable`]: device_api_core::durable::NotDurable
//!
//! **Invariant:** redb is named in `db.rs` and `backend.rs` alone; how a thing looks in the file is said
//! in `format/` alone.

mod backend;
mod db;
mod disk;
mod format;
mod home;
mod overlay;
mod pending;
mod shared;
mod status;
mod store;
mod writer;

pub use disk::{Access, Disk, DiskFile, LocalDisk};
pub use format::FORMAT_VERSION;
pub use home::FILE_NAME;
pub use shared::{HUNG_AFTER, SYNCED_WAITING_MAX};
pub use status::{Status, StoreObserver};
pub use store::{FILE_BYTES_MAX, OpenError, RECORD_BYTES_MAX, Settings, Store};
