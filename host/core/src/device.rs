//! What a device is: facts that NVML (or a provider) states about it.

use std::collections::BTreeMap;

use crate::ids::{DeviceUuid, PciAddress};

/// Inventory of one GPU. What the device does not tell is absent (`None`, empty), never zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub uuid: DeviceUuid,
    pub pci: Option<PciAddress>,
    /// NVML's index: not stable over a reboot or a reset.
    pub index: Option<u32>,
    /// Minor number: `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// Product name, as in `NVIDIA H100 80GB HBM3`.
    pub product: String,
    /// `Ampere`, `Hopper`, `Blackwell`, …
    pub architecture: String,
    pub serial: String,
    /// Frame buffer in bytes.
    pub memory_bytes: Option<u64>,
    /// Driver version, as in `580.82.07`.
    pub driver_version: String,
    /// Newest CUDA version that the driver supports, as in `13.0`.
    pub cuda_version: String,
    pub mig: Vec<MigInstance>,
    /// Simulated: whatever it reports is a drill (design N8).
    pub simulated: bool,
    pub labels: BTreeMap<String, String>,
}

impl DeviceInfo {
    /// A device of which nothing but its UUID is known.
    pub fn bare(uuid: DeviceUuid) -> Self {
        Self {
            uuid,
            pci: None,
            index: None,
            minor: None,
            product: String::new(),
            architecture: String::new(),
            serial: String::new(),
            memory_bytes: None,
            driver_version: String::new(),
            cuda_version: String::new(),
            mig: Vec::new(),
            simulated: false,
            labels: BTreeMap::new(),
        }
    }
}

/// One MIG instance of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigInstance {
    pub uuid: DeviceUuid,
    pub gpu_instance: u32,
    pub compute_instance: Option<u32>,
    /// As in `1g.10gb`.
    pub profile: String,
}
