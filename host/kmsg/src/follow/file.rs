//! A regular file, which may grow, be truncated, or be replaced (rotated).

use std::time::Duration;

use device_api_core::durable::LogPosition;
use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, read};

use super::{CHUNK_BYTES, End, Reader};
use crate::kernel_log::LogStatus;
use crate::lines::{Line, Lines};
use crate::source::Log;

/// How often a regular file is looked at: what a fault in it is late at most.
pub(super) const FILE_POLL: Duration = Duration::from_millis(20);

/// Looks without growth after which an unfinished last line is taken as it is.
const QUIET_LOOKS_BEFORE_FLUSH: u32 = 10;

/// Looks without growth between two checks whether the file was replaced (rotated).
const QUIET_LOOKS_PER_CHECK: u32 = 25;

impl Reader {
    /// Goes to where an earlier run left off, or this one before it could not read on, if this is the
    /// file that was read and it has not been truncated.
    pub(super) fn begin(&mut self, log: &Log, from: Option<LogPosition>) -> Result<u64, Errno> {
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

    pub(super) fn follow_file(&mut self, log: &Log, mut offset: u64) -> Result<End, Errno> {
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
}
