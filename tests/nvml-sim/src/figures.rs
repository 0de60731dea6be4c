//! Figures of a GPU that can be set by name: what `set` takes. Named as the readings they become.

use crate::node::{EccCounts, Gpu, Link, PcieLink};
use crate::profile::Profile;

/// Above what any sensor reads before the board is off.
pub(crate) const CELSIUS_MAX: u64 = 150;
const PERCENT_MAX: u64 = 100;
const FLAG_MAX: u64 = 1;

/// One figure.
struct Figure {
    name: &'static str,
    /// The largest value that means something on this profile; none where it lacks the thing.
    max: fn(&Profile) -> Option<u64>,
    set: fn(&mut Gpu, u64),
}

macro_rules! figure {
    ($name:literal, $max:expr, |$gpu:ident| $place:expr) => {
        Figure {
            name: $name,
            max: $max,
            set: |$gpu, value| put(&mut $place, value),
        }
    };
}

/// A place that a figure is kept in; its bounds were checked.
trait Place {
    fn put(&mut self, value: u64);
}

impl Place for u32 {
    fn put(&mut self, value: u64) {
        *self = Self::try_from(value).unwrap_or(Self::MAX);
    }
}

impl Place for u64 {
    fn put(&mut self, value: u64) {
        *self = value;
    }
}

impl Place for bool {
    fn put(&mut self, value: u64) {
        *self = value != 0;
    }
}

fn put(place: &mut impl Place, value: u64) {
    place.put(value);
}

const COUNT: fn(&Profile) -> Option<u64> = |_| Some(u64::from(u32::MAX));
const COUNT_64: fn(&Profile) -> Option<u64> = |_| Some(u64::MAX);
const CELSIUS: fn(&Profile) -> Option<u64> = |_| Some(CELSIUS_MAX);
const PERCENT: fn(&Profile) -> Option<u64> = |_| Some(PERCENT_MAX);
const FLAG: fn(&Profile) -> Option<u64> = |_| Some(FLAG_MAX);
const ROWS: fn(&Profile) -> Option<u64> =
    |profile| profile.ecc.row_remap_banks.map(|_| u64::from(u32::MAX));
const ROW_FLAG: fn(&Profile) -> Option<u64> =
    |profile| profile.ecc.row_remap_banks.map(|_| FLAG_MAX);
const BANKS: fn(&Profile) -> Option<u64> = |profile| profile.ecc.row_remap_banks.map(u64::from);
const PAGES: fn(&Profile) -> Option<u64> =
    |profile| profile.ecc.retired_pages.then_some(RETIRED_MAX);
const FABRIC: fn(&Profile) -> Option<u64> =
    |profile| profile.fabric.as_ref().map(|_| u64::from(u32::MAX));

/// What the boards that retire pages have room for in their InfoROM.
const RETIRED_MAX: u64 = 64;

const FIGURES: &[Figure] = &[
    figure!("temperature.gpu", CELSIUS, |gpu| gpu.load.temperature_c),
    figure!("temperature.memory", CELSIUS, |gpu| gpu
        .load
        .memory_temperature_c),
    figure!(
        "power.draw",
        |p| Some(u64::from(p.power.max_w) * 2000),
        |gpu| gpu.load.power_mw
    ),
    figure!(
        "power.limit",
        |p| Some(u64::from(p.power.max_w) * 1000),
        |gpu| gpu.load.power_limit_mw
    ),
    figure!("power.energy", COUNT_64, |gpu| gpu.load.energy_mj),
    figure!("clocks.sm", |p| Some(p.clocks.sm_max_mhz.into()), |gpu| gpu
        .load
        .sm_mhz),
    figure!(
        "clocks.memory",
        |p| Some(p.clocks.memory_mhz.into()),
        |gpu| gpu.load.memory_mhz
    ),
    figure!(
        "clocks.video",
        |p| Some(p.clocks.video_max_mhz.into()),
        |gpu| gpu.load.video_mhz
    ),
    figure!("utilization.gpu", PERCENT, |gpu| gpu.load.gpu_percent),
    figure!("utilization.memory", PERCENT, |gpu| gpu.load.memory_percent),
    figure!(
        "memory.used-mib",
        |p| Some(p.memory_mib - p.memory_reserved_mib),
        |gpu| gpu.load.memory_used_mib
    ),
    figure!("ecc.volatile.dram.corrected", COUNT_64, |gpu| volatile(gpu)
        .dram
        .corrected),
    figure!("ecc.volatile.dram.uncorrected", COUNT_64, |gpu| volatile(
        gpu
    )
    .dram
    .uncorrected),
    figure!("ecc.volatile.sram.corrected", COUNT_64, |gpu| volatile(gpu)
        .sram
        .corrected),
    figure!("ecc.volatile.sram.uncorrected", COUNT_64, |gpu| volatile(
        gpu
    )
    .sram
    .uncorrected),
    figure!("ecc.aggregate.dram.corrected", COUNT_64, |gpu| gpu
        .ecc_aggregate
        .dram
        .corrected),
    figure!("ecc.aggregate.dram.uncorrected", COUNT_64, |gpu| gpu
        .ecc_aggregate
        .dram
        .uncorrected),
    figure!("ecc.aggregate.sram.corrected", COUNT_64, |gpu| gpu
        .ecc_aggregate
        .sram
        .corrected),
    figure!("ecc.aggregate.sram.uncorrected", COUNT_64, |gpu| gpu
        .ecc_aggregate
        .sram
        .uncorrected),
    figure!("ecc.sram.threshold-exceeded", FLAG, |gpu| gpu
        .sram_threshold_exceeded),
    figure!("row-remap.correctable", ROWS, |gpu| gpu.rows.correctable),
    figure!("row-remap.uncorrectable", ROWS, |gpu| gpu
        .rows
        .uncorrectable),
    figure!("row-remap.pending", ROW_FLAG, |gpu| gpu.rows.pending),
    figure!("row-remap.failure", ROW_FLAG, |gpu| gpu.rows.failure),
    figure!("row-remap.banks.max", BANKS, |gpu| gpu.banks.max),
    figure!("row-remap.banks.high", BANKS, |gpu| gpu.banks.high),
    figure!("row-remap.banks.partial", BANKS, |gpu| gpu.banks.partial),
    figure!("row-remap.banks.low", BANKS, |gpu| gpu.banks.low),
    figure!("row-remap.banks.none", BANKS, |gpu| gpu.banks.none),
    figure!("retired-pages.single-bit", PAGES, |gpu| gpu
        .pages
        .single_bit),
    figure!("retired-pages.double-bit", PAGES, |gpu| gpu
        .pages
        .double_bit),
    figure!(
        "retired-pages.pending",
        |p| PAGES(p).map(|_| FLAG_MAX),
        |gpu| gpu.pages.pending
    ),
    figure!(
        "pcie.link-width",
        |_| Some(PcieLink::width_max().into()),
        |gpu| gpu.pcie.width
    ),
    figure!(
        "pcie.link-generation",
        |p| Some(p.pci.generation.into()),
        |gpu| gpu.pcie.generation
    ),
    figure!("pcie.replays", COUNT, |gpu| gpu.pcie.replays),
    figure!("pcie.replay-rollovers", COUNT, |gpu| gpu
        .pcie
        .replay_rollovers),
    figure!("pcie.errors.correctable", COUNT, |gpu| gpu
        .pcie
        .correctable_errors),
    figure!("pcie.errors.non-fatal", COUNT, |gpu| gpu
        .pcie
        .non_fatal_errors),
    figure!("pcie.errors.fatal", COUNT, |gpu| gpu.pcie.fatal_errors),
    figure!("fabric.state", |p| FABRIC(p).map(|_| 3), |gpu| gpu
        .fabric
        .state),
    figure!("fabric.status", FABRIC, |gpu| gpu.fabric.status),
    figure!("fabric.clique", FABRIC, |gpu| gpu.fabric.clique),
    figure!("fabric.health-mask", FABRIC, |gpu| gpu.fabric.health_mask),
    figure!("fabric.health-summary", |p| FABRIC(p).map(|_| 3), |gpu| gpu
        .fabric
        .health_summary),
];

fn volatile(gpu: &mut Gpu) -> &mut EccCounts {
    &mut gpu.ecc_volatile
}

/// Its name, and how it is set.
type LinkFigure = (&'static str, fn(&mut Link, u64));

/// Figures of one NVLink: `nvlink.14.crc-flit`.
const LINK_FIGURES: &[LinkFigure] = &[
    ("up", |link, value| put(&mut link.up, value)),
    ("replays", |link, value| put(&mut link.replays, value)),
    ("recoveries", |link, value| put(&mut link.recoveries, value)),
    ("crc-flit", |link, value| put(&mut link.crc_flit, value)),
    ("crc-data", |link, value| put(&mut link.crc_data, value)),
    ("ecc-data", |link, value| put(&mut link.ecc_data, value)),
    ("symbol-errors", |link, value| {
        put(&mut link.symbol_errors, value)
    }),
    ("effective-errors", |link, value| {
        put(&mut link.effective_errors, value)
    }),
    ("recoveries-failed", |link, value| {
        put(&mut link.recoveries_failed, value)
    }),
];

/// Sets a figure of a GPU.
///
/// # Errors
/// There is no such figure on this profile, or the value means nothing.
pub(crate) fn set(profile: &Profile, gpu: &mut Gpu, name: &str, value: u64) -> Result<(), String> {
    if let Some(rest) = name.strip_prefix("nvlink.") {
        return set_link(profile, gpu, rest, value);
    }
    let figure = FIGURES.iter().find(|figure| figure.name == name);
    let figure = figure.ok_or_else(|| format!("no figure {name}: {}", names().join(", ")))?;
    let max = (figure.max)(profile);
    let max = max.ok_or_else(|| format!("{} has no {name}: use another profile", profile.name))?;
    if value > max {
        return Err(format!(
            "{name}={value} is out of range on {}: 0 to {max}",
            profile.name
        ));
    }
    (figure.set)(gpu, value);
    Ok(())
}

fn set_link(profile: &Profile, gpu: &mut Gpu, name: &str, value: u64) -> Result<(), String> {
    let links = gpu.links.len();
    let (link, name) = name.split_once('.').unwrap_or((name, ""));
    let known = || {
        LINK_FIGURES
            .iter()
            .map(|(known, _)| *known)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let figure = LINK_FIGURES.iter().find(|(figure, _)| *figure == name);
    let (_, set) = figure.ok_or_else(|| format!("no figure nvlink.{link}.{name}: {}", known()))?;
    let link = link
        .parse::<usize>()
        .ok()
        .and_then(|link| gpu.links.get_mut(link));
    let link = link.ok_or_else(|| match links {
        0 => format!("{} has no NVLink: use another profile", profile.name),
        links => format!("no such link of {}: 0 to {}", profile.name, links - 1),
    })?;
    set(link, value);
    Ok(())
}

/// Every name, `N` for the number of a link.
pub fn names() -> Vec<String> {
    let figures = FIGURES.iter().map(|figure| figure.name.to_owned());
    figures
        .chain(
            LINK_FIGURES
                .iter()
                .map(|(name, _)| format!("nvlink.N.{name}")),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str, name: &str, value: u64, words: &str) {
        let profile = Profile::named(key).unwrap();
        let mut gpu = Gpu::healthy(profile, profile.gpu(0).unwrap(), 0);
        let refusal = set(profile, &mut gpu, name, value).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }

    #[test]
    fn every_figure_can_be_set_where_the_profile_has_it() {
        let mut names = names();
        names.retain(|name| !name.starts_with("nvlink."));
        for profile in Profile::all() {
            let mut gpu = Gpu::healthy(profile, profile.gpu(0).unwrap(), 0);
            for name in &names {
                let set = set(profile, &mut gpu, name, 1);
                let lacks = match name.split('.').next().unwrap() {
                    "row-remap" => profile.ecc.row_remap_banks.is_none(),
                    "retired-pages" => !profile.ecc.retired_pages,
                    "fabric" => profile.fabric.is_none(),
                    _ => false,
                };
                assert_eq!(set.is_err(), lacks, "{}: {name}", profile.key);
            }
            set(profile, &mut gpu, "nvlink.5.up", 0).unwrap();
            assert!(!gpu.links[5].up);
        }
    }

    #[test]
    fn a_figure_that_means_nothing_is_refused() {
        refused("h100", "temperature.gpu", 151, "0 to 150");
        refused("h100", "mood", 1, "utilization.gpu");
        refused("h100", "pcie.link-width", 32, "0 to 16");
        refused("h100", "nvlink.18.up", 0, "0 to 17");
        refused("h100", "nvlink.0.colour", 0, "crc-flit");
        refused("v100", "row-remap.pending", 1, "has no");
    }
}
