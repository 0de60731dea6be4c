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

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::clock::BootId;
use device_api_core::durable::LogPosition;
use device_api_core::ports::SignalSink;
use device_api_core::signal::SignalKind;
use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, read};

use crate::assemble::{Assembler, Outcome};
use crate::counts::count;
use crate::kernel_log::{LogStatus, Shared};
use crate::lines::{LINE_BYTES_MAX, Line, Lines};
use crate::parse::{Parsed, parse_line};
use crate::prefix::raw_record;
use crate::source::{Kind, Log, Wake};

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

/// How often it is looked whether the rest of a message has come, and at most how many times: its lines
/// are printed at one go, so that a second is long.
const REST_POLL: Duration = Duration::from_millis(20);
const REST_LOOKS_MAX: u32 = 50;

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

    /// Goes to where an earlier run left off, or this one before it could not read on, if this is the
    /// file that was read and it has not been truncated.
    fn begin(&mut self, log: &Log, from: Option<LogPosition>) -> Result<u64, Errno> {
        let place = match from {
            Some(LogPosition::File { id, offset }) => Some((id, offset)),
            Some(LogPosition::Record { .. }) | None => self.place,
        };
        let size = log.size()?;
        match place.filter(|(id, offset)| *id == log.id && *offset <= size) {
            Some((_, offset)) => seek(&log.fd, SeekFrom::Start(offset)),
            None => {
                self.lines.clear();
                Ok(0)
            }
        }
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

    fn follow_kmsg(&mut self, log: &Log) -> Result<End, Errno> {
        let mut record = vec![0; LINE_BYTES_MAX];
        while !self.shared.stop.is_set() {
            match read(&log.fd, &mut record) {
                Ok(0) => return Err(Errno::IO),
                Ok(bytes) => self.record(record.get(..bytes).unwrap_or_default()),
                Err(Errno::AGAIN) => {
                    self.shared
                        .set_status(&self.path, LogStatus::Following { caught_up: true });
                    if let Newest(Some(sequence)) = self.newest_record {
                        let boot = self.boot.clone();
                        self.tell(LogPosition::Record { boot, sequence });
                    }
                    let is_withheld = self.assembler.is_within() && self.withheld < REST_LOOKS_MAX;
                    let at_most = is_withheld.then_some(REST_POLL);
                    if self.shared.stop.wait(Some(log), at_most)? == Wake::Stopped {
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
        // At once what is in it; then whatever comes.
        let mut patience = Duration::ZERO;
        loop {
            match self.shared.stop.wait(Some(log), Some(patience))? {
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
                Wake::Elapsed if patience.is_zero() => {
                    let caught_up = LogStatus::Following { caught_up: true };
                    self.shared.set_status(&self.path, caught_up);
                    patience = FIFO_CHECK;
                }
                Wake::Elapsed if log.is_replaced(&self.path) => return Ok(End::Reopen),
                Wake::Elapsed => {}
            }
        }
    }

    fn follow_file(&mut self, log: &Log, mut offset: u64) -> Result<End, Errno> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut quiet: u32 = 0;
        while !self.shared.stop.is_set() {
            match read(&log.fd, &mut chunk) {
                Ok(0) => {}
                Ok(bytes) => {
                    offset = offset.saturating_add(bytes as u64);
                    self.place = Some((log.id, offset));
                    self.with_lines(|lines, each| {
                        lines.push(chunk.get(..bytes).unwrap_or_default(), each);
                    });
                    quiet = 0;
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
            self.shared
                .set_status(&self.path, LogStatus::Following { caught_up: true });
            if log.size()? < offset {
                tracing::info!(path = %self.path.display(), "kernel log: truncated, reading from its start");
                self.lines.clear();
                offset = seek(&log.fd, SeekFrom::Start(0))?;
                self.place = Some((log.id, offset));
                continue;
            }
            quiet = quiet.saturating_add(1);
            if quiet == QUIET_LOOKS_BEFORE_FLUSH {
                self.with_lines(|lines, each| lines.flush(each));
            }
            if !self.lines.is_partial() {
                self.tell(LogPosition::File { id: log.id, offset });
            }
            if quiet.is_multiple_of(QUIET_LOOKS_PER_CHECK) && log.is_replaced(&self.path) {
                return Ok(End::Reopen);
            }
            self.shared.stop.wait(None, Some(FILE_POLL))?;
        }
        Ok(End::Stopped)
    }

    /// Takes the lines of a file that `cut` hands out.
    fn with_lines(&mut self, cut: impl FnOnce(&mut Lines, &mut dyn FnMut(Line))) {
        let mut lines = std::mem::take(&mut self.lines);
        cut(&mut lines, &mut |line| self.line(&line));
        self.lines = lines;
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use device_api_core::device::DeviceInfo;
    use device_api_core::ids::DeviceUuid;
    use device_api_core::signal::{Observation, Samples};

    use super::*;
    use crate::source::Stop;

    #[test]
    fn a_record_that_was_read_before_is_not_new() {
        let mut newest = Newest::default();
        let is_new = [Some(0), Some(1), Some(0), Some(1), None, Some(1), Some(7)]
            .map(|number| newest.is_new(number));
        assert_eq!(is_new, [true, true, false, false, true, false, true]);
    }

    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<LogPosition>>);

    impl SignalSink for Told {
        fn observe(&self, _: Observation) {}
        fn device_found(&self, _: DeviceInfo, _: Arc<Samples>) {}
        fn sampled(&self, _: &DeviceUuid, _: Arc<Samples>) {}
        fn probing(&self, _: &[DeviceUuid]) {}
        fn probed(&self, _: &DeviceUuid) {}
        fn log_read(&self, position: LogPosition) {
            self.0.lock().unwrap().push(position);
        }
    }

    #[test]
    fn c7_no_position_is_told_within_a_message_of_several_lines() {
        let told = Arc::new(Told::default());
        let shared = Arc::new(Shared::new(Stop::new().unwrap()));
        let (path, sink) = (PathBuf::from("log"), told.clone());
        let mut reader = Reader::new(path, sink, false, shared, BootId::default(), None);
        let at = |offset| LogPosition::File { id: (1, 1), offset };
        let mut read = |text: &str, offset| {
            reader.line(&Line {
                text: text.to_owned(),
                cut: false,
            });
            reader.tell(at(offset));
            told.0.lock().unwrap().last().cloned()
        };
        let begin = "NVRM: The NVIDIA GPU 0000:b3:00.0";
        let end = "NVRM: fallen off the bus and is not responding to commands.";
        assert_eq!(read("noise", 1), Some(at(1)));
        assert_eq!(read(begin, 2), Some(at(1)));
        assert_eq!(read("noise", 3), Some(at(1)));
        assert_eq!(read(end, 4), Some(at(4)));
        // One that is never completed holds nothing up for ever.
        assert_eq!(read(begin, 5), Some(at(4)));
        for look in 1..REST_LOOKS_MAX {
            assert_eq!(read("noise", 5), Some(at(4)), "{look}");
        }
        assert_eq!(read("noise", 6), Some(at(6)));
        // The next has its own time.
        assert_eq!(read(begin, 7), Some(at(6)));
        assert_eq!(read(end, 8), Some(at(8)));
    }
}
