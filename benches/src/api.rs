//! `api`: everything that a client can measure from outside, in one interleaved run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use bench_kit::{Report, Section};

use crate::dialect::Dialect;
use crate::lane::{Contest, Dirs, Lane};
use crate::plan::{NODE_GPUS, Plan};
use crate::process::{Daemon, Store};
use crate::{beside, faults, footprint, reads, watches, writes};

/// Measures the API of a daemon that it starts itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The daemon's executable.
    #[arg(long, value_name = "PATH")]
    daemon: PathBuf,

    /// Folder on a disk for the daemons' state; what was measured there is left there.
    #[arg(long, value_name = "PATH")]
    dir: PathBuf,

    /// Another server that speaks the upstream dialect, measured in the same run. It is given GPUs,
    /// which are deleted at the end.
    #[arg(long, value_name = "unix:PATH", value_parser = parse_peer)]
    peer: Option<PathBuf>,

    /// Tiny rounds: whether it runs, not what the numbers are.
    #[arg(long)]
    quick: bool,

    /// Sections to measure; all by default.
    #[arg(long, value_name = "SECTION", value_enum, value_delimiter = ',')]
    only: Vec<Part>,

    /// Write the numbers here too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// GetGpu and ListGpus against a bare server.
    Reads,
    /// From a write to the slowest watcher.
    Watches,
    /// Reads beside a writer.
    Beside,
    /// Durable and memory store.
    Writes,
    /// From a fault in NVML to a watcher.
    Faults,
    /// Resident memory.
    Memory,
    /// From start to ready.
    Start,
}

fn parse_peer(text: &str) -> Result<PathBuf, String> {
    // Both are in use among gRPC's clients.
    let path = text
        .strip_prefix("unix://")
        .or_else(|| text.strip_prefix("unix:"));
    match path {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err("expected unix:PATH, a Unix socket".to_owned()),
    }
}

/// # Errors
/// A server does not start or fails a call. A goal that is missed is no error.
pub(crate) async fn run(args: &Args) -> Result<()> {
    open_files()?;
    let plan = if args.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    let daemon = Daemon {
        executable: args.daemon.clone(),
    };
    let sockets = tempfile::Builder::new()
        .prefix("dapi-bench")
        .tempdir()
        .context("cannot make a folder for sockets")?;
    let states = fresh(&args.dir)?;
    let dirs = Dirs {
        sockets: sockets.path().to_owned(),
        states,
    };
    let mut sections = Vec::new();
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    if wanted(Part::Reads) {
        let mut contest = Contest::native(&daemon, &dirs, "reads")?;
        sections.push(reads::measure(&mut contest, &plan).await?);
    }
    if wanted(Part::Watches) {
        sections.push(watches_native(&daemon, &dirs, &plan).await?);
    }
    if let Some(peer) = &args.peer {
        let mut contest = Contest::with_peer(&daemon, &dirs, peer)?;
        let measured = against_peer(&mut contest, &plan, &wanted).await;
        // Also when something failed: the peer is not ours.
        for subject in &mut contest.subjects {
            subject.empty().await?;
        }
        sections.extend(measured?);
    }
    if wanted(Part::Beside) || wanted(Part::Writes) {
        sections.extend(stores(&daemon, &dirs, &plan, &wanted).await?);
    }
    if wanted(Part::Faults) {
        let library = nvml_sim::find_library()?;
        sections.push(faults::measure(&daemon, &library, &dirs, &plan).await?);
    }
    if wanted(Part::Memory) {
        sections.push(footprint::memory(&daemon, &dirs, &plan).await?);
    }
    if wanted(Part::Start) {
        sections.push(footprint::start(&daemon, &dirs, &plan)?);
    }
    publish(args, &plan, sections)
}

async fn watches_native(daemon: &Daemon, dirs: &Dirs, plan: &Plan) -> Result<Section> {
    let mut contest = Contest::native(daemon, dirs, "watches")?;
    contest.fill(NODE_GPUS).await?;
    let (dialect, store) = (Dialect::Native, Store::Durable);
    let mut durable = Lane::ours("durable", dialect, daemon, store, dirs, "watched")?;
    durable.fill(NODE_GPUS).await?;
    let lanes: Vec<&Lane> = contest.lanes().chain([&durable]).collect();
    watches::measure(&lanes, plan, "watches").await
}

async fn against_peer(
    contest: &mut Contest,
    plan: &Plan,
    wanted: &impl Fn(Part) -> bool,
) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    if wanted(Part::Watches) {
        contest.fill(NODE_GPUS).await?;
        let lanes: Vec<&Lane> = contest.lanes().collect();
        sections.push(watches::measure(&lanes, plan, "watches-upstream").await?);
    }
    if wanted(Part::Reads) {
        sections.push(reads::measure(contest, plan).await?);
    }
    Ok(sections)
}

async fn stores(
    daemon: &Daemon,
    dirs: &Dirs,
    plan: &Plan,
    wanted: &impl Fn(Part) -> bool,
) -> Result<Vec<Section>> {
    let dialect = Dialect::Native;
    let mut sections = Vec::new();
    let mut memory = Lane::ours("memory", dialect, daemon, Store::Memory, dirs, "memory")?;
    memory.fill(NODE_GPUS).await?;
    let mut durable = Lane::ours("durable", dialect, daemon, Store::Durable, dirs, "durable")?;
    durable.fill(NODE_GPUS).await?;
    if wanted(Part::Beside) {
        sections.push(beside::measure(&[&memory, &durable], plan).await?);
    }
    if wanted(Part::Writes) {
        let gpus = plan.writers.last().copied().unwrap_or(NODE_GPUS);
        memory.fill(gpus).await?;
        durable.fill(gpus).await?;
        sections.push(writes::measure(&durable, &memory, plan, &dirs.states).await?);
    }
    Ok(sections)
}

fn publish(args: &Args, plan: &Plan, sections: Vec<Section>) -> Result<()> {
    let rounds = format!(
        "{} a case, of {:?} each ({} writes where watches are measured), in turn",
        plan.rounds, plan.round, plan.watched_writes
    );
    Report::new(rounds, args.quick, sections).publish(args.json.as_deref())
}

/// An empty folder of ours within `dir`.
fn fresh(dir: &Path) -> Result<PathBuf> {
    let states = dir.join("bench-state");
    match fs::remove_dir_all(&states) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            bail!("cannot empty {}: {error}", states.display())
        }
        _ => {}
    }
    fs::create_dir_all(&states).with_context(|| format!("cannot create {}", states.display()))?;
    Ok(states)
}

/// Thousands of watchers are thousands of sockets, here and in the servers, which inherit this.
fn open_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, most).context("cannot raise the number of open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_unix_socket() {
        let path = |text| parse_peer(text).map(|path| path.display().to_string());
        assert_eq!(path("unix:/run/a.sock").as_deref(), Ok("/run/a.sock"));
        assert_eq!(path("unix:///run/a.sock").as_deref(), Ok("/run/a.sock"));
        assert!(path("/run/a.sock").is_err());
        assert!(path("unix:").is_err());
    }
}
