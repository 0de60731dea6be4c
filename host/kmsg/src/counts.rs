//! What became of the lines read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines (records of `/dev/kmsg`), whoever wrote them.
    pub lines: u64,
    /// XIDs observed.
    pub xids: u64,
    /// NVSwitch errors observed.
    pub sxids: u64,
    /// GPUs seen to fall off the bus, without an XID.
    pub lost: u64,
    /// Lines that speak of an XID or SXid in words we do not know.
    pub unparsed: u64,
    /// Lines longer than the bound, cut.
    pub cut: u64,
    /// Times that the kernel had overwritten records before we read them.
    pub overruns: u64,
}

/// The same, while they count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) lines: AtomicU64,
    pub(crate) xids: AtomicU64,
    pub(crate) sxids: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) unparsed: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) overruns: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            lines: get(&self.lines),
            xids: get(&self.xids),
            sxids: get(&self.sxids),
            lost: get(&self.lost),
            unparsed: get(&self.unparsed),
            cut: get(&self.cut),
            overruns: get(&self.overruns),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
