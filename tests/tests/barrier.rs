//! The promise of the system (design C2): nobody reads "healthy" while the next state is already
//! "unhealthy". Over a real socket, with a policy that takes its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Gpu, Health};
use device_api_tests::{Native, Node, condition_of, guests, health_of};
use tokio::sync::watch;

/// One answered read: when it began, on the daemon's own clock (this machine's), and what it said.
#[derive(Clone, Copy, Debug)]
struct Read {
    began: Duration,
    ended: Duration,
    health: Health,
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Reads one GPU again and again until told to stop, by Get or by List.
async fn read_on(mut client: Native, name: String, by_list: bool, run: Run) -> Result<Vec<Read>> {
    let mut reads = Vec::new();
    while !run.stop.load(Ordering::SeqCst) {
        let began = now();
        let gpu = if by_list {
            let list = client.list().await?;
            list.gpus
                .into_iter()
                .find(|gpu| gpu.name == name)
                .context("gone from the list")?
        } else {
            client.get(&name).await?
        };
        reads.push(Read {
            began,
            ended: now(),
            health: health_of(&gpu),
        });
        run.reading.send_modify(|reads| *reads += 1);
    }
    Ok(reads)
}

/// Readers that run until they are told to stop.
#[derive(Clone, Debug)]
struct Run {
    stop: Arc<AtomicBool>,
    /// How many reads were answered.
    reading: Arc<watch::Sender<usize>>,
}

impl Run {
    fn new() -> Self {
        Self {
            stop: Arc::default(),
            reading: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Waits until the readers are well under way.
    async fn is_under_way(&self) -> Result<()> {
        self.reading
            .subscribe()
            .wait_for(|reads| *reads >= 20)
            .await?;
        Ok(())
    }

    fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// A node with a policy beside the bundled ones that thinks for some milliseconds.
fn slow_node() -> Result<Node> {
    let builder = Node::builder()?;
    let policies = builder.dir().join("policies");
    std::fs::create_dir(&policies)?;
    std::fs::write(policies.join("slow.wasm"), guests::SLOW_GUEST)?;
    builder
        .flag("policy-dir", policies.display().to_string())
        .flag("policy-deadline", "25ms")
        .start()
}

/// Breaks a GPU while its readers, or those of one of its MIG instances (`name`), are under way: how many of their
/// reads began between observation and decision.
async fn reads_held(node: &Node, gpu: u32, name: &str) -> Result<usize> {
    let name = name.to_owned();
    let mut held = 0;
    let run = Run::new();
    let mut readers = Vec::new();
    for by_list in [false, false, true] {
        // A connection each: calls of one are queued behind each other.
        readers.push(tokio::spawn(read_on(
            node.native().await?,
            name.clone(),
            by_list,
            run.clone(),
        )));
    }
    let mut watch = node.native().await?.watch(0).await?;
    run.is_under_way().await?;
    let mut sim = node.sim()?;
    let answer = tokio::task::spawn_blocking(move || sim.xid(gpu, &[79])).await??;
    ensure!(answer.delivered == Some(true), "{answer:?}");
    let told = watch
        .until(&name, "judged by the policy", |gpu| {
            condition_of(gpu, "XidCriticalError").is_some()
        })
        .await?;
    run.end();

    let condition = condition_of(&told, "XidCriticalError").context("the policy said nothing")?;
    let time = condition
        .evidence
        .first()
        .and_then(|piece| piece.observed_time)
        .context("no evidence")?;
    let observed = Duration::new(time.seconds.unsigned_abs(), time.nanos.unsigned_abs());
    let decided = now();
    for reader in readers {
        let reads = reader.await??;
        ensure!(
            reads
                .iter()
                .any(|read| read.began < observed && read.health == Health::Healthy),
            "read too late"
        );
        for read in reads.iter().filter(|read| read.began > observed) {
            ensure!(
                read.health == Health::Unhealthy,
                "GPU {gpu}: a read that began {:?} after the fault was observed said {:?}",
                read.began - observed,
                read.health
            );
        }
        held += reads
            .iter()
            .filter(|read| read.began > observed && read.began < decided)
            .count();
    }
    Ok(held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_no_read_that_began_after_a_fault_was_observed_says_healthy() -> Result<()> {
    let node = slow_node()?;
    node.healthy().await?;

    let mut held = 0;
    for gpu in 0..8 {
        held += reads_held(&node, gpu, &node.uuid(gpu)?).await?;
    }
    ensure!(
        held > 0,
        "no read began between observation and decision: the test saw nothing"
    );
    Ok(())
}

/// A reader of a MIG instance waits at the barrier of its GPU (design N9).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n9_c2_no_read_of_an_instance_that_began_after_its_gpus_fault_says_healthy() -> Result<()> {
    let node = slow_node()?;
    let mut client = node.healthy().await?;
    let mut held = 0;
    for gpu in 0..4 {
        let cut = node.cut_up(gpu, &["3g.40gb", "1g.10gb"])?;
        let name = &cut.last().context("not cut up")?.uuid;
        let healthy = |gpu: &Gpu| health_of(gpu) == Health::Healthy;
        let mut watch = client.watch(0).await?;
        watch.until(name, "Healthy", healthy).await?;
        held += reads_held(&node, gpu, name).await?;
    }
    ensure!(
        held > 0,
        "no read began between observation and decision: the test saw nothing"
    );
    Ok(())
}

/// Another GPU's readers never wait: reads of one begin and end while a read of the other is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_decision_of_one_gpu_holds_no_reader_of_another() -> Result<()> {
    let node = slow_node()?;
    node.healthy().await?;
    let fine = node.uuid(7)?;
    let mut passed = 0;
    for gpu in 0..4 {
        let broken = node.uuid(gpu)?;
        let run = Run::new();
        let held = tokio::spawn(read_on(
            node.native().await?,
            broken.clone(),
            false,
            run.clone(),
        ));
        let free = tokio::spawn(read_on(
            node.native().await?,
            fine.clone(),
            false,
            run.clone(),
        ));
        let mut watch = node.native().await?.watch(0).await?;
        run.is_under_way().await?;
        let mut sim = node.sim()?;
        tokio::task::spawn_blocking(move || sim.xid(gpu, &[79])).await??;
        let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
        watch.until(&broken, "Unhealthy", unhealthy).await?;
        run.end();
        let (held, free) = (held.await??, free.await??);
        let longest = held
            .iter()
            .max_by_key(|read| read.ended - read.began)
            .context("no read")?;
        let beside = |read: &&Read| read.began > longest.began && read.ended < longest.ended;
        passed += free.iter().filter(beside).count();
        ensure!(
            free.iter().all(|read| read.health == Health::Healthy),
            "GPU 7 is fine"
        );
    }
    ensure!(
        passed > 0,
        "every read of GPU 7 was held up by another GPU's decision"
    );
    Ok(())
}
