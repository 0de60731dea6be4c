//! The database: redb, and nothing of it beyond this file and `backend.rs`.
//!
//! A damaged file must never end the daemon. redb answers damage with errors; should it panic all the
//! same, the panic is caught here and is damage too.

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use device_api_core::durable::{Change, Snapshot};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use crate::backend::{Backend, Said, Trouble};
use crate::disk::DiskFile;
use crate::format::{self, BadRecord, FORMAT_VERSION, Head, META_FORMAT, Slot, Table};

/// Pages that redb keeps in memory. The content is in the cache already; these are for the tree's
/// inner nodes, and for the pages of one commit.
const CACHE_BYTES: usize = 1024 * 1024;

/// A file is compacted when it is opened and more than this many times as large as its content, and
/// larger than [`COMPACT_BYTES_MIN`]: copy-on-write and half-full pages alone make it two to four times.
const COMPACT_RATIO: u64 = 8;
const COMPACT_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Why the database did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The disk did not.
    #[error("{}", said.what)]
    Disk { said: Said },
    /// The content is not what was written.
    #[error("it is damaged: {why}")]
    Damaged { why: String, ceiling: u64 },
    /// A later daemon wrote it.
    #[error("it is of format version {found}, and this daemon reads up to {FORMAT_VERSION}")]
    Newer { found: u32 },
}

impl Fault {
    fn damaged(why: impl fmt::Display) -> Self {
        Self::Damaged {
            why: why.to_string(),
            ceiling: 0,
        }
    }
}

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) head: Head,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) slots: HashSet<Slot>,
    /// Records that are as they were written, and yet no record of ours.
    pub(crate) unread: Vec<Unread>,
    content_bytes: u64,
}

/// One row to write; `None` removes.
pub(crate) type Row = (Slot, Option<Vec<u8>>);

/// A record that does not decode though the file is whole: a fault of the format, so of this daemon.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) slot: Slot,
    pub(crate) why: String,
    value: Vec<u8>,
}

impl Unread {
    /// Keeps the record's bytes out of the way, and puts in its place what is taken for it. Where it
    /// said something of a device, not all up to the log's position is decided and durable any more:
    /// the log is read from its start again.
    pub(crate) fn kept(&self, rows: &mut Vec<Row>) -> Result<(), BadRecord> {
        rows.push((self.slot.unread(), Some(self.value.clone())));
        let instead = format::instead_of(&self.slot).map(Change::Device);
        let instead = instead.as_ref().map(format::encode).transpose()?.flatten();
        rows.push((self.slot.clone(), instead));
        if self.slot.is_of_device() {
            rows.push((Slot::log(), None));
        }
        Ok(())
    }
}

pub(crate) struct Db {
    /// Taken out only by `drop`.
    database: Option<Database>,
    file: Arc<dyn DiskFile>,
    trouble: Arc<Trouble>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(table.name())
}

/// Runs what redb does; a failure of the disk beneath is told as such, also where redb got over it:
/// what it then found is not what is there.
fn guarded<T>(trouble: &Trouble, act: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let result = catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err(Fault::damaged("the database panicked over it")));
    match trouble.first() {
        Some(said) => Err(Fault::Disk { said }),
        None => result,
    }
}

impl Db {
    /// Makes a database in an empty file, durably.
    pub(crate) fn create(file: Arc<dyn DiskFile>, bytes_max: u64) -> Result<Self, Fault> {
        let db = Self::start(file, bytes_max)?;
        let format = serde_json::to_vec(&FORMAT_VERSION).map_err(Fault::damaged)?;
        db.write(&[(Slot::new(Table::Meta, META_FORMAT), Some(format))])?;
        Ok(db)
    }

    /// Opens what [`Db::create`] made, repairs what a crash left undone, and reads all of it.
    pub(crate) fn open(file: Arc<dyn DiskFile>, bytes_max: u64) -> Result<(Self, Loaded), Fault> {
        let trouble = Arc::new(Trouble::default());
        let empty = guarded(&trouble, || {
            let backend = Backend {
                file: file.clone(),
                bytes_max,
                trouble: trouble.clone(),
            };
            let size = backend.size().map_err(Fault::damaged)?;
            Ok(size == 0)
        })?;
        if empty {
            // redb would make a new one of it.
            return Err(Fault::damaged("it is empty"));
        }
        let mut db = Self::start(file, bytes_max)?;
        db.check()?;
        let loaded = db.load()?;
        Ok((db, loaded))
    }

    fn start(file: Arc<dyn DiskFile>, bytes_max: u64) -> Result<Self, Fault> {
        let trouble = Arc::new(Trouble::default());
        let backend = Backend {
            file: file.clone(),
            bytes_max,
            trouble: trouble.clone(),
        };
        let database = guarded(&trouble, || {
            redb::Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(backend)
                .map_err(Fault::damaged)
        })?;
        Ok(Self {
            database: Some(database),
            file,
            trouble,
        })
    }

    fn database(&self) -> Result<&Database, Fault> {
        self.database
            .as_ref()
            .ok_or_else(|| Fault::damaged("it is closed"))
    }

    /// Looks at every page's checksum. What redb mends here had its damage after the crash repair, so
    /// that an acknowledged write may be among what is lost: it counts as damaged.
    fn check(&mut self) -> Result<(), Fault> {
        let trouble = self.trouble.clone();
        let Some(database) = &mut self.database else {
            return Ok(());
        };
        guarded(&trouble, || match database.check_integrity() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::damaged("its checksums do not hold")),
            Err(error) => Err(Fault::damaged(error)),
        })
    }

    /// Reads all there is. A record that does not decode costs itself alone, but for the head, without
    /// which nothing is known of when and in which boot the rest was written.
    fn load(&self) -> Result<Loaded, Fault> {
        let database = self.database()?;
        guarded(&self.trouble, || {
            let reader = database.begin_read().map_err(Fault::damaged)?;
            let mut loaded = Loaded::default();
            let mut snapshot = Snapshot::default();
            for table in Table::ALL {
                let rows = match reader.open_table(definition(table)) {
                    Ok(rows) => rows,
                    // Made with its first record.
                    Err(TableError::TableDoesNotExist(_)) if table != Table::Meta => continue,
                    Err(error) => return Err(Fault::damaged(error)),
                };
                if table == Table::Meta {
                    read_format(&rows)?;
                }
                for row in rows.iter().map_err(Fault::damaged)? {
                    let (key, value) = row.map_err(Fault::damaged)?;
                    let (slot, value) = (Slot::new(table, key.value()), value.value());
                    loaded.content_bytes += (slot.key.len() + value.len()) as u64;
                    match format::decode(&slot, value, &mut snapshot, &mut loaded.head) {
                        Ok(()) => {}
                        Err(error) if slot == Slot::head() => {
                            return Err(Fault::Damaged {
                                why: format!("its head: {error}"),
                                ceiling: ceiling_in(value),
                            });
                        }
                        Err(BadRecord(why)) => loaded.unread.push(Unread {
                            slot: slot.clone(),
                            why,
                            value: value.to_owned(),
                        }),
                    }
                    loaded.slots.insert(slot);
                }
            }
            for unread in &loaded.unread {
                snapshot.devices.extend(format::instead_of(&unread.slot));
                if unread.slot.is_of_device() {
                    snapshot.log = None;
                }
            }
            loaded.snapshot = format::complete(snapshot, &loaded.head);
            Ok(loaded)
        })
    }

    /// Gives back the space that past content took.
    pub(crate) fn compact(&mut self, loaded: &Loaded) -> Result<(), Fault> {
        let size = self.size();
        let content = loaded.content_bytes.max(1);
        if size < COMPACT_BYTES_MIN || size / content < COMPACT_RATIO {
            return Ok(());
        }
        let trouble = self.trouble.clone();
        let Some(database) = &mut self.database else {
            return Ok(());
        };
        guarded(&trouble, || {
            database.compact().map_err(Fault::damaged).map(drop)
        })?;
        tracing::info!(before = size, after = self.size(), "store compacted");
        Ok(())
    }

    /// Size of the file in bytes; zero where the disk does not say.
    pub(crate) fn size(&self) -> u64 {
        self.file.size().unwrap_or(0)
    }

    /// Writes, and returns when it would survive a power loss. `None` removes. Returns the bytes of
    /// keys and values.
    /// Of two rows of one slot the later one stays.
    pub(crate) fn write(&self, rows: &[Row]) -> Result<u64, Fault> {
        let database = self.database()?;
        guarded(&self.trouble, || {
            let transaction = database.begin_write().map_err(Fault::damaged)?;
            let mut bytes = 0;
            for table in Table::ALL {
                let mut rows = rows
                    .iter()
                    .filter(|(slot, _)| slot.table == table)
                    .peekable();
                if rows.peek().is_none() {
                    continue;
                }
                let mut open = transaction
                    .open_table(definition(table))
                    .map_err(Fault::damaged)?;
                for (slot, value) in rows {
                    bytes += (slot.key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
                    match value {
                        Some(value) => open.insert(slot.key.as_str(), value.as_slice()),
                        None => open.remove(slot.key.as_str()),
                    }
                    .map_err(Fault::damaged)?;
                }
            }
            transaction.commit().map_err(Fault::damaged)?;
            Ok(bytes)
        })
    }
}

/// Refuses a format that this daemon does not know.
fn read_format(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<(), Fault> {
    let get = |key: &str| meta.get(key).map_err(Fault::damaged);
    let Some(format) = get(META_FORMAT)? else {
        return Err(Fault::damaged("it does not say its format version"));
    };
    let found: u32 = serde_json::from_slice(format.value()).map_err(Fault::damaged)?;
    match found {
        FORMAT_VERSION => Ok(()),
        newer if newer > FORMAT_VERSION => Err(Fault::Newer { found }),
        _ => Err(Fault::damaged(format!(
            "there is no format version {found}"
        ))),
    }
}

/// The ceiling in a head, whatever else may be in it; zero where there is none.
fn ceiling_in(head: &[u8]) -> u64 {
    let head = serde_json::from_slice::<serde_json::Value>(head).unwrap_or_default();
    let ceiling = head.get("ceiling").and_then(serde_json::Value::as_u64);
    ceiling.unwrap_or_default()
}

impl Drop for Db {
    fn drop(&mut self) {
        let database = self.database.take();
        // Closing writes to the disk too. What it loses is made good when the file is opened again.
        let closed = catch_unwind(AssertUnwindSafe(|| drop(database)));
        if closed.is_err() {
            tracing::warn!("closing the store panicked; it is repaired when it is opened next");
        }
    }
}

/// The head as a row to write.
pub(crate) fn head_row(head: &Head) -> Result<Row, BadRecord> {
    let value = serde_json::to_vec(head)?;
    Ok((Slot::head(), Some(value)))
}
