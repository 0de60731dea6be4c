//! The store as the rest of the daemon has it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use device_api_core::clock::{BootId, Clock};
use device_api_core::durable::{Batch, NotDurable, Start};
use device_api_core::ids::ResourceVersion;
use device_api_core::limits::VERSIONS_RESERVED;
use device_api_core::ports::{StateLog, Synced};

use crate::db::{Db, head_row};
use crate::disk::{Disk, LocalDisk};
use crate::format::Head;
use crate::home::{Home, Refusal};
use crate::shared::Shared;
use crate::status::{Status, StoreObserver};
use crate::writer::{Writer, unix_us};

/// Size of the file beyond which nothing is written. A node's real content is below a megabyte; 1,024
/// GPUs with a dozen conditions and a full policy state each are near 100 MiB, and copy-on-write needs
/// as much again. It keeps a fault of ours from filling the node's disk.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How long [`Store::stop`] waits for the disk. A hung one must not keep the daemon from going down
/// within the half minute that a pod is given.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no store. All else is no error: the daemon serves, and says what is wrong.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "state directory {0:?} is in use by another daemon; stop that, or give this one its own"
    )]
    Locked(PathBuf),
    #[error("state directory {0:?} is not a directory; name one, or a path where one can be made")]
    NotADirectory(PathBuf),
    #[error("starting the store's thread failed")]
    Thread(#[source] std::io::Error),
}

/// What a site, or a test, may set.
#[derive(Clone, Debug)]
pub struct Settings {
    pub file_bytes_max: u64,
    pub disk: Arc<dyn Disk>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file_bytes_max: FILE_BYTES_MAX,
            disk: Arc::new(LocalDisk),
        }
    }
}

/// The durable store. Dropped or stopped, it writes what is pending.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store in `state_dir` (made with mode 0750 where it is missing), reads what the last run
    /// left, and reserves this run's versions durably (design C5). Waits for the disk.
    ///
    /// # Errors
    /// [`OpenError`]: what a human must set right. A disk that is full or read-only, and an old file
    /// that is damaged, are none: see [`Store::status`].
    pub fn open(
        state_dir: &Path,
        boot: BootId,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn StoreObserver>,
    ) -> Result<(Self, Start), OpenError> {
        Self::open_with(Settings::default(), state_dir, boot, clock, observer)
    }

    /// As [`Store::open`], with settings.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(
        settings: Settings,
        state_dir: &Path,
        boot: BootId,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn StoreObserver>,
    ) -> Result<(Self, Start), OpenError> {
        let mut home = Home::enter(state_dir, settings.disk, settings.file_bytes_max)?;
        let left = home.look(clock.wall());
        if left.was_set_aside {
            observer.set_aside();
        }
        let (mut head, snapshot, slots) = match left.loaded {
            Some(loaded) => (loaded.head, loaded.snapshot, loaded.slots),
            None => (Head::default(), None, HashSet::new()),
        };
        head.ceiling = head.ceiling.max(left.ceiling);
        let shared = Arc::new(Shared::new(clock, Status::Ok, slots));
        let now = unix_us(&shared);
        let mut writer = Writer {
            shared: shared.clone(),
            observer,
            home,
            boot,
            db: None,
            head: head.clone(),
            owes_reservation: true,
        };
        let base = match writer.reserve(now) {
            Ok(base) => base,
            Err(refusal) => {
                let base = unreserved(&head, now);
                // Reserved with the first commit that the disk takes.
                writer.head.ceiling = base;
                let _told = writer.give_up(None, refusal);
                base
            }
        };
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        let start = Start {
            base: ResourceVersion(base),
            snapshot,
        };
        Ok((
            Self {
                shared,
                thread: Mutex::new(Some(thread)),
            },
            start,
        ))
    }

    /// How the store is, for readiness.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Writes what is pending, once, and ends. What is appended later stays in memory. Waits for a disk
    /// that hangs for a bounded time.
    pub fn stop(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = thread.take() else { return };
        if !self.shared.stop(STOP_PATIENCE) {
            tracing::error!("the disk does not answer; what was not durable yet is lost");
            return;
        }
        if handle.join().is_err() {
            tracing::error!("the store's thread had panicked");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

impl StateLog for Store {
    fn append(&self, batch: Batch) {
        self.shared.append(batch);
    }

    fn synced(&self, done: Synced) {
        self.shared.synced(done);
    }

    fn writable(&self) -> Result<(), NotDurable> {
        self.shared.writable()
    }
}

impl Writer {
    /// Reserves this run's versions; returns the one below them.
    fn reserve(&mut self, now: u64) -> Result<u64, Refusal> {
        let (db, loaded) = self.home.connect()?;
        self.shared.opened(loaded.slots);
        let base = self.head.ceiling.max(now).max(1);
        let head = Head {
            ceiling: base.saturating_add(VERSIONS_RESERVED),
            reserved_at: now,
            ..self.head.clone()
        };
        self.write_head(&db, &head)?;
        self.observer.size(db.size());
        self.db = Some(db);
        self.head = head;
        self.owes_reservation = false;
        Ok(base)
    }

    fn write_head(&mut self, db: &Db, head: &Head) -> Result<(), Refusal> {
        let refusal = |why: String| Refusal {
            why,
            for_good: false,
        };
        let row = head_row(head).map_err(|error| refusal(error.to_string()))?;
        db.write(&[row]).map(drop).map_err(|fault| {
            self.home.failed(&fault);
            refusal(fault.to_string())
        })
    }
}

/// The base of a run that can't reserve its versions. Time that passed since the last reservation is
/// added: two such runs in a row would begin alike where the ceiling is ahead of the clock.
fn unreserved(head: &Head, now: u64) -> u64 {
    let passed = now.saturating_sub(head.reserved_at);
    let past_ceiling = match head.ceiling {
        0 => 0,
        ceiling => ceiling.saturating_add(passed),
    };
    past_ceiling.max(now).max(1)
}
