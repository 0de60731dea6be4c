//! What the daemon goes on from: the boot, the store on disk, and the cache and memories made of it.

use std::collections::HashMap;
use std::mem::take;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use device_api_cache::{Cache, Config as CacheConfig};
use device_api_core::clock::{BootId, Clock, WallTime};
use device_api_core::condition::find_named;
use device_api_core::durable::{IncidentMemory, LogPosition, Snapshot};
use device_api_core::ids::DeviceUuid;
use device_api_core::provider::PolarityTable;
use device_api_core::recovery::is_over_after_reboot;
use device_api_pipeline::Memories;
use device_api_store::{OpenError, Status, Store};

use crate::config::{Config, StoreConfig};
use crate::metrics::Metrics;
use crate::readiness::{PartState, Readiness};
use crate::values::StoreMode;

/// The state that a run begins with.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) cache: Arc<Cache>,
    /// `None`: in memory alone.
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) boot: BootId,
    pub(crate) memories: Memories,
    /// How far the kernel log was decided.
    pub(crate) log: Option<LogPosition>,
}

/// Opens the store and makes the cache of what is in it. Waits for the disk.
///
/// # Errors
/// The boot is unknown, or the store can't be had: another daemon has it, its directory is none, a newer one wrote it.
pub(crate) fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    readiness: &Readiness,
) -> anyhow::Result<Opened> {
    let cached = CacheConfig {
        bounds: Arc::new(config.limits.clone()),
        polarity: PolarityTable::default().with(config.providers.polarities.clone()),
        connection_leases: config.providers.timeouts.clone(),
    };
    let boot = boot_id(&config.store.boot_id_file)?;
    let store = match config.store.mode {
        StoreMode::Memory => {
            readiness
                .component("store")
                .report(PartState::Off, "in memory alone");
            return Ok(Opened {
                cache: Arc::new(Cache::in_memory(cached, clock, metrics)),
                store: None,
                boot,
                memories: Memories::default(),
                log: None,
            });
        }
        StoreMode::Durable => &config.store,
    };
    let (store, mut start) =
        Store::open(&store.dir, boot.clone(), clock.clone(), metrics.clone()).map_err(refused)?;
    let store = Arc::new(store);
    tell(&store, &config.store, readiness);
    let (mut memories, mut log) = (Memories::default(), None);
    if let Some(snapshot) = &mut start.snapshot {
        let rebooted = snapshot.boot != boot;
        tracing::info!(
            gpus = snapshot.objects.len(),
            version = snapshot.version.0,
            rebooted,
            "going on from the store"
        );
        let (at, now) = (snapshot.at, clock.boot());
        for (_, memory) in &mut snapshot.memories {
            let before = std::mem::take(memory);
            *memory = if rebooted {
                before.after_reboot(at, now)
            } else {
                before.after_absence(at, now)
            };
        }
        if rebooted {
            end_by_reboot(snapshot, clock.wall());
        }
        memories.devices.clone_from(&snapshot.memories);
        memories.incidents.clone_from(&snapshot.incidents);
        memories.numbers = snapshot.numbers;
        log = snapshot.log.take();
    }
    let cache = Cache::durable(cached, start, store.clone(), &boot, clock, metrics);
    Ok(Opened {
        cache: Arc::new(cache),
        store: Some(store),
        boot,
        memories,
        log,
    })
}

/// Where a newer daemon's state lies there, to go on without it is nothing to propose.
fn refused(error: OpenError) -> anyhow::Error {
    let what = match error {
        OpenError::Newer { .. } => "cannot go on from the state that is there",
        OpenError::Locked(_) | OpenError::NotADirectory(_) | OpenError::Thread(_) => {
            "cannot open the store; --store=memory does without one"
        }
    };
    anyhow::Error::new(error).context(what)
}

/// The machine was booted again: incidents go on of which something stands still.
fn end_by_reboot(snapshot: &mut Snapshot, now: WallTime) {
    let Snapshot {
        devices, incidents, ..
    } = snapshot;
    let devices: HashMap<_, _> = devices
        .iter()
        .map(|device| (&device.info.uuid, &device.conditions))
        .collect();
    let stands = |uuid: &DeviceUuid, name: &str| {
        let condition = devices.get(uuid).and_then(|all| find_named(all, name));
        condition.is_some_and(|c| c.is_problem() && !is_over_after_reboot(c))
    };
    let ended = |memory: IncidentMemory| memory.after_reboot(now, stands);
    *incidents = take(incidents).into_iter().map(ended).collect();
}

fn tell(store: &Arc<Store>, config: &StoreConfig, readiness: &Readiness) {
    let (asked, dir) = (Arc::downgrade(store), config.dir.clone());
    readiness.asked("store", move || {
        match asked.upgrade().map(|store| store.status()) {
            None => (PartState::Off, "stopped".to_owned()),
            Some(Status::Ok) => (PartState::Up, format!("durable in {}", dir.display())),
            Some(status @ Status::Incomplete { .. }) => (
                PartState::Degraded,
                format!("durable in {}, {status}", dir.display()),
            ),
            Some(status @ (Status::Failing { .. } | Status::ReadOnly { .. })) => (
                PartState::Degraded,
                format!(
                    "{}: {status}; reads go on, writes are refused",
                    dir.display()
                ),
            ),
        }
    });
}

fn boot_id(file: &Path) -> anyhow::Result<BootId> {
    let id = std::fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read which boot this is from {file:?}; give --boot-id-file a file that names it"
        )
    })?;
    let id = id.trim();
    anyhow::ensure!(
        !id.is_empty(),
        "{file:?} is empty and names no boot; give --boot-id-file another"
    );
    Ok(BootId(id.into()))
}
