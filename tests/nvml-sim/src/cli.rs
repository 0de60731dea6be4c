//! The command line: the commands of a running simulation, and what needs none.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use nvml_sim::control::{Answer, Client, Request};
use nvml_sim::profile::Profile;
use nvml_sim::{figures, find_library, old_driver, scenario};

/// Breaks the GPUs of a running simulated NVML, and heals them.
///
/// A simulation runs in the process that has libnvml_sim.so loaded; NVML_SIM_SOCKET, set for both,
/// is how this finds it. Exits with 0 if it was done, 1 if not, 2 if it was not understood.
#[derive(Debug, Parser)]
#[command(name = "nvml-sim", version)]
struct Args {
    /// Control socket of the process that has libnvml_sim.so loaded
    #[arg(long, env = "NVML_SIM_SOCKET", value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays a scenario file, and returns at its end
    Play {
        file: PathBuf,
        /// How much faster than its times; 0 leaves the clock to `advance`
        #[arg(long, default_value_t = 1.0, env = "NVML_SIM_SPEED")]
        speed: f64,
        /// Return when it has begun
        #[arg(long)]
        detach: bool,
    },
    /// Rehearses a scenario file, without a simulation
    Check { file: PathBuf },
    /// Copies libnvml_sim.so without the calls that an older driver lacks
    OldLibrary {
        /// Where the copy goes
        copy: PathBuf,
        /// Branch of the driver, such as 535
        #[arg(long, required_unless_present = "without")]
        driver: Option<u32>,
        /// Symbol of a call that is taken out
        #[arg(long, value_name = "CALL")]
        without: Vec<String>,
        /// The library, if not the one that was built with this command
        #[arg(long)]
        library: Option<PathBuf>,
    },
    /// Lists the profiles
    Profiles,
    /// Lists the figures that `set` takes
    Figures,
    #[command(flatten)]
    Request(Request),
}

/// 0 done, 1 not done, 2 not understood.
pub(crate) fn run() -> ExitCode {
    match command(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told if stderr is closed.
            let _ = writeln!(std::io::stderr(), "nvml-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(args: Args) -> anyhow::Result<()> {
    let request = match args.command {
        Command::Request(request) => request,
        Command::Play {
            file,
            speed,
            detach,
        } => {
            let scenario = Box::new(scenario::read(&file)?);
            let wait = !detach;
            Request::Play {
                scenario,
                speed,
                wait,
            }
        }
        Command::Check { file } => {
            let scenario = scenario::read(&file)?;
            let steps = scenario.steps.len();
            return say(&format!("{}: {steps} steps", scenario.name));
        }
        Command::OldLibrary {
            copy,
            driver,
            without,
            library,
        } => {
            let library = library.map_or_else(find_library, Ok)?;
            let mut calls = without;
            let later = driver.map(old_driver::missing_before).unwrap_or_default();
            calls.extend(later.into_iter().map(str::to_owned));
            old_driver::copy_without(&library, &calls, &copy)?;
            return say(&format!("{}: without {}", copy.display(), calls.join(", ")));
        }
        Command::Profiles => return profiles(),
        Command::Figures => return say(&figures::names().join("\n")),
    };
    let socket = args.socket.context(
        "no socket: start a daemon with NVML_SIM_SOCKET set, and set it here too or give --socket",
    )?;
    let answer = Client::connect(socket)?.request(&request)?;
    let text = if args.json {
        serde_json::to_string(&answer)?
    } else if let Some(status) = &answer.status {
        serde_json::to_string_pretty(status)?
    } else {
        in_words(&answer)
    };
    say(&text)
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("can't print the answer")
}

fn profiles() -> anyhow::Result<()> {
    let line = |profile: &Profile| {
        let cuts = profile.mig.iter().flat_map(|mig| &mig.profiles);
        let cuts: Vec<_> = cuts.map(|cut| cut.name.as_str()).collect();
        let (key, name, memory) = (&profile.key, &profile.name, profile.memory_mib);
        let links = profile.nvlink.as_ref().map_or(0, |nvlink| nvlink.links);
        let mig = if cuts.is_empty() {
            "none".to_owned()
        } else {
            cuts.join(" ")
        };
        format!("{key:<6} {name}, {memory} MiB, {links} NVLinks, MIG: {mig}")
    };
    let lines: Vec<_> = Profile::all().iter().map(line).collect();
    say(&lines.join("\n"))
}

fn in_words(answer: &Answer) -> String {
    let mut text = answer.done.clone();
    match answer.delivered {
        Some(true) => text.push_str("; NVML delivered it"),
        Some(false) => text.push_str("; nobody took it from NVML within a second"),
        None => {}
    }
    if let Some(lines) = answer.kmsg_lines {
        text.push_str(&format!("; {lines} kernel log lines"));
    }
    if let Some(error) = &answer.kmsg_error {
        text.push_str(&format!("; {error}"));
    }
    text
}
