//! The store as the rest of the daemon has it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use device_api_core::clock::{BootId, Clock};
use device_api_core::durable::{Batch, NotDurable, Start};
use device_api_core::ids::ResourceVersion;
use device_api_core::ports::{StateLog, Synced};

use crate::db::Unread;
use crate::disk::{Disk, LocalDisk};
use crate::format::FORMAT_VERSION;
use crate::home::Home;
use crate::shared::Shared;
use crate::status::{Status, StoreObserver};
use crate::writer::Writer;

/// Size of the file beyond which nothing is written. A node's real content is below a megabyte; 1,024
/// GPUs with a dozen conditions and a full policy state each are near 100 MiB, 4,608 incidents some 10, and copy-on-write
/// needs as much again. It keeps a fault of ours from filling the node's disk.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Size of one record beyond which it can't be kept. The largest is what 16 policies remember of a GPU,
/// 64 KiB each and twice that as text, with the signals that are to be asked about again: some MiB.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Records that can't be read and are named in the log, each on a line; the status says how many there
/// are.
const UNREAD_LOGGED_MAX: usize = 16;

/// See [`Settings::read_pause`].
const READ_PAUSE: Duration = Duration::from_millis(100);

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
    /// It is left as it is: to go on as if nothing were known would hide past problems.
    #[error(
        "{path:?} is of format version {found}, and this daemon reads up to {FORMAT_VERSION}: a newer daemon wrote it. Run \
         that one; or move the file away and lose what it knew: every GPU is Unknown then, and past problems are forgotten"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error("starting the store's thread failed")]
    Thread(#[source] std::io::Error),
}

/// What a site, or a test, may set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Size of the file beyond which nothing is written.
    pub file_bytes_max: u64,
    /// Size of one record beyond which it is left out.
    pub record_bytes_max: usize,
    /// First pause before an old file is tried to be read again; each next one is twice as long.
    pub read_pause: Duration,
    pub disk: Arc<dyn Disk>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file_bytes_max: FILE_BYTES_MAX,
            record_bytes_max: RECORD_BYTES_MAX,
            read_pause: READ_PAUSE,
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
    /// Opens the store in `state_dir` (made with mode 0700 where it is missing), reads what the last run
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
        let record_bytes_max = settings.record_bytes_max;
        let mut home = Home::enter(state_dir, settings)?;
        let left = home.look(clock.wall())?;
        if left.set_aside.is_some() {
            observer.set_aside();
        }
        let loaded = left.loaded.unwrap_or_default();
        let mut head = loaded.head;
        head.ceiling = head.ceiling.max(left.ceiling);
        let missing = left.set_aside.or_else(|| tell_unread(&loaded.unread));
        let shared = Arc::new(Shared::new(clock, loaded.slots, missing));
        let mut writer = Writer::new(shared.clone(), observer, home, boot, head, record_bytes_max);
        let snapshot = loaded.snapshot;
        let used = snapshot.as_ref().map(|snapshot| snapshot.numbers);
        let base = writer.begin(used.unwrap_or_default());
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

/// Says which records of the last run can't be read; returns it for the status.
fn tell_unread(unread: &[Unread]) -> Option<String> {
    for record in unread.iter().take(UNREAD_LOGGED_MAX) {
        tracing::error!(
            record = %record.slot,
            why = %record.why,
            "a record of the last run can't be read, which is a fault of this daemon: it is kept in the \
             file under `unread`, all others are back, and what it said is unknown"
        );
    }
    let first = unread.first()?;
    Some(format!(
        "{} of the last run's records can't be read, as {}: {}; they are kept in the file, and what they \
         said is unknown",
        unread.len(),
        first.slot,
        first.why
    ))
}
