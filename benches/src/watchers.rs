//! Many watchers of one server, and a writer. The next write follows when all have seen the last, so each
//! watcher gets one event for each write.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::dialect::{Dialect, Method};
use crate::lane::{Lane, PEER};
use crate::load::Caller;
use crate::process;
use crate::raw::Client;

/// How long all may take to see one write.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// A peer may send no headers before its first event, so it can't be known when its watches have
/// begun: writes are repeated this often and this many times until all watchers have seen one.
const PEER_SEEN_WITHIN: Duration = Duration::from_millis(250);
const PEER_TRIES_MAX: usize = 40;

/// Watchers of one lane. Their streams end with it.
#[derive(Debug)]
pub(crate) struct Group {
    gather: Arc<Gather>,
    writer: Caller,
    watchers: usize,
    pid: Option<u32>,
    /// Streams; ends only when one breaks.
    streams: JoinSet<Result<()>>,
}

/// One round.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// From before the write until the last watcher has the event. Ascending.
    pub(crate) slowest: Vec<Duration>,
    /// From before the write until it is acknowledged. Ascending.
    pub(crate) acknowledged: Vec<Duration>,
    /// Processor time of the server in all, and events that it sent.
    cpu: Option<Duration>,
    events: usize,
}

impl Writes {
    /// Median, in µs.
    pub(crate) fn slowest_us(&self) -> Option<f64> {
        let median = bench_kit::quantile(&self.slowest, 0.5)?;
        Some(median.as_secs_f64() * 1e6)
    }

    /// The write's own cost included, shared by all events.
    pub(crate) fn cpu_us_per_event(&self) -> Option<f64> {
        Some(self.cpu?.as_secs_f64() * 1e6 / self.events as f64)
    }
}

/// Who has seen the write that is under way.
#[derive(Debug)]
struct Gather {
    /// Watchers that have not.
    missing: AtomicUsize,
    /// When the last had.
    last: Mutex<Option<Instant>>,
    all: Notify,
    /// Until the first write was seen by all, watchers tell of what they see here.
    begun: AtomicBool,
    told: mpsc::UnboundedSender<Told>,
}

#[derive(Debug)]
enum Told {
    Opened,
    Saw { watcher: usize, version: u64 },
}

impl Gather {
    fn seen(&self) {
        // The last one out stops the clock.
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            self.all.notify_one();
        }
    }

    async fn all(&self) -> Result<Instant> {
        if timeout(SEEN_WITHIN, self.all.notified()).await.is_err() {
            let missing = self.missing.load(Ordering::Acquire);
            bail!("{missing} watchers have not seen a write within {SEEN_WITHIN:?}");
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.context("seen by all, and yet by none")
    }
}

impl Group {
    /// Opens the streams and returns when each has shown a write.
    ///
    /// # Errors
    /// A stream can't be opened, or does not show writes.
    pub(crate) async fn open(lane: &Lane, watchers: usize, per_connection: usize) -> Result<Self> {
        let (told, hears) = mpsc::unbounded_channel();
        let gather = Arc::new(Gather {
            missing: AtomicUsize::new(0),
            last: Mutex::default(),
            all: Notify::new(),
            begun: AtomicBool::new(false),
            told,
        });
        let mut streams = JoinSet::new();
        let mut client = lane.connect().await?;
        for watcher in 0..watchers {
            if watcher % per_connection == 0 {
                client = lane.connect().await?;
            }
            let (gather, client) = (gather.clone(), client.clone());
            streams.spawn(watch(gather, client, lane.dialect, watcher));
        }
        let path = lane.dialect.path(Method::UpdateStatus);
        let toggles = lane.dialect.toggles(0);
        let mut group = Self {
            gather,
            writer: Caller::new(lane.connect().await?, path, toggles),
            watchers,
            pid: lane.pid,
            streams,
        };
        let begun = if lane.name == PEER {
            group
                .begin(hears, lane.dialect, PEER_SEEN_WITHIN, PEER_TRIES_MAX)
                .await
        } else {
            group.begin(hears, lane.dialect, SEEN_WITHIN, 1).await
        };
        match begun {
            Ok(()) => Ok(group),
            // A stream that broke tells more than that its event is missing.
            Err(error) => Err(group.broken().unwrap_or(error)),
        }
    }

    async fn begin(
        &mut self,
        mut hears: mpsc::UnboundedReceiver<Told>,
        dialect: Dialect,
        within: Duration,
        tries: usize,
    ) -> Result<()> {
        let mut seen = vec![0; self.watchers];
        // With one try all must be open before it.
        if tries == 1 {
            let mut opened = 0;
            let open = async {
                while opened < self.watchers {
                    opened += usize::from(matches!(hears.recv().await, Some(Told::Opened)));
                }
            };
            if timeout(within, open).await.is_err() {
                bail!("not all watches began within {within:?}");
            }
        }
        for _ in 0..tries {
            let written = dialect.written_version(self.writer.call().await?)?;
            let all = async {
                while seen.iter().any(|version| *version < written) {
                    if let Some(Told::Saw { watcher, version }) = hears.recv().await
                        && let Some(seen) = seen.get_mut(watcher)
                    {
                        *seen = version;
                    }
                }
            };
            if timeout(within, all).await.is_ok() {
                self.gather.begun.store(true, Ordering::Release);
                return Ok(());
            }
        }
        let missing = seen.iter().filter(|version| **version == 0).count();
        bail!("{missing} of {} watchers saw no write", self.watchers)
    }

    /// The error of a stream that ended.
    fn broken(&mut self) -> Option<anyhow::Error> {
        let ended = self.streams.try_join_next()?;
        match ended {
            Ok(Err(error)) => Some(error),
            Ok(Ok(())) => None,
            Err(error) => Some(error.into()),
        }
    }

    /// Writes, each after all have seen the one before.
    ///
    /// # Errors
    /// A write fails, or a watcher does not see it.
    pub(crate) async fn write(&mut self, writes: usize) -> Result<Writes> {
        let mut round = Writes::default();
        let cpu_before = self.pid.and_then(process::processor_time);
        for _ in 0..writes {
            self.gather.missing.store(self.watchers, Ordering::Release);
            let began = Instant::now();
            let write = async {
                self.writer.call().await?;
                Ok(Instant::now())
            };
            let (acknowledged, last) = tokio::try_join!(write, self.gather.all())?;
            round.acknowledged.push(acknowledged - began);
            round.slowest.push(last - began);
        }
        let cpu_after = self.pid.and_then(process::processor_time);
        round.cpu = cpu_before
            .zip(cpu_after)
            .map(|(before, after)| after.saturating_sub(before));
        round.events = writes * self.watchers;
        round.slowest.sort_unstable();
        round.acknowledged.sort_unstable();
        match self.broken() {
            Some(error) => Err(error),
            None => Ok(round),
        }
    }
}

async fn watch(
    gather: Arc<Gather>,
    mut client: Client,
    dialect: Dialect,
    watcher: usize,
) -> Result<()> {
    let mut events = client
        .stream(&dialect.path(Method::Watch), dialect.watch())
        .await?;
    // Only fails when the group is gone.
    let _ = gather.told.send(Told::Opened);
    loop {
        let event = events.message().await?;
        let event = event.context("a watch ended")?;
        ensure!(!event.is_empty(), "an empty event");
        if !dialect.is_modified(&event) {
            continue;
        }
        if gather.begun.load(Ordering::Acquire) {
            gather.seen();
        } else {
            let version = dialect.event_version(event)?;
            let _ = gather.told.send(Told::Saw { watcher, version });
        }
    }
}
