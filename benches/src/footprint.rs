//! What a daemon takes: memory, and time to start.

use anyhow::{Context as _, Result};
use bench_kit::{Figures, Goal, Row, Section, Spread, resident_kib};

use crate::dialect::{Dialect, Method};
use crate::lane::{BARE, Dirs, Lane, OURS};
use crate::plan::{NODE_GPUS, Plan};
use crate::process::{Daemon, Store};

/// Design section 8.
const NODE_MIB_MAX: f64 = 40.0;
const GPU_KIB_MAX: f64 = 32.0;
const STREAM_KIB_MAX: f64 = 20.0;
const CONNECTION_KIB_MAX: f64 = 48.0;
const START_MS_MAX: f64 = 100.0;

/// Connections that the idle streams share.
const STREAMS_PER_CONNECTION: usize = 100;

/// Resident memory of fresh processes.
///
/// # Errors
/// A server fails.
pub(crate) async fn memory(daemon: &Daemon, dirs: &Dirs, plan: &Plan) -> Result<Section> {
    let mut section = Section::new("memory", "Resident memory");
    let mut node = Vec::new();
    let mut gpu = Vec::new();
    let mut ours = Vec::new();
    let mut bare = Vec::new();
    for run in 0..plan.memory_runs {
        eprintln!("memory, run {run}");
        let id = format!("memory-gpus-{run}");
        let mut lane = Lane::ours(OURS, Dialect::Native, daemon, Store::Durable, dirs, &id)?;
        lane.fill(NODE_GPUS).await?;
        let before = resident(&lane)?;
        node.push(before / 1024.0);
        let most = plan.gpus.last().copied().unwrap_or(NODE_GPUS);
        lane.fill(most).await?;
        gpu.push((resident(&lane)? - before) / most.saturating_sub(NODE_GPUS).max(1) as f64);
        drop(lane);

        let id = format!("memory-clients-{run}");
        let mut lane = Lane::ours(OURS, Dialect::Native, daemon, Store::Durable, dirs, &id)?;
        lane.fill(NODE_GPUS).await?;
        ours.push(clients(&lane, plan).await?);

        let answers = lane.answers().await?;
        drop(lane);
        let lane = Lane::bare(Dialect::Native, dirs, &id)?;
        answers.set(&lane.socket).await?;
        bare.push(clients(&lane, plan).await?);
    }
    let of = |clients: &[Clients], of: fn(&Clients) -> f64| Spread::of(clients.iter().map(of));
    let reference = |of_bare: Option<Spread>| {
        of_bare.map(|spread| Figures {
            lane: BARE.to_owned(),
            values: vec![("KiB", spread.median)],
        })
    };
    let rows = [
        (
            format!("{NODE_GPUS} GPUs, bundled policies, no NVML"),
            "MiB",
            Spread::of(node),
            NODE_MIB_MAX,
            None,
        ),
        (
            "each further GPU".to_owned(),
            "KiB",
            Spread::of(gpu),
            GPU_KIB_MAX,
            None,
        ),
        (
            "each connection".to_owned(),
            "KiB",
            of(&ours, |clients| clients.connection_kib),
            CONNECTION_KIB_MAX,
            reference(of(&bare, |clients| clients.connection_kib)),
        ),
        (
            "each idle watch stream".to_owned(),
            "KiB",
            of(&ours, |clients| clients.stream_kib),
            STREAM_KIB_MAX,
            reference(of(&bare, |clients| clients.stream_kib)),
        ),
    ];
    for (case, unit, spread, goal, reference) in rows {
        let row = spread.map(|spread| Row::new(case, unit, spread).goal(Goal::AtMost(goal)));
        section.rows.extend(row.map(|row| row.with(reference)));
    }
    Ok(section)
}

fn resident(lane: &Lane) -> Result<f64> {
    resident_kib(lane.pid.context("no process of ours")?)
}

#[derive(Debug)]
struct Clients {
    connection_kib: f64,
    stream_kib: f64,
}

/// Connections that have made one call, then idle watches on the first few of them.
async fn clients(lane: &Lane, plan: &Plan) -> Result<Clients> {
    let dialect = lane.dialect;
    let before = resident(lane)?;
    let mut connections = Vec::new();
    for _ in 0..plan.connections {
        let mut client = lane.connect().await?;
        client
            .unary(&dialect.path(Method::Get), dialect.get(0))
            .await?;
        connections.push(client);
    }
    let with_connections = resident(lane)?;

    let mut streams = Vec::new();
    for client in &connections {
        let left = plan.streams - streams.len();
        for _ in 0..left.min(STREAMS_PER_CONNECTION) {
            let mut client = client.clone();
            let path = dialect.path(Method::Watch);
            let mut stream = client.stream(&path, dialect.watch()).await?;
            if lane.name == OURS {
                // The state that a watch begins with; from then on it is idle.
                for _ in 0..NODE_GPUS {
                    stream.message().await?.context("a watch ended")?;
                }
            }
            streams.push(stream);
        }
    }
    let with_streams = resident(lane)?;
    Ok(Clients {
        connection_kib: (with_connections - before) / connections.len() as f64,
        stream_kib: (with_streams - with_connections) / streams.len() as f64,
    })
}

/// From the start of the process to the word that it is ready, over one state directory, so that
/// compiled policies are found again.
///
/// # Errors
/// It does not become ready.
pub(crate) fn start(daemon: &Daemon, dirs: &Dirs, plan: &Plan) -> Result<Section> {
    let mut section = Section::new("start", "From start to ready, without NVML");
    let socket = dirs.sockets.join("start.sock");
    let state = dirs.states.join("start");
    let mut times_ms = Vec::new();
    for run in 0..=plan.starts {
        eprintln!("start {run}");
        let process = daemon.start(&socket, Store::Durable, &state)?;
        times_ms.push(process.ready_after.as_secs_f64() * 1e3);
    }
    let [first, rest @ ..] = times_ms.as_slice() else {
        return Ok(section);
    };
    let cold = Figures {
        lane: "first".to_owned(),
        values: vec![("ms", *first)],
    };
    let spread = Spread::of(rest.iter().copied());
    let row = spread.map(|spread| Row::new("policies cached", "ms", spread));
    section
        .rows
        .extend(row.map(|row| row.goal(Goal::AtMost(START_MS_MAX)).with([cold])));
    Ok(section)
}
