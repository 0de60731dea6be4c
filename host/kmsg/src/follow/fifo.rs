//! A FIFO: read until its last writer is gone, then opened anew.

use std::time::Duration;

use rustix::io::{Errno, read};

use super::{CHUNK_BYTES, End, Reader};
use crate::kernel_log::LogStatus;
use crate::lines::Lines;
use crate::source::{Log, Wake};

/// How often an idle FIFO is checked for having been replaced.
const FIFO_CHECK: Duration = Duration::from_secs(1);

impl Reader {
    pub(super) fn follow_fifo(&mut self, log: &Log) -> Result<End, Errno> {
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
}
