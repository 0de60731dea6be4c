//! How things look in the file: one table a kind, keys as text, values as JSON. Each kind has a mirror
//! here, so that core's words can change without the file changing unseen.
//!
//! **Growth.** A new field takes its default where an old file lacks it, a new table is empty there, and an
//! old daemon skips both: no new version. Whatever else changes, a word with data of another form above all, raises
//! [`FORMAT_VERSION`]; a file of a newer version is set aside, not guessed at.

mod forms;
mod stored;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use device_api_core::clock::BootTime;
use device_api_core::device::DeviceInfo;
use device_api_core::durable::{
    Change, Claim, DeviceMemory, DeviceRecord, IncidentMemory, LeaseRecord, LogPosition, Numbers,
    ObjectRecord, Snapshot,
};
use device_api_core::ids::{DeviceUuid, IncidentId, ObjectKey, ResourceVersion};
use serde::{Deserialize, Serialize};

use self::stored::Stored;

/// Version of the file's format.
pub const FORMAT_VERSION: u32 = 1;

/// Keys in [`Table::Meta`]. The format's version stands alone: it is read before all else.
pub(crate) const META_FORMAT: &str = "format";
pub(crate) const META_HEAD: &str = "head";
const META_LOG: &str = "log";
const META_NUMBERS: &str = "numbers";

/// The tables of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Table {
    Meta,
    Devices,
    Objects,
    Memories,
    Incidents,
    Claims,
    Leases,
    /// Values that a daemon did not understand, by table and key; kept for whoever looks for the fault.
    Unread,
}

impl Table {
    /// In the order in which they are read.
    pub(crate) const ALL: [Self; 8] = [
        Self::Meta,
        Self::Devices,
        Self::Objects,
        Self::Memories,
        Self::Incidents,
        Self::Claims,
        Self::Leases,
        Self::Unread,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Devices => "devices",
            Self::Objects => "objects",
            Self::Memories => "memories",
            Self::Incidents => "incidents",
            Self::Claims => "claims",
            Self::Leases => "leases",
            Self::Unread => "unread",
        }
    }
}

/// Where a thing is in the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) table: Table,
    pub(crate) key: String,
}

impl Slot {
    pub(crate) fn new(table: Table, key: &str) -> Self {
        Self {
            table,
            key: key.to_owned(),
        }
    }

    pub(crate) fn in_table(&self, table: Table) -> Self {
        Self::new(table, &self.key)
    }

    pub(crate) fn head() -> Self {
        Self::new(Table::Meta, META_HEAD)
    }

    pub(crate) fn log() -> Self {
        Self::new(Table::Meta, META_LOG)
    }

    pub(crate) fn numbers() -> Self {
        Self::new(Table::Meta, META_NUMBERS)
    }

    /// Where its value is kept if it can't be read.
    pub(crate) fn unread(&self) -> Self {
        Self::new(Table::Unread, &self.to_string())
    }

    /// Whether it tells what was decided on a device.
    pub(crate) fn is_of_device(&self) -> bool {
        matches!(self.table, Table::Devices | Table::Memories)
    }

    /// Where a change goes, and whether it ends what is there.
    pub(crate) fn of(change: &Change) -> (Self, bool) {
        match change {
            Change::Device(record) => (Self::new(Table::Devices, record.info.uuid.as_str()), false),
            Change::DeviceGone(uuid) => (Self::new(Table::Devices, uuid.as_str()), true),
            Change::Object(record) => (Self::object(&record.key), false),
            Change::ObjectGone(key) => (Self::object(key), true),
            Change::Memory(uuid, _) => (Self::new(Table::Memories, uuid.as_str()), false),
            Change::Incident(memory) => (Self::incident(memory.incident.id), false),
            Change::IncidentGone(id) => (Self::incident(*id), true),
            Change::Claim(claim) => (Self::new(Table::Claims, &claim.type_), false),
            Change::ClaimGone(type_) => (Self::new(Table::Claims, type_), true),
            Change::Lease(lease) => (Self::new(Table::Leases, &lease.provider), false),
            Change::LeaseGone(provider) => (Self::new(Table::Leases, provider), true),
            Change::LogPosition(_) => (Self::log(), false),
            Change::Numbers(_) => (Self::numbers(), false),
        }
    }

    fn incident(id: IncidentId) -> Self {
        Self::new(Table::Incidents, &id.0.to_string())
    }

    /// The namespace's length keeps `a/b` in `c` apart from `b` in `c/a`.
    fn object(key: &ObjectKey) -> Self {
        Self {
            table: Table::Objects,
            key: format!("{}:{}/{}", key.namespace.len(), key.namespace, key.name),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.table.name(), self.key)
    }
}

/// What is said of the content as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Head {
    /// No version so great was ever given out durably reserved.
    pub(crate) ceiling: u64,
    /// When `ceiling` was reserved, in microseconds since the Unix epoch.
    pub(crate) reserved_at: u64,
    /// The newest batch; `None`: there was none.
    pub(crate) last: Option<Last>,
}

/// The newest batch that is in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Last {
    pub(crate) version: u64,
    pub(crate) boot: String,
    pub(crate) at_ns: u64,
}

/// What a record is refused for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadRecord(pub(crate) String);

impl From<serde_json::Error> for BadRecord {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

fn put<T: Stored>(thing: &T) -> Result<Vec<u8>, BadRecord> {
    Ok(serde_json::to_vec(&thing.form())?)
}

fn take<T: Stored>(bytes: &[u8]) -> Result<T, BadRecord> {
    T::of_form(serde_json::from_slice(bytes)?)
}

/// A record's fault is that record's alone: also where it makes the code panic.
fn contained<T>(act: impl FnOnce() -> Result<T, BadRecord>) -> Result<T, BadRecord> {
    let panicked = |_| Err(BadRecord("the daemon panicked over it".to_owned()));
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(panicked)
}

/// The value of what a change puts; `None` where it ends something.
pub(crate) fn encode(change: &Change) -> Result<Option<Vec<u8>>, BadRecord> {
    contained(|| value_of(change))
}

fn value_of(change: &Change) -> Result<Option<Vec<u8>>, BadRecord> {
    Ok(Some(match change {
        Change::Device(record) => put(record)?,
        Change::Object(record) => put(record)?,
        Change::Memory(_, memory) => put(memory)?,
        Change::Incident(memory) => put(memory)?,
        Change::Claim(claim) => put(claim)?,
        Change::Lease(lease) => put(lease)?,
        Change::LogPosition(position) => put(position)?,
        Change::Numbers(numbers) => put(numbers)?,
        Change::DeviceGone(_)
        | Change::ObjectGone(_)
        | Change::IncidentGone(_)
        | Change::ClaimGone(_)
        | Change::LeaseGone(_) => return Ok(None),
    }))
}

/// Reads one record of a table into the snapshot; the head goes into `head`.
pub(crate) fn decode(
    slot: &Slot,
    value: &[u8],
    snapshot: &mut Snapshot,
    head: &mut Head,
) -> Result<(), BadRecord> {
    contained(|| read_into(slot, value, snapshot, head))
}

fn read_into(
    slot: &Slot,
    value: &[u8],
    snapshot: &mut Snapshot,
    head: &mut Head,
) -> Result<(), BadRecord> {
    match slot.table {
        Table::Meta => match slot.key.as_str() {
            META_HEAD => *head = serde_json::from_slice(value)?,
            META_LOG => snapshot.log = Some(take::<LogPosition>(value)?),
            META_NUMBERS => snapshot.numbers = take::<Numbers>(value)?,
            // The format's version was looked at before, and what a newer daemon adds is its own.
            _ => {}
        },
        Table::Devices => snapshot.devices.push(take::<DeviceRecord>(value)?),
        Table::Objects => snapshot.objects.push(take::<ObjectRecord>(value)?),
        Table::Memories => snapshot
            .memories
            .push((DeviceUuid::new(&slot.key), take::<DeviceMemory>(value)?)),
        Table::Incidents => snapshot.incidents.push(take::<IncidentMemory>(value)?),
        Table::Claims => snapshot.claims.push(take::<Claim>(value)?),
        Table::Leases => snapshot.leases.push(take::<LeaseRecord>(value)?),
        Table::Unread => {}
    }
    Ok(())
}

/// What is taken for a record that can't be read: of a device, that it is there and nothing is known of
/// it, so that its health is Unknown and its object stays.
pub(crate) fn instead_of(slot: &Slot) -> Option<DeviceRecord> {
    (slot.table == Table::Devices).then(|| DeviceRecord {
        info: Arc::new(DeviceInfo::bare(DeviceUuid::new(&slot.key))),
        conditions: Arc::new([]),
        is_deleted: false,
        last_slot: None,
    })
}

/// Fills in what the head says of the snapshot; `None` where nothing was ever written.
pub(crate) fn complete(mut snapshot: Snapshot, head: &Head) -> Option<Snapshot> {
    let last = head.last.as_ref()?;
    snapshot.version = ResourceVersion(last.version);
    snapshot.boot = device_api_core::clock::BootId(last.boot.as_str().into());
    snapshot.at = BootTime { ns: last.at_ns };
    Some(snapshot)
}
