//! From a write to the slowest of many watchers, over a bare fan-out of the same bytes.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bench_kit::{Figures, Goal, Row, Section, Spread, quantile};

use crate::lane::{BARE, Lane, OURS, PEER};
use crate::plan::{NODE_GPUS, Plan};
use crate::watchers::{Group, Writes};

/// Design section 8.
const LATENCY_MAX: f64 = 1.5;
const GROWTH_MAX: f64 = 1.0;

/// Where the cost of one watcher is held against that of the most.
const FEW: usize = 10;

/// Streams that share a connection, in the case where they do: far from the limit of one.
const STREAMS_SHARING: usize = 100;

/// The rounds of one lane in one case.
#[derive(Debug)]
struct Measured {
    lane: &'static str,
    rounds: Vec<Writes>,
}

/// How many watch, and how many share a connection.
#[derive(Clone, Copy, Debug)]
struct Case {
    watchers: usize,
    per_connection: usize,
}

/// `lanes`: the bare one first. They hold the same GPUs.
///
/// # Errors
/// A server fails.
pub(crate) async fn measure(lanes: &[&Lane], plan: &Plan, name: &'static str) -> Result<Section> {
    let title = format!(
        "Watches, {:?} dialect, {NODE_GPUS} GPUs: from a write to the slowest watcher's MODIFIED, over a bare fan-out",
        lanes.first().context("no lanes")?.dialect
    );
    let mut section = Section::new(name, title);
    let mut few = None;
    let mut most = None;
    for case in cases(plan) {
        let text = case.text();
        eprintln!("{text}");
        let (measured, without) = run(case, lanes, plan).await?;
        if let Some(without) = without {
            section.notes.push(without);
        }
        section.rows.extend(rows(&text, &measured));
        if case.per_connection == 1 {
            if case.watchers == FEW {
                few = Some(measured);
            } else if Some(&case.watchers) == plan.watchers.last() {
                most = Some((case.watchers, measured));
            }
        }
    }
    if let Some((few, (watchers, most))) = few.zip(most) {
        section.rows.extend(growth(&few, watchers, &most));
    }
    Ok(section)
}

fn cases(plan: &Plan) -> Vec<Case> {
    let mut cases: Vec<Case> = plan
        .watchers
        .iter()
        .map(|&watchers| Case {
            watchers,
            per_connection: 1,
        })
        .collect();
    cases.extend(plan.watchers.last().map(|&watchers| Case {
        watchers,
        per_connection: STREAMS_SHARING.min(watchers / 2).max(1),
    }));
    cases
}

impl Case {
    fn text(self) -> String {
        let Self {
            watchers,
            per_connection,
        } = self;
        if per_connection == 1 {
            format!("{watchers} watchers")
        } else {
            let connections = watchers.div_ceil(per_connection);
            format!("{watchers} watchers on {connections} connections")
        }
    }
}

/// The lanes in turn. A peer whose watch does not tell of writes is left out, with a note.
async fn run(case: Case, lanes: &[&Lane], plan: &Plan) -> Result<(Vec<Measured>, Option<String>)> {
    let mut groups = Vec::new();
    let mut without = None;
    for lane in lanes {
        match Group::open(lane, case.watchers, case.per_connection).await {
            Ok(group) => groups.push((group, lane.name, Vec::new())),
            Err(error) if lane.name == PEER => {
                without = Some(format!("{}: without the peer: {error:#}", case.text()));
            }
            Err(error) => bail!(error.context(lane.name)),
        }
    }
    for turn in 0..=plan.rounds {
        let mut order: Vec<_> = groups.iter_mut().collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for (group, name, rounds) in order {
            let writes = group.write(plan.watched_writes).await.context(*name)?;
            // The first is to warm up.
            if turn > 0 {
                rounds.push(writes);
            }
        }
    }
    let measured = groups
        .into_iter()
        .map(|(_, lane, rounds)| Measured { lane, rounds });
    Ok((measured.collect(), without))
}

fn rows(case: &str, measured: &[Measured]) -> Vec<Row> {
    let [bare, subjects @ ..] = measured else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for subject in subjects {
        let Some(spread) = ratio(&subject.rounds, &bare.rounds, Writes::slowest_us) else {
            continue;
        };
        let case = if subject.lane == OURS {
            case.to_owned()
        } else {
            format!("{case}: {}", subject.lane)
        };
        let row = Row::new(case, "×", spread).with([subject.figures(), bare.figures()]);
        rows.push(if subject.lane == OURS {
            row.goal(Goal::AtMost(LATENCY_MAX))
        } else {
            row
        });
    }
    rows
}

/// What one watcher costs among the most, over what it costs among few.
fn growth(few: &[Measured], watchers: usize, most: &[Measured]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (few, most) in few.iter().zip(most) {
        if let Some(spread) = ratio(&most.rounds, &few.rounds, Writes::cpu_us_per_event) {
            let case = format!(
                "cost of a watcher, {watchers} over {FEW} watchers: {}",
                most.lane
            );
            let row = Row::new(case, "×", spread);
            rows.push(if most.lane == OURS {
                row.goal(Goal::AtMost(GROWTH_MAX))
            } else {
                row
            });
        }
    }
    // The measure last: it is there to compare with.
    rows.sort_by_key(|row| row.case.ends_with(BARE));
    rows
}

fn ratio(one: &[Writes], other: &[Writes], of: fn(&Writes) -> Option<f64>) -> Option<Spread> {
    let pairs = one.iter().zip(other);
    Spread::of(pairs.filter_map(|(one, other)| Some(of(one)? / of(other)?)))
}

impl Measured {
    fn figures(&self) -> Figures {
        let sorted = |of: fn(&Writes) -> &[Duration]| {
            let mut all: Vec<Duration> = self.rounds.iter().flat_map(of).copied().collect();
            all.sort_unstable();
            all
        };
        let us = |of, q| quantile(&sorted(of), q).map(|time| time.as_secs_f64() * 1e6);
        let cpu = Spread::of(self.rounds.iter().filter_map(Writes::cpu_us_per_event));
        let values = [
            ("slowest p50 µs", us(|round| &round.slowest, 0.5)),
            ("p99 µs", us(|round| &round.slowest, 0.99)),
            ("write p50 µs", us(|round| &round.acknowledged, 0.5)),
            ("server cpu µs/event", cpu.map(|spread| spread.median)),
        ];
        Figures {
            lane: self.lane.to_owned(),
            values: values
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
        }
    }
}
