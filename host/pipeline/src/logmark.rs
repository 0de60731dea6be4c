//! How far the kernel log is decided: a restart reads on from there (design C7).
//!
//! A position counts once every signal that was observed before it is decided, so that what is durable
//! by then is in the cache. At most two positions wait: the one that is next, and the newest. One
//! more is held while the shelf holds something that the log told.

use std::time::Duration;

use device_api_core::clock::BootTime;
use device_api_core::durable::LogPosition;
use device_api_core::ids::SignalSeq;

use crate::pipeline::{Shared, State};

/// How often a position is made durable that no signal goes with. A log tells of much that is not ours,
/// and to read that again costs little.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Read {
    position: LogPosition,
    /// The newest signal that had been observed.
    after: SignalSeq,
}

#[derive(Debug, Default)]
pub(crate) struct LogMark {
    next: Option<Read>,
    newest: Option<Read>,
    /// As far as the log was read while something that was seen had no device.
    held: Option<LogPosition>,
    /// The log was read to its end once.
    is_caught_up: bool,
    /// Up to here signals were decided when a position was last made durable, and when.
    noted: Option<(SignalSeq, BootTime)>,
}

impl LogMark {
    /// The log was read up to `position`. `is_held`: something that was seen has no device yet, and
    /// must be read again if we die before it has.
    pub(crate) fn read(&mut self, position: LogPosition, after: SignalSeq, is_held: bool) {
        if is_held {
            self.held = Some(position);
            return;
        }
        self.held = None;
        let read = Read { position, after };
        if self.next.is_none() {
            self.next = Some(read);
        } else {
            self.newest = Some(read);
        }
    }

    /// The position that counts by now, where it is worth a write. `undecided`: the oldest signal
    /// that is not decided.
    fn take(&mut self, undecided: Option<SignalSeq>, now: BootTime) -> Option<LogPosition> {
        let is_decided = |read: &Read| undecided.is_none_or(|oldest| oldest > read.after);
        let read = if self.newest.as_ref().is_some_and(is_decided) {
            self.next = None;
            self.newest.take()?
        } else {
            let read = self.next.take_if(|read| is_decided(read))?;
            self.next = self.newest.take();
            read
        };
        let is_due = self
            .noted
            .is_none_or(|(seq, at)| read.after > seq || now.since(at) >= IDLE_INTERVAL);
        if !is_due {
            return None;
        }
        self.noted = Some((read.after, now));
        Some(read.position)
    }

    /// Nothing holds the position any more. What did may be among the signals up to `after`.
    fn release(&mut self, after: SignalSeq) {
        if let Some(position) = self.held.take() {
            self.read(position, after, false);
        }
    }

    fn is_waiting(&self) -> bool {
        self.next.is_some()
    }
}

impl Shared {
    /// The kernel log was read to its end, which is at `position`.
    pub(crate) fn log_was_read(&self, state: &mut State, position: LogPosition) {
        if !std::mem::replace(&mut state.log.is_caught_up, true) {
            self.await_containment(state);
        }
        let is_held = self.log_is_held(state);
        state.log.read(position, state.newest, is_held);
        self.log_decided(state);
    }

    /// Whether something that the log told has no device yet.
    fn log_is_held(&self, state: &mut State) -> bool {
        state.shelf.holds_log(self.clock.boot()) || self.switches_hold_log(state)
    }

    /// Has the position of the kernel log made durable that counts by now.
    pub(crate) fn log_decided(&self, state: &mut State) {
        let now = self.clock.boot();
        if state.log.held.is_some() && !self.log_is_held(state) {
            state.log.release(state.newest);
        }
        if !state.log.is_waiting() {
            return;
        }
        let undecided = state.lanes.values().flat_map(|lane| lane.unjudged());
        let oldest = undecided.min();
        if let Some(position) = state.log.take(oldest, now) {
            self.cache.log_decided(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> LogPosition {
        LogPosition::File { id: (1, 1), offset }
    }

    #[test]
    fn c7_a_position_counts_when_what_was_read_before_it_is_decided() {
        let mut mark = LogMark::default();
        let now = BootTime::default();
        mark.read(at(10), SignalSeq(3), false);
        mark.read(at(20), SignalSeq(5), false);
        assert_eq!(mark.take(Some(SignalSeq(2)), now), None);
        assert_eq!(mark.take(Some(SignalSeq(4)), now), Some(at(10)));
        mark.read(at(30), SignalSeq(9), false);
        mark.read(at(40), SignalSeq(9), false);
        assert_eq!(mark.take(None, now), Some(at(40)), "the newest that counts");
        mark.read(at(50), SignalSeq(10), true);
        assert_eq!(mark.take(None, now), None, "something has no device yet");
        mark.release(SignalSeq(12));
        assert_eq!(
            mark.take(Some(SignalSeq(11)), now),
            None,
            "it is being judged"
        );
        assert_eq!(mark.take(None, now), Some(at(50)));
    }

    #[test]
    fn positions_without_a_signal_are_noted_now_and_then() {
        let mut mark = LogMark::default();
        let start = BootTime::default();
        mark.read(at(10), SignalSeq(1), false);
        assert_eq!(mark.take(None, start), Some(at(10)));
        mark.read(at(20), SignalSeq(1), false);
        assert_eq!(mark.take(None, start), None);
        mark.read(at(30), SignalSeq(1), false);
        assert_eq!(mark.take(None, start.after(IDLE_INTERVAL)), Some(at(30)));
    }
}
