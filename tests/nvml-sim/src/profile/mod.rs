//! The GPUs that can be simulated: data, in `profiles/*.yaml`, each figure with its source or the
//! word that it is typical and not documented.

mod identity;

use std::sync::LazyLock;

use nvml_wrapper_sys::bindings::{
    NVML_DEVICE_ARCH_AMPERE, NVML_DEVICE_ARCH_BLACKWELL, NVML_DEVICE_ARCH_HOPPER,
    NVML_DEVICE_ARCH_VOLTA,
};
use serde::Deserialize;

pub use identity::{Identity, PciSlot};

/// What a node has unless told otherwise.
pub const GPUS_DEFAULT: u32 = 8;
/// The largest single-image NVLink machines have fewer; it keeps PCI domains apart.
pub const GPUS_MAX: u32 = 64;
/// GPUs of one board tray; the next tray is in another PCI domain.
const SLOTS: usize = 8;

/// What is simulated unless told otherwise.
pub const PROFILE_DEFAULT: &str = "h100";
pub const DRIVER_VERSION: &str = "580.82.07";

/// The data files.
const FILES: [&str; 6] = [
    include_str!("../../profiles/a100.yaml"),
    include_str!("../../profiles/h100.yaml"),
    include_str!("../../profiles/h200.yaml"),
    include_str!("../../profiles/b200.yaml"),
    include_str!("../../profiles/gb200.yaml"),
    include_str!("../../profiles/v100.yaml"),
];

/// CUDA version, as major × 1000 + minor × 10, that a driver branch brings: the table "CUDA
/// Toolkit and Corresponding Driver Versions" of the CUDA release notes.
const CUDA_OF_BRANCH: [(u32, i32); 15] = [
    (595, 13_020),
    (590, 13_010),
    (580, 13_000),
    (575, 12_090),
    (570, 12_080),
    (565, 12_070),
    (560, 12_060),
    (555, 12_050),
    (550, 12_040),
    (545, 12_030),
    (535, 12_020),
    (530, 12_010),
    (525, 12_000),
    (470, 11_040),
    (450, 11_000),
];

/// The CUDA version of a driver such as `580.82.07`; of the next older branch where there is no
/// row for its own.
pub(crate) fn cuda_of(driver: &str) -> Option<i32> {
    let branch: u32 = driver.split('.').next()?.parse().ok()?;
    let row = CUDA_OF_BRANCH.iter().find(|(first, _)| *first <= branch);
    row.map(|(_, cuda)| *cuda)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    Volta,
    Ampere,
    Hopper,
    Blackwell,
}

impl Architecture {
    /// NVML's number for it.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Volta => NVML_DEVICE_ARCH_VOLTA,
            Self::Ampere => NVML_DEVICE_ARCH_AMPERE,
            Self::Hopper => NVML_DEVICE_ARCH_HOPPER,
            Self::Blackwell => NVML_DEVICE_ARCH_BLACKWELL,
        }
    }
}

/// One kind of GPU. What it lacks (`nvlink`, `fabric`, `mig`) is `NOT_SUPPORTED`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Profile {
    /// The value of `NVML_SIM_PROFILE`.
    pub key: String,
    pub name: String,
    pub architecture: Architecture,
    pub compute_capability: (i32, i32),
    pub cores: u32,
    pub part_number: String,
    pub vbios: String,
    pub memory_mib: u64,
    pub memory_reserved_mib: u64,
    pub bar1_mib: u64,
    pub pci: Pci,
    /// PCI (domain, bus) of the first eight.
    pub slots: [(u32, u8); SLOTS],
    pub topology: Topology,
    pub thermal: Thermal,
    pub power: Power,
    pub clocks: Clocks,
    pub ecc: Ecc,
    pub nvlink: Option<NvLink>,
    pub fabric: Option<Fabric>,
    pub mig: Option<Mig>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pci {
    /// Device id in the upper half, vendor id in the lower, as NVML has it.
    pub device_id: u32,
    pub subsystem_id: u32,
    pub generation: u32,
    /// How far the PCI domain of the next eight is away.
    pub domain_stride: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Topology {
    /// GPUs below one tree of PCIe switches.
    pub gpus_per_switch: u32,
    pub gpus_per_socket: u32,
}

/// In °C.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Thermal {
    pub shutdown_c: u32,
    pub slowdown_c: u32,
    pub gpu_max_c: u32,
    pub memory_max_c: u32,
}

/// In watts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Power {
    pub idle_w: u32,
    pub min_w: u32,
    pub default_w: u32,
    pub max_w: u32,
}

/// In MHz.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Clocks {
    pub sm_idle_mhz: u32,
    pub sm_max_mhz: u32,
    pub memory_mhz: u32,
    pub video_idle_mhz: u32,
    pub video_max_mhz: u32,
}

/// How bad memory is masked: by rows since Ampere, by pages before.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ecc {
    /// Banks with spare rows.
    pub row_remap_banks: Option<u32>,
    #[serde(default)]
    pub retired_pages: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NvLink {
    /// Generation: 2 is Volta's, 5 Blackwell's.
    pub version: u32,
    pub links: u32,
    /// MB/s of one link in one direction.
    pub mbps: u32,
    /// PCI buses of the switches of the node, which the links are dealt out to.
    #[serde(default)]
    pub switches: Vec<u8>,
    /// The links go to other GPUs.
    #[serde(default)]
    pub peers: bool,
}

impl NvLink {
    /// The number that a link of a GPU has at its other end: each has a port of its own on its switch, those of one
    /// GPU side by side. `None`: whoever is there is not on this node.
    pub fn far_end(&self, gpu: u32, link: u32) -> Option<u32> {
        if self.peers {
            return Some(link);
        }
        let switches = u32::try_from(self.switches.len()).ok()?;
        let of_a_gpu = (switches > 0).then(|| self.links.div_ceil(switches))?;
        Some(gpu * of_a_gpu + link / switches)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fabric {
    pub clique: u32,
    /// Part of a multi-node domain, which has a UUID.
    #[serde(default)]
    pub cluster: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mig {
    /// The mode stays pending until the GPU is reset: Ampere alone.
    #[serde(default)]
    pub needs_reset: bool,
    pub profiles: Vec<MigProfile>,
}

/// One row of `nvidia-smi mig -lgip`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MigProfile {
    pub name: String,
    pub id: u32,
    /// `NVML_GPU_INSTANCE_PROFILE_…`.
    pub kind: u32,
    /// Compute slices, of seven.
    pub slices: u32,
    /// Of eight.
    pub memory_slices: u32,
    /// How many fit.
    pub count: u32,
    pub sms: u32,
    pub memory_mib: u64,
    pub copy_engines: u32,
}

static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    // That every file is read is tested below; a library has nobody to tell.
    let read = |text: &&str| serde_saphyr::from_str(text).ok();
    FILES.iter().filter_map(read).collect()
});

impl Profile {
    /// Every profile there is.
    pub fn all() -> &'static [Self] {
        &PROFILES
    }

    /// The profile of that key, where there is one.
    pub fn named(key: &str) -> Option<&'static Self> {
        Self::all().iter().find(|profile| profile.key == key)
    }

    /// What is simulated unless told otherwise.
    ///
    /// # Panics
    /// Never: its data file is part of this crate, and read in a test.
    pub fn standard() -> &'static Self {
        #[expect(clippy::expect_used, reason = "the file is compiled in and tested")]
        Self::named(PROFILE_DEFAULT).expect("profiles/h100.yaml is compiled in")
    }

    /// Their keys, for a message.
    pub(crate) fn keys() -> String {
        let keys: Vec<_> = Self::all()
            .iter()
            .map(|profile| profile.key.as_str())
            .collect();
        keys.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_data_file_is_read_and_consistent() {
        for text in FILES {
            let profile: Profile = serde_saphyr::from_str(text).unwrap();
            let power = &profile.power;
            assert!(
                power.idle_w < power.min_w.max(power.default_w),
                "{}",
                profile.key
            );
            assert!(power.min_w <= power.default_w && power.default_w <= power.max_w);
            let thermal = &profile.thermal;
            assert!(
                thermal.gpu_max_c < thermal.slowdown_c && thermal.slowdown_c < thermal.shutdown_c
            );
            assert_ne!(
                profile.ecc.row_remap_banks.is_some(),
                profile.ecc.retired_pages
            );
            assert!(
                text.contains("Typical and not documented"),
                "{}",
                profile.key
            );
            for mig in profile.mig.iter().flat_map(|mig| &mig.profiles) {
                assert!(mig.count * mig.slices <= 7, "{}", mig.name);
                assert!(mig.count * mig.memory_slices <= 8, "{}", mig.name);
                assert!(
                    u64::from(mig.count) * mig.memory_mib <= profile.memory_mib,
                    "{}",
                    mig.name
                );
            }
        }
        assert_eq!(Profile::all().len(), FILES.len());
        assert_eq!(Profile::standard().key, PROFILE_DEFAULT);
    }

    #[test]
    fn no_two_gpus_share_a_name_or_a_slot() {
        for profile in Profile::all() {
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
            let (first, second) = (profile.gpu(3).unwrap(), profile.replacement(3, 1).unwrap());
            assert_eq!(first.pci, second.pci);
            assert!(first.uuid != second.uuid && first.serial != second.serial);
            assert!(!uuids.contains(&second.uuid));
        }
    }

    #[test]
    fn a_driver_brings_its_cuda() {
        for (driver, cuda) in [
            ("580.82.07", 13_000),
            ("535.104.05", 12_020),
            ("471.1", 11_040),
        ] {
            assert_eq!(cuda_of(driver), Some(cuda), "{driver}");
        }
        assert_eq!((cuda_of("390.1"), cuda_of("new")), (None, None));
    }
}
