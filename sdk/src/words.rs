//! The open words of the contract. Their tables are in `docs/`.

/// Kinds of signals (docs/signals.md).
pub mod kind {
    pub const XID: &str = "xid";
    pub const SXID: &str = "sxid";
    pub const ECC: &str = "ecc";
    pub const READING: &str = "reading";
    pub const GPU_LOST: &str = "gpu-lost";
    pub const GPU_FOUND: &str = "gpu-found";
    pub const RECOVERY_ACTION: &str = "recovery-action";
    pub const TIMER: &str = "timer";
}

/// Recommended actions (docs/actions.md).
pub mod action {
    pub const NONE: &str = "NONE";
    pub const COMPONENT_RESET: &str = "COMPONENT_RESET";
    pub const RESTART_VM: &str = "RESTART_VM";
    pub const RESTART_BM: &str = "RESTART_BM";
    pub const RUN_DCGMEUD: &str = "RUN_DCGMEUD";
    pub const RUN_FIELDDIAG: &str = "RUN_FIELDDIAG";
    pub const CONTACT_SUPPORT: &str = "CONTACT_SUPPORT";
    pub const REPLACE_VM: &str = "REPLACE_VM";

    /// All, in order of severity.
    pub const ALL: [&str; 8] = [
        NONE,
        COMPONENT_RESET,
        RESTART_VM,
        RESTART_BM,
        RUN_DCGMEUD,
        RUN_FIELDDIAG,
        CONTACT_SUPPORT,
        REPLACE_VM,
    ];
}

/// What clears a problem (docs/clears.md).
pub mod clear {
    /// One way out of a problem.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct On {
        pub word: &'static str,
        pub after_ms: u64,
    }

    const fn on(word: &'static str) -> On {
        On { word, after_ms: 0 }
    }

    pub const GPU_RESET: On = on("gpu-reset");
    pub const DRIVER_REBIND: On = on("driver-rebind");
    pub const NODE_REBOOT: On = on("node-reboot");
    pub const REPLACEMENT: On = on("replacement");
    pub const RECOVERY_NONE: On = on("recovery-none");
    /// Only an `ok` verdict.
    pub const POLICY: On = on("policy");
    pub const OPERATOR: On = on("operator");

    /// No signal of the incident for so long.
    pub const fn quiet(after_ms: u64) -> On {
        On {
            word: "quiet",
            after_ms,
        }
    }
}

/// Keys of readings (docs/readings.md).
pub mod reading {
    pub const NVML_STATE: &str = "nvml.state";
    pub const NVML_HUNG_CALL: &str = "nvml.hung-call";
    pub const NVML_HUNG_MS: &str = "nvml.hung-ms";
    pub const NVML_ERROR: &str = "nvml.error";
    pub const TEMPERATURE_GPU: &str = "temperature.gpu";
    pub const TEMPERATURE_MEMORY: &str = "temperature.memory";
    pub const TEMPERATURE_MARGIN: &str = "temperature.margin";
    pub const TEMPERATURE_SLOWDOWN: &str = "temperature.slowdown";
    pub const TEMPERATURE_SHUTDOWN: &str = "temperature.shutdown";
    pub const TEMPERATURE_GPU_MAX: &str = "temperature.gpu-max";
    pub const TEMPERATURE_MEMORY_MAX: &str = "temperature.memory-max";
    pub const POWER_DRAW: &str = "power.draw";
    pub const POWER_DRAW_INSTANT: &str = "power.draw-instant";
    pub const POWER_LIMIT: &str = "power.limit";
    pub const POWER_LIMIT_DEFAULT: &str = "power.limit-default";
    pub const POWER_LIMIT_MIN: &str = "power.limit-min";
    pub const POWER_LIMIT_MAX: &str = "power.limit-max";
    pub const CLOCKS_THROTTLE_REASONS: &str = "clocks.throttle-reasons";
    pub const CLOCKS_GRAPHICS: &str = "clocks.graphics";
    pub const CLOCKS_SM: &str = "clocks.sm";
    pub const CLOCKS_MEMORY: &str = "clocks.memory";
    pub const CLOCKS_PERFORMANCE_STATE: &str = "clocks.performance-state";
    pub const ECC_ENABLED: &str = "ecc.enabled";
    pub const ECC_ENABLED_PENDING: &str = "ecc.enabled-pending";
    pub const ECC_VOLATILE_CORRECTED: &str = "ecc.volatile.corrected";
    pub const ECC_VOLATILE_UNCORRECTED: &str = "ecc.volatile.uncorrected";
    pub const ECC_AGGREGATE_CORRECTED: &str = "ecc.aggregate.corrected";
    pub const ECC_AGGREGATE_UNCORRECTED: &str = "ecc.aggregate.uncorrected";
    pub const ECC_DRAM_VOLATILE_CORRECTED: &str = "ecc.dram.volatile.corrected";
    pub const ECC_DRAM_VOLATILE_UNCORRECTED: &str = "ecc.dram.volatile.uncorrected";
    pub const ECC_SRAM_THRESHOLD_EXCEEDED: &str = "ecc.sram.threshold-exceeded";
    pub const ECC_SRAM_VOLATILE_CORRECTED: &str = "ecc.sram.volatile.corrected";
    pub const ECC_SRAM_VOLATILE_UNCORRECTED: &str = "ecc.sram.volatile.uncorrected";
    pub const ECC_SRAM_AGGREGATE_CORRECTED: &str = "ecc.sram.aggregate.corrected";
    pub const ECC_SRAM_AGGREGATE_UNCORRECTED: &str = "ecc.sram.aggregate.uncorrected";
    pub const ROW_REMAP_CORRECTABLE: &str = "row-remap.correctable";
    pub const ROW_REMAP_UNCORRECTABLE: &str = "row-remap.uncorrectable";
    pub const ROW_REMAP_PENDING: &str = "row-remap.pending";
    pub const ROW_REMAP_FAILURE: &str = "row-remap.failure";
    pub const ROW_REMAP_BANKS_MAX: &str = "row-remap.banks.max";
    pub const ROW_REMAP_BANKS_HIGH: &str = "row-remap.banks.high";
    pub const ROW_REMAP_BANKS_PARTIAL: &str = "row-remap.banks.partial";
    pub const ROW_REMAP_BANKS_LOW: &str = "row-remap.banks.low";
    pub const ROW_REMAP_BANKS_NONE: &str = "row-remap.banks.none";
    pub const RETIRED_PAGES_CORRECTED: &str = "retired-pages.corrected";
    pub const RETIRED_PAGES_UNCORRECTED: &str = "retired-pages.uncorrected";
    pub const RETIRED_PAGES_PENDING: &str = "retired-pages.pending";
    pub const PCIE_LINK_WIDTH: &str = "pcie.link-width";
    pub const PCIE_LINK_WIDTH_MAX: &str = "pcie.link-width-max";
    pub const PCIE_LINK_GENERATION: &str = "pcie.link-generation";
    pub const PCIE_LINK_GENERATION_MAX: &str = "pcie.link-generation-max";
    pub const PCIE_REPLAYS: &str = "pcie.replays";
    pub const PCIE_REPLAY_ROLLOVERS: &str = "pcie.replay-rollovers";
    pub const PCIE_CORRECTABLE_ERRORS: &str = "pcie.correctable-errors";
    pub const PCIE_NON_FATAL_ERRORS: &str = "pcie.non-fatal-errors";
    pub const PCIE_FATAL_ERRORS: &str = "pcie.fatal-errors";
    pub const PCIE_RECOVERIES: &str = "pcie.recoveries";
    pub const NVLINK_LINKS: &str = "nvlink.links";
    pub const NVLINK_LINKS_ACTIVE: &str = "nvlink.links-active";
    pub const NVLINK_ACTIVE_MASK: &str = "nvlink.active-mask";
    pub const NVLINK_CRC_FLIT_ERRORS: &str = "nvlink.crc-flit-errors";
    pub const NVLINK_CRC_DATA_ERRORS: &str = "nvlink.crc-data-errors";
    pub const NVLINK_REPLAY_ERRORS: &str = "nvlink.replay-errors";
    pub const NVLINK_RECOVERY_ERRORS: &str = "nvlink.recovery-errors";
    pub const NVLINK_RECEIVE_ERRORS: &str = "nvlink.receive-errors";
    pub const NVLINK_LINK_RECOVERIES: &str = "nvlink.link-recoveries";
    pub const NVLINK_LINK_RECOVERY_FAILURES: &str = "nvlink.link-recovery-failures";
    pub const NVLINK_SYMBOL_ERRORS: &str = "nvlink.symbol-errors";
    pub const FABRIC_STATE: &str = "fabric.state";
    pub const FABRIC_STATUS: &str = "fabric.status";
    pub const FABRIC_HEALTH: &str = "fabric.health";
    pub const MEMORY_USED: &str = "memory.used";
    pub const MEMORY_TOTAL: &str = "memory.total";
    pub const UTILIZATION_GPU: &str = "utilization.gpu";
    pub const UTILIZATION_MEMORY: &str = "utilization.memory";
    pub const RECOVERY_ACTION: &str = "recovery.action";
}
