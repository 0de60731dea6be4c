//! C1, C2, C5: what clients were told, at the same time and over several connections and both dialects,
//! is what one store could have told them one after the other. The daemon is the real one, on a real
//! socket, with a policy that takes its time; faults are injected between. What is checked, and why
//! that is enough, is said in `tests/src/linear/mod.rs`.
//!
//! `DEVICE_API_SOAK=N` does it N times.

mod readers;
mod witness;
mod writers;

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::history::{Names, Recorder, Shown as _};
use device_api_tests::linear::{self, History, Operation, Verdict};
use device_api_tests::soak::{self, Random};
use device_api_tests::{Node, guests};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// In one round.
const OPERATIONS: usize = 100_000;
const GPUS: u32 = 16;
/// Objects that are created and deleted all the time.
const EXTRA: [&str; 4] = ["extra-0", "extra-1", "extra-2", "extra-3"];
const NATIVE_READERS: u64 = 6;
const UPSTREAM_READERS: u64 = 3;
/// The condition types of two native providers and of an upstream client.
const NATIVE_TYPES: [&str; 2] = ["AgentFirst", "AgentSecond"];
const UPSTREAM_TYPE: &str = "SysLogsThird";

/// What the tasks of a round share.
#[derive(Clone, Debug)]
struct Round {
    names: Arc<Names>,
    objects: Arc<[String]>,
    /// Operations so far.
    done: Arc<watch::Sender<usize>>,
    seed: u64,
}

impl Round {
    fn recorder(&self) -> Recorder {
        // No task does more than all of them together: the bound of what is kept.
        Recorder::new(self.names.clone(), OPERATIONS)
    }

    fn random(&self, stream: u64) -> Random {
        Random::new(self.seed, stream)
    }

    /// Counts one, and says whether to go on.
    fn goes_on(&self, recorder: &Recorder) -> bool {
        self.done.send_modify(|done| *done += 1);
        !recorder.is_full() && *self.done.borrow() < OPERATIONS
    }
}

/// A node with a policy beside the bundled ones that thinks for some milliseconds.
fn slow_node() -> Result<Node> {
    let builder = Node::builder()?.gpus(GPUS);
    let policies = builder.dir().join("policies");
    std::fs::create_dir(&policies)?;
    std::fs::write(policies.join("slow.wasm"), guests::SLOW_GUEST)?;
    builder
        .flag("policy-dir", policies.display().to_string())
        .flag("policy-deadline", "25ms")
        .flag("limit", "exact-events=65536")
        .start()
}

/// Breaks one GPU after the other while the others go on.
async fn break_gpus(node: &Node, round: &Round) -> Result<()> {
    for gpu in 0..GPUS {
        let share = usize::try_from(gpu + 1)? * OPERATIONS / usize::try_from(GPUS + 1)?;
        let mut progress = round.done.subscribe();
        progress.wait_for(|done| *done >= share).await?;
        let mut sim = node.sim()?;
        let answer = tokio::task::spawn_blocking(move || sim.xid(gpu, &[79])).await??;
        ensure!(answer.delivered == Some(true), "{answer:?}");
    }
    Ok(())
}

async fn operations(node: &Node, round: &Round) -> Result<Vec<Operation>> {
    let mut tasks = JoinSet::new();
    for n in 0..NATIVE_READERS {
        tasks.spawn(readers::native(node.native().await?, round.clone(), n));
    }
    for n in 0..UPSTREAM_READERS {
        let stream = NATIVE_READERS + n;
        tasks.spawn(readers::upstream(
            node.upstream().await?,
            round.clone(),
            stream,
        ));
    }
    for type_ in NATIVE_TYPES {
        tasks.spawn(writers::native(node.native().await?, round.clone(), type_));
    }
    tasks.spawn(writers::upstream(node.upstream().await?, round.clone()));
    tasks.spawn(writers::creator(node.upstream().await?, round.clone()));
    break_gpus(node, round).await?;
    let mut operations = Vec::with_capacity(OPERATIONS);
    while let Some(recorder) = tasks.join_next().await {
        operations.extend(recorder??.into_operations());
    }
    Ok(operations)
}

async fn round(seed: u64) -> Result<Verdict> {
    let node = slow_node()?;
    node.healthy().await?;
    let gpus = node.gpus().into_iter().map(|gpu| gpu.uuid);
    let objects: Arc<[String]> = gpus.chain(EXTRA.map(str::to_owned)).collect();
    let round = Round {
        names: Names::new(
            objects.iter().map(String::as_str),
            NATIVE_TYPES.into_iter().chain([UPSTREAM_TYPE]),
        ),
        objects,
        done: Arc::new(watch::Sender::new(0)),
        seed,
    };
    let (last, told) = watch::channel(None);
    let witness = witness::start(node.native().await?, round.names.clone()).await?;
    let witness = tokio::spawn(witness.until(told.clone()));
    let mut followers = JoinSet::new();
    followers.spawn(witness::follow_native(
        node.native().await?,
        round.names.clone(),
        told.clone(),
    ));
    followers.spawn(witness::follow_upstream(
        node.upstream().await?,
        round.names.clone(),
        told,
    ));

    let operations = operations(&node, &round).await?;
    let end = node.native().await?.list().await?;
    let state = end.gpus.iter().map(|gpu| gpu.seen(&round.names));
    last.send_replace(Some(witness::End {
        version: end.resource_version.unsigned_abs(),
        state: state.map(|seen| (seen.key, seen.version)).collect(),
    }));
    while let Some(follower) = followers.join_next().await {
        follower??;
    }
    let told = witness.await??;
    ensure!(
        told.faults.len() == usize::try_from(GPUS)?,
        "{:?}",
        told.faults
    );
    let history = History { operations, ..told };
    let verdict = linear::check(&history).context("the history is not linearizable")?;
    ensure!(verdict.operations >= OPERATIONS, "{verdict:?}");
    ensure!(
        verdict.held > 0,
        "no read came between a fault and its decision: {verdict:?}"
    );
    Ok(verdict)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_c2_a_hundred_thousand_concurrent_operations_are_linearizable() -> Result<()> {
    let seed = soak::seed();
    for n in 0..soak::factor() {
        let began = SystemTime::now();
        let verdict = round(seed.wrapping_add(n)).await?;
        eprintln!("round {n}: {:?} in {:?}", verdict, began.elapsed()?);
    }
    Ok(())
}
