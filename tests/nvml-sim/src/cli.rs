//! The command line: one subcommand a request.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use nvml_sim::control::{Answer, Client, EccKind, EccLocation, Only, Reasons, Request};

/// Breaks the GPUs of a running simulated NVML, and heals them.
#[derive(Debug, Parser)]
#[command(name = "nvml-sim", version)]
struct Args {
    /// Control socket of the daemon that has libnvml_sim.so loaded
    #[arg(long, env = "NVML_SIM_SOCKET", value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Which calls misbehave.
#[derive(Debug, clap::Args)]
struct Calls {
    /// Symbol of the call, such as nvmlDeviceGetTemperature; every call if left out
    call: Option<String>,
    /// Index of the GPU; all if left out
    #[arg(long)]
    gpu: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// XIDs, all within the same millisecond
    Xid {
        #[arg(long)]
        gpu: u32,
        #[arg(required = true)]
        codes: Vec<u64>,
        /// How many times over
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// The one source that tells of it
        #[arg(long)]
        only: Option<Only>,
    },
    /// ECC errors and their event
    Ecc {
        #[arg(long)]
        gpu: u32,
        /// Double-bit errors instead of corrected ones
        #[arg(long)]
        uncorrected: bool,
        #[arg(long, default_value = "dram")]
        location: EccLocation,
        #[arg(long, default_value_t = 1)]
        count: u32,
    },
    /// Sets the row remapper's figures
    RowRemap {
        #[arg(long)]
        gpu: u32,
        #[arg(long, default_value_t = 0)]
        correctable: u32,
        #[arg(long, default_value_t = 0)]
        uncorrectable: u32,
        /// Rows wait for a reset to be remapped
        #[arg(long)]
        pending: bool,
        /// A row could not be remapped
        #[arg(long)]
        failure: bool,
    },
    /// Sets the temperature
    Temperature {
        #[arg(long)]
        gpu: u32,
        celsius: u32,
    },
    /// Sets the clock event reasons; none ends it
    Throttle {
        #[arg(long)]
        gpu: u32,
        /// Names such as hw-thermal-slowdown, sw-power-cap
        reasons: Vec<String>,
    },
    /// The GPU falls off the bus
    Lost {
        #[arg(long)]
        gpu: u32,
    },
    /// The GPU answers again
    Found {
        #[arg(long)]
        gpu: u32,
    },
    /// Sets the recovery action: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset
    RecoveryAction {
        #[arg(long)]
        gpu: u32,
        value: u32,
        /// The one source that tells of it
        #[arg(long)]
        only: Option<Only>,
    },
    /// Calls take longer; 0 ms ends it
    Slow {
        #[command(flatten)]
        calls: Calls,
        #[arg(long)]
        ms: u64,
    },
    /// Calls don't return
    Hang(Calls),
    /// Calls that hang return
    Unhang(Calls),
    /// Calls answer a wrong return code
    Fail {
        #[command(flatten)]
        calls: Calls,
        /// NVML return code: 15 is GPU_IS_LOST, 999 UNKNOWN
        #[arg(long)]
        code: u32,
    },
    /// Calls answer the truth again
    Unfail(Calls),
    /// Unbinds the driver
    Unload,
    /// Binds the driver
    Load,
    /// Makes a GPU, or all, as new
    Reset {
        #[arg(long)]
        gpu: Option<u32>,
    },
    /// Shows the node
    Status,
}

impl From<Command> for Request {
    fn from(command: Command) -> Self {
        match command {
            Command::Xid {
                gpu,
                codes,
                count,
                only,
            } => Self::Xid {
                gpu,
                codes,
                count,
                only,
            },
            Command::Ecc {
                gpu,
                uncorrected,
                location,
                count,
            } => Self::Ecc {
                gpu,
                kind: if uncorrected {
                    EccKind::Uncorrected
                } else {
                    EccKind::Corrected
                },
                location,
                count,
            },
            Command::RowRemap {
                gpu,
                correctable,
                uncorrectable,
                pending,
                failure,
            } => Self::RowRemap {
                gpu,
                correctable,
                uncorrectable,
                pending,
                failure,
            },
            Command::Temperature { gpu, celsius } => Self::Temperature { gpu, celsius },
            Command::Throttle { gpu, reasons } => Self::Throttle {
                gpu,
                reasons: Reasons::Names(reasons),
            },
            Command::Lost { gpu } => Self::Lost { gpu },
            Command::Found { gpu } => Self::Found { gpu },
            Command::RecoveryAction { gpu, value, only } => {
                Self::RecoveryAction { gpu, value, only }
            }
            Command::Slow {
                calls: Calls { gpu, call },
                ms,
            } => Self::Slow { gpu, call, ms },
            Command::Hang(Calls { gpu, call }) => Self::Hang { gpu, call },
            Command::Unhang(Calls { gpu, call }) => Self::Unhang { gpu, call },
            Command::Fail {
                calls: Calls { gpu, call },
                code,
            } => Self::Fail { gpu, call, code },
            Command::Unfail(Calls { gpu, call }) => Self::Unfail { gpu, call },
            Command::Unload => Self::Unload,
            Command::Load => Self::Load,
            Command::Reset { gpu } => Self::Reset { gpu },
            Command::Status => Self::Status,
        }
    }
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
    let socket = args.socket.context(
        "no socket: start a daemon with NVML_SIM_SOCKET set, and set it here too or give --socket",
    )?;
    let answer = Client::connect(socket)?.request(&args.command.into())?;
    let text = if args.json {
        serde_json::to_string(&answer)?
    } else if let Some(status) = &answer.status {
        serde_json::to_string_pretty(status)?
    } else {
        in_words(&answer)
    };
    writeln!(std::io::stdout(), "{text}").context("can't print the answer")
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
