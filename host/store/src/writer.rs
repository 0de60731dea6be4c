//! The thread that writes.

use std::sync::Arc;
use std::time::Duration;

use device_api_core::clock::BootId;
use device_api_core::durable::NotDurable;
use device_api_core::limits::VERSIONS_RESERVED;

use crate::db::{Db, Fault, head_row};
use crate::format::{self, Head, Last};
use crate::home::{Home, Refusal};
use crate::pending::Pending;
use crate::shared::Shared;
use crate::status::{Status, StoreObserver};

/// First and longest wait between attempts. A full disk is emptied by hand, so that seconds do; the
/// first is short for what passes by itself.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) observer: Arc<dyn StoreObserver>,
    pub(crate) home: Home,
    pub(crate) boot: BootId,
    /// `None` after a failure: redb is done with a file once that failed.
    pub(crate) db: Option<Db>,
    /// As in the file, or as it is to be.
    pub(crate) head: Head,
    /// The versions of this run are not reserved yet.
    pub(crate) owes_reservation: bool,
}

impl Writer {
    pub(crate) fn run(mut self) {
        // Also where something here panics: nobody may wait for a thread that is gone.
        let _end = End(self.shared.clone());
        let mut retry = self.owes_reservation.then_some(RETRY_MIN);
        loop {
            let next = self.shared.next(retry);
            let outcome = if self.shared.has_pending() || self.owes_reservation {
                self.attempt()
            } else {
                Ok(())
            };
            if next.stopping {
                return;
            }
            retry = match outcome {
                Ok(()) => None,
                Err(Failed { for_good: true }) => return self.shared.until_stopping(),
                Err(Failed { for_good: false }) => {
                    let longer = |waited: Duration| waited.saturating_mul(2).min(RETRY_MAX);
                    Some(retry.map_or(RETRY_MIN, longer))
                }
            };
        }
    }

    /// Makes all that is pending durable.
    fn attempt(&mut self) -> Result<(), Failed> {
        let began = self.shared.clock.boot();
        let db = match self.db.take() {
            Some(db) => db,
            None => self.reconnect()?,
        };
        let taken = self.shared.take();
        match self.commit(&db, &taken) {
            Ok(bytes) => {
                let size = db.size();
                self.db = Some(db);
                let recovered = self.shared.committed(&taken);
                let elapsed = self.shared.clock.boot().since(began);
                self.observer.committed(elapsed, taken.batches, bytes);
                self.observer.size(size);
                if recovered {
                    tracing::info!("the store is written to again");
                    self.observer.recovered();
                }
                Ok(())
            }
            Err(fault) => {
                self.home.failed(&fault);
                let refusal = Refusal {
                    why: fault.to_string(),
                    for_good: false,
                };
                // Before `db` is closed: on a disk that fails that may take as long as the failure.
                Err(self.give_up(Some(taken), refusal))
            }
        }
    }

    fn reconnect(&mut self) -> Result<Db, Failed> {
        match self.home.connect() {
            Ok((db, loaded)) => {
                self.shared.opened(loaded.slots);
                Ok(db)
            }
            Err(refusal) => Err(self.give_up(None, refusal)),
        }
    }

    /// Encodes and writes, and with it the reservation, if the versions pass its middle (design C5).
    fn commit(&mut self, db: &Db, taken: &Pending) -> Result<u64, Fault> {
        let mut head = self.head.clone();
        if !taken.is_empty() {
            head.last = Some(Last {
                version: taken.version.0,
                boot: self.boot.0.as_ref().to_owned(),
                at_ns: taken.at.ns,
            });
        }
        if self.owes_reservation
            || taken.version.0.saturating_add(VERSIONS_RESERVED / 2) > head.ceiling
        {
            let from = head.ceiling.max(taken.version.0);
            head.ceiling = from.saturating_add(VERSIONS_RESERVED);
            head.reserved_at = unix_us(&self.shared);
        }
        let bad = |error: format::BadRecord| Fault::Damaged {
            why: format!("a record can't be encoded: {error}"),
            ceiling: 0,
        };
        let mut rows = vec![head_row(&head).map_err(bad)?];
        for (slot, change) in &taken.changes {
            let value = match change {
                Some(change) => format::encode(change).map_err(bad)?,
                None => None,
            };
            rows.push((slot.clone(), value));
        }
        let bytes = db.write(&rows)?;
        self.head = head;
        self.owes_reservation = false;
        Ok(bytes)
    }

    /// Tells everyone that nothing becomes durable.
    pub(crate) fn give_up(&self, taken: Option<Pending>, refusal: Refusal) -> Failed {
        let Refusal { why, for_good } = refusal;
        let failure = NotDurable(why.clone());
        let status = if for_good {
            Status::ReadOnly { why: why.clone() }
        } else {
            Status::Failing { why: why.clone() }
        };
        if self.shared.failed(taken, status) {
            tracing::error!(
                %why,
                "the store is not written to: what changes stays in memory, and clients' writes are refused"
            );
        }
        self.observer.failed(&failure);
        Failed { for_good }
    }
}

/// An attempt failed, and everyone has been told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    for_good: bool,
}

/// Microseconds since the Unix epoch.
pub(crate) fn unix_us(shared: &Shared) -> u64 {
    shared.clock.wall().unix_ns / 1000
}

struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}
