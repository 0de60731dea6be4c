//! How many connections there may be, and whose.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{RESERVE, SHARE};
use crate::peer::Share;

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// There are as many as there may be, the reserve for writers apart.
    Full,
    /// This user, or this address, has its share.
    ShareFull,
    /// It took too long to say that it speaks HTTP/2, or speaks something else.
    NoHello,
}

impl Turned {
    pub const ALL: [Self; 3] = [Self::Full, Self::ShareFull, Self::NoHello];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ShareFull => "share-full",
            Self::NoHello => "no-hello",
        }
    }
}

/// Connections that may still be made.
#[derive(Debug)]
pub(crate) struct Slots {
    max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// No entry is zero, so there are no more than connections.
    by_share: HashMap<Share, usize>,
}

/// One connection; given back on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    share: Share,
}

impl Slots {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        let held = Mutex::default();
        Arc::new(Self { max, held })
    }

    /// What one user may hold.
    pub(crate) fn share_max(&self) -> usize {
        (self.max / SHARE).max(1)
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// # Errors
    /// Why there is none.
    pub(crate) fn take(self: &Arc<Self>, share: Share, may_write: bool) -> Result<Slot, Turned> {
        let reserve = if may_write { 0 } else { self.max / RESERVE };
        let mut held = self.lock();
        if held.all + reserve >= self.max {
            return Err(Turned::Full);
        }
        let of_share = held.by_share.get(&share).copied().unwrap_or_default();
        if of_share >= self.share_max() {
            return Err(Turned::ShareFull);
        }
        held.by_share.insert(share.clone(), of_share + 1);
        held.all += 1;
        Ok(Slot {
            slots: self.clone(),
            share,
        })
    }

    /// Each critical section leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.slots.lock();
        held.all -= 1;
        if let Some(count) = held.by_share.get_mut(&self.share) {
            *count -= 1;
            if *count == 0 {
                held.by_share.remove(&self.share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn taken(slots: &Arc<Slots>, uid: u32, may_write: bool) -> Slot {
        slots.take(Share::Uid(uid), may_write).expect("a slot")
    }

    #[test]
    fn one_user_takes_its_share_and_no_more() {
        let slots = Slots::new(16);
        let mut held: Vec<_> = (0..8).map(|_| taken(&slots, 7, false)).collect();
        let full = slots.take(Share::Uid(7), true).expect_err("its share");
        assert_eq!(full, Turned::ShareFull);
        held.extend((0..6).map(|n| taken(&slots, 100 + n, false)));
        let full = slots.take(Share::Uid(9), false).expect_err("the reserve");
        assert_eq!(full, Turned::Full);
        held.extend([taken(&slots, 9, true), taken(&slots, 0, true)]);
        assert_eq!(slots.take(Share::Uid(1), true).err(), Some(Turned::Full));
        drop(held);
        assert!(slots.lock().by_share.is_empty(), "nothing is kept of them");
        taken(&slots, 7, false);
    }

    #[test]
    fn the_fewest_there_may_be_are_of_use() {
        let slots = Slots::new(4);
        let _held = [taken(&slots, 7, false), taken(&slots, 7, false)];
        taken(&slots, 8, false);
    }
}
