//! What this host can do, in the words of `host.has`: kinds of signals and keys of readings.

use device_api_core::signal::SignalKind;

/// The keys of docs/readings.md, sorted.
const READINGS: [&str; 76] = [
    "clocks.graphics",
    "clocks.memory",
    "clocks.performance-state",
    "clocks.sm",
    "clocks.throttle-reasons",
    "ecc.aggregate.corrected",
    "ecc.aggregate.uncorrected",
    "ecc.dram.volatile.corrected",
    "ecc.dram.volatile.uncorrected",
    "ecc.enabled",
    "ecc.enabled-pending",
    "ecc.sram.aggregate.corrected",
    "ecc.sram.aggregate.uncorrected",
    "ecc.sram.threshold-exceeded",
    "ecc.sram.volatile.corrected",
    "ecc.sram.volatile.uncorrected",
    "ecc.volatile.corrected",
    "ecc.volatile.uncorrected",
    "fabric.health",
    "fabric.state",
    "fabric.status",
    "memory.total",
    "memory.used",
    "nvlink.active-mask",
    "nvlink.crc-data-errors",
    "nvlink.crc-flit-errors",
    "nvlink.link-recoveries",
    "nvlink.link-recovery-failures",
    "nvlink.links",
    "nvlink.links-active",
    "nvlink.receive-errors",
    "nvlink.recovery-errors",
    "nvlink.replay-errors",
    "nvlink.symbol-errors",
    "nvml.error",
    "nvml.hung-call",
    "nvml.hung-ms",
    "nvml.state",
    "pcie.correctable-errors",
    "pcie.fatal-errors",
    "pcie.link-generation",
    "pcie.link-generation-max",
    "pcie.link-width",
    "pcie.link-width-max",
    "pcie.non-fatal-errors",
    "pcie.recoveries",
    "pcie.replay-rollovers",
    "pcie.replays",
    "power.draw",
    "power.draw-instant",
    "power.limit",
    "power.limit-default",
    "power.limit-max",
    "power.limit-min",
    "recovery.action",
    "retired-pages.corrected",
    "retired-pages.pending",
    "retired-pages.uncorrected",
    "row-remap.banks.high",
    "row-remap.banks.low",
    "row-remap.banks.max",
    "row-remap.banks.none",
    "row-remap.banks.partial",
    "row-remap.correctable",
    "row-remap.failure",
    "row-remap.pending",
    "row-remap.uncorrectable",
    "temperature.gpu",
    "temperature.gpu-max",
    "temperature.margin",
    "temperature.memory",
    "temperature.memory-max",
    "temperature.shutdown",
    "temperature.slowdown",
    "utilization.gpu",
    "utilization.memory",
];

pub(crate) fn knows_reading(key: &str) -> bool {
    READINGS.binary_search(&key).is_ok()
}

/// `kind:WORD` or `reading:KEY`; anything else this host does not have.
pub(crate) fn has(feature: &str) -> bool {
    match feature.split_once(':') {
        Some(("kind", word)) => SignalKind::from_word(word).is_some(),
        Some(("reading", key)) => knows_reading(key),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readings_are_those_of_the_docs() {
        let docs = include_str!("../../../docs/readings.md");
        let rows = docs
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let mut keys: Vec<&str> = rows
            .map(|(key, _)| key)
            .filter(|key| key.contains('.'))
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, READINGS);
    }

    #[test]
    fn features_are_kinds_and_readings() {
        assert!(has("kind:sxid") && has("reading:power.draw"));
        assert!(
            !has("kind:rumour") && !has("reading:aura.colour") && !has("power.draw") && !has("")
        );
    }
}
