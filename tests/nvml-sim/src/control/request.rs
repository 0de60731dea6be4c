//! What can be asked: one set of commands, for the socket, the command line and scenarios.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// One command. A `gpu` that may be left out means all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Subcommand)]
#[serde(
    tag = "command",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum Request {
    /// XIDs, `codes` in order and `count` times over, all in one go
    Xid {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        /// Such as 79, or 48 63 94
        #[arg(required = true)]
        codes: Vec<u64>,
        /// How many times over
        #[arg(long, default_value_t = 1)]
        #[serde(default = "once")]
        count: u32,
        /// The one source that tells of it
        #[arg(long)]
        #[serde(default)]
        only: Option<Only>,
    },
    /// XIDs of a MIG instance
    MigXid {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        /// Its id: see `nvml-sim status`
        #[arg(long)]
        gpu_instance: u32,
        /// Of that GPU instance; the whole of it if left out
        #[arg(long)]
        #[serde(default)]
        compute_instance: Option<u32>,
        /// Such as 79, or 48 63 94
        #[arg(required = true)]
        codes: Vec<u64>,
        /// The one source that tells of it
        #[arg(long)]
        #[serde(default)]
        only: Option<Only>,
    },
    /// Lines of the kernel log, as they are; `{pci}` and `{uuid}` stand for the GPU's
    Kmsg {
        /// Whose address and UUID the lines have
        #[arg(long)]
        #[serde(default)]
        gpu: Option<u32>,
        /// Without a time stamp
        #[arg(required = true)]
        lines: Vec<String>,
    },
    /// ECC errors: counts them and raises the single- or double-bit event
    Ecc {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        #[arg(long, default_value = "corrected")]
        kind: EccKind,
        #[arg(long, default_value = "dram")]
        #[serde(default)]
        location: EccLocation,
        #[arg(long, default_value_t = 1)]
        #[serde(default = "once")]
        count: u32,
    },
    /// Sets the row remapper's figures, all of them
    RowRemap {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        #[arg(long, default_value_t = 0)]
        #[serde(default)]
        correctable: u32,
        #[arg(long, default_value_t = 0)]
        #[serde(default)]
        uncorrectable: u32,
        /// Rows wait for a reset to be remapped
        #[arg(long)]
        #[serde(default)]
        pending: bool,
        /// A row could not be remapped
        #[arg(long)]
        #[serde(default)]
        failure: bool,
    },
    /// Sets figures by name, such as utilization.gpu=90,nvlink.3.up=0 (see `nvml-sim figures`)
    Set {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        /// NAME=NUMBER,…; a flag is 0 or 1
        readings: Readings,
    },
    /// Sets the temperature
    Temperature {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        celsius: u32,
    },
    /// Sets the clock event reasons besides "idle"; none ends it
    Throttle {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        /// Names such as hw-thermal-slowdown,sw-power-cap, or NVML's bits as a number
        #[arg(default_value = "")]
        reasons: Reasons,
    },
    /// The GPU falls off the bus: it stops answering
    Lost {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
    },
    /// The GPU answers again, all else as it was
    Found {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
    },
    /// Another board, with another UUID and serial, in the GPU's slot
    Replace {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
    },
    /// Sets the recovery action: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset
    RecoveryAction {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        value: u32,
        /// The one source that tells of it
        #[arg(long)]
        #[serde(default)]
        only: Option<Only>,
    },
    /// Sets MIG mode, at once or (A100) with the next gpu-reset
    MigMode {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        #[arg(action = clap::ArgAction::Set)]
        on: bool,
    },
    /// Cuts out MIG instances by their profiles, such as 1g.10gb
    MigCreate {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        /// See `nvml-sim profiles`
        #[arg(required = true)]
        profiles: Vec<String>,
    },
    /// Ends a GPU instance, or all
    MigDestroy {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
        /// Its id; all if left out
        #[arg(long)]
        #[serde(default)]
        gpu_instance: Option<u32>,
    },
    /// Calls take longer; 0 ms ends it
    Slow {
        /// Index of the GPU; all if left out
        #[arg(long)]
        #[serde(default)]
        gpu: Option<u32>,
        /// Symbol of the call, such as nvmlDeviceGetTemperature; every call if left out
        #[serde(default)]
        call: Option<String>,
        #[arg(long)]
        ms: u64,
    },
    /// Calls don't return until `unhang`
    Hang {
        /// Index of the GPU; all if left out
        #[arg(long)]
        #[serde(default)]
        gpu: Option<u32>,
        /// Symbol of the call; every call if left out
        #[serde(default)]
        call: Option<String>,
    },
    /// Calls that hang return
    Unhang {
        /// Index of the GPU; all if left out
        #[arg(long)]
        #[serde(default)]
        gpu: Option<u32>,
        /// Symbol of the call; every call if left out
        #[serde(default)]
        call: Option<String>,
    },
    /// Calls answer a wrong return code
    Fail {
        /// Index of the GPU; all if left out
        #[arg(long)]
        #[serde(default)]
        gpu: Option<u32>,
        /// Symbol of the call; every call if left out
        #[serde(default)]
        call: Option<String>,
        /// NVML return code: 1 is UNINITIALIZED, 15 GPU_IS_LOST, 18 LIB_RM_VERSION_MISMATCH, 999 UNKNOWN
        #[arg(long)]
        code: u32,
        /// How often; always if left out
        #[arg(long)]
        #[serde(default)]
        times: Option<u32>,
    },
    /// Calls answer the truth again
    Unfail {
        /// Index of the GPU; all if left out
        #[arg(long)]
        #[serde(default)]
        gpu: Option<u32>,
        /// Symbol of the call; every call if left out
        #[serde(default)]
        call: Option<String>,
    },
    /// Unbinds the driver: DRIVER_NOT_LOADED from nvmlInit, else UNINITIALIZED
    Unload,
    /// Binds the driver: volatile counters start at 0, clients have to call nvmlInit again
    Load,
    /// Installs another version of the kernel driver (while unloaded) or of the library's file
    Driver {
        /// Of the kernel driver, such as 580.95.05
        #[arg(long)]
        #[serde(default)]
        version: Option<String>,
        /// Of the library's file: loaded by whoever calls nvmlInit first from then on
        #[arg(long)]
        #[serde(default)]
        library: Option<String>,
    },
    /// Resets the GPU as nvidia-smi does: what the board remembers stays
    GpuReset {
        /// Index of the GPU
        #[arg(long)]
        gpu: u32,
    },
    /// Makes a GPU, or all, as new: counters, rows and misbehaving calls included
    Reset {
        /// Index of the GPU; all if left out
        #[arg(long)]
        #[serde(default)]
        gpu: Option<u32>,
    },
    /// Plays a scenario: see [`crate::scenario`]
    #[command(skip)]
    Play {
        scenario: Box<Scenario>,
        /// Of the clock; 0: it stands still but for `advance`.
        speed: f64,
        /// Whether the answer waits for the end.
        #[serde(default)]
        wait: bool,
    },
    /// Moves the clock, and answers when all that came due is done
    Advance { ms: u64 },
    /// Ends the scenario that is played
    Stop,
    /// Shows the node
    Status,
}

fn once() -> u32 {
    1
}

/// The one source that tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Only {
    Nvml,
    Kmsg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EccKind {
    Corrected,
    /// Double-bit
    Uncorrected,
}

/// The memories whose errors these GPUs count apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EccLocation {
    #[default]
    Dram,
    Sram,
}

/// Clock event reasons: NVML's bits, or names such as `hw-thermal-slowdown`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reasons {
    Mask(u64),
    Names(Vec<String>),
}

impl FromStr for Reasons {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mask = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let names = text.split(',').filter(|name| !name.is_empty());
        let named = || Self::Names(names.map(str::to_owned).collect());
        Ok(mask.map_or_else(|_| named(), Self::Mask))
    }
}

/// Figures by name; a flag is 0 or 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readings(pub BTreeMap<String, u64>);

impl FromStr for Readings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let reading = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let readings = text
            .split(',')
            .map(|pair| reading(pair).ok_or_else(|| format!("{pair} is not NAME=NUMBER")));
        Ok(Self(readings.collect::<Result<_, _>>()?))
    }
}
