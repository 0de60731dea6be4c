//! A thousand swaps while faults come: each signal is committed once, by the old version or the new one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{Gpu, PolicyChange};
use device_api_tests::{Native, Node, PATIENCE, condition_of};
use nvml_sim::control::{Client, Only, Request};
use rustix::process::Signal;
use tokio::task::JoinHandle;

use crate::rig::{Rig, outcome, tally};

const SWAPS: u64 = 1_000;

const GPUS: u32 = 2;

/// XIDs of applications: of no consequence to a GPU's health.
const CODES: [u64; 4] = [13, 31, 43, 45];

/// Between faults, and between reads: several of each come to every swap, and leave it processor time.
const PAUSE: Duration = Duration::from_millis(10);

/// By GPU and XID.
type Counts = BTreeMap<(u32, u64), u64>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h6_no_signal_is_lost_or_committed_twice_over_a_thousand_swaps() -> Result<()> {
    let builder = Node::builder()?;
    let policies = builder.dir().join("policies");
    std::fs::create_dir(&policies)?;
    let versions = [builder.dir().join("a"), builder.dir().join("b")];
    std::fs::write(&versions[0], tally("version=a")?)?;
    std::fs::write(&versions[1], tally("version=b")?)?;
    put(&policies, &versions[0])?;
    let rig = Rig::on(policies, &[])(builder.gpus(GPUS))?;
    let mut client = rig.ready().await?;
    ensure!(
        client
            .policy("tally")
            .await?
            .counters
            .unwrap_or_default()
            .swaps
            == 0
    );

    let done = Arc::new(AtomicBool::new(false));
    let reader = read(rig.node.native().await?, rig.node.uuid(0)?, done.clone());
    let watcher = watch(rig.node.native().await?, done.clone());
    let injector = {
        let (sim, done) = (rig.node.sim()?, done.clone());
        std::thread::spawn(move || inject(sim, &done))
    };
    let began = Instant::now();
    for swap in 1..=SWAPS {
        put(&rig.policies, &versions[usize::try_from(swap % 2)?])?;
        let report = client.reload().await?;
        let outcome = outcome(&report, "tally")?;
        // The daemon's own look may have come first.
        let is_there = [PolicyChange::Swapped, PolicyChange::Unchanged].contains(&outcome.change());
        ensure!(is_there, "swap {swap}: {outcome:?}");
    }
    let took = began.elapsed();
    done.store(true, Ordering::SeqCst);
    let injected = injector
        .join()
        .map_err(|_| anyhow::anyhow!("the injector panicked"))??;

    let policy = client.policy("tally").await?;
    let counters = policy.counters.clone().unwrap_or_default();
    let expected = is_counted(&rig, &mut client, injected).await?;
    // What was counted last has come to the watcher too, which so learns that it is enough.
    let (reads, events) = (reader.await??, watcher.await??);
    let signals: u64 = expected.values().sum();
    eprintln!(
        "{SWAPS} swaps in {took:?}, {signals} signals in {} calls, {reads} reads, {events} events",
        counters.calls
    );
    assert_eq!(counters.swaps, SWAPS, "{policy:?}");
    assert!(signals > SWAPS, "only {signals} signals came");

    // It is in the store, not in an instance.
    let mut rig = rig;
    rig.node.stop(Signal::TERM)?;
    rig.node.start_again()?;
    let mut client = rig.ready().await?;
    is_counted(&rig, &mut client, expected).await?;
    Ok(())
}

/// Another version in one step; a link costs less than a copy.
fn put(policies: &Path, version: &Path) -> Result<()> {
    let hidden = policies.join(".tally.wasm");
    std::fs::hard_link(version, &hidden)?;
    Ok(std::fs::rename(hidden, policies.join("tally.wasm"))?)
}

/// Faults until it is enough: how many of each.
fn inject(mut sim: Client, done: &AtomicBool) -> Result<Counts> {
    let mut counts = Counts::new();
    while !done.load(Ordering::SeqCst) {
        for gpu in 0..GPUS {
            raise(&mut sim, gpu, &mut counts)?;
        }
        // The load: nothing is waited for.
        std::thread::sleep(PAUSE);
    }
    Ok(counts)
}

/// One fault of each kind, by NVML only, so that each is one signal.
fn raise(sim: &mut Client, gpu: u32, counts: &mut Counts) -> Result<()> {
    let answer = sim.request(&Request::Xid {
        gpu,
        codes: CODES.to_vec(),
        count: 1,
        only: Some(Only::Nvml),
    })?;
    ensure!(answer.delivered == Some(true), "{answer:?}");
    for code in CODES {
        *counts.entry((gpu, code)).or_default() += 1;
    }
    Ok(())
}

/// Reads until it is enough: how often.
fn read(mut client: Native, name: String, done: Arc<AtomicBool>) -> JoinHandle<Result<u64>> {
    tokio::spawn(async move {
        let mut reads = 0;
        while !done.load(Ordering::SeqCst) {
            client.get(&name).await.context("a read failed")?;
            reads += 1;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(reads)
    })
}

/// Watches until it is enough, and the stream is still there: how many events.
fn watch(mut client: Native, done: Arc<AtomicBool>) -> JoinHandle<Result<u64>> {
    tokio::spawn(async move {
        let mut watch = client.watch(0).await?;
        let (mut events, mut version) = (0, 0);
        while !done.load(Ordering::SeqCst) {
            let event = watch.next().await.context("the watch was dropped")?;
            let next = event.gpu.map_or(version, |gpu| gpu.resource_version);
            ensure!(next >= version, "version {next} after {version}");
            version = next;
            events += 1;
        }
        Ok(events)
    })
}

/// Waits until the policy's state has counted all, and one of each more. More than there were is never right.
async fn is_counted(rig: &Rig, client: &mut Native, mut expected: Counts) -> Result<Counts> {
    let mut watch = client.watch(0).await?;
    let mut sim = rig.node.sim()?;
    for gpu in 0..GPUS {
        // What it says now may be of its trial, on the journal; what it says of these is of its state.
        raise(&mut sim, gpu, &mut expected)?;
    }
    let uuids = (0..GPUS)
        .map(|gpu| rig.node.uuid(gpu))
        .collect::<Result<Vec<_>>>()?;
    let deadline = Instant::now() + PATIENCE;
    let mut found = Counts::new();
    while found != expected {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = watch.next_within(left).await;
        let event = event.with_context(|| format!("{found:?} counted of {expected:?}"))?;
        let Some(gpu) = event.gpu else { continue };
        let Some(at) = uuids.iter().position(|uuid| *uuid == gpu.name) else {
            bail!("an unknown GPU: {gpu:?}");
        };
        for (code, count) in counts(&gpu) {
            let key = (u32::try_from(at)?, code);
            let all = expected.get(&key).copied().unwrap_or(0);
            ensure!(
                count <= all,
                "{key:?}: {count} were counted, and {all} came"
            );
            found.insert(key, count);
        }
    }
    Ok(expected)
}

/// What the policy says.
fn counts(gpu: &Gpu) -> Vec<(u64, u64)> {
    let said = condition_of(gpu, "TallyCount").map_or("", |condition| &condition.message);
    let pairs = said
        .split_whitespace()
        .filter_map(|word| word.split_once('='));
    pairs
        .filter_map(|(code, count)| Some((code.parse().ok()?, count.parse().ok()?)))
        .collect()
}
