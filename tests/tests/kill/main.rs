//! C5, C6, C7, W1 under `kill -9`: a daemon is killed while providers of both dialects write, objects
//! come and go, the kernel log grows, and readers and watchers note what they are told. Every run goes
//! on from the files of the one before. The number of the write after which it is killed is chosen by
//! chance. What must hold then is in `ledger.rs`.
//!
//! `DEVICE_API_SOAK=N` kills N times as often.

mod clients;
mod ledger;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::Node;
use device_api_tests::history::Names;
use device_api_tests::soak::{self, Random};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};

use crate::clients::{EXTRA, NATIVE_TYPES, UPSTREAM_TYPE};
use crate::ledger::Ledger;

/// In all, and how many daemons take turns on the two cores that a test may count on.
const KILLS: u64 = 30;
const LANES: u64 = 3;
const GPUS: u32 = 8;
/// A daemon is killed after at most so many writes have begun.
const WRITES_MAX: usize = 80;
/// About how long a start takes.
const START_MS: usize = 600;

/// What one run's clients share.
#[derive(Clone, Debug)]
struct Run {
    ledger: Ledger,
    /// Writes that have begun.
    begun: Arc<watch::Sender<usize>>,
    killed: Arc<AtomicBool>,
    seed: u64,
}

impl Run {
    fn random(&self, stream: u64) -> Random {
        Random::new(self.seed, stream)
    }

    fn begin_write(&self) {
        self.begun.send_modify(|begun| *begun += 1);
    }

    /// An error ends a client once the daemon is killed; before, it is one.
    fn end(&self, error: anyhow::Error) -> Result<()> {
        if self.killed.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(error.context("while the daemon ran"))
    }
}

/// A daemon over its files, from its first run to its last.
struct Lane {
    node: Node,
    log: PathBuf,
    ledger: Ledger,
    random: Random,
    /// GPUs that the kernel log says are broken.
    broken: u32,
}

impl Lane {
    async fn new(random: Random) -> Result<Self> {
        let builder = Node::builder()?.gpus(GPUS);
        let log = builder.dir().join("messages");
        File::create(&log)?;
        let builder = builder
            .flag("kmsg-path", log.to_string_lossy())
            .flag("store", "durable");
        let node = block_in_place(|| builder.start())?;
        node.healthy().await?;
        let gpus: Vec<String> = node.gpus().into_iter().map(|gpu| gpu.uuid).collect();
        let types = NATIVE_TYPES.into_iter().chain([UPSTREAM_TYPE]);
        let names = Names::new(gpus.iter().map(String::as_str).chain(EXTRA), types);
        Ok(Self {
            ledger: Ledger::new(names, gpus),
            node,
            log,
            random,
            broken: 0,
        })
    }

    /// The kernel log tells of one more broken GPU.
    fn break_gpu(&mut self) -> Result<()> {
        let gpus = self.node.gpus();
        let gpu = gpus.get(usize::try_from(self.broken)?).context("no GPU")?;
        let line = format!(
            "[ 1.5] NVRM: Xid (PCI:{}): 79, pid=1, name=x, text\n",
            gpu.pci
        );
        let mut log = OpenOptions::new().append(true).open(&self.log)?;
        log.write_all(line.as_bytes())?;
        self.ledger.broke(&gpu.uuid);
        self.broken += 1;
        Ok(())
    }

    /// Clients at work, until the daemon is killed in the midst of it.
    async fn run(&mut self) -> Result<()> {
        let run = Run {
            ledger: self.ledger.clone(),
            begun: Arc::new(watch::Sender::new(0)),
            killed: Arc::default(),
            seed: u64::try_from(self.random.below(usize::MAX))?,
        };
        let mut clients = JoinSet::new();
        for type_ in NATIVE_TYPES {
            clients.spawn(clients::native(
                self.node.native().await?,
                run.clone(),
                type_,
            ));
        }
        clients.spawn(clients::upstream(self.node.upstream().await?, run.clone()));
        clients.spawn(clients::creator(self.node.native().await?, run.clone()));
        clients.spawn(clients::reader(self.node.native().await?, run.clone()));
        clients.spawn(clients::watcher(self.node.native().await?, run.clone()));
        let mut begun = run.begun.subscribe();
        let early = self.random.below(WRITES_MAX / 2);
        begun.wait_for(|begun| *begun >= early).await?;
        if self.random.once_in(4) && self.broken < GPUS {
            self.break_gpu()?;
        }
        let late = early + self.random.below(WRITES_MAX / 2);
        begun.wait_for(|begun| *begun >= late).await?;
        run.killed.store(true, Ordering::SeqCst);
        block_in_place(|| self.node.stop(Signal::KILL))?;
        while let Some(client) = clients.join_next().await {
            client??;
        }
        Ok(())
    }

    /// A run that is killed before it is ready, wherever it is by then.
    async fn start_in_vain(&mut self) -> Result<()> {
        self.node.spawn_again()?;
        let moment = Duration::from_millis(u64::try_from(self.random.below(START_MS))?);
        tokio::time::sleep(moment).await;
        block_in_place(|| self.node.stop(Signal::KILL))
    }

    /// The next run: everything is found again that must be.
    async fn check(&mut self) -> Result<()> {
        block_in_place(|| self.node.start_again())?;
        let mut client = self.node.native().await?;
        let list = client.list().await?;
        self.ledger.restarted(&list)?;
        clients::resume(self.node.native().await?, &self.ledger).await?;
        clients::any_version(&mut client, self.node.upstream().await?, &self.ledger).await?;
        // What the kernel log told just before the kill is not forgotten either.
        for gpu in self.ledger.broken() {
            let mut watch = client.watch(0).await?;
            watch
                .until(&gpu, "Unhealthy, as the kernel log said", ledger::is_broken)
                .await?;
        }
        Ok(())
    }
}

async fn lane(number: u64, seed: u64, kills: u64) -> Result<ledger::Counts> {
    let mut random = Random::new(seed, number);
    let mut counts = ledger::Counts::default();
    let mut left = kills;
    while left > 0 {
        // New files once every GPU is broken.
        let mut lane = Lane::new(random.clone()).await?;
        random.below(2);
        while left > 0 && lane.broken < GPUS {
            let before = left;
            let at = || format!("lane {number}, {before} kills before its end");
            lane.run().await.with_context(at)?;
            left -= 1;
            if left > 0 && lane.random.once_in(4) {
                lane.start_in_vain().await?;
                left -= 1;
            }
            lane.check().await.with_context(at)?;
        }
        counts += lane.ledger.counts();
    }
    Ok(counts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn c5_c6_c7_w1_nothing_acknowledged_is_lost_by_a_kill_and_nothing_is_healed() -> Result<()> {
    let (seed, began) = (soak::seed(), SystemTime::now());
    let kills = KILLS * soak::factor();
    let mut lanes = JoinSet::new();
    for number in 0..LANES {
        lanes.spawn(lane(number, seed, kills.div_ceil(LANES)));
    }
    let mut counts = ledger::Counts::default();
    while let Some(lane) = lanes.join_next().await {
        counts += lane??;
    }
    eprintln!("{kills} kills: {counts:?} in {:?}", began.elapsed()?);
    ensure!(
        counts.acknowledged > 0 && counts.unanswered > 0 && counts.resumed > 0,
        "the kills came when nothing went on: {counts:?}"
    );
    Ok(())
}
