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
    /// What it is made of and connected to.
    pub hardware: Hardware,
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
            hardware: Hardware::default(),
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

/// The rest of what NVML states of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Whether it is cut up into MIG instances; `None`: it can't be.
    pub mig_mode: Option<bool>,
    pub power: PowerLimits,
    pub pcie: PcieLimits,
    /// By link number; empty on a board without NVLink.
    pub nvlinks: Vec<NvLink>,
    /// The other GPUs of the node, in the order of their UUIDs.
    pub peers: Vec<Peer>,
    /// CPUs that are near, as a list (`0-31,64-95`).
    pub cpu_affinity: Option<String>,
    pub numa_node: Option<u32>,
    /// Absent on a board that is on no NVSwitch fabric.
    pub fabric: Option<Fabric>,
}

/// Power limits that can be set, in mW.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PowerLimits {
    pub min_mw: Option<u32>,
    pub max_mw: Option<u32>,
    pub default_mw: Option<u32>,
}

/// What board and slot can do together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcieLimits {
    pub generation_max: Option<u32>,
    pub width_max: Option<u32>,
}

/// One NVLink of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvLink {
    pub link: u32,
    /// As NVML numbers it.
    pub version: Option<u32>,
    /// `gpu`, `switch`, `cpu`; `None` where NVML does not know, or the link goes nowhere.
    pub remote: Option<String>,
    pub remote_pci: Option<PciAddress>,
}

/// How near another GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uuid: DeviceUuid,
    /// What the way between them goes through, in the words of `nvidia-smi topo -m`: `internal` (one board),
    /// `PIX`, `PXB`, `PHB`, `NODE`, `SYS`.
    pub path: String,
}

/// The NVSwitch fabric that a GPU is part of, once it has registered there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fabric {
    /// `not-started`, `in-progress`, `completed`.
    pub state: String,
    /// As a UUID; with `clique`, GPUs that agree in both reach each other's memory. Absent until completed.
    pub cluster_uuid: Option<String>,
    pub clique: Option<u32>,
}
