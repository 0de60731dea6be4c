//! One GPU, and what is wrong with it.

use crate::profile::{Identity, NvLink, Profile};

use super::mig::Instances;

/// Cool enough for an idle GPU of any profile; those further down the air stream are warmer.
const INLET_C: u32 = 31;
/// Memory sits beside the die, and is cooled less.
const MEMORY_WARMER_C: u32 = 4;
/// What an idle GPU holds for its own.
const MEMORY_USED_MIB: u64 = 1;
const LANES: u32 = 16;

/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const FABRIC_COMPLETED: u32 = 3;
/// Degraded bandwidth, route recovery, route unhealthy and access timeout recovery: all "false";
/// incorrect configuration: "none".
pub(crate) const FABRIC_HEALTHY: u32 = 0x1aa;

/// Errors of one memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EccCount {
    pub(crate) corrected: u64,
    pub(crate) uncorrected: u64,
}

/// Errors by memory, since driver load or since manufacture.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EccCounts {
    pub(crate) dram: EccCount,
    pub(crate) sram: EccCount,
}

impl EccCounts {
    pub(crate) fn corrected(&self) -> u64 {
        self.dram.corrected.saturating_add(self.sram.corrected)
    }

    pub(crate) fn uncorrected(&self) -> u64 {
        self.dram.uncorrected.saturating_add(self.sram.uncorrected)
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowRemap {
    pub(crate) correctable: u32,
    pub(crate) uncorrectable: u32,
    pub(crate) pending: bool,
    pub(crate) failure: bool,
}

/// Banks by how many of their spare rows are left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Banks {
    pub(crate) max: u32,
    pub(crate) high: u32,
    pub(crate) partial: u32,
    pub(crate) low: u32,
    pub(crate) none: u32,
}

/// Pages that are not used any more, by why.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RetiredPages {
    pub(crate) single_bit: u32,
    pub(crate) double_bit: u32,
    pub(crate) pending: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PcieLink {
    pub(crate) width: u32,
    pub(crate) generation: u32,
    pub(crate) replays: u32,
    pub(crate) replay_rollovers: u32,
    pub(crate) correctable_errors: u32,
    pub(crate) non_fatal_errors: u32,
    pub(crate) fatal_errors: u32,
}

impl PcieLink {
    fn healthy(profile: &Profile) -> Self {
        Self {
            width: Self::width_max(),
            generation: profile.pci.generation,
            replays: 0,
            replay_rollovers: 0,
            correctable_errors: 0,
            non_fatal_errors: 0,
            fatal_errors: 0,
        }
    }

    pub(crate) fn width_max() -> u32 {
        LANES
    }
}

/// One NVLink and its errors since the last reset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) up: bool,
    pub(crate) replays: u64,
    pub(crate) recoveries: u64,
    pub(crate) crc_flit: u64,
    pub(crate) crc_data: u64,
    pub(crate) ecc_data: u64,
    pub(crate) symbol_errors: u64,
    pub(crate) effective_errors: u64,
    pub(crate) recoveries_failed: u64,
}

impl Link {
    const HEALTHY: Self = Self {
        up: true,
        replays: 0,
        recoveries: 0,
        crc_flit: 0,
        crc_data: 0,
        ecc_data: 0,
        symbol_errors: 0,
        effective_errors: 0,
        recoveries_failed: 0,
    };
}

/// How the GPU's registration with the fabric manager went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FabricState {
    pub(crate) state: u32,
    /// An NVML return code.
    pub(crate) status: u32,
    pub(crate) clique: u32,
    pub(crate) health_mask: u32,
    /// `NVML_GPU_FABRIC_HEALTH_SUMMARY_…`.
    pub(crate) health_summary: u32,
}

/// What a workload makes of a GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) temperature_c: u32,
    pub(crate) memory_temperature_c: u32,
    pub(crate) power_mw: u32,
    pub(crate) power_limit_mw: u32,
    pub(crate) energy_mj: u64,
    pub(crate) sm_mhz: u32,
    pub(crate) memory_mhz: u32,
    pub(crate) video_mhz: u32,
    pub(crate) gpu_percent: u32,
    pub(crate) memory_percent: u32,
    pub(crate) memory_used_mib: u64,
    /// Clock event reasons besides "idle", as NVML's bits.
    pub(crate) throttle: u64,
}

impl Load {
    fn idle(profile: &Profile, index: u32) -> Self {
        let temperature_c = INLET_C + (index * 5) % 13;
        Self {
            temperature_c,
            memory_temperature_c: temperature_c + MEMORY_WARMER_C,
            power_mw: profile.power.idle_w * 1000 + (index * 937) % 4000,
            power_limit_mw: profile.power.default_w * 1000,
            energy_mj: 0,
            sm_mhz: profile.clocks.sm_idle_mhz,
            memory_mhz: profile.clocks.memory_mhz,
            video_mhz: profile.clocks.video_idle_mhz,
            gpu_percent: 0,
            memory_percent: 0,
            memory_used_mib: MEMORY_USED_MIB,
            throttle: 0,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) identity: Identity,
    /// How often what is in this slot was replaced.
    pub(crate) generation: u32,
    pub(crate) load: Load,
    pub(crate) ecc_volatile: EccCounts,
    pub(crate) ecc_aggregate: EccCounts,
    pub(crate) sram_threshold_exceeded: bool,
    pub(crate) rows: RowRemap,
    pub(crate) banks: Banks,
    pub(crate) pages: RetiredPages,
    pub(crate) pcie: PcieLink,
    pub(crate) links: Vec<Link>,
    pub(crate) fabric: FabricState,
    pub(crate) mig: Instances,
    pub(crate) lost: bool,
    /// Field 230.
    pub(crate) recovery_action: u32,
}

impl Gpu {
    pub(crate) fn healthy(profile: &Profile, identity: Identity, generation: u32) -> Self {
        let banks = profile.ecc.row_remap_banks.unwrap_or_default();
        let links = profile
            .nvlink
            .as_ref()
            .map_or(0, |nvlink: &NvLink| nvlink.links);
        Self {
            load: Load::idle(profile, identity.index),
            identity,
            generation,
            ecc_volatile: EccCounts::default(),
            ecc_aggregate: EccCounts::default(),
            sram_threshold_exceeded: false,
            rows: RowRemap::default(),
            banks: Banks {
                max: banks,
                ..Banks::default()
            },
            pages: RetiredPages::default(),
            pcie: PcieLink::healthy(profile),
            links: (0..links).map(|_| Link::HEALTHY).collect(),
            fabric: FabricState {
                state: FABRIC_COMPLETED,
                status: 0,
                clique: profile.fabric.as_ref().map_or(0, |fabric| fabric.clique),
                health_mask: FABRIC_HEALTHY,
                health_summary: 1,
            },
            mig: Instances::default(),
            lost: false,
            recovery_action: 0,
        }
    }

    /// What `nvidia-smi --gpu-reset` does: what is volatile is gone, what the board remembers
    /// (aggregate counts, remapped rows, retired pages, a failed remap) is not. MIG instances go;
    /// a mode that waited for the reset is on.
    pub(crate) fn reset(&mut self, profile: &Profile) {
        let fresh = Self::healthy(profile, self.identity.clone(), self.generation);
        let mut mig = std::mem::take(&mut self.mig);
        mig.reset();
        *self = Self {
            ecc_aggregate: self.ecc_aggregate,
            sram_threshold_exceeded: self.sram_threshold_exceeded,
            rows: RowRemap {
                pending: false,
                ..self.rows
            },
            banks: self.banks,
            pages: RetiredPages {
                pending: false,
                ..self.pages
            },
            mig,
            ..fresh
        };
    }
}
