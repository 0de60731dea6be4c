//! GetGpu and ListGpus, over a bare server of the same bytes.

use anyhow::Result;
use bench_kit::{Goal, Row, Section};

use crate::dialect::{Dialect, Method};
use crate::lane::{Contest, OURS, PEER};
use crate::load::{Caller, Entry, ratio, take_turns};
use crate::plan::Plan;

/// Design section 8.
const THROUGHPUT_MIN: f64 = 0.9;

/// # Errors
/// A server fails.
pub(crate) async fn measure(contest: &mut Contest, plan: &Plan) -> Result<Section> {
    let dialect = contest.dialect();
    let (name, of) = match dialect {
        Dialect::Native => ("reads", "native dialect"),
        Dialect::Upstream => ("reads-upstream", "upstream dialect, with the peer"),
    };
    let title = format!("Reads, {of}: calls a second, over a bare tonic server of the same bytes");
    let mut section = Section::new(name, title);
    for &gpus in &plan.gpus {
        contest.fill(gpus).await?;
        for method in [Method::Get, Method::List] {
            for &clients in &plan.readers {
                let case = format!("{}, {gpus} GPUs, {clients} clients", method.name());
                eprintln!("{case}");
                let mut entries = entries(contest, method, gpus, clients).await?;
                take_turns(&mut entries, plan).await?;
                section.rows.extend(rows(&case, &entries));
            }
        }
    }
    Ok(section)
}

async fn entries(
    contest: &Contest,
    method: Method,
    gpus: usize,
    clients: usize,
) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for lane in contest.lanes() {
        let mut callers = Vec::new();
        for client in 0..clients {
            let request = if method == Method::Get {
                lane.dialect.get(client % gpus)
            } else {
                lane.dialect.list()
            };
            let path = lane.dialect.path(method);
            callers.push(Caller::new(lane.connect().await?, path, vec![request]));
        }
        entries.push(Entry::new(lane, callers));
    }
    Ok(entries)
}

fn rows(case: &str, entries: &[Entry]) -> Vec<Row> {
    let [bare, subjects @ ..] = entries else {
        return Vec::new();
    };
    let throughput = |one: &Entry, other: &Entry| {
        ratio(&one.rounds, &other.rounds, |round| Some(round.per_second))
    };
    let mut rows = Vec::new();
    for subject in subjects {
        let case = if subject.name == PEER {
            format!("{case}: peer")
        } else {
            case.to_owned()
        };
        let row = throughput(subject, bare).map(|spread| Row::new(case, "×", spread));
        let figures = [subject.figures(), bare.figures()];
        rows.extend(row.map(|row| {
            let row = row.with(figures);
            if subject.name == OURS {
                row.goal(Goal::AtLeast(THROUGHPUT_MIN))
            } else {
                row
            }
        }));
    }
    if let [ours, peer] = subjects {
        let row = throughput(ours, peer)
            .map(|spread| Row::new(format!("{case}: ours over peer"), "×", spread));
        rows.extend(row);
    }
    rows
}
