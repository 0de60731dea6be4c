//! Those who watch all the time: an exact watch that tells every change, which the checker takes for
//! the order of writes, and ordinary ones, whose changes merge and must add up all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{self, EventType};
use device_api_proto::upstream;
use device_api_tests::history::{Names, Shown, recorded};
use device_api_tests::linear::{Change, Fault, History, Key, Kind, Seen, Version};
use device_api_tests::{Native, PATIENCE, Upstream, condition_of, health_of};
use tokio::sync::watch;
use tonic::Streaming;

/// What there is when all is done.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) version: Version,
    pub(crate) state: BTreeMap<Key, Version>,
}

type Told = watch::Receiver<Option<End>>;

/// An exact watch, after it has told what was there.
pub(crate) struct Witness {
    stream: Streaming<native::WatchGpusResponse>,
    names: Arc<Names>,
    history: History,
    /// Each object as it was told last.
    state: BTreeMap<Key, native::Gpu>,
}

fn kind(type_: EventType) -> Result<Kind> {
    match type_ {
        EventType::Added => Ok(Kind::Added),
        EventType::Modified => Ok(Kind::Modified),
        EventType::Deleted => Ok(Kind::Deleted),
        EventType::Unspecified | EventType::Bookmark => bail!("{type_:?} is no change"),
    }
}

/// Begins an exact watch, and reads until the state at its start is told.
pub(crate) async fn start(mut client: Native, names: Arc<Names>) -> Result<Witness> {
    let request = native::WatchGpusRequest {
        exact: true,
        allow_bookmarks: true,
        ..Default::default()
    };
    let stream = client.gpus.watch_gpus(request).await?.into_inner();
    let mut witness = Witness {
        stream,
        names,
        history: History::default(),
        state: BTreeMap::new(),
    };
    loop {
        let event = witness.stream.message().await?.context("the watch ended")?;
        if event.r#type() == EventType::Bookmark {
            ensure!(event.initial_state_end, "a bookmark before the state");
            witness.history.start = event.resource_version.unsigned_abs();
            break;
        }
        let kind = kind(event.r#type())?;
        let gpu = event.gpu.context("no GPU")?;
        let key = witness.names.object(&gpu.name);
        match kind {
            Kind::Added | Kind::Modified => witness.state.insert(key, gpu),
            Kind::Deleted => witness.state.remove(&key),
        };
    }
    let names = &witness.names;
    let initial = witness.state.values();
    witness.history.initial = initial
        .map(|gpu| (gpu.seen(names), gpu.content(names)))
        .collect();
    Ok(witness)
}

impl Witness {
    /// The version of the state at the start, and that state.
    pub(crate) fn into_state(self) -> (Version, Box<[Seen]>) {
        let initial = self.history.initial.iter();
        (self.history.start, initial.map(|(seen, _)| *seen).collect())
    }

    /// Notes every change until the end is told and reached.
    pub(crate) async fn until(mut self, mut end: Told) -> Result<History> {
        let mut version = self.history.start;
        loop {
            if (*end.borrow_and_update())
                .as_ref()
                .is_some_and(|end| version >= end.version)
            {
                return Ok(self.history);
            }
            tokio::select! {
                event = self.stream.message() => {
                    let event = event?.context("the watch ended")?;
                    if event.r#type() != EventType::Bookmark {
                        version = self.note(event)?;
                    }
                }
                changed = end.changed() => changed?,
            }
        }
    }

    fn note(&mut self, event: native::WatchGpusResponse) -> Result<Version> {
        let kind = kind(event.r#type())?;
        let gpu = event.gpu.context("no GPU")?;
        let (key, version) = (self.names.object(&gpu.name), gpu.version());
        if kind != Kind::Deleted {
            self.note_fault(key, &gpu);
        }
        self.history.changes.push(Change {
            version,
            key,
            kind,
            content: gpu.content(&self.names),
        });
        self.state.insert(key, gpu);
        Ok(version)
    }

    /// A GPU that turned Unhealthy: its readers waited for this version from the moment on at which
    /// the signal was observed. (Also where the bound passed: then this is the fallback.)
    fn note_fault(&mut self, key: Key, gpu: &native::Gpu) {
        let is_unhealthy = |gpu: &native::Gpu| health_of(gpu) == native::Health::Unhealthy;
        if !is_unhealthy(gpu) || self.state.get(&key).is_some_and(is_unhealthy) {
            return;
        }
        let decider = gpu.status.as_ref().map(|status| &*status.health_condition);
        let decider = decider.and_then(|type_| condition_of(gpu, type_));
        let evidence = decider.and_then(|condition| condition.evidence.first());
        if let Some(observed) = evidence.and_then(|piece| piece.observed_time) {
            self.history.faults.push(Fault {
                key,
                observed: recorded(observed),
                decided: gpu.version(),
            });
        }
    }
}

/// What an ordinary watch adds up to.
#[derive(Debug, Default)]
struct Fold {
    state: BTreeMap<Key, Version>,
    version: Version,
}

impl Fold {
    fn take(&mut self, kind: Kind, names: &Names, gpu: &impl Shown) -> Result<()> {
        let (key, version) = (names.object(gpu.name()), gpu.version());
        ensure!(version > self.version, "{version} after {}", self.version);
        self.version = version;
        let before = match kind {
            Kind::Added | Kind::Modified => self.state.insert(key, version),
            Kind::Deleted => self.state.remove(&key),
        };
        ensure!(
            before.is_some() == (kind != Kind::Added),
            "{kind:?} of {} is not true",
            gpu.name()
        );
        Ok(())
    }

    fn is(&self, end: &Told) -> bool {
        let end = end.borrow();
        end.as_ref().is_some_and(|end| end.state == self.state)
    }
}

/// Follows an ordinary watch until it has told what there is at the end.
pub(crate) async fn follow_native(
    mut client: Native,
    names: Arc<Names>,
    mut end: Told,
) -> Result<()> {
    let request = native::WatchGpusRequest::default();
    let mut stream = client.gpus.watch_gpus(request).await?.into_inner();
    let mut fold = Fold::default();
    while !fold.is(&end) {
        let limit = if end.borrow().is_some() {
            PATIENCE
        } else {
            PATIENCE * 100
        };
        tokio::select! {
            event = tokio::time::timeout(limit, stream.message()) => {
                let event = event.with_context(|| format!("never told of the end: {fold:?}"))?;
                let event = event?.context("the watch ended")?;
                let gpu = event.gpu.clone().context("no GPU")?;
                fold.take(kind(event.r#type())?, &names, &gpu)?;
            }
            changed = end.changed() => changed?,
        }
    }
    Ok(())
}

pub(crate) async fn follow_upstream(
    mut client: Upstream,
    names: Arc<Names>,
    mut end: Told,
) -> Result<()> {
    let request = upstream::WatchGpusRequest::default();
    let mut stream = client.gpus.watch_gpus(request).await?.into_inner();
    let mut fold = Fold::default();
    while !fold.is(&end) {
        let limit = if end.borrow().is_some() {
            PATIENCE
        } else {
            PATIENCE * 100
        };
        tokio::select! {
            event = tokio::time::timeout(limit, stream.message()) => {
                let event = event.with_context(|| format!("never told of the end: {fold:?}"))?;
                let event = event?.context("the watch ended")?;
                let kind = match &*event.r#type {
                    "ADDED" => Kind::Added,
                    "MODIFIED" => Kind::Modified,
                    "DELETED" => Kind::Deleted,
                    other => bail!("{other:?} is no change"),
                };
                fold.take(kind, &names, &event.object.context("no GPU")?)?;
            }
            changed = end.changed() => changed?,
        }
    }
    Ok(())
}
