//! What a line of the kernel log says of a GPU, once it is read.

use device_api_core::ids::{DeviceUuid, PciAddress};

/// What a line of the driver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Xid(Xid),
    /// The first line of an NVSwitch error: the one that raises.
    Sxid(Sxid),
    /// A further line of the NVSwitch error before (`Severity …`, `Data {…}`).
    SxidDetail,
    /// A GPU fell off the bus, told without an XID.
    Lost(Lost),
    /// The first line of three that may tell of a lost GPU; [`Parsed::LostEnd`] decides.
    LostBegin(Lost),
    /// The third line: whichever GPU was named before is lost.
    LostEnd {
        evidence: String,
    },
    /// Which GPU sits at an address.
    Identity(Identity),
    /// Speaks of an XID or SXid in words that this grammar does not have. Worth a look.
    Unparsed,
    /// Another message of the driver.
    Other,
}

/// An XID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xid {
    pub pci: PciAddress,
    pub code: u64,
    /// MIG instance it is attributed to: `GPU-I:05`, or `GPU-I:05 GPU-CI:00`.
    pub instance: Option<String>,
    pub pid: Option<u32>,
    pub process: Option<String>,
    pub caused_by: Option<u64>,
    /// Of XID 154.
    pub recovery: Option<Recovery>,
    /// Of XIDs 144 to 150.
    pub nvlink: Option<NvLink>,
    /// Injected: its own mark says so, or a process wrote it (design N8).
    pub injected: bool,
    /// The line from `NVRM:` on.
    pub evidence: String,
}

/// What XID 154 says: the driver's recovery action (an open set, as in NVML field 230).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    pub previous: u32,
    pub action: u32,
}

/// What XIDs 144 to 150 say: `UNIT Fatal|Nonfatal XCn in Link N (intr-info error-status …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvLink {
    pub unit: String,
    pub fatal: bool,
    /// -1: none in particular.
    pub link: i64,
    pub intr_info: Option<u32>,
    pub error_status: Option<u32>,
}

/// An NVSwitch error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sxid {
    /// Of the switch, which is no GPU.
    pub pci: PciAddress,
    pub code: u64,
    /// As in `nvidia-nvswitch3`.
    pub switch: String,
    pub fatal: bool,
    pub link: Option<i64>,
    pub injected: bool,
    pub evidence: String,
}

/// A GPU that does not answer any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub pci: PciAddress,
    pub injected: bool,
    pub evidence: String,
}

/// Which GPU sits at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pci: PciAddress,
    pub uuid: DeviceUuid,
}
