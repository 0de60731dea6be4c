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
//! `poll` always says that it is readable, is looked at every [`file::FILE_POLL`].

mod device;
mod fifo;
mod file;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::clock::BootId;
use device_api_core::durable::LogPosition;
use device_api_core::ports::SignalSink;
use device_api_core::repeats::Repeats;
use device_api_core::signal::SignalKind;
use rustix::io::Errno;

use crate::assemble::{Assembler, Outcome};
use crate::counts::count;
use crate::kernel_log::{LogStatus, Shared};
use crate::lines::{Line, Lines};
use crate::parse::parse_line;
use crate::parsed::Parsed;
use crate::source::{Kind, Log};

use device::Newest;

/// Back-off while the log can't be read.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Bytes read at once from a FIFO or file: a FIFO's default capacity.
const CHUNK_BYTES: usize = 64 * 1024;

/// How often it is looked at most whether the rest of a message has come: its lines are printed at one go,
/// so that a second is long.
const REST_LOOKS_MAX: u32 = 50;

/// Why following one open log ended.
enum End {
    Stopped,
    /// Another file has its path, or its writers are gone: open it anew, with no gap.
    Reopen,
    Failed(Errno),
}

pub(crate) struct Reader {
    path: PathBuf,
    sink: Arc<dyn SignalSink>,
    drill: bool,
    shared: Arc<Shared>,
    assembler: Assembler,
    newest_record: Newest,
    boot: BootId,
    /// Where an earlier run left off; taken when a log is first opened.
    from: Option<LogPosition>,
    /// The regular file that was read last (device, inode), how far, and its last line so far.
    place: Option<((u64, u64), u64)>,
    lines: Lines,
    /// The position that was told last.
    told: Option<LogPosition>,
    /// How often it was not told, for the rest of a message.
    withheld: u32,
    /// The kernel was faster; it goes well when all is read.
    overrun: Repeats,
    /// Lines on an XID in unknown words; it goes well with each that is understood.
    strange: Repeats,
}

impl Reader {
    pub(crate) fn new(
        path: PathBuf,
        sink: Arc<dyn SignalSink>,
        drill: bool,
        shared: Arc<Shared>,
        boot: BootId,
        from: Option<LogPosition>,
    ) -> Self {
        Self {
            path,
            sink,
            drill,
            shared,
            assembler: Assembler::default(),
            newest_record: Newest::default(),
            boot,
            from,
            place: None,
            lines: Lines::default(),
            told: None,
            withheld: 0,
            overrun: Repeats::new(),
            strange: Repeats::new(),
        }
    }

    pub(crate) fn run(mut self) {
        // Kept open until its successor is: between the two nothing in a FIFO gets lost, and no other
        // file gets the inode that says which one was read.
        let mut _before: Option<Log> = None;
        let mut is_next_writer = false;
        let mut delay = RETRY_MIN;
        while !self.shared.stop.is_set() {
            let why = match Log::open(&self.path) {
                Ok(log) => {
                    _before = None;
                    // Between two writers of a FIFO nothing was missed.
                    if !(is_next_writer && log.kind == Kind::Fifo) {
                        let reading = LogStatus::Following { caught_up: false };
                        self.shared.set_status(&self.path, reading);
                    }
                    match self.follow(&log) {
                        End::Stopped => return,
                        End::Reopen => {
                            delay = RETRY_MIN;
                            is_next_writer = log.kind == Kind::Fifo;
                            _before = Some(log);
                            continue;
                        }
                        End::Failed(errno) => {
                            _before = Some(log);
                            format!("reading failed: {errno}")
                        }
                    }
                }
                Err(error) => match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                },
            };
            is_next_writer = false;
            self.shared
                .set_status(&self.path, LogStatus::Waiting { why });
            if self.shared.stop.wait(None, Some(delay)).is_err() {
                std::thread::park_timeout(delay);
            }
            delay = (delay * 2).min(RETRY_MAX);
        }
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
            Kind::File => self
                .begin(log, from)
                .and_then(|offset| self.follow_file(log, offset)),
        };
        ended.unwrap_or_else(End::Failed)
    }

    /// Tells how far the log was read, once; not in the middle of a message, of which a restart would
    /// read the rest alone.
    fn tell(&mut self, position: LogPosition) {
        if !self.assembler.is_within() {
            self.withheld = 0;
        } else if self.withheld < REST_LOOKS_MAX {
            self.withheld += 1;
            return;
        }
        if self.told.as_ref() != Some(&position) {
            self.sink.log_read(position.clone());
            self.told = Some(position);
        }
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
            self.shared.identity(identity);
        }
        if matches!(parsed, Parsed::LostBegin(_)) {
            self.withheld = 0;
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
                self.strange.went_well();
                observation.drill |= self.drill;
                self.sink.observe(observation);
            }
            Outcome::Nothing if !unparsed => {}
            Outcome::Nothing | Outcome::Orphan => {
                count(&counters.unparsed);
                if let Some(seen) = self.strange.due() {
                    tracing::warn!(seen, line = ?line.text, "kernel log: a line on an XID that is not understood; please report it");
                }
            }
        }
    }
}
