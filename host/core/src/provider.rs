//! What providers write, and the rules of who owns which condition type (design section 4).

use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::clock::WallTime;
use crate::condition::{Polarity, Status};
use crate::device::DeviceInfo;
use crate::ids::{DeviceUuid, ObjectKey, ResourceVersion};
use crate::verdict::Severity;

/// Which way round the condition types are whose writers can't say so (design P3): those of the
/// upstream dialect. A type that is not listed is published, and does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolarityTable {
    /// Most specific first; a pattern is a type, or has one `*` in it.
    rows: Vec<(String, Polarity)>,
}

impl Default for PolarityTable {
    /// Those that upstream's providers are known to write.
    fn default() -> Self {
        let rows = [
            ("Ready", Polarity::TrueIsHealthy),
            ("NVMLReady", Polarity::TrueIsHealthy),
            ("SysLogs*", Polarity::TrueIsProblem),
            ("Gpu*Watch", Polarity::TrueIsProblem),
        ];
        Self {
            rows: rows
                .map(|(pattern, polarity)| (pattern.to_owned(), polarity))
                .to_vec(),
        }
    }
}

impl PolarityTable {
    /// The built-in table with a site's own rows before it: the first that matches counts.
    #[must_use]
    pub fn with(mut self, rows: Vec<(String, Polarity)>) -> Self {
        self.rows.splice(0..0, rows);
        self
    }

    /// Polarity of a type; `None`: not listed.
    pub fn of(&self, type_: &str) -> Option<Polarity> {
        let matches = |pattern: &str| match pattern.split_once('*') {
            None => pattern == type_,
            Some((start, end)) => {
                type_.len() >= start.len() + end.len()
                    && type_.starts_with(start)
                    && type_.ends_with(end)
            }
        };
        self.rows
            .iter()
            .find(|(pattern, _)| matches(pattern))
            .map(|(_, polarity)| *polarity)
    }
}

/// One condition as a provider writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderCondition {
    pub type_: String,
    pub status: Status,
    /// `None`: as its writer said before, or else by the [`PolarityTable`].
    pub polarity: Option<Polarity>,
    /// How bad a problem is; upstream clients can't say, and mean fatal.
    pub severity: Severity,
    pub reason: String,
    pub message: String,
    /// What to do about it, where it is a problem.
    pub action: Action,
    /// Where the writer says when it changed.
    pub transition: Option<WallTime>,
}

/// How a status update treats what it does not own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Native: another's type is refused, naming its owner.
    Strict,
    /// Upstream: others' types are left alone; with a matching version, one's own that are left
    /// out are removed.
    Lenient,
}

/// A status update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusUpdate {
    pub key: ObjectKey,
    /// `None`: unconditional.
    pub expected: Option<ResourceVersion>,
    pub conditions: Vec<ProviderCondition>,
    pub merge: Merge,
}

/// A GPU that a client creates or registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    pub key: ObjectKey,
    pub uuid: DeviceUuid,
    /// What the provider knows of the device; NVML's own word wins.
    pub device: Option<DeviceInfo>,
}

/// Who writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Whose condition types it writes: the provider's name (native), else the identity.
    pub provider: Arc<str>,
    /// Who the connection proves to be, as in `uid:1000` or `cn:node-agent`.
    pub identity: Arc<str>,
    /// Number of the connection; of no two the same.
    pub connection: u64,
    /// The lease it writes under (native); the write fails if that has run out meanwhile.
    pub lease: Option<Arc<str>>,
}

/// A registration that a provider asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub provider: Arc<str>,
    /// Who registers; while the lease runs, no other identity takes the name.
    pub identity: Arc<str>,
    pub duration: Duration,
}

/// A provider's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub provider: Arc<str>,
    pub identity: Arc<str>,
    pub duration: Duration,
    /// Proof of registration; heartbeats and writes name it.
    pub id: Arc<str>,
    /// The daemon has forgotten, or no longer trusts, what the provider called healthy: it is to
    /// write its conditions again.
    pub rewrite: bool,
}

/// What is known of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderInfo {
    pub name: Arc<str>,
    /// Who registered it; for upstream's clients its name is its identity.
    pub identity: Arc<str>,
    /// The time its lease still runs; `None` where it has none.
    pub lease: Option<Duration>,
    /// The condition types it owns, in order.
    pub types: Vec<Arc<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p3_polarity_is_looked_up_a_sites_own_rows_first() {
        let table = PolarityTable::default().with(vec![
            ("GpuFanWatch".to_owned(), Polarity::TrueIsHealthy),
            ("Site*".to_owned(), Polarity::TrueIsHealthy),
        ]);
        let check = |type_, expected| assert_eq!(table.of(type_), expected, "{type_}");
        check("NVMLReady", Some(Polarity::TrueIsHealthy));
        check("SysLogsXIDError", Some(Polarity::TrueIsProblem));
        check("GpuMemWatch", Some(Polarity::TrueIsProblem));
        check("GpuFanWatch", Some(Polarity::TrueIsHealthy));
        check("SiteCooling", Some(Polarity::TrueIsHealthy));
        check("GpuWatc", None);
        check("Nobody", None);
    }
}
