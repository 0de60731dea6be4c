//! Clients that read and watch while a hostile guest is at work, and what they must get.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{Gpu, WatchGpusRequest};
use device_api_tests::{Native, Node, PATIENCE};
use nvml_sim::control::Client;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Clients that read, each as fast as it is answered, on a connection of its own.
const READERS: u32 = 4;
/// Clients that watch all GPUs.
const WATCHERS: u32 = 4;
/// Reads of each client in one slice.
const READS: u32 = 400;
/// In which of them a fault is raised: it makes each reader wait once, for its decision (design C2), which
/// is 12 reads of 1,600. More often, and the p99 would tell of the barrier and not of the host.
const FAULT_EVERY: u32 = 140;

/// What is done to the node while it is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stimulus {
    None,
    /// Faults on all GPUs but the last, every so many reads, and warmer GPUs each time.
    FaultEvery(u32),
}

impl Stimulus {
    pub(crate) const FAULTS: Self = Self::FaultEvery(FAULT_EVERY);
}

/// XIDs of applications: of no consequence to a GPU's health.
const HARMLESS: [u64; 4] = [31, 13, 43, 45];

/// Reads, all connections together.
#[derive(Debug)]
pub(crate) struct Readers {
    clients: Vec<Native>,
    names: Vec<String>,
    /// Counts faults, so that each is another.
    faults: u32,
}

impl Readers {
    pub(crate) async fn of(node: &Node) -> Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..READERS {
            clients.push(node.native().await?);
        }
        let names = node.gpus().into_iter().map(|gpu| gpu.uuid).collect();
        Ok(Self {
            clients,
            names,
            faults: 0,
        })
    }

    /// One slice of reads: its p99.
    pub(crate) async fn slice(&mut self, node: &Node, stimulus: Stimulus) -> Result<Duration> {
        p99(self.reads(node, stimulus).await?)
    }

    /// Slices of reads until something is done, one at least: the p99 of them all.
    pub(crate) async fn during(
        &mut self,
        node: &Node,
        doing: impl Future<Output = Result<()>>,
    ) -> Result<Duration> {
        let done = AtomicBool::new(false);
        let doing = async {
            let came = doing.await;
            done.store(true, Ordering::SeqCst);
            came
        };
        let reading = async {
            let mut took = Vec::new();
            while took.is_empty() || !done.load(Ordering::SeqCst) {
                took.extend(self.reads(node, Stimulus::None).await?);
            }
            p99(took)
        };
        let (came, took) = tokio::join!(doing, reading);
        came.and(took)
    }

    async fn reads(&mut self, node: &Node, stimulus: Stimulus) -> Result<Vec<Duration>> {
        let mut tasks = JoinSet::new();
        for (at, client) in self.clients.iter().enumerate() {
            let (client, names) = (client.clone(), self.names.clone());
            let breaker = match stimulus {
                Stimulus::FaultEvery(every) if at == 0 => {
                    self.faults += READS / every;
                    Some(Breaker {
                        sim: node.sim()?,
                        every,
                        next: self.faults,
                    })
                }
                Stimulus::FaultEvery(_) | Stimulus::None => None,
            };
            tasks.spawn(read(client, names, at, breaker));
        }
        let mut took = Vec::new();
        while let Some(reads) = tasks.join_next().await {
            took.extend(reads??);
        }
        Ok(took)
    }
}

fn p99(mut took: Vec<Duration>) -> Result<Duration> {
    took.sort_unstable();
    took.get(took.len() * 99 / 100)
        .copied()
        .context("nothing was read")
}

/// Breaks GPUs in between its reads.
struct Breaker {
    sim: Client,
    every: u32,
    next: u32,
}

impl Breaker {
    fn strike(&mut self, gpus: u32) -> Result<()> {
        self.next += 1;
        let code = HARMLESS
            .iter()
            .cycle()
            .nth(self.next as usize / 4 % HARMLESS.len());
        let gpu = self.next % (gpus - 1);
        self.sim.xid(gpu, &[*code.unwrap_or(&31)])?;
        for gpu in 0..gpus {
            self.sim.temperature(gpu, 35 + self.next % 20)?;
        }
        Ok(())
    }
}

async fn read(
    mut client: Native,
    names: Vec<String>,
    reader: usize,
    breaker: Option<Breaker>,
) -> Result<Vec<Duration>> {
    let gpus = u32::try_from(names.len())?;
    let mut breaker = breaker;
    let mut took = Vec::new();
    for (at, name) in (0..READS).zip(names.iter().cycle().skip(reader)) {
        if let Some(mut breaking) =
            breaker.take_if(|breaker| at % breaker.every == breaker.every - 1)
        {
            breaker = Some(
                tokio::task::spawn_blocking(move || breaking.strike(gpus).map(|()| breaking))
                    .await??,
            );
        }
        let began = Instant::now();
        if at % 8 == 7 {
            client.list().await?;
        } else {
            client.get(name).await?;
        }
        took.push(began.elapsed());
    }
    Ok(took)
}

/// Whether reads beside a hostile guest took longer than they may, compared with quiet ones.
pub(crate) fn is_too_slow(quiet: Duration, hostile: Duration) -> bool {
    hostile > (quiet * 2).max(quiet + Duration::from_millis(1))
}

/// Pairs of a quiet and a hostile slice that are tried. The best one counts: on a machine that others use
/// any slice may be starved, whereas a host that a guest slows down is slow in each.
pub(crate) const PAIRS_MAX: u32 = 8;

/// Quiet and hostile slices by turns, until a pair is as it should be: the p99s of that pair, or of the last.
pub(crate) async fn compare(
    node: &Node,
    readers: &mut Readers,
    stimulus: Stimulus,
) -> Result<(Duration, Duration)> {
    let mut pairs = 0;
    loop {
        let quiet = readers.slice(node, Stimulus::None).await?;
        let hostile = readers.slice(node, stimulus).await?;
        pairs += 1;
        if !is_too_slow(quiet, hostile) || pairs == PAIRS_MAX {
            return Ok((quiet, hostile));
        }
    }
}

/// Watches all GPUs on several connections, each from the beginning to what must come last.
#[derive(Debug)]
pub(crate) struct Watchers {
    tasks: Vec<JoinHandle<Result<u64>>>,
    last: watch::Sender<Option<(String, String)>>,
}

impl Watchers {
    pub(crate) async fn of(node: &Node) -> Result<Self> {
        let last = watch::Sender::new(None);
        let mut tasks = Vec::new();
        for _ in 0..WATCHERS {
            let client = node.native().await?;
            tasks.push(tokio::spawn(watch_all(client, last.subscribe())));
        }
        Ok(Self { tasks, last })
    }

    /// Waits until all have seen this condition on this GPU as a problem, and says how many events they had.
    /// One that was ended, or had an error, is an error here.
    pub(crate) async fn until(self, gpu: &str, condition: &str) -> Result<u64> {
        self.last
            .send_replace(Some((gpu.to_owned(), condition.to_owned())));
        let mut events = 0;
        for task in self.tasks {
            events += task
                .await?
                .with_context(|| format!("a watcher that should see {condition}"))?;
        }
        Ok(events)
    }
}

fn has_problem(gpu: &Gpu, condition: &str) -> bool {
    use device_api_proto::native::ConditionStatus;
    device_api_tests::condition_of(gpu, condition)
        .is_some_and(|condition| condition.status() == ConditionStatus::True)
}

async fn watch_all(
    mut client: Native,
    mut last: watch::Receiver<Option<(String, String)>>,
) -> Result<u64> {
    let mut stream = client
        .gpus
        .watch_gpus(WatchGpusRequest::default())
        .await?
        .into_inner();
    let (mut events, mut version) = (0, 0);
    let mut newest = std::collections::HashMap::new();
    loop {
        let wanted = last.borrow_and_update().clone();
        if let Some((gpu, condition)) = &wanted
            && newest
                .get(gpu)
                .is_some_and(|gpu| has_problem(gpu, condition))
        {
            return Ok(events);
        }
        let event = tokio::select! {
            event = tokio::time::timeout(PATIENCE, stream.message()) => event,
            changed = last.changed() => {
                changed?;
                continue;
            }
        };
        let Ok(event) = event else {
            bail!("saw nothing for {PATIENCE:?}, after {events} events");
        };
        let event = event?.with_context(|| format!("was ended after {events} events"))?;
        let Some(gpu) = event.gpu else { continue };
        ensure!(
            gpu.resource_version >= version,
            "versions fall: {} after {version}",
            gpu.resource_version
        );
        version = gpu.resource_version;
        newest.insert(gpu.name.clone(), gpu);
        events += 1;
    }
}
