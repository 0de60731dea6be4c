//! Closed-loop load: each client has a connection of its own and calls again when it is answered.
//! Lanes that are compared take turns, a short round each, so that what the machine does besides
//! falls on all alike.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bench_kit::{Figures, Spread, quantile};
use http::uri::PathAndQuery;
use prost::bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::lane::Lane;
use crate::plan::Plan;
use crate::process;
use crate::raw::Client;

/// One client: what it asks, in turn.
#[derive(Debug)]
pub(crate) struct Caller {
    client: Client,
    path: PathAndQuery,
    requests: Vec<Bytes>,
    /// Of `requests`, the one that is next; a write must go on where it stopped.
    next: usize,
}

impl Caller {
    pub(crate) fn new(client: Client, path: PathAndQuery, requests: Vec<Bytes>) -> Self {
        Self {
            client,
            path,
            requests,
            next: 0,
        }
    }

    /// # Errors
    /// The call's status.
    pub(crate) async fn call(&mut self) -> Result<Bytes> {
        let request = self.requests.get(self.next % self.requests.len());
        self.next += 1;
        let request = request.context("a client without a request")?.clone();
        self.client.unary(&self.path, request).await
    }

    /// Calls until `end`, at least once.
    async fn call_until(&mut self, end: Instant) -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        let mut before = Instant::now();
        loop {
            let answer = self.call().await?;
            anyhow::ensure!(!answer.is_empty(), "an empty answer to {}", self.path);
            let now = Instant::now();
            latencies.push(now - before);
            if now >= end {
                return Ok(latencies);
            }
            before = now;
        }
    }
}

/// What one round of one lane gave.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) per_second: f64,
    /// Ascending.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) cpu_us_per_call: Option<f64>,
}

impl Round {
    /// Latency in µs that a share `q` of the calls does not pass.
    pub(crate) fn latency_us(&self, q: f64) -> Option<f64> {
        Some(quantile(&self.latencies, q)?.as_secs_f64() * 1e6)
    }
}

/// Has all call for `time`.
///
/// # Errors
/// A call fails.
pub(crate) async fn round(
    callers: &mut Vec<Caller>,
    pid: Option<u32>,
    time: Duration,
) -> Result<Round> {
    let cpu_before = pid.and_then(process::processor_time);
    let began = Instant::now();
    let mut running = JoinSet::new();
    for mut caller in callers.drain(..) {
        running.spawn(async move {
            let latencies = caller.call_until(began + time).await;
            (caller, latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = running.join_next().await {
        let (caller, of_one) = done?;
        callers.push(caller);
        latencies.extend(of_one?);
    }
    let elapsed = began.elapsed();
    let cpu_after = pid.and_then(process::processor_time);
    latencies.sort_unstable();
    let calls = latencies.len() as f64;
    Ok(Round {
        per_second: calls / elapsed.as_secs_f64(),
        cpu_us_per_call: cpu_before
            .zip(cpu_after)
            .map(|(before, after)| after.saturating_sub(before).as_secs_f64() * 1e6 / calls),
        latencies,
    })
}

/// One of those that take turns.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) pid: Option<u32>,
    pub(crate) callers: Vec<Caller>,
    pub(crate) rounds: Vec<Round>,
}

impl Entry {
    pub(crate) fn new(lane: &Lane, callers: Vec<Caller>) -> Self {
        Self {
            name: lane.name.to_owned(),
            pid: lane.pid,
            callers,
            rounds: Vec::new(),
        }
    }

    /// Calls a second, latency over all rounds, and processor time of the server.
    pub(crate) fn figures(&self) -> Figures {
        let mut all: Vec<Duration> = Vec::new();
        for round in &self.rounds {
            all.extend_from_slice(&round.latencies);
        }
        all.sort_unstable();
        let us = |q| quantile(&all, q).map(|latency| latency.as_secs_f64() * 1e6);
        let middle = |of: &dyn Fn(&Round) -> Option<f64>| {
            Spread::of(self.rounds.iter().filter_map(of)).map(|spread| spread.median)
        };
        let values = [
            ("calls/s", middle(&|round| Some(round.per_second))),
            ("p50 µs", us(0.5)),
            ("p99 µs", us(0.99)),
            ("server cpu µs/call", middle(&|round| round.cpu_us_per_call)),
        ];
        Figures {
            lane: self.name.clone(),
            values: values
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
        }
    }
}

/// A round of each to warm up, then rounds in turn, every other time backwards, so that none is always
/// first.
///
/// # Errors
/// A call fails.
pub(crate) async fn take_turns(entries: &mut [Entry], plan: &Plan) -> Result<()> {
    for entry in entries.iter_mut() {
        round(&mut entry.callers, entry.pid, plan.round)
            .await
            .with_context(|| entry.name.clone())?;
    }
    for turn in 0..plan.rounds {
        let mut order: Vec<&mut Entry> = entries.iter_mut().collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for entry in order {
            let round = round(&mut entry.callers, entry.pid, plan.round)
                .await
                .with_context(|| entry.name.clone())?;
            entry.rounds.push(round);
        }
    }
    Ok(())
}

/// Round by round, `of` the one over `of` the other.
pub(crate) fn ratio(
    one: &[Round],
    other: &[Round],
    of: impl Fn(&Round) -> Option<f64>,
) -> Option<Spread> {
    let pairs = one.iter().zip(other);
    Spread::of(pairs.filter_map(|(one, other)| Some(of(one)? / of(other)?)))
}
