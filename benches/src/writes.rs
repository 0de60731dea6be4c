//! Writes: what durability costs, and what sharing a commit saves.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench_kit::{Figures, Row, Section, Spread};
use tokio::time::Instant;

use crate::dialect::Method;
use crate::lane::Lane;
use crate::load::{Caller, Entry, ratio, take_turns};
use crate::plan::Plan;

/// What the disk is asked for: one page, as the smallest commit writes.
const PAGE_BYTES: usize = 4096;

/// The two daemons hold a GPU for each writer.
///
/// # Errors
/// A server or the disk fails.
pub(crate) async fn measure(
    durable: &Lane,
    memory: &Lane,
    plan: &Plan,
    states: &Path,
) -> Result<Section> {
    let title = "UpdateGpuStatus, a GPU for each writer: durable store over memory store";
    let mut section = Section::new("writes", title);
    let mut of_durable: Vec<(usize, Entry)> = Vec::new();
    for &writers in &plan.writers {
        let case = format!("{writers} writers");
        eprintln!("{case}");
        let mut entries = [
            entry(durable, writers).await?,
            entry(memory, writers).await?,
        ];
        take_turns(&mut entries, plan).await?;
        let [durable, memory] = entries;
        if let Some(spread) = ratio(&durable.rounds, &memory.rounds, |round| {
            Some(round.per_second)
        }) {
            let row = Row::new(format!("{case}, calls a second"), "×", spread);
            section
                .rows
                .push(row.with([durable.figures(), memory.figures()]));
        }
        of_durable.push((writers, durable));
    }
    if let [(_, one), .., (most, many)] = of_durable.as_slice() {
        let gain = ratio(&many.rounds, &one.rounds, |round| Some(round.per_second));
        let case = format!("durable, {most} writers over 1, calls a second");
        section
            .rows
            .extend(gain.map(|spread| Row::new(case, "×", spread)));
        let syncs = syncs(states, plan).await?;
        section.rows.extend(per_sync(*most, many, &syncs));
    }
    Ok(section)
}

async fn entry(lane: &Lane, writers: usize) -> Result<Entry> {
    let mut callers = Vec::new();
    for writer in 0..writers {
        let path = lane.dialect.path(Method::UpdateStatus);
        let toggles = lane.dialect.toggles(writer);
        callers.push(Caller::new(lane.connect().await?, path, toggles));
    }
    Ok(Entry::new(lane, callers))
}

/// Writes a second over what the disk syncs a second: above 1, writes share commits.
fn per_sync(writers: usize, durable: &Entry, syncs: &[Vec<Duration>]) -> Option<Row> {
    let per_second =
        |times: &Vec<Duration>| times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64();
    let pairs = durable.rounds.iter().zip(syncs);
    let spread = Spread::of(pairs.map(|(round, times)| round.per_second / per_second(times)))?;
    let pace = Spread::of(syncs.iter().map(per_second))?;
    let case = format!("durable, {writers} writers over one fdatasync after another");
    let disk = Figures {
        lane: "disk".to_owned(),
        values: vec![("fdatasync/s", pace.median), ("µs", 1e6 / pace.median)],
    };
    Some(Row::new(case, "×", spread).with([disk]))
}

/// Rounds of writing a page in place and having it synced, where the store is.
async fn syncs(states: &Path, plan: &Plan) -> Result<Vec<Vec<Duration>>> {
    let path = states.join("fdatasync");
    let (rounds, time) = (plan.rounds, plan.round);
    tokio::task::spawn_blocking(move || {
        let mut file = File::create(&path).context("cannot write beside the store")?;
        let mut all = Vec::new();
        for _ in 0..rounds {
            let end = Instant::now() + time;
            let mut times = Vec::new();
            while times.is_empty() || Instant::now() < end {
                let page = [u8::try_from(times.len() % 256)?; PAGE_BYTES];
                let before = Instant::now();
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&page)?;
                file.sync_data()?;
                times.push(before.elapsed());
            }
            all.push(times);
        }
        Ok(all)
    })
    .await?
}
