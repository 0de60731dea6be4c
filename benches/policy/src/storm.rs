//! One GPU repeats an XID as fast as it can be taken in: what that costs in memory, and how long it
//! delays another GPU's first fault. Pipeline, cache and the policy on its thread are the daemon's.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use bench_kit::{Figures, Goal, Row, Section, Spread, quantile, resident_kib};
use bundled_policies::XID_POLICY;
use device_api_core::condition::Owner;
use device_api_core::gpu::Gpu;
use device_api_core::ids::{DeviceUuid, ObjectKey};
use device_api_core::ports::{Devices as _, SignalSink};
use device_api_core::signal::{Attr, Observation, SignalKind, Source, Target};
use device_api_policy::LoadedPolicy;
use tokio::runtime::Runtime;

use crate::house::{House, uuid};
use crate::judges;
use crate::plan::Plan;

/// Issue 4: no other GPU's first fault later by more than this.
const DELAY_MS_MAX: f64 = 5.0;
/// A storm leaves nothing behind: what is left are pages that the allocator has not given back.
const GROWTH_KIB_MAX: f64 = 256.0;

/// GPU 0 storms; the others have their first fault, one after another.
const STORMING: usize = 0;

/// # Errors
/// The policy can't be loaded, or does not judge.
pub(crate) fn measure(plan: &Plan) -> Result<Section> {
    eprintln!("storm");
    let mut rig = Rig::new(plan)?;
    // Grows to its size.
    rig.alone()?;
    let rounds = (0..plan.storms).map(|_| rig.round());
    let rounds = rounds.collect::<Result<Vec<_>>>()?;
    let title = format!(
        "A storm of {} XIDs on one GPU, xid-policy in the path",
        plan.storm
    );
    let mut section = Section::new("storm", title);
    let spread = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(of)).context("no rounds");
    let growth = spread(|round| round.growth_kib)?;
    let whole = Figures {
        lane: "process".to_owned(),
        values: vec![("KiB", resident_kib(std::process::id())?)],
    };
    let row = Row::new("resident memory, after over before", "KiB", growth);
    section
        .rows
        .push(row.goal(Goal::AtMost(GROWTH_KIB_MAX)).with([whole]));
    let delay = spread(Round::delay_ms)?;
    let row = Row::new(
        "slowest first fault of another GPU, over quiet",
        "ms",
        delay,
    );
    let row = row.goal(Goal::AtMost(DELAY_MS_MAX));
    let lanes = [
        latencies("quiet", rounds.iter().flat_map(|round| &round.quiet)),
        latencies("storm", rounds.iter().flat_map(|round| &round.stormy)),
    ];
    section.rows.push(row.with(lanes.into_iter().flatten()));
    let pace = spread(|round| round.per_second)?;
    let calls = Figures {
        lane: "policy".to_owned(),
        values: vec![("calls a storm", spread(|round| round.calls)?.median)],
    };
    section
        .rows
        .push(Row::new("observations a second", "/s", pace).with([calls]));
    Ok(section)
}

fn latencies<'a>(lane: &str, all: impl Iterator<Item = &'a Duration>) -> Option<Figures> {
    let mut all: Vec<Duration> = all.copied().collect();
    all.sort_unstable();
    let us = |q| Some(quantile(&all, q)?.as_secs_f64() * 1e6);
    Some(Figures {
        lane: lane.to_owned(),
        values: vec![
            ("p50 µs", us(0.5)?),
            ("p99 µs", us(0.99)?),
            ("max µs", us(1.0)?),
        ],
    })
}

/// One storm alone, then faults of other GPUs without and with another.
#[derive(Debug)]
struct Round {
    growth_kib: f64,
    per_second: f64,
    calls: f64,
    quiet: Vec<Duration>,
    stormy: Vec<Duration>,
}

impl Round {
    /// The slowest in the storm over the median without.
    fn delay_ms(&self) -> f64 {
        let mut quiet = self.quiet.clone();
        quiet.sort_unstable();
        let usual = quantile(&quiet, 0.5).unwrap_or_default();
        let slowest = self.stormy.iter().max().copied().unwrap_or_default();
        slowest.saturating_sub(usual).as_secs_f64() * 1e3
    }
}

struct Rig {
    house: House,
    policy: Arc<LoadedPolicy>,
    runtime: Runtime,
    storm: usize,
    others: usize,
    /// The next GPU that had no fault yet.
    next: usize,
}

impl Rig {
    fn new(plan: &Plan) -> Result<Self> {
        let policy = judges::threaded(XID_POLICY)?;
        let gpus = 1 + 2 * plan.others * plan.storms;
        Ok(Self {
            house: House::new(&policy, gpus)?,
            policy,
            // Reads wait on it, and nothing else runs there.
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()?,
            storm: plan.storm,
            others: plan.others,
            next: STORMING + 1,
        })
    }

    fn round(&mut self) -> Result<Round> {
        let before = resident_kib(std::process::id())?;
        let calls_before = self.policy.counters().calls;
        let took = self.alone()?;
        let calls = self.policy.counters().calls - calls_before;
        let growth_kib = resident_kib(std::process::id())? - before;
        let quiet: Result<Vec<_>> = (0..self.others).map(|_| self.first_fault()).collect();
        Ok(Round {
            growth_kib,
            per_second: self.storm as f64 / took.as_secs_f64(),
            calls: u32::try_from(calls)?.into(),
            quiet: quiet?,
            stormy: self.amid()?,
        })
    }

    /// A storm, until it is judged.
    fn alone(&self) -> Result<Duration> {
        let began = Instant::now();
        // Nobody is to be told.
        let (milestone, _) = sync_channel(1);
        Storm::new(&self.house.sink, self.storm, self.storm, milestone)
            .start()?
            .end()?;
        let took = began.elapsed();
        self.judged(STORMING)?;
        Ok(took)
    }

    /// Other GPUs have their first fault while one storms, spread over its time.
    fn amid(&mut self) -> Result<Vec<Duration>> {
        // One more, since the first must be behind it when the first fault comes.
        let every = self.storm / (self.others + 1);
        let (milestone, milestones) = sync_channel(self.others + 1);
        let storm = Storm::new(&self.house.sink, self.storm, every, milestone).start()?;
        let mut latencies = Vec::new();
        for _ in 0..self.others {
            milestones.recv().context("the storm ended early")?;
            latencies.push(self.first_fault()?);
        }
        storm.end()?;
        self.judged(STORMING)?;
        Ok(latencies)
    }

    /// From the observation of a GPU's first fault to the answer of a read that waits for it.
    fn first_fault(&mut self) -> Result<Duration> {
        let gpu = self.next;
        self.next += 1;
        let fault = xid(&uuid(gpu));
        let began = Instant::now();
        self.house.sink.observe(fault);
        let answer = self.read(gpu)?;
        let latency = began.elapsed();
        // A fallback is counted by its time: readers waited for it all along.
        ensure!(
            answer
                .conditions
                .iter()
                .any(|condition| condition.cause.is_some()),
            "a read was answered as if nothing had happened"
        );
        Ok(latency)
    }

    fn read(&self, gpu: usize) -> Result<Arc<Gpu>> {
        let key = ObjectKey::new("", uuid(gpu).as_str());
        let answer = self.runtime.block_on(self.house.cache.get(&key));
        answer.map_err(|error| anyhow!("GPU {gpu} can't be read: {error}"))
    }

    /// Waits until that GPU's faults are judged, by the policy.
    fn judged(&self, gpu: usize) -> Result<()> {
        let answer = self.read(gpu)?;
        let by_policy = |owner: &Owner| matches!(owner, Owner::Policy(_));
        ensure!(
            answer
                .conditions
                .iter()
                .any(|condition| by_policy(&condition.owner)),
            "the policy said nothing of GPU {gpu}"
        );
        Ok(())
    }
}

/// Repeats on a thread of their own, as a source's.
struct Storm {
    sink: Arc<dyn SignalSink>,
    repeats: usize,
    every: usize,
    milestone: SyncSender<()>,
}

struct Raging(thread::JoinHandle<()>);

impl Storm {
    /// Tells after `every` so many.
    fn new(
        sink: &Arc<dyn SignalSink>,
        repeats: usize,
        every: usize,
        milestone: SyncSender<()>,
    ) -> Self {
        Self {
            sink: sink.clone(),
            repeats,
            every,
            milestone,
        }
    }

    fn start(self) -> Result<Raging> {
        let rage = move || {
            let repeat = xid(&uuid(STORMING));
            for number in 1..=self.repeats {
                self.sink.observe(repeat.clone());
                if number % self.every == 0 {
                    // Never waits: all who are told that it goes on find room.
                    let _ = self.milestone.try_send(());
                }
            }
        };
        let thread = thread::Builder::new().name("storm".to_owned()).spawn(rage);
        Ok(Raging(thread.context("no thread for the storm")?))
    }
}

impl Raging {
    fn end(self) -> Result<()> {
        self.0
            .join()
            .map_err(|_| anyhow!("the storm's thread panicked"))
    }
}

/// As the kernel log tells of an application's page fault.
fn xid(of: &DeviceUuid) -> Observation {
    Observation {
        code: Some(31),
        evidence: "NVRM: Xid (PCI:0000:1b:00): 31, pid=1818990, name=python3, Ch 0000000c, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f2c_51000000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ".to_owned(),
        attrs: vec![Attr::int("pid", 1_818_990), Attr::text("process", "python3")],
        ..Observation::new(SignalKind::Xid, Target::Uuid(of.clone()), Source::Kmsg)
    }
}
