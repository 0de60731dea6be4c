//! `/dev/kmsg`: one record a read, each with its number.

use std::time::Duration;

use device_api_core::durable::LogPosition;
use rustix::io::{Errno, read};

use super::{End, REST_LOOKS_MAX, Reader};
use crate::counts::count;
use crate::kernel_log::LogStatus;
use crate::lines::{LINE_BYTES_MAX, Line};
use crate::prefix::raw_record;
use crate::source::{Log, Wake};

/// How often it is looked whether the rest of a message has come.
const REST_POLL: Duration = Duration::from_millis(20);

/// Sequence number of the newest record of `/dev/kmsg`: opened anew, it begins with the oldest again.
#[derive(Debug, Default)]
pub(super) struct Newest(pub(super) Option<u64>);

impl Newest {
    /// Whether the record was not read before. One without a number is always new.
    pub(super) fn is_new(&mut self, sequence: Option<u64>) -> bool {
        let is_new = sequence.is_none() || sequence > self.0;
        if is_new {
            self.0 = sequence.or(self.0);
        }
        is_new
    }
}

impl Reader {
    pub(super) fn follow_kmsg(&mut self, log: &Log) -> Result<End, Errno> {
        let mut record = vec![0; LINE_BYTES_MAX];
        while !self.shared.stop.is_set() {
            match read(&log.fd, &mut record) {
                Ok(0) => return Err(Errno::IO),
                Ok(bytes) => self.record(record.get(..bytes).unwrap_or_default()),
                Err(Errno::AGAIN) => {
                    self.overrun.went_well();
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
                    if let Some(times) = self.overrun.due() {
                        tracing::warn!(
                            times,
                            "kernel log: records were overwritten before they were read"
                        );
                    }
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
}
