//! What simulation can't show: our NVML source beside nvidia-smi, on a machine with an NVIDIA GPU.
//! `cargo xtask hardware-check` builds and runs it.
//!
//! Exit: 0 all is as it should be; 1 something is not, or could not be checked; 3 there is no GPU here.

mod inventory;
mod mistake;
mod readings;
mod report;
mod smi;
mod source;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::mistake::Provoke;
use crate::report::{Line, Outcome, Report, Section};
use crate::smi::Smi;
use crate::source::{Snapshot, Source};

/// Compares what the daemon says of this machine's GPUs with nvidia-smi, field by field; holds every reading
/// against its plausible range; makes an application's mistake on one GPU and follows its XID to a consumer.
///
/// The mistake is a store to address 0 by a process of its own. It ends that process, and no other.
#[derive(Debug, Parser)]
#[command(name = "hardware-check", version)]
struct Args {
    /// This NVML library and no other.
    #[arg(long, value_name = "FILE")]
    nvml_library: Option<PathBuf>,
    /// What `-q -x` is asked of.
    #[arg(long, value_name = "FILE", default_value = "nvidia-smi")]
    nvidia_smi: PathBuf,
    /// Makes the mistake in place of our own program; gets the GPU's UUID as its last argument.
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_mistake")]
    provoke: Option<String>,
    /// Makes none.
    #[arg(long)]
    no_mistake: bool,
    /// Where the report goes; standard output, if it is not given.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// No GPU to check.
const NO_GPU: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    if !can_be_run(&args.nvidia_smi) {
        eprintln!(
            "hardware-check: {} can't be run: this needs a machine with an NVIDIA GPU and its driver",
            args.nvidia_smi.display()
        );
        return ExitCode::from(NO_GPU);
    }
    match run(&args) {
        Ok(report) => end(&report),
        Err(error) => {
            eprintln!("hardware-check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn can_be_run(program: &Path) -> bool {
    let listing = Command::new(program)
        .arg("-L")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    listing.is_ok()
}

fn end(report: &Report) -> ExitCode {
    for line in report.wrong() {
        eprintln!(
            "WRONG {}: {} (held against: {})",
            line.what, line.ours, line.held_against
        );
    }
    let (ok, wrong) = (report.count(Outcome::Ok), report.count(Outcome::Wrong));
    eprintln!(
        "hardware-check: {ok} ok, {wrong} wrong, {} not comparable",
        report.count(Outcome::Skipped)
    );
    ExitCode::from(u8::from(wrong > 0))
}

fn run(args: &Args) -> Result<Report> {
    let smi = Smi::ask(&args.nvidia_smi)?;
    let first = smi.gpus.first().context("nvidia-smi lists no GPU")?;
    let mistake = match (args.no_mistake, &args.provoke) {
        (true, _) => None,
        (false, Some(command)) => Some(Provoke::Command(command.clone())),
        (false, None) => Some(Provoke::Program),
    };
    let library = args.nvml_library.as_deref();
    let mistake = mistake.map(|provoke| mistake::check(library, first.uuid(), &provoke));
    let mistake = mistake.transpose()?;

    let source = Source::start(args.nvml_library.clone())?;
    // Every class of readings was read once; another round shows that they go on.
    source.polled(2)?;
    // Again, next to our own readings.
    let smi = Smi::ask(&args.nvidia_smi)?;
    let snapshot = source.snapshot();
    let mut sections = vec![inventory::compare(&snapshot, &smi)];
    sections.extend(readings::check(&snapshot, &smi));
    sections.extend(mistake);
    let product = first.told(&["product_name"]).unwrap_or_default();
    let subject = [
        ("when", jiff::Timestamp::now().strftime("%F").to_string()),
        ("GPUs", format!("{} × {product}", smi.gpus.len())),
        ("driver", source.driver.clone()),
        ("library", source.library.clone()),
    ];
    sections.push(of_the_source(source, &snapshot));
    let report = Report {
        subject: subject.map(|(name, value)| (name.to_owned(), value)).into(),
        sections,
    };
    write(args.report.as_deref(), &report.markdown())?;
    Ok(report)
}

/// How the source itself did: events registered, calls that failed, its end.
fn of_the_source(source: Source, before: &Snapshot) -> Section {
    let counts = source.snapshot().counts;
    let none = |what: &str, count: u64| Line::of(what, count.to_string(), "0", count == 0);
    let mut lines = vec![
        readings::served(before),
        none("waits for events that failed", counts.failed_waits),
        none(
            "calls that failed, other than for not being supported",
            counts.failed_calls,
        ),
        none("calls that hung", counts.hung_calls),
        none("events of no GPU that we know", counts.unattributed_events),
        none("resets and replacements told of", counts.recoveries),
        Line::of(
            "sessions",
            counts.sessions.to_string(),
            "1",
            counts.sessions == 1,
        ),
    ];
    let ended = source.stop();
    let word = if ended { "cleanly" } else { "a call hangs" };
    lines.push(Line::of("end", word, "cleanly", ended));
    Section {
        title: "The source".to_owned(),
        lines,
    }
}

fn write(file: Option<&Path>, text: &str) -> Result<()> {
    let Some(file) = file else {
        let mut out = std::io::stdout().lock();
        return out.write_all(text.as_bytes()).context("writing the report");
    };
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}
