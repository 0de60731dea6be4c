//! Reads beside a writer: how much of its pace, and of its mere presence, readers feel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use bench_kit::{Goal, Row, Section, Spread};
use tokio::sync::oneshot;

use crate::dialect::Method;
use crate::lane::Lane;
use crate::load::{Caller, Entry, ratio, round};
use crate::plan::{NODE_GPUS, Plan};

/// Design section 8.
const BESIDE_WRITER_US_MAX: f64 = 5_000.0;
const BESIDE_IDLE_MAX: f64 = 1.2;

/// Readers at once: the fewest and the middle of the plan's. With the most, on two cores, what is
/// measured is the queue of the clients.
fn readers(plan: &Plan) -> impl Iterator<Item = usize> {
    plan.readers.iter().copied().take(2)
}

/// What the writer does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// There is none.
    None,
    /// It is connected and has written.
    Idle,
    /// It writes again as soon as it is answered.
    Busy,
}

const WRITERS: [Writer; 3] = [Writer::None, Writer::Idle, Writer::Busy];

/// # Errors
/// A server fails.
pub(crate) async fn measure(lanes: &[&Lane], plan: &Plan) -> Result<Section> {
    let title = format!("GetGpu beside a writer of the same GPU, {NODE_GPUS} GPUs: p99");
    let mut section = Section::new("beside", title);
    for lane in lanes {
        for readers in readers(plan) {
            let case = format!("{readers} readers, {}", lane.name);
            eprintln!("beside a writer: {case}");
            section.rows.extend(run(lane, &case, readers, plan).await?);
        }
    }
    Ok(section)
}

async fn run(lane: &Lane, case: &str, readers: usize, plan: &Plan) -> Result<Vec<Row>> {
    let mut entries = Vec::new();
    for writer in WRITERS {
        let mut callers = Vec::new();
        for _ in 0..readers {
            let path = lane.dialect.path(Method::Get);
            let request = lane.dialect.get(0);
            callers.push(Caller::new(lane.connect().await?, path, vec![request]));
        }
        let mut entry = Entry::new(lane, callers);
        entry.name = match writer {
            Writer::None => "no writer".to_owned(),
            Writer::Idle => "idle".to_owned(),
            Writer::Busy => "busy".to_owned(),
        };
        entries.push((entry, writer));
    }
    let mut writes_per_second = Vec::new();
    for turn in 0..=plan.rounds {
        let mut order: Vec<_> = entries.iter_mut().collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for (entry, writer) in order {
            let (measured, writes) = one(lane, entry, *writer, plan).await?;
            // The first is to warm up.
            if turn > 0 {
                entry.rounds.push(measured);
                writes_per_second.extend(writes);
            }
        }
    }
    let entries: Vec<Entry> = entries.into_iter().map(|(entry, _)| entry).collect();
    Ok(rows(case, &entries, writes_per_second))
}

/// A round of the readers; and the writes a second meanwhile, if there were any.
async fn one(
    lane: &Lane,
    entry: &mut Entry,
    writer: Writer,
    plan: &Plan,
) -> Result<(crate::load::Round, Option<f64>)> {
    if writer == Writer::None {
        let measured = round(&mut entry.callers, entry.pid, plan.round).await?;
        return Ok((measured, None));
    }
    let path = lane.dialect.path(Method::UpdateStatus);
    let toggles = lane.dialect.toggles(0);
    let mut caller = Caller::new(lane.connect().await?, path, toggles);
    caller.call().await?;
    if writer == Writer::Idle {
        let measured = round(&mut entry.callers, entry.pid, plan.round).await?;
        drop(caller);
        return Ok((measured, None));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writes = Arc::new(AtomicU64::new(0));
    let (began, begins) = oneshot::channel();
    let writing = tokio::spawn({
        let (stop, writes) = (stop.clone(), writes.clone());
        async move {
            caller.call().await?;
            let _reader_is_gone = began.send(());
            while !stop.load(Ordering::Relaxed) {
                caller.call().await?;
                writes.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }
    });
    begins.await.context("the writer failed")?;
    let before = tokio::time::Instant::now();
    let measured = round(&mut entry.callers, entry.pid, plan.round).await?;
    let pace = writes.load(Ordering::Relaxed) as f64 / before.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    writing.await??;
    Ok((measured, Some(pace)))
}

fn rows(case: &str, entries: &[Entry], writes_per_second: Vec<f64>) -> Vec<Row> {
    let [none, idle, busy] = entries else {
        return Vec::new();
    };
    let p99 = |round: &crate::load::Round| round.latency_us(0.99);
    let mut rows = Vec::new();
    if let Some(spread) = Spread::of(busy.rounds.iter().filter_map(p99)) {
        let mut figures = busy.figures();
        if let Some(pace) = Spread::of(writes_per_second) {
            figures.values.push(("writes/s", pace.median));
        }
        rows.push(
            Row::new(format!("{case}: a writer that never pauses"), "µs", spread)
                .goal(Goal::AtMost(BESIDE_WRITER_US_MAX))
                .with([figures]),
        );
    }
    if let Some(spread) = ratio(&idle.rounds, &none.rounds, p99) {
        rows.push(
            Row::new(format!("{case}: an idle writer, over none"), "×", spread)
                .goal(Goal::AtMost(BESIDE_IDLE_MAX))
                .with([idle.figures(), none.figures()]),
        );
    }
    rows
}
