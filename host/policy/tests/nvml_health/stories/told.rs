//! The stories: what is read, what it means, and what ends it.

use super::Step::{Ecc, Flag, Found, Lacks, Lost, Passes, Reads, Text};
use super::{Step, Story, story};

const DEVICE: &str = "the device";

pub(super) fn presence() -> Vec<Story> {
    let state = "`nvml.state`";
    vec![
        story(
            ("GpuLost", "NoAnswer"),
            "signal `gpu-lost`",
            ("the GPU does not answer", ""),
            &[Lost],
            &[Found],
        ),
        story(
            ("NvmlReachable", "NoAnswer"),
            "signal `gpu-lost`",
            ("the GPU does not answer", ""),
            &[Lost],
            &[Found],
        ),
        story(
            ("NvmlReachable", "CallHangs"),
            state,
            ("1", ""),
            &[
                Text("nvml.hung-call", "nvmlDeviceGetTemperature"),
                Reads("nvml.state", 1),
            ],
            &[Reads("nvml.state", 0)],
        ),
        story(
            ("NvmlReachable", "Released"),
            state,
            ("2, as `devicectl nvml release` asked", ""),
            &[Reads("nvml.state", 2)],
            &[Reads("nvml.state", 0)],
        ),
        story(
            ("NvmlReachable", "DriverGone"),
            state,
            ("3", ""),
            &[Reads("nvml.state", 3)],
            &[Reads("nvml.state", 0)],
        ),
        story(
            ("NvmlReachable", "Errors"),
            state,
            ("4", ""),
            &[
                Text("nvml.error", "nvmlDeviceGetTemperature answered UNKNOWN"),
                Reads("nvml.state", 4),
            ],
            &[Reads("nvml.state", 0)],
        ),
        story(
            ("NvmlReachable", "NotTold"),
            state,
            ("a number that is not known", ""),
            &[Reads("nvml.state", 9)],
            &[Reads("nvml.state", 0)],
        ),
    ]
}

pub(super) fn sensors() -> Vec<Story> {
    let mut stories = temperatures();
    stories.extend(clocks_and_power());
    stories
}

fn temperatures() -> Vec<Story> {
    let die = "`temperature.gpu`";
    vec![
        story(
            ("Temperature", "NearShutdown"),
            die,
            ("at `temperature.shutdown`", DEVICE),
            &[Reads("temperature.gpu", 92)],
            &[Reads("temperature.gpu", 86)],
        ),
        story(
            ("Temperature", "Slowdown"),
            die,
            ("at `temperature.slowdown`", DEVICE),
            &[Reads("temperature.gpu", 89), Reads("temperature.gpu", 87)],
            &[Reads("temperature.gpu", 86)],
        ),
        story(
            ("Temperature", "Slowdown"),
            "`temperature.margin`, where no `temperature.slowdown` is told (Blackwell)",
            ("none is left", DEVICE),
            &[
                Lacks(&["temperature.slowdown", "temperature.shutdown"]),
                Reads("temperature.margin", 0),
                Reads("temperature.margin", 2),
            ],
            &[Reads("temperature.margin", 3)],
        ),
        story(
            ("Temperature", "AboveSiteLimit"),
            die,
            (
                "at `temperature_max_c`",
                "`temperature_max_c`; none by default",
            ),
            &[Reads("temperature.gpu", 80)],
            &[Reads("temperature.gpu", 77)],
        )
        .with(r#"{"temperature_max_c": 80}"#),
        story(
            ("MemoryTemperature", "Slowdown"),
            "`temperature.memory`",
            ("at `temperature.memory-max`", DEVICE),
            &[Reads("temperature.memory", 95)],
            &[Reads("temperature.memory", 92)],
        ),
        story(
            ("MemoryTemperature", "AboveSiteLimit"),
            "`temperature.memory`",
            (
                "at `memory_temperature_max_c`",
                "`memory_temperature_max_c`; none by default",
            ),
            &[
                Lacks(&["temperature.memory-max"]),
                Reads("temperature.memory", 90),
            ],
            &[Reads("temperature.memory", 80)],
        )
        .with(r#"{"memory_temperature_max_c": 85}"#),
    ]
}

fn clocks_and_power() -> Vec<Story> {
    let throttle = |reason, bit: &str, mask| {
        story(
            ("ClockThrottle", reason),
            "`clocks.throttle-reasons`",
            (bit, DEVICE),
            &[Reads("clocks.throttle-reasons", mask)],
            &[Reads("clocks.throttle-reasons", 0x1), Passes(10)],
        )
    };
    vec![
        throttle("HardwarePowerBrake", "bit 0x80", 0x88),
        throttle("HardwareThermalSlowdown", "bit 0x40", 0x48),
        throttle("HardwareSlowdown", "bit 0x8", 0x8),
        throttle("SoftwareThermalSlowdown", "bit 0x20 alone", 0x20),
        story(
            ("PowerLimit", "BelowBoardRange"),
            "`power.limit`",
            ("below `power.limit-min`", DEVICE),
            &[Reads("power.limit", 150_000)],
            &[Reads("power.limit", 700_000)],
        ),
        story(
            ("PowerLimit", "BelowSiteLimit"),
            "`power.limit`",
            (
                "below `power_limit_min_w`",
                "`power_limit_min_w`; none by default",
            ),
            &[Reads("power.limit", 500_000)],
            &[Reads("power.limit", 600_000)],
        )
        .with(r#"{"power_limit_min_w": 600}"#),
    ]
}

pub(super) fn memory() -> Vec<Story> {
    let pages = "`retired-pages.corrected` and `.uncorrected` together";
    vec![
        story(
            ("EccErrors", "UncorrectableErrors"),
            "`ecc.volatile.uncorrected`",
            (
                "it has risen, and no XID 94 within 10 s says that the error was contained",
                DEVICE,
            ),
            &[
                Reads("ecc.volatile.uncorrected", 2),
                Reads("ecc.volatile.uncorrected", 0),
            ],
            &[],
        ),
        story(
            ("EccErrors", "UncorrectableErrors"),
            "signal `ecc`",
            ("uncorrected, and likewise", DEVICE),
            &[Ecc],
            &[],
        ),
        story(
            ("SramErrors", "ThresholdExceeded"),
            "`ecc.sram.threshold-exceeded`",
            ("set", DEVICE),
            &[Flag("ecc.sram.threshold-exceeded", true)],
            &[Flag("ecc.sram.threshold-exceeded", false)],
        ),
        story(
            ("RowRemap", "RemapFailed"),
            "`row-remap.failure`",
            ("set", DEVICE),
            &[
                Flag("row-remap.pending", true),
                Flag("row-remap.failure", true),
            ],
            &[
                Flag("row-remap.failure", false),
                Flag("row-remap.pending", false),
            ],
        ),
        story(
            ("RowRemap", "RemapPending"),
            "`row-remap.pending`",
            ("set", DEVICE),
            &[Flag("row-remap.pending", true)],
            &[Flag("row-remap.pending", false)],
        ),
        story(
            ("RetiredPages", "LimitReached"),
            pages,
            (
                "`retired_pages_max` or more",
                "`retired_pages_max`; the vendor's own 63 by default",
            ),
            &[
                Reads("retired-pages.corrected", 60),
                Reads("retired-pages.uncorrected", 3),
            ],
            &[Reads("retired-pages.uncorrected", 2)],
        ),
        story(
            ("RetiredPages", "RetirementPending"),
            "`retired-pages.pending`",
            ("set", DEVICE),
            &[Flag("retired-pages.pending", true)],
            &[Flag("retired-pages.pending", false)],
        ),
    ]
}

pub(super) fn links() -> Vec<Story> {
    vec![
        story(
            ("PcieLink", "LinkWidthReduced"),
            "`pcie.link-width`",
            ("below `pcie.link-width-max`, for `pcie_settle_s`", DEVICE),
            &[Reads("pcie.link-width", 8), Passes(10)],
            &[Reads("pcie.link-width", 16), Passes(10)],
        ),
        story(
            ("PcieLink", "LinkGenerationReduced"),
            "`pcie.link-generation`, `utilization.gpu`",
            (
                "below `pcie.link-generation-max` while the GPU works, for `pcie_settle_s`",
                DEVICE,
            ),
            &[
                Reads("pcie.link-generation", 3),
                Reads("utilization.gpu", 80),
                Passes(10),
                Reads("utilization.gpu", 0),
                Passes(3600),
            ],
            &[Reads("pcie.link-generation", 5), Passes(10)],
        ),
        story(
            ("NvLink", "LinkDown"),
            "`nvlink.active-mask`",
            (
                "a link that this GPU was seen to use is down; after a GPU was found, for `nvlink_settle_s`",
                "the device's own past",
            ),
            &[Reads("nvlink.active-mask", 0x3_bfff)],
            &[Reads("nvlink.active-mask", 0x3_ffff), Passes(30)],
        ),
    ]
}

pub(super) fn fabric() -> Vec<Story> {
    let health = |reason, when, mask| {
        story(
            ("Fabric", reason),
            "`fabric.health`",
            (when, DEVICE),
            &[Reads("fabric.health", mask)],
            &[Reads("fabric.health", 0x1aa)],
        )
    };
    vec![
        story(
            ("Fabric", "RegistrationFailed"),
            "`fabric.status`",
            ("not 0, once `fabric.state` is 3", DEVICE),
            &[Reads("fabric.status", 21)],
            &[Reads("fabric.status", 0)],
        ),
        story(
            ("Fabric", "NotRegistered"),
            "`fabric.state`",
            ("1 or 2, for `fabric_settle_s`", DEVICE),
            &[
                Reads("fabric.state", 1),
                Reads("fabric.state", 2),
                Passes(300),
            ],
            &[Reads("fabric.state", 3)],
        ),
        health("RouteUnhealthy", "bits 4–5 are 1", 0x19a),
        health("DegradedBandwidth", "bits 0–1 are 1", 0x1a9),
        health("WrongConfiguration", "bits 8–11 are 2 or more", 0x4aa),
        health("Recovering", "bits 2–3 or 6–7 are 1", 0x1a6),
    ]
}

/// A reading, the reason when it rises too fast, and its rate by default; 0: none.
type Counter = (&'static str, &'static str, i64);

/// Counters by condition.
const COUNTERS: [(&str, &[Counter]); 3] = [
    (
        "EccErrorRate",
        &[
            ("ecc.volatile.corrected", "CorrectedErrors", 0),
            ("ecc.volatile.uncorrected", "UncorrectedErrors", 0),
            ("ecc.dram.volatile.corrected", "CorrectedDramErrors", 0),
            ("ecc.dram.volatile.uncorrected", "UncorrectedDramErrors", 0),
            ("ecc.sram.volatile.corrected", "CorrectedSramErrors", 0),
            ("ecc.sram.volatile.uncorrected", "UncorrectedSramErrors", 0),
        ],
    ),
    (
        "PcieErrorRate",
        &[
            ("pcie.replays", "Replays", 9),
            ("pcie.replay-rollovers", "ReplayRollovers", 0),
            ("pcie.correctable-errors", "CorrectableErrors", 0),
            ("pcie.non-fatal-errors", "NonFatalErrors", 0),
            ("pcie.fatal-errors", "FatalErrors", 0),
            ("pcie.recoveries", "Recoveries", 0),
        ],
    ),
    (
        "NvLinkErrorRate",
        &[
            ("nvlink.crc-flit-errors", "CrcFlitErrors", 6000),
            ("nvlink.crc-data-errors", "CrcDataErrors", 6000),
            ("nvlink.replay-errors", "ReplayErrors", 0),
            ("nvlink.recovery-errors", "RecoveryErrors", 0),
            ("nvlink.receive-errors", "ReceiveErrors", 0),
            ("nvlink.link-recoveries", "LinkRecoveries", 0),
            ("nvlink.link-recovery-failures", "LinkRecoveryFailures", 0),
            ("nvlink.symbol-errors", "SymbolErrors", 0),
        ],
    ),
];

pub(super) fn rates() -> Vec<Story> {
    let of = |(condition, counters): (&'static str, &'static [(&'static str, &str, i64)])| {
        counters.iter().map(move |(key, reason, default)| {
            let count = if *default > 0 { *default } else { 7 };
            let threshold = match default {
                0 => "`rates`; none by default".to_owned(),
                count => format!("`rates`; the vendor's own {count} in 60 s by default"),
            };
            let config = if *default > 0 {
                String::new()
            } else {
                every_rate()
            };
            // Slowly it may rise for ever; then fast.
            let mut bad: Vec<Step> = (1..20)
                .flat_map(|rise| [Reads(key, rise), Passes(60)])
                .collect();
            bad.push(Reads(key, 19 + count));
            // Zeroed by hand: no end of it.
            let over = vec![Reads(key, 0), Passes(600)];
            Story {
                bad,
                over,
                ..story(
                    (condition, reason),
                    &format!("`{key}`"),
                    ("rises by so much within so long", &threshold),
                    &[],
                    &[],
                )
                .with(&config)
            }
        })
    };
    COUNTERS.into_iter().flat_map(of).collect()
}

/// A configuration in which each counter that has no rate by default has one.
fn every_rate() -> String {
    let counters = COUNTERS.iter().flat_map(|(_, counters)| *counters);
    let rates: Vec<String> = counters
        .filter(|(.., default)| *default == 0)
        .map(|(key, ..)| format!(r#""{key}": {{"count": 7}}"#))
        .collect();
    // What it would say of uncorrected errors is told elsewhere.
    format!(
        r#"{{"rates": {{{}}}, "disabled": ["EccErrors"]}}"#,
        rates.join(", ")
    )
}
