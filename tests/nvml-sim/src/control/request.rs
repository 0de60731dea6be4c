//! What is asked and what is answered.

use serde::{Deserialize, Serialize};

/// One command. A `gpu` that may be left out means all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// XIDs, `codes` in order and `count` times over, all in one go.
    Xid {
        gpu: u32,
        codes: Vec<u64>,
        #[serde(default = "once")]
        count: u32,
        #[serde(default)]
        only: Option<Only>,
    },
    /// ECC errors: counts them and raises the single- or double-bit event.
    Ecc {
        gpu: u32,
        kind: EccKind,
        #[serde(default)]
        location: EccLocation,
        #[serde(default = "once")]
        count: u32,
    },
    /// Sets the row remapper's figures.
    RowRemap {
        gpu: u32,
        #[serde(default)]
        correctable: u32,
        #[serde(default)]
        uncorrectable: u32,
        #[serde(default)]
        pending: bool,
        #[serde(default)]
        failure: bool,
    },
    Temperature {
        gpu: u32,
        celsius: u32,
    },
    /// Sets the clock event reasons besides "idle"; none of them ends it.
    Throttle {
        gpu: u32,
        reasons: Reasons,
    },
    /// The GPU stops answering.
    Lost {
        gpu: u32,
    },
    /// The GPU answers again, all else as it was.
    Found {
        gpu: u32,
    },
    /// Field 230, its event, and XID 154 in the kernel log.
    RecoveryAction {
        gpu: u32,
        value: u32,
        #[serde(default)]
        only: Option<Only>,
    },
    /// Calls take longer; 0 ms ends it.
    Slow {
        #[serde(default)]
        gpu: Option<u32>,
        #[serde(default)]
        call: Option<String>,
        ms: u64,
    },
    /// Calls don't return until `unhang`.
    Hang {
        #[serde(default)]
        gpu: Option<u32>,
        #[serde(default)]
        call: Option<String>,
    },
    /// Ends every hang that is within what is named.
    Unhang {
        #[serde(default)]
        gpu: Option<u32>,
        #[serde(default)]
        call: Option<String>,
    },
    /// Calls answer this NVML return code.
    Fail {
        #[serde(default)]
        gpu: Option<u32>,
        #[serde(default)]
        call: Option<String>,
        code: u32,
    },
    /// Ends every failure that is within what is named.
    Unfail {
        #[serde(default)]
        gpu: Option<u32>,
        #[serde(default)]
        call: Option<String>,
    },
    /// The driver is unbound: `DRIVER_NOT_LOADED` from `nvmlInit`, else `UNINITIALIZED`.
    Unload,
    /// The driver is back; clients have to call `nvmlInit` again.
    Load,
    /// As new: counters, rows and misbehaving calls included. The driver stays as it is.
    Reset {
        #[serde(default)]
        gpu: Option<u32>,
    },
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EccKind {
    Corrected,
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

/// What came of a command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub ok: bool,
    /// What was done, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub done: String,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether all NVML events were handed over; absent where there were none to raise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<bool>,
    /// Wall clock, nanoseconds since 1970, when `nvmlEventSetWait` returned with the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_unix_ns: Option<u64>,
    /// How many were handed over; the others wait, if a set listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_delivered: Option<usize>,
    /// Lines that went to the kernel log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kmsg_lines: Option<usize>,
    /// Why lines did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kmsg_error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// The whole node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub identity: String,
    pub profile: String,
    pub driver_version: String,
    pub loaded: bool,
    /// Open `nvmlInit`s.
    pub users: u32,
    pub gpus: Vec<GpuStatus>,
    /// Misbehaving calls, in words.
    pub misbehaving: Vec<String>,
    pub event_sets: Vec<SetStatus>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuStatus {
    pub index: u32,
    pub uuid: String,
    pub pci: String,
    pub name: String,
    pub lost: bool,
    pub temperature_c: u32,
    pub recovery_action: u32,
    pub throttle: u64,
    /// Volatile, all memories.
    pub ecc_corrected: u64,
    pub ecc_uncorrected: u64,
    pub remapped_correctable: u32,
    pub remapped_uncorrectable: u32,
    pub remap_pending: bool,
    pub remap_failure: bool,
}

/// One event set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetStatus {
    pub queued: usize,
    pub dropped: u64,
}
