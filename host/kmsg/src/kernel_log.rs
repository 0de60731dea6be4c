//! A kernel log that is followed: what others see of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use device_api_core::clock::BootId;
use device_api_core::durable::LogPosition;
use device_api_core::ids::{DeviceUuid, PciAddress};
use device_api_core::ports::SignalSink;

use crate::counts::{Counters, Counts};
use crate::follow::Reader;
use crate::parsed::Identity;
use crate::source::Stop;

/// Identities kept: the largest NVLink domain that a node sees has 72 GPUs.
const IDENTITIES_MAX: usize = 1024;

/// How the log is just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogStatus {
    /// It can't be read, and why; it is tried again.
    Waiting { why: String },
    /// It is read. `caught_up`: all that was in it when it was opened has been observed.
    Following { caught_up: bool },
}

/// The reader could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "cannot make an event descriptor for the kernel log reader; raise the limit of open files"
    )]
    Event(#[source] std::io::Error),
    #[error("cannot start the kernel log thread; raise the limit of threads")]
    Thread(#[source] std::io::Error),
}

/// A kernel log that is being followed. Dropping it stops the reader.
#[derive(Debug)]
pub struct KernelLog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How far the reader is.
#[derive(Debug)]
struct Progress {
    status: LogStatus,
    /// Whether it had caught up once, or the log could not be read, since it was started.
    was_caught_up: Option<bool>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stop: Stop,
    pub(crate) counters: Counters,
    progress: Mutex<Progress>,
    /// `was_caught_up` changed.
    caught_up: Condvar,
    /// Which GPU the driver said sits where; at most [`IDENTITIES_MAX`].
    identities: Mutex<BTreeMap<PciAddress, DeviceUuid>>,
}

impl KernelLog {
    /// Starts to read `path` (`/dev/kmsg`, a FIFO, or a regular file) and hands what it tells to `sink`,
    /// on a thread of its own. Where `path` can't be opened it is tried again for ever. `drill`:
    /// whatever it tells is a drill (design N8). `from`: reads on from there if it is still the same
    /// log, else from the beginning (design C7).
    ///
    /// # Errors
    /// Where the process has no descriptor or thread left.
    pub fn start(
        path: impl Into<PathBuf>,
        sink: Arc<dyn SignalSink>,
        drill: bool,
        boot: BootId,
        from: Option<LogPosition>,
    ) -> Result<Self, StartError> {
        let stop = Stop::new().map_err(|errno| StartError::Event(errno.into()))?;
        let shared = Arc::new(Shared::new(stop));
        let reader = Reader::new(path.into(), sink, drill, Arc::clone(&shared), boot, from);
        let thread = std::thread::Builder::new()
            .name("kmsg".to_owned())
            .spawn(move || reader.run())
            .map_err(StartError::Thread)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Stops the reader and waits until its thread has ended; nothing is observed after it.
    pub fn stop(mut self) {
        self.join();
    }

    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    pub fn status(&self) -> LogStatus {
        lock(&self.shared.progress).status.clone()
    }

    /// Waits until all that was in the log when it was opened has been observed, or it turns out that
    /// it can't be read, or the time is up. Says whether it has caught up, once, since it was started.
    pub fn wait_caught_up(&self, at_most: Duration) -> bool {
        let progress = lock(&self.shared.progress);
        let waited = self
            .shared
            .caught_up
            .wait_timeout_while(progress, at_most, |progress| {
                progress.was_caught_up.is_none()
            });
        let (progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        progress.was_caught_up.unwrap_or(false)
    }

    /// Which GPU the log says sits at which address. After XID 79 NVML can't tell any more.
    pub fn identities(&self) -> BTreeMap<PciAddress, DeviceUuid> {
        lock(&self.shared.identities).clone()
    }

    fn join(&mut self) {
        self.shared.stop.set();
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the kernel log thread had panicked");
        }
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    pub(crate) fn new(stop: Stop) -> Self {
        Self {
            stop,
            counters: Counters::default(),
            progress: Mutex::new(Progress {
                status: LogStatus::Waiting {
                    why: "not opened yet".to_owned(),
                },
                was_caught_up: None,
            }),
            caught_up: Condvar::new(),
            identities: Mutex::new(BTreeMap::new()),
        }
    }

    /// Logs a status once, however often it is found again.
    pub(crate) fn set_status(&self, path: &Path, status: LogStatus) {
        let mut progress = lock(&self.progress);
        if progress.status == status {
            return;
        }
        let path = path.display();
        let was_caught_up = match &status {
            LogStatus::Waiting { why } => {
                tracing::warn!(%path, %why, "kernel log: not readable, waiting");
                Some(progress.was_caught_up.unwrap_or(false))
            }
            LogStatus::Following { caught_up: false } => {
                tracing::info!(%path, "kernel log: reading");
                progress.was_caught_up
            }
            LogStatus::Following { caught_up: true } => {
                tracing::debug!(%path, "kernel log: caught up");
                Some(true)
            }
        };
        progress.status = status;
        if progress.was_caught_up != was_caught_up {
            progress.was_caught_up = was_caught_up;
            self.caught_up.notify_all();
        }
    }

    pub(crate) fn identity(&self, identity: &Identity) {
        let mut identities = lock(&self.identities);
        if identities.len() < IDENTITIES_MAX || identities.contains_key(&identity.pci) {
            identities.insert(identity.pci, identity.uuid.clone());
        }
    }
}

/// None of the values behind these locks can be left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
