//! From a fault that is injected into NVML to its `MODIFIED` at a watcher, with the bundled policies in the
//! path. The daemon runs over the simulated library; faults are injected over that one's own socket.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use bench_kit::{Figures, Goal, Row, Section, Spread, quantile};
use device_api_proto::native;
use nvml_sim::control::{Client as Hand, Only, Request};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, timeout, timeout_at};

use crate::dialect::{Dialect, Method};
use crate::lane::{Dirs, Lane};
use crate::plan::{NODE_GPUS, Plan};
use crate::process::{Daemon, Simulation, Store};

/// Design section 8.
const P50_US_MAX: f64 = 300.0;
const P99_US_MAX: f64 = 2_000.0;

/// Two of one kind for one condition: its message tells of the one that came last, so that each fault
/// changes it.
const CODES: [u64; 2] = [119, 120];

/// How long a fault may take to be seen, once the daemon listens.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// Before it listens faults are lost, and injected again.
const FIRST_SEEN_WITHIN: Duration = Duration::from_millis(500);
const FIRST_TRIES_MAX: usize = 40;

/// A GPU's event, when it came.
#[derive(Debug)]
struct Told {
    at: (Instant, SystemTime),
    uuid: String,
    /// Of its conditions.
    messages: Vec<String>,
}

/// What one fault took.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// From before the command was sent.
    injected: Duration,
    /// From when NVML handed the event over.
    handed_over: Option<Duration>,
}

/// # Errors
/// The daemon fails, or a fault is not seen.
pub(crate) async fn measure(
    daemon: &Daemon,
    library: &Path,
    dirs: &Dirs,
    plan: &Plan,
) -> Result<Section> {
    eprintln!("faults");
    let title = format!(
        "From an XID injected into simulated NVML to MODIFIED at a watcher, {NODE_GPUS} GPUs, bundled policies"
    );
    let mut section = Section::new("faults", title);
    for store in [Store::Memory, Store::Durable] {
        let name = match store {
            Store::Memory => "memory",
            Store::Durable => "durable",
        };
        let mut node = Node::start(daemon, library, store, dirs, name).await?;
        node.warm_up().await?;
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            rounds.push(node.round(plan.faults).await?);
        }
        section.rows.extend(rows(name, &rounds));
    }
    Ok(section)
}

fn rows(store: &str, rounds: &[Vec<Seen>]) -> Vec<Row> {
    let us = |seen: &[Seen], q, of: fn(&Seen) -> Option<Duration>| {
        let mut times: Vec<Duration> = seen.iter().filter_map(of).collect();
        times.sort_unstable();
        Some(quantile(&times, q)?.as_secs_f64() * 1e6)
    };
    let goals = [("p50", 0.5, P50_US_MAX), ("p99", 0.99, P99_US_MAX)];
    let row = |(word, q, goal)| {
        let injected = rounds
            .iter()
            .filter_map(|round| us(round, q, |seen| Some(seen.injected)));
        let handed_over = rounds
            .iter()
            .filter_map(|round| us(round, q, |seen| seen.handed_over));
        let figures = Spread::of(handed_over).map(|spread| Figures {
            lane: "from NVML".to_owned(),
            values: vec![("µs", spread.median)],
        });
        let row = Row::new(
            format!("{store} store, {word}"),
            "µs",
            Spread::of(injected)?,
        );
        Some(row.goal(Goal::AtMost(goal)).with(figures))
    };
    goals.into_iter().filter_map(row).collect()
}

/// A daemon over simulated NVML, a watcher of it, and a hand on the simulation.
struct Node {
    hand: Hand,
    /// By index.
    uuids: Vec<String>,
    hears: mpsc::UnboundedReceiver<Told>,
    /// Faults so far.
    faults: usize,
    /// Ends when it breaks.
    watch: JoinSet<Result<()>>,
    /// Ends the daemon with the node.
    _lane: Lane,
}

impl Node {
    async fn start(
        daemon: &Daemon,
        library: &Path,
        store: Store,
        dirs: &Dirs,
        name: &'static str,
    ) -> Result<Self> {
        let control = dirs.sockets.join(format!("sim-{name}.sock"));
        let simulation = Simulation {
            library,
            control: &control,
            gpus: NODE_GPUS,
        };
        let lane = Lane::simulated(name, daemon, store, dirs, &simulation)?;
        let (told, mut hears) = mpsc::unbounded_channel();
        let mut watch = JoinSet::new();
        let client = lane.connect().await?;
        watch.spawn(listen(client, told));
        // Those of the simulation, once it is loaded.
        let mut found = BTreeSet::new();
        let deadline = Instant::now() + SEEN_WITHIN;
        while found.len() < NODE_GPUS {
            let told = timeout_at(deadline, hears.recv()).await;
            let told = told.with_context(|| format!("{} GPUs found", found.len()))?;
            found.insert(told.context("the watch ended")?.uuid);
        }
        let mut hand = Hand::connect(&control)?;
        let status = block_in_place(|| hand.status())?;
        let uuids: Vec<String> = status.gpus.into_iter().map(|gpu| gpu.uuid).collect();
        ensure!(
            uuids.iter().all(|uuid| found.contains(uuid)),
            "the watch tells of other GPUs than the simulation has"
        );
        Ok(Self {
            hand,
            uuids,
            hears,
            faults: 0,
            watch,
            _lane: lane,
        })
    }

    /// Both codes on each GPU: from then on each fault changes one message.
    async fn warm_up(&mut self) -> Result<()> {
        for _ in 0..CODES.len() * self.uuids.len() {
            let mut tries = 0;
            while self.fault(FIRST_SEEN_WITHIN).await?.is_none() {
                tries += 1;
                ensure!(
                    tries < FIRST_TRIES_MAX,
                    "{tries} faults were injected, and none was seen"
                );
                // The same once more.
                self.faults -= 1;
            }
        }
        Ok(())
    }

    async fn round(&mut self, faults: usize) -> Result<Vec<Seen>> {
        let mut all = Vec::with_capacity(faults);
        for _ in 0..faults {
            let Some(seen) = self.fault(SEEN_WITHIN).await? else {
                bail!("a fault was not seen within {SEEN_WITHIN:?}");
            };
            all.push(seen);
        }
        Ok(all)
    }

    /// The next fault; `None`: it was not seen within that time.
    async fn fault(&mut self, within: Duration) -> Result<Option<Seen>> {
        let gpus = self.uuids.len();
        let (gpu, turn) = (self.faults % gpus, self.faults / gpus);
        self.faults += 1;
        let uuid = self.uuids.get(gpu).context("no such GPU")?.clone();
        let code = CODES.get(turn % CODES.len()).context("no code")?;
        let request = Request::Xid {
            gpu: u32::try_from(gpu)?,
            codes: vec![*code],
            count: 1,
            only: Some(Only::Nvml),
        };
        let begins = format!("XID {code} ");
        let began = Instant::now();
        let answer = block_in_place(|| self.hand.request(&request))?;
        let is_it = |told: &Told| {
            told.uuid == uuid
                && told
                    .messages
                    .iter()
                    .any(|message| message.starts_with(&begins))
        };
        let seen = async {
            loop {
                match self.hears.recv().await {
                    Some(told) if is_it(&told) => break Some(told),
                    Some(_) => {}
                    None => break None,
                }
            }
        };
        let Ok(told) = timeout(within, seen).await else {
            return Ok(None);
        };
        let Some(Told { at: (at, wall), .. }) = told else {
            return Err(self.broken().await);
        };
        let handed_over = answer.delivered_unix_ns.map(Duration::from_nanos);
        let since = |then: Duration| wall.duration_since(UNIX_EPOCH).ok()?.checked_sub(then);
        Ok(Some(Seen {
            injected: at - began,
            handed_over: handed_over.and_then(since),
        }))
    }

    /// Why the watch ended.
    async fn broken(&mut self) -> anyhow::Error {
        match self.watch.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => error.into(),
            Some(Ok(Ok(()))) | None => anyhow::anyhow!("the watch ended"),
        }
    }
}

/// Tells of every event of a GPU, and when it came.
async fn listen(mut client: crate::raw::Client, told: mpsc::UnboundedSender<Told>) -> Result<()> {
    let dialect = Dialect::Native;
    let mut events = client
        .stream(&dialect.path(Method::Watch), dialect.watch())
        .await?;
    loop {
        let event = events.message().await?.context("the watch ended")?;
        // The clock stops before the message is looked into.
        let at = (Instant::now(), SystemTime::now());
        let Some(gpu) = native::WatchGpusResponse::decode(event)?.gpu else {
            continue;
        };
        let status = gpu.status.unwrap_or_default();
        let messages = status
            .conditions
            .into_iter()
            .map(|condition| condition.message);
        let news = Told {
            at,
            uuid: gpu.spec.unwrap_or_default().uuid,
            messages: messages.collect(),
        };
        if told.send(news).is_err() {
            return Ok(());
        }
    }
}
