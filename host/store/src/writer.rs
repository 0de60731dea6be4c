//! The thread that writes.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use device_api_core::clock::BootId;
use device_api_core::durable::{Change, NotDurable, Numbers};
use device_api_core::limits::VERSIONS_RESERVED;

use crate::db::{Db, Fault, Loaded, Row, Unread, head_row};
use crate::format::{self, BadRecord, Head, Last, Slot, Table};
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
    shared: Arc<Shared>,
    observer: Arc<dyn StoreObserver>,
    home: Home,
    boot: BootId,
    record_bytes_max: usize,
    /// `None` after a failure: redb is done with a file once that failed.
    db: Option<Db>,
    /// As in the file, or as it is to be.
    head: Head,
    /// The versions of this run are not reserved yet.
    owes_reservation: bool,
    /// The numbers that this run reserves, while they are not.
    owed_numbers: Option<Numbers>,
    /// In the file, and to be put out of the way with the next commit.
    unread: Vec<Unread>,
    /// Records whose newest content is not in the file as it can't be encoded, and why.
    left_out: BTreeMap<Slot, String>,
    /// The log's position, while what was decided up to it is among them: the log is to be read from an
    /// earlier one then.
    held: Option<Row>,
}

/// Rows of a commit, and what becomes of those that can't be in it.
#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Row>,
    left_out: BTreeMap<Slot, String>,
    held: Option<Row>,
    /// Why whoever waits for this commit is not told that all is durable.
    short: Option<NotDurable>,
    bytes: u64,
}

impl Writer {
    /// `head` is what the last run left.
    pub(crate) fn new(
        shared: Arc<Shared>,
        observer: Arc<dyn StoreObserver>,
        home: Home,
        boot: BootId,
        head: Head,
        record_bytes_max: usize,
    ) -> Self {
        Self {
            shared,
            observer,
            home,
            boot,
            record_bytes_max,
            db: None,
            head,
            owes_reservation: true,
            owed_numbers: None,
            unread: Vec::new(),
            left_out: BTreeMap::new(),
            held: None,
        }
    }

    /// Reserves this run's versions, and the numbers after `numbers`, now or, where the disk does not let us, with the
    /// first commit; returns the version below them.
    pub(crate) fn begin(&mut self, numbers: Numbers) -> u64 {
        self.owed_numbers = Some(numbers.reserving());
        let now = unix_us(&self.shared);
        let base = unreserved(&self.head, now);
        match self.reserve(now) {
            Ok(base) => base,
            Err(refusal) => {
                self.head.ceiling = base;
                let _told = self.give_up(None, refusal);
                base
            }
        }
    }

    fn reserve(&mut self, now: u64) -> Result<u64, Refusal> {
        let (db, loaded) = self.home.connect()?;
        self.opened(loaded);
        let base = self.head.ceiling.max(now).max(1);
        let head = Head {
            ceiling: base.saturating_add(VERSIONS_RESERVED),
            reserved_at: now,
            ..self.head.clone()
        };
        self.write_head(&db, &head)?;
        self.observer.size(db.size());
        self.db = Some(db);
        self.head = head;
        self.home.note_ceiling(self.head.ceiling);
        self.owes_reservation = false;
        self.owed_numbers = None;
        self.unread.clear();
        Ok(base)
    }

    fn write_head(&mut self, db: &Db, head: &Head) -> Result<(), Refusal> {
        let rows = self.first_rows(head).map_err(unencoded);
        let written = rows.and_then(|rows| db.write(&rows));
        written.map(drop).map_err(|fault| {
            self.home.failed(&fault);
            Refusal {
                why: fault.to_string(),
                for_good: false,
            }
        })
    }

    /// What each commit begins with.
    fn first_rows(&self, head: &Head) -> Result<Vec<Row>, BadRecord> {
        let mut rows = vec![head_row(head)?];
        if let Some(numbers) = self.owed_numbers {
            let value = format::encode(&Change::Numbers(numbers))?;
            rows.push((Slot::numbers(), value));
        }
        for unread in &self.unread {
            unread.kept(&mut rows)?;
        }
        Ok(rows)
    }

    /// The file was opened, and read again.
    fn opened(&mut self, loaded: Loaded) {
        let mut slots = loaded.slots;
        // Their end is to be told, for them to be no longer left out.
        slots.extend(self.left_out.keys().cloned());
        self.shared.opened(slots);
        self.unread = loaded.unread;
    }

    /// Writes until it is stopped. A panic is a fault of this daemon: what it was about to write is
    /// lost, so that nothing more is written, and everyone is told.
    pub(crate) fn run(mut self) {
        // Nobody may wait for a thread that is gone.
        let _end = End(self.shared.clone());
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work())) else {
            return;
        };
        let refusal = Refusal {
            why: format!(
                "the store's thread panicked: {}; restart the daemon, and report it",
                said(&*panic)
            ),
            for_good: true,
        };
        // Whoever is told may be who panicked: the status stands by then.
        let _told = catch_unwind(AssertUnwindSafe(|| self.give_up(None, refusal)));
        self.shared.until_stopping();
    }

    fn work(&mut self) {
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
        if let Err(refusal) = self.home.check_in_place() {
            return Err(self.give_up(None, refusal));
        }
        let taken = self.shared.take();
        match self.commit(&db, &taken) {
            Ok(rows) => {
                let size = db.size();
                self.db = Some(db);
                let lacking = in_words(&rows.left_out);
                let recovered = self.shared.committed(&taken, lacking, rows.short);
                self.report(rows.left_out);
                let elapsed = self.shared.clock.boot().since(began);
                self.observer.committed(elapsed, taken.batches, rows.bytes);
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
                self.opened(loaded);
                Ok(db)
            }
            Err(refusal) => Err(self.give_up(None, refusal)),
        }
    }

    /// Encodes and writes, and with it the reservation, if the versions pass its middle (design C5).
    fn commit(&mut self, db: &Db, taken: &Pending) -> Result<Rows, Fault> {
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
        let mut rows = self.rows(&head, taken).map_err(unencoded)?;
        rows.bytes = db.write(&rows.rows)?;
        if head.ceiling != self.head.ceiling {
            self.home.note_ceiling(head.ceiling);
        }
        self.head = head;
        self.owes_reservation = false;
        self.owed_numbers = None;
        self.unread.clear();
        self.held = rows.held.take();
        Ok(rows)
    }

    /// Encodes what was taken. A record that can't be is left out, and what the file holds of it stays;
    /// all else is committed. Whoever waits for the commit is told that it is short, since nobody knows
    /// whose record it was; but for a memory or an incident, for which no client waits.
    fn rows(&self, head: &Head, taken: &Pending) -> Result<Rows, BadRecord> {
        let mut made = Rows {
            rows: self.first_rows(head)?,
            left_out: self.left_out.clone(),
            held: self.held.clone(),
            ..Rows::default()
        };
        for (slot, change) in &taken.changes {
            match self.encoded(change.as_ref()) {
                Ok(value) if *slot == Slot::log() => made.held = Some((slot.clone(), value)),
                Ok(value) => {
                    made.left_out.remove(slot);
                    made.rows.push((slot.clone(), value));
                }
                Err(BadRecord(why)) => {
                    if !matches!(slot.table, Table::Memories | Table::Incidents) {
                        made.short = Some(NotDurable(format!("{slot} can't be kept: {why}")));
                    }
                    made.left_out.insert(slot.clone(), why);
                }
            }
        }
        if !made.left_out.keys().any(Slot::is_of_device) {
            made.rows.extend(made.held.take());
        }
        Ok(made)
    }

    fn encoded(&self, change: Option<&Change>) -> Result<Option<Vec<u8>>, BadRecord> {
        let value = change.map(format::encode).transpose()?.flatten();
        match &value {
            Some(value) if value.len() > self.record_bytes_max => Err(BadRecord(format!(
                "it has {} bytes, and the bound is {}",
                value.len(),
                self.record_bytes_max
            ))),
            Some(_) | None => Ok(value),
        }
    }

    /// Says, once, what is left out now.
    fn report(&mut self, left_out: BTreeMap<Slot, String>) {
        for (slot, why) in &left_out {
            if !self.left_out.contains_key(slot) {
                tracing::error!(
                    record = %slot,
                    %why,
                    "a record can't be kept, which is a fault of this daemon: an older one, if any, \
                     stays in the store, and all others are written"
                );
            }
        }
        self.left_out = left_out;
    }

    /// Tells everyone that nothing becomes durable.
    fn give_up(&self, taken: Option<Pending>, refusal: Refusal) -> Failed {
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

fn in_words(left_out: &BTreeMap<Slot, String>) -> Option<String> {
    let (slot, why) = left_out.first_key_value()?;
    let records = left_out.len();
    Some(format!(
        "{records} of this run's records can't be kept, as {slot}: {why}; all others are"
    ))
}

/// An attempt failed, and everyone has been told.
#[derive(Clone, Copy, Debug)]
struct Failed {
    for_good: bool,
}

/// The base of a run that can't reserve its versions. Time that passed since the last reservation is
/// added: two such runs in a row would begin alike where the ceiling is ahead of the clock.
fn unreserved(head: &Head, now: u64) -> u64 {
    let passed = now.saturating_sub(head.reserved_at);
    let past_ceiling = match head.ceiling {
        0 => 0,
        ceiling => ceiling.saturating_add(passed),
    };
    past_ceiling.max(now).max(1)
}

/// The head, or what stands in for a record that can't be read, does not encode: without them there is
/// no commit.
fn unencoded(error: BadRecord) -> Fault {
    Fault::Damaged {
        why: format!("a record can't be encoded: {error}"),
        ceiling: 0,
    }
}

/// Microseconds since the Unix epoch.
fn unix_us(shared: &Shared) -> u64 {
    shared.clock.wall().unix_ns / 1000
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a word")
}

struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}
