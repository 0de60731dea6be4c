//! Follows a kernel log on a thread of its own.
//!
//! ```text
//!            ┌────────── opened ──────────▶ following ─ stop ─▶ end
//!  waiting ──┤ ▲                             │  │
//!            └─┘ back-off, up to 5 s         │  └─ replaced, last FIFO writer gone ─▶ opened anew at once
//!              ▲                             │
//!              └─────────── failed ──────────┘
//! ```
//!
//! Nothing spins: each turn either reads bytes or sleeps in `poll(2)`. A regular file, of which
//! `poll` always says that it is readable, is looked at every [`FILE_POLL`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use device_api_core::clock::BootId;
use device_api_core::durable::LogPosition;
use device_api_core::ids::{DeviceUuid, PciAddress};
use device_api_core::ports::SignalSink;
use device_api_core::signal::SignalKind;
use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, read};

use crate::assemble::{Assembler, Outcome};
use crate::counts::{Counters, Counts, count};
use crate::lines::{LINE_BYTES_MAX, Line, Lines};
use crate::parse::{Parsed, parse_line};
use crate::prefix::raw_record;
use crate::source::{Kind, Log, Stop, Wake};

/// How often a regular file is looked at: what a fault in it is late at most.
const FILE_POLL: Duration = Duration::from_millis(20);

/// Looks without growth after which an unfinished last line is taken as it is.
const QUIET_LOOKS_BEFORE_FLUSH: u32 = 10;

/// Looks without growth between two checks whether the file was replaced (rotated).
const QUIET_LOOKS_PER_CHECK: u32 = 25;

/// How often an idle FIFO is checked for having been replaced.
const FIFO_CHECK: Duration = Duration::from_secs(1);

/// Back-off while the log can't be read.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Bytes read at once from a FIFO or file: a FIFO's default capacity.
const CHUNK_BYTES: usize = 64 * 1024;

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

#[derive(Debug)]
struct Shared {
    stop: Stop,
    counters: Counters,
    status: Mutex<LogStatus>,
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
        let shared = Arc::new(Shared {
            stop,
            counters: Counters::default(),
            status: Mutex::new(LogStatus::Waiting {
                why: "not opened yet".to_owned(),
            }),
            identities: Mutex::new(BTreeMap::new()),
        });
        let reader = Reader {
            path: path.into(),
            sink,
            drill,
            shared: Arc::clone(&shared),
            assembler: Assembler::default(),
            newest_record: Newest::default(),
            boot,
            from,
            told: None,
        };
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
        lock(&self.shared.status).clone()
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

/// None of the values behind these locks can be left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why following one open log ended.
enum End {
    Stopped,
    /// Another file has its path, or its writers are gone: open it anew, with no gap.
    Reopen,
    Failed(Errno),
}

/// Sequence number of the newest record of `/dev/kmsg`: opened anew, it begins with the oldest again.
#[derive(Debug, Default)]
struct Newest(Option<u64>);

impl Newest {
    /// Whether the record was not read before. One without a number is always new.
    fn is_new(&mut self, sequence: Option<u64>) -> bool {
        let is_new = sequence.is_none() || sequence > self.0;
        if is_new {
            self.0 = sequence.or(self.0);
        }
        is_new
    }
}

struct Reader {
    path: PathBuf,
    sink: Arc<dyn SignalSink>,
    drill: bool,
    shared: Arc<Shared>,
    assembler: Assembler,
    newest_record: Newest,
    boot: BootId,
    /// Where an earlier run left off; taken when a log is first opened.
    from: Option<LogPosition>,
    /// The position that was told last.
    told: Option<LogPosition>,
}

impl Reader {
    fn run(mut self) {
        // Kept open until its successor is: between the two nothing in a FIFO gets lost.
        let mut _before: Option<Log> = None;
        let mut delay = RETRY_MIN;
        while !self.shared.stop.is_set() {
            let why = match Log::open(&self.path) {
                Ok(log) => {
                    _before = None;
                    self.set_status(LogStatus::Following { caught_up: false });
                    match self.follow(&log) {
                        End::Stopped => return,
                        End::Reopen => {
                            delay = RETRY_MIN;
                            _before = Some(log);
                            continue;
                        }
                        End::Failed(errno) => format!("reading failed: {errno}"),
                    }
                }
                Err(error) => match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                },
            };
            self.set_status(LogStatus::Waiting { why });
            if self.shared.stop.wait(None, Some(delay)).is_err() {
                std::thread::park_timeout(delay);
            }
            delay = (delay * 2).min(RETRY_MAX);
        }
    }

    /// Logs a status once, however often it is found again.
    fn set_status(&self, status: LogStatus) {
        let mut current = lock(&self.shared.status);
        if *current == status {
            return;
        }
        let path = self.path.display();
        match &status {
            LogStatus::Waiting { why } => {
                tracing::warn!(%path, %why, "kernel log: not readable, waiting")
            }
            LogStatus::Following { caught_up: false } => {
                tracing::info!(%path, "kernel log: reading")
            }
            LogStatus::Following { caught_up: true } => {
                tracing::debug!(%path, "kernel log: caught up")
            }
        }
        *current = status;
    }

    fn follow(&mut self, log: &Log) -> End {
        let from = self.from.take();
        let ended = match log.kind {
            Kind::Kmsg => {
                if let Some(LogPosition::Record { boot, sequence }) = from
                    && boot == self.boot
                {
                    self.newest_record = Newest(Some(sequence));
                }
                self.follow_kmsg(log)
            }
            Kind::Fifo => self.follow_fifo(log),
            Kind::File => begin(log, from).and_then(|offset| self.follow_file(log, offset)),
        };
        ended.unwrap_or_else(End::Failed)
    }

    /// Tells how far the log was read, once.
    fn tell(&mut self, position: LogPosition) {
        if self.told.as_ref() != Some(&position) {
            self.sink.log_read(position.clone());
            self.told = Some(position);
        }
    }

    fn follow_kmsg(&mut self, log: &Log) -> Result<End, Errno> {
        let mut record = vec![0; LINE_BYTES_MAX];
        while !self.shared.stop.is_set() {
            match read(&log.fd, &mut record) {
                Ok(0) => return Err(Errno::IO),
                Ok(bytes) => self.record(record.get(..bytes).unwrap_or_default()),
                Err(Errno::AGAIN) => {
                    self.set_status(LogStatus::Following { caught_up: true });
                    if let Newest(Some(sequence)) = self.newest_record {
                        let boot = self.boot.clone();
                        self.tell(LogPosition::Record { boot, sequence });
                    }
                    if self.shared.stop.wait(Some(log), None)? == Wake::Stopped {
                        break;
                    }
                }
                Err(Errno::PIPE) => {
                    count(&self.shared.counters.overruns);
                    tracing::warn!("kernel log: records were overwritten before they were read");
                }
                // Longer than the kernel's own bound; it is skipped.
                Err(Errno::INVAL) => count(&self.shared.counters.cut),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(End::Stopped)
    }

    fn record(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if self
            .newest_record
            .is_new(raw_record(&text).map(|record| record.sequence))
        {
            self.line(&Line {
                text: text.into_owned(),
                cut: false,
            });
        }
    }

    fn follow_fifo(&mut self, log: &Log) -> Result<End, Errno> {
        let mut lines = Lines::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match self.shared.stop.wait(Some(log), Some(FIFO_CHECK))? {
                Wake::Stopped => return Ok(End::Stopped),
                Wake::Readable => match read(&log.fd, &mut chunk) {
                    Ok(bytes) => lines.push(chunk.get(..bytes).unwrap_or_default(), &mut |line| {
                        self.line(&line)
                    }),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                },
                Wake::HungUp => {
                    lines.flush(&mut |line| self.line(&line));
                    return Ok(End::Reopen);
                }
                Wake::Elapsed if log.is_replaced(&self.path) => return Ok(End::Reopen),
                Wake::Elapsed => self.set_status(LogStatus::Following { caught_up: true }),
            }
        }
    }

    fn follow_file(&mut self, log: &Log, mut offset: u64) -> Result<End, Errno> {
        let mut lines = Lines::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut quiet: u32 = 0;
        while !self.shared.stop.is_set() {
            match read(&log.fd, &mut chunk) {
                Ok(0) => {}
                Ok(bytes) => {
                    lines.push(chunk.get(..bytes).unwrap_or_default(), &mut |line| {
                        self.line(&line)
                    });
                    offset = offset.saturating_add(bytes as u64);
                    quiet = 0;
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
            self.set_status(LogStatus::Following { caught_up: true });
            if log.size()? < offset {
                tracing::info!(path = %self.path.display(), "kernel log: truncated, reading from its start");
                lines.clear();
                offset = seek(&log.fd, SeekFrom::Start(0))?;
                continue;
            }
            quiet = quiet.saturating_add(1);
            if quiet == QUIET_LOOKS_BEFORE_FLUSH {
                lines.flush(&mut |line| self.line(&line));
            }
            if !lines.is_partial() {
                self.tell(LogPosition::File { id: log.id, offset });
            }
            if quiet.is_multiple_of(QUIET_LOOKS_PER_CHECK) && log.is_replaced(&self.path) {
                return Ok(End::Reopen);
            }
            self.shared.stop.wait(None, Some(FILE_POLL))?;
        }
        Ok(End::Stopped)
    }

    fn line(&mut self, line: &Line) {
        let counters = &self.shared.counters;
        count(&counters.lines);
        if line.cut {
            count(&counters.cut);
        }
        let Some(parsed) = parse_line(&line.text) else {
            return;
        };
        if let Parsed::Identity(identity) = &parsed {
            let mut identities = lock(&self.shared.identities);
            if identities.len() < IDENTITIES_MAX || identities.contains_key(&identity.pci) {
                identities.insert(identity.pci, identity.uuid.clone());
            }
        }
        let unparsed = parsed == Parsed::Unparsed;
        match self.assembler.take(parsed) {
            Outcome::Observed(mut observation) => {
                match observation.kind {
                    SignalKind::Sxid => count(&counters.sxids),
                    SignalKind::GpuLost => count(&counters.lost),
                    SignalKind::Xid
                    | SignalKind::Ecc
                    | SignalKind::Reading
                    | SignalKind::GpuFound
                    | SignalKind::RecoveryAction
                    | SignalKind::Timer => count(&counters.xids),
                }
                observation.drill |= self.drill;
                self.sink.observe(observation);
            }
            Outcome::Nothing if !unparsed => {}
            Outcome::Nothing | Outcome::Orphan => {
                count(&counters.unparsed);
                let seen = counters.read().unparsed;
                // A storm of them must not become a storm of log lines.
                if seen.is_power_of_two() {
                    tracing::warn!(seen, line = ?line.text, "kernel log: a line on an XID that is not understood; please report it");
                }
            }
        }
    }
}

/// Goes to where an earlier run left off, if this is the file it read and it has not been truncated.
fn begin(log: &Log, from: Option<LogPosition>) -> Result<u64, Errno> {
    match from {
        Some(LogPosition::File { id, offset }) if id == log.id && log.size()? >= offset => {
            seek(&log.fd, SeekFrom::Start(offset))
        }
        Some(_) | None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_read_before_is_not_new() {
        let mut newest = Newest::default();
        let is_new = [Some(0), Some(1), Some(0), Some(1), None, Some(1), Some(7)]
            .map(|number| newest.is_new(number));
        assert_eq!(is_new, [true, true, false, false, true, false, true]);
    }
}
