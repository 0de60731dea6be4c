//! The command line of the benchmark.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use bench_kit::Report;
use clap::{Parser, ValueEnum as _};
use policy_bench::{Part, Plan};

/// Measures policies and the pipeline from inside.
#[derive(Debug, Parser)]
#[command(name = "device-api-policy-bench", version)]
struct Cli {
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

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("device-api-policy-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let plan = if cli.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    let parts = Part::value_variants().iter();
    let wanted = parts.filter(|part| cli.only.is_empty() || cli.only.contains(part));
    let sections = wanted.map(|part| part.measure(&plan, cli.quick));
    let sections = sections.collect::<Result<Vec<_>>>()?;
    let rounds = format!(
        "{} a case, of {} signals ({} where the pipeline is measured; {} storms; {} swaps), in turn",
        plan.rounds, plan.signals, plan.observations, plan.storms, plan.swaps
    );
    Report::new(rounds, cli.quick, sections).publish(cli.json.as_deref())
}
