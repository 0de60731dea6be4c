//! The database: redb, and nothing of it beyond this file and `backend.rs`.
//!
//! A damaged file must never end the daemon. redb answers damage with errors; should it panic all the
//! same, the panic is caught here and is damage too.

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use device_api_core::durable::Snapshot;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use crate::backend::{Backend, Said, Trouble};
use crate::disk::DiskFile;
use crate::format::{self, FORMAT_VERSION, Head, META_FORMAT, META_HEAD, Slot, Table};

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
    #[error("it is of format version {found}, and this daemon reads up to {FORMAT_VERSION}")]
    Newer { found: u32, ceiling: u64 },
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
    content_bytes: u64,
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

/// Runs what redb does; a failure of the disk beneath is told as such.
fn guarded<T>(trouble: &Trouble, act: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let result = catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err(Fault::damaged("the database panicked over it")));
    result.map_err(|fault| match trouble.first() {
        Some(said) => Fault::Disk { said },
        None => fault,
    })
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
        let trouble = Trouble::default();
        let empty = guarded(&trouble, || {
            let size = redb::StorageBackend::len(&Backend {
                file: file.clone(),
                bytes_max,
                trouble: Arc::default(),
            });
            size.map(|bytes| bytes == 0).map_err(Fault::damaged)
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

    /// Reads all there is.
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
                    let read = format::decode(&slot, value, &mut snapshot, &mut loaded.head);
                    read.map_err(|error| Fault::Damaged {
                        why: format!("record {:?} of {}: {error}", slot.key, table.name()),
                        ceiling: loaded.head.ceiling,
                    })?;
                    loaded.slots.insert(slot);
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
    pub(crate) fn write(&self, rows: &[(Slot, Option<Vec<u8>>)]) -> Result<u64, Fault> {
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

/// Refuses a format that this daemon does not know; says the ceiling all the same, if it can be read.
fn read_format(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<(), Fault> {
    let get = |key: &str| meta.get(key).map_err(Fault::damaged);
    let ceiling = get(META_HEAD)?
        .and_then(|head| serde_json::from_slice::<Head>(head.value()).ok())
        .map_or(0, |head| head.ceiling);
    let Some(format) = get(META_FORMAT)? else {
        return Err(Fault::damaged("it does not say its format version"));
    };
    let found: u32 = serde_json::from_slice(format.value()).map_err(Fault::damaged)?;
    match found {
        FORMAT_VERSION => Ok(()),
        newer if newer > FORMAT_VERSION => Err(Fault::Newer { found, ceiling }),
        _ => Err(Fault::damaged(format!(
            "there is no format version {found}"
        ))),
    }
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
pub(crate) fn head_row(head: &Head) -> Result<(Slot, Option<Vec<u8>>), format::BadRecord> {
    let value = serde_json::to_vec(head)?;
    Ok((Slot::new(Table::Meta, META_HEAD), Some(value)))
}
