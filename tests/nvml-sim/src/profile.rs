//! The GPUs that can be simulated, and who is who on a simulated node.
//!
//! Figures are public ones: data sheets, the PCI id database, what `nvidia-smi -q` prints on such
//! boards. GB200's temperature thresholds and VBIOS are of its class, not read off a board.

use std::fmt;

use nvml_wrapper_sys::bindings::{
    NVML_DEVICE_ARCH_AMPERE, NVML_DEVICE_ARCH_BLACKWELL, NVML_DEVICE_ARCH_HOPPER,
};

/// What a node has unless told otherwise.
pub const GPUS_DEFAULT: u32 = 8;
/// The largest single-image NVLink machines have fewer; it keeps PCI domains apart.
pub const GPUS_MAX: u32 = 64;
/// GPUs of one board tray; the next tray is in another PCI domain.
const SLOTS: usize = 8;

pub const DRIVER_VERSION: &str = "580.82.07";
pub const NVML_VERSION: &str = "13.580.82.07";
/// CUDA 13.0: major × 1000 + minor × 10.
pub const CUDA_DRIVER_VERSION: i32 = 13_000;

/// One kind of GPU. Temperatures in °C, power in watts, clocks in MHz, memory in MiB.
#[derive(Debug)]
pub struct Profile {
    /// The value of `NVML_SIM_PROFILE`.
    pub key: &'static str,
    pub name: &'static str,
    pub architecture: u32,
    pub compute_capability: (i32, i32),
    pub cores: u32,
    pub part_number: &'static str,
    pub vbios: &'static str,
    pub memory_mib: u64,
    pub memory_reserved_mib: u64,
    /// Device id in the upper half, vendor id in the lower, as NVML has it.
    pub pci_device_id: u32,
    pub pci_subsystem_id: u32,
    /// PCI (domain, bus) of the first eight.
    pub slots: [(u32, u8); SLOTS],
    /// How far the PCI domain of the next eight is away.
    pub domain_stride: u32,
    pub pcie_generation: u32,
    pub shutdown_c: u32,
    pub slowdown_c: u32,
    pub gpu_max_c: u32,
    pub memory_max_c: u32,
    pub power_idle_w: u32,
    pub power_min_w: u32,
    pub power_limit_w: u32,
    pub sm_idle_mhz: u32,
    pub sm_max_mhz: u32,
    pub memory_mhz: u32,
}

const DGX_A100: [(u32, u8); SLOTS] = [
    (0, 0x07),
    (0, 0x0f),
    (0, 0x47),
    (0, 0x4e),
    (0, 0x87),
    (0, 0x90),
    (0, 0xb7),
    (0, 0xbd),
];
const DGX_H100: [(u32, u8); SLOTS] = [
    (0, 0x1b),
    (0, 0x43),
    (0, 0x52),
    (0, 0x61),
    (0, 0x9d),
    (0, 0xc3),
    (0, 0xd1),
    (0, 0xdf),
];
/// Grace gives each GPU a PCI domain of its own.
const GRACE_TRAY: [(u32, u8); SLOTS] = [
    (0x08, 0x01),
    (0x09, 0x01),
    (0x18, 0x01),
    (0x19, 0x01),
    (0x28, 0x01),
    (0x29, 0x01),
    (0x38, 0x01),
    (0x39, 0x01),
];

/// Every profile there is.
pub static PROFILES: [Profile; 4] = [
    Profile {
        key: "a100",
        name: "NVIDIA A100-SXM4-80GB",
        architecture: NVML_DEVICE_ARCH_AMPERE,
        compute_capability: (8, 0),
        cores: 6912,
        part_number: "692-2G506-0212-002",
        vbios: "92.00.45.00.03",
        memory_mib: 81_920,
        memory_reserved_mib: 634,
        pci_device_id: 0x20b2_10de,
        pci_subsystem_id: 0x1463_10de,
        slots: DGX_A100,
        domain_stride: 1,
        pcie_generation: 4,
        shutdown_c: 92,
        slowdown_c: 89,
        gpu_max_c: 85,
        memory_max_c: 95,
        power_idle_w: 60,
        power_min_w: 100,
        power_limit_w: 400,
        sm_idle_mhz: 210,
        sm_max_mhz: 1410,
        memory_mhz: 1593,
    },
    Profile {
        key: "h100",
        name: "NVIDIA H100 80GB HBM3",
        architecture: NVML_DEVICE_ARCH_HOPPER,
        compute_capability: (9, 0),
        cores: 16_896,
        part_number: "692-2G520-0200-000",
        vbios: "96.00.74.00.01",
        memory_mib: 81_559,
        memory_reserved_mib: 551,
        pci_device_id: 0x2330_10de,
        pci_subsystem_id: 0x16c1_10de,
        slots: DGX_H100,
        domain_stride: 1,
        pcie_generation: 5,
        shutdown_c: 92,
        slowdown_c: 89,
        gpu_max_c: 87,
        memory_max_c: 95,
        power_idle_w: 68,
        power_min_w: 200,
        power_limit_w: 700,
        sm_idle_mhz: 345,
        sm_max_mhz: 1980,
        memory_mhz: 2619,
    },
    Profile {
        key: "h200",
        name: "NVIDIA H200",
        architecture: NVML_DEVICE_ARCH_HOPPER,
        compute_capability: (9, 0),
        cores: 16_896,
        part_number: "692-2G520-0280-001",
        vbios: "96.00.BC.00.01",
        memory_mib: 143_771,
        memory_reserved_mib: 601,
        pci_device_id: 0x2335_10de,
        pci_subsystem_id: 0x18be_10de,
        slots: DGX_H100,
        domain_stride: 1,
        pcie_generation: 5,
        shutdown_c: 92,
        slowdown_c: 89,
        gpu_max_c: 87,
        memory_max_c: 95,
        power_idle_w: 74,
        power_min_w: 200,
        power_limit_w: 700,
        sm_idle_mhz: 345,
        sm_max_mhz: 1980,
        memory_mhz: 3201,
    },
    Profile {
        key: "gb200",
        name: "NVIDIA GB200",
        architecture: NVML_DEVICE_ARCH_BLACKWELL,
        compute_capability: (10, 0),
        cores: 18_944,
        part_number: "699-2G548-1201-800",
        vbios: "97.00.82.00.01",
        memory_mib: 189_471,
        memory_reserved_mib: 730,
        pci_device_id: 0x2941_10de,
        pci_subsystem_id: 0x2046_10de,
        slots: GRACE_TRAY,
        domain_stride: 0x40,
        pcie_generation: 5,
        shutdown_c: 92,
        slowdown_c: 89,
        gpu_max_c: 87,
        memory_max_c: 95,
        power_idle_w: 140,
        power_min_w: 200,
        power_limit_w: 1200,
        sm_idle_mhz: 120,
        sm_max_mhz: 2062,
        memory_mhz: 3996,
    },
];

/// Where a GPU sits. `Display` is `0000:1b:00.0`, as Linux writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciSlot {
    pub domain: u32,
    pub bus: u8,
}

impl PciSlot {
    /// `0000:1b:00`, as the driver's kernel messages have it.
    pub fn kernel(self) -> String {
        format!("{:04x}:{:02x}:00", self.domain, self.bus)
    }

    /// `00000000:1B:00.0`, as NVML has it.
    pub fn bus_id(self) -> String {
        format!("{:08X}:{:02X}:00.0", self.domain, self.bus)
    }

    /// `0000:1B:00.0`, NVML's older form.
    pub fn bus_id_legacy(self) -> String {
        format!("{:04X}:{:02X}:00.0", self.domain, self.bus)
    }

    /// Reads `[domain:]bus:device[.function]` in hexadecimal; these GPUs are device 0, function 0.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, function) = text.split_once('.').unwrap_or((text, "0"));
        let mut parts = address
            .rsplit(':')
            .map(|part| u32::from_str_radix(part, 16).ok());
        let device = parts.next()??;
        let bus = u8::try_from(parts.next()??).ok()?;
        let domain = parts.next().unwrap_or(Some(0))?;
        let whole = parts.next().is_none() && device == 0 && function == "0";
        whole.then_some(Self { domain, bus })
    }
}

impl fmt::Display for PciSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:00.0", self.domain, self.bus)
    }
}

/// Who a simulated GPU is: the same in every run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub index: u32,
    pub uuid: String,
    pub serial: String,
    pub pci: PciSlot,
}

impl Profile {
    /// The profile of that key, where there is one.
    pub fn named(key: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.key == key)
    }

    /// H100: what is simulated unless told otherwise.
    pub fn standard() -> &'static Self {
        let [_, h100, _, _] = &PROFILES;
        h100
    }

    /// The `index`-th GPU; nothing past [`GPUS_MAX`].
    pub fn gpu(&self, index: u32) -> Option<Identity> {
        if index >= GPUS_MAX {
            return None;
        }
        let slot = usize::try_from(index).ok()?;
        let (domain, bus) = *self.slots.get(slot % SLOTS)?;
        let tray = index / u32::try_from(SLOTS).ok()?;
        let seed = self
            .key
            .bytes()
            .fold(u64::from(index), |seed, byte| mix(seed ^ u64::from(byte)));
        Some(Identity {
            index,
            uuid: uuid(mix(seed), mix(seed ^ u64::MAX)),
            serial: format!("165{:010}", mix(seed ^ 1) % 10_000_000_000),
            pci: PciSlot {
                domain: domain + tray * self.domain_stride,
                bus,
            },
        })
    }

    /// The first `count` GPUs, at most [`GPUS_MAX`].
    pub fn gpus(&self, count: u32) -> Vec<Identity> {
        (0..count).map_while(|index| self.gpu(index)).collect()
    }
}

fn uuid(high: u64, low: u64) -> String {
    // Version 4, variant 1, as the driver's own look.
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    format!(
        "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// splitmix64: near inputs give far outputs.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_gpus_share_a_name_or_a_slot() {
        for profile in &PROFILES {
            let gpus = profile.gpus(GPUS_MAX);
            assert_eq!(gpus.len(), 64);
            let uuids: BTreeSet<_> = gpus.iter().map(|gpu| &gpu.uuid).collect();
            let slots: BTreeSet<_> = gpus.iter().map(|gpu| gpu.pci.bus_id()).collect();
            let serials: BTreeSet<_> = gpus.iter().map(|gpu| &gpu.serial).collect();
            assert_eq!(
                (uuids.len(), slots.len(), serials.len()),
                (64, 64, 64),
                "{}",
                profile.key
            );
            assert!(uuids.iter().all(|uuid| uuid.len() == 40), "{uuids:?}");
            assert_eq!(profile.gpu(GPUS_MAX), None);
        }
    }

    #[test]
    fn a_pci_address_is_read_in_every_form() {
        let slot = Profile::standard().gpu(0).unwrap().pci;
        assert_eq!(slot.to_string(), "0000:1b:00.0");
        for form in [
            slot.to_string(),
            slot.bus_id(),
            slot.bus_id_legacy(),
            "1b:00".to_owned(),
        ] {
            assert_eq!(PciSlot::parse(&form), Some(slot), "{form}");
        }
        for form in [
            "",
            "1b",
            "zz:00.0",
            "0:0:1b:00.0",
            "1b:01.0",
            "1b:00.1",
            "100:00.0",
        ] {
            assert_eq!(PciSlot::parse(form), None, "{form}");
        }
    }
}
