//! What this host can do, in the words of `host.has`: kinds of signals and keys of readings.

use device_api_core::signal::SignalKind;

/// The keys of docs/readings.md, sorted.
const READINGS: [&str; 23] = [
    "clocks.throttle-reasons",
    "ecc.aggregate.corrected",
    "ecc.aggregate.uncorrected",
    "ecc.volatile.corrected",
    "ecc.volatile.uncorrected",
    "memory.total",
    "memory.used",
    "pcie.link-generation",
    "pcie.link-generation-max",
    "pcie.link-width",
    "pcie.link-width-max",
    "pcie.replays",
    "power.draw",
    "power.limit",
    "recovery.action",
    "row-remap.correctable",
    "row-remap.failure",
    "row-remap.pending",
    "row-remap.uncorrectable",
    "temperature.gpu",
    "temperature.shutdown",
    "temperature.slowdown",
    "utilization.gpu",
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
