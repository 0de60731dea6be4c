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
    pub const TEMPERATURE_GPU: &str = "temperature.gpu";
    pub const TEMPERATURE_SLOWDOWN: &str = "temperature.slowdown";
    pub const TEMPERATURE_SHUTDOWN: &str = "temperature.shutdown";
    pub const POWER_DRAW: &str = "power.draw";
    pub const POWER_LIMIT: &str = "power.limit";
    pub const CLOCKS_THROTTLE_REASONS: &str = "clocks.throttle-reasons";
    pub const ECC_VOLATILE_CORRECTED: &str = "ecc.volatile.corrected";
    pub const ECC_VOLATILE_UNCORRECTED: &str = "ecc.volatile.uncorrected";
    pub const ECC_AGGREGATE_CORRECTED: &str = "ecc.aggregate.corrected";
    pub const ECC_AGGREGATE_UNCORRECTED: &str = "ecc.aggregate.uncorrected";
    pub const ROW_REMAP_CORRECTABLE: &str = "row-remap.correctable";
    pub const ROW_REMAP_UNCORRECTABLE: &str = "row-remap.uncorrectable";
    pub const ROW_REMAP_PENDING: &str = "row-remap.pending";
    pub const ROW_REMAP_FAILURE: &str = "row-remap.failure";
    pub const PCIE_LINK_WIDTH: &str = "pcie.link-width";
    pub const PCIE_LINK_WIDTH_MAX: &str = "pcie.link-width-max";
    pub const PCIE_LINK_GENERATION: &str = "pcie.link-generation";
    pub const PCIE_LINK_GENERATION_MAX: &str = "pcie.link-generation-max";
    pub const PCIE_REPLAYS: &str = "pcie.replays";
    pub const MEMORY_USED: &str = "memory.used";
    pub const MEMORY_TOTAL: &str = "memory.total";
    pub const UTILIZATION_GPU: &str = "utilization.gpu";
    pub const RECOVERY_ACTION: &str = "recovery.action";
}
