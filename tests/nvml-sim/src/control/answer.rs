//! What is answered.

use serde::{Deserialize, Serialize};

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
    /// Of the library's file; another than the driver's while an upgrade is under way.
    pub library_version: String,
    pub loaded: bool,
    /// Open `nvmlInit`s.
    pub users: u32,
    pub gpus: Vec<GpuStatus>,
    /// Misbehaving calls, in words.
    pub misbehaving: Vec<String>,
    pub event_sets: Vec<SetStatus>,
    /// The simulator's clock, in milliseconds.
    pub clock_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<ScenarioStatus>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuStatus {
    pub index: u32,
    pub uuid: String,
    pub serial: String,
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
    pub nvlinks_down: usize,
    pub mig_enabled: bool,
    pub mig: Vec<MigStatus>,
}

/// One MIG device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigStatus {
    pub uuid: String,
    pub profile: String,
    pub gpu_instance: u32,
    pub compute_instance: u32,
}

/// One event set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetStatus {
    pub queued: usize,
    pub dropped: u64,
}

/// The scenario that is played, or was last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioStatus {
    pub name: String,
    /// Steps that were carried out, of how many.
    pub done: usize,
    pub steps: usize,
    /// `playing`, `played`, `stopped`, or `failed: ` and why.
    pub state: String,
}
