//! Errors that are normal one by one and not in numbers: counters, and how much each may rise within a window.
//! NVML tells no thresholds for them, so each is of the configuration, whose defaults are the vendor's own.
//!
//! A condition for each kind of them. It begins with the count and ends when no counter has risen so much for a
//! while. A counter that falls was begun anew, and is counted from there.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{HostExt as _, Info, clear, reading, subscribe};

use crate::config::Config;
use crate::news::{NOT_JUDGED, News};
use crate::points::Points;

pub(crate) const ECC: &str = "EccErrorRate";
pub(crate) const PCIE: &str = "PcieErrorRate";
pub(crate) const NVLINK: &str = "NvLinkErrorRate";

/// Counters of one condition: the reading, its reason, and what it counts.
pub(crate) struct Group {
    pub(crate) condition: &'static str,
    pub(crate) counters: &'static [(&'static str, &'static str, &'static str)],
}

pub(crate) const GROUPS: [Group; 3] = [
    Group {
        condition: ECC,
        counters: &[
            (
                reading::ECC_VOLATILE_CORRECTED,
                "CorrectedErrors",
                "corrected ECC errors",
            ),
            (
                reading::ECC_VOLATILE_UNCORRECTED,
                "UncorrectedErrors",
                "uncorrected ECC errors",
            ),
            (
                reading::ECC_DRAM_VOLATILE_CORRECTED,
                "CorrectedDramErrors",
                "corrected DRAM errors",
            ),
            (
                reading::ECC_DRAM_VOLATILE_UNCORRECTED,
                "UncorrectedDramErrors",
                "uncorrected DRAM errors",
            ),
            (
                reading::ECC_SRAM_VOLATILE_CORRECTED,
                "CorrectedSramErrors",
                "corrected SRAM errors",
            ),
            (
                reading::ECC_SRAM_VOLATILE_UNCORRECTED,
                "UncorrectedSramErrors",
                "uncorrected SRAM errors",
            ),
        ],
    },
    Group {
        condition: PCIE,
        counters: &[
            (reading::PCIE_REPLAYS, "Replays", "PCIe replays"),
            (
                reading::PCIE_REPLAY_ROLLOVERS,
                "ReplayRollovers",
                "PCIe replay rollovers",
            ),
            (
                reading::PCIE_CORRECTABLE_ERRORS,
                "CorrectableErrors",
                "correctable PCIe errors",
            ),
            (
                reading::PCIE_NON_FATAL_ERRORS,
                "NonFatalErrors",
                "non-fatal PCIe errors",
            ),
            (
                reading::PCIE_FATAL_ERRORS,
                "FatalErrors",
                "fatal PCIe errors",
            ),
            (
                reading::PCIE_RECOVERIES,
                "Recoveries",
                "recoveries of the PCIe link",
            ),
        ],
    },
    Group {
        condition: NVLINK,
        counters: &[
            (
                reading::NVLINK_CRC_FLIT_ERRORS,
                "CrcFlitErrors",
                "NVLink CRC errors (flit)",
            ),
            (
                reading::NVLINK_CRC_DATA_ERRORS,
                "CrcDataErrors",
                "NVLink CRC errors (data)",
            ),
            (
                reading::NVLINK_REPLAY_ERRORS,
                "ReplayErrors",
                "NVLink replays",
            ),
            (
                reading::NVLINK_RECOVERY_ERRORS,
                "RecoveryErrors",
                "NVLink recoveries",
            ),
            (
                reading::NVLINK_RECEIVE_ERRORS,
                "ReceiveErrors",
                "NVLink receive errors",
            ),
            (
                reading::NVLINK_LINK_RECOVERIES,
                "LinkRecoveries",
                "recoveries of NVLinks",
            ),
            (
                reading::NVLINK_LINK_RECOVERY_FAILURES,
                "LinkRecoveryFailures",
                "recoveries of NVLinks that failed",
            ),
            (
                reading::NVLINK_SYMBOL_ERRORS,
                "SymbolErrors",
                "NVLink symbol errors",
            ),
        ],
    },
];

/// Every counter that may have a rate.
pub(crate) fn keys() -> Vec<&'static str> {
    let counters = GROUPS.iter().flat_map(|group| group.counters);
    counters.map(|(key, ..)| *key).collect()
}

/// How much a counter may rise, and what is said when it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) count: i64,
    pub(crate) within_s: u64,
    pub(crate) quiet_s: u64,
    pub(crate) severity: Severity,
    pub(crate) action: &'static str,
}

pub(crate) fn declare(info: Info, config: &Config) -> Info {
    let info = GROUPS.iter().fold(info, |info, group| {
        let mut reasons: Vec<&str> = group
            .counters
            .iter()
            .map(|(_, reason, _)| *reason)
            .collect();
        reasons.extend(["BelowRates", NOT_JUDGED]);
        info.owns(group.condition, true, &reasons)
    });
    config.rates.keys().fold(info, |info, key| {
        info.readings(&[key]).subscribe(subscribe::reading(key, 0))
    })
}

/// One counter that has a rate, as it stands now.
struct Counter<'a> {
    reason: &'static str,
    what: &'static str,
    rate: &'a Rate,
    /// For how many milliseconds it still counts that it rose too much; `None`: it does not.
    left_ms: Option<u64>,
}

/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>, group: &Group, config: &Config) -> Result<(), String> {
    let rated = group
        .counters
        .iter()
        .filter(|(key, ..)| config.rates.contains_key(key));
    let keys: Vec<&str> = rated.map(|(key, ..)| *key).collect();
    if keys.is_empty() {
        news.not_judged(group.condition);
        return Ok(());
    }
    if !news.woke(group.condition) && !news.is_about(&keys) {
        return Ok(());
    }
    let mut counters = Vec::new();
    for (key, reason, what) in group.counters {
        let Some(rate) = config.rates.get(key) else {
            continue;
        };
        let left_ms = match news.int(key) {
            Some(count) => count_one(news, group.condition, (key, count), rate)?,
            None => match untold(news, group.condition, key, rate) {
                Some(left_ms) => Some(left_ms),
                None => continue,
            },
        };
        counters.push(Counter {
            reason,
            what,
            rate,
            left_ms,
        });
    }
    if !counters.is_empty() {
        say(news, group.condition, &counters);
    }
    Ok(())
}

/// Of a counter that can't be read: whether it rose on since nobody knows, so it still counts, and is looked at again.
fn untold(news: &News<'_>, condition: &str, key: &str, rate: &Rate) -> Option<u64> {
    let points: Points = news.host.get_parsed(&place(news, key))?;
    let at = points.exceeded_at.filter(|_| news.stands(condition))?;
    let quiet_ms = rate.quiet_s.saturating_mul(1000);
    let ago = news.signal.at_ms.saturating_sub(at);
    Some(
        quiet_ms
            .checked_sub(ago)
            .filter(|left| *left > 0)
            .unwrap_or(quiet_ms),
    )
}

fn place(news: &News<'_>, key: &str) -> String {
    news.key(&format!("rate/{key}"))
}

/// Takes a count; for how long it still counts that its rate was exceeded.
fn count_one(
    news: &mut News<'_>,
    condition: &str,
    (key, count): (&str, i64),
    rate: &Rate,
) -> Result<Option<u64>, String> {
    let now = news.signal.at_ms;
    let place = place(news, key);
    let before = news.host.get_parsed::<Points>(&place);
    let mut points = before.clone().unwrap_or_default();
    if points.exceeded_at.is_some() && !news.stands(condition) {
        // The host or an operator has cleared it: counted from the start.
        points = Points::default();
    }
    let within_ms = rate.within_s.saturating_mul(1000);
    if points.take(now, count, within_ms) >= rate.count {
        points.exceeded_at = Some(now);
    }
    let quiet_ms = rate.quiet_s.saturating_mul(1000);
    let ago = points.exceeded_at.map(|at| now.saturating_sub(at));
    let left = ago.and_then(|ago| quiet_ms.checked_sub(ago));
    let left = left.filter(|left| *left > 0);
    if left.is_none() {
        points.exceeded_at = None;
    }
    if before.as_ref() != Some(&points) {
        news.host.put_display(&place, &points)?;
    }
    Ok(left)
}

fn say(news: &mut News<'_>, condition: &'static str, counters: &[Counter<'_>]) {
    let over: Vec<(&Counter<'_>, u64)> = counters
        .iter()
        .filter_map(|counter| Some((counter, counter.left_ms?)))
        .collect();
    let rank = |severity: Severity| match severity {
        Severity::Info => 0,
        Severity::Warning => 1,
        Severity::Fatal => 2,
    };
    // Of two alike the first.
    let worst = over
        .iter()
        .rev()
        .max_by_key(|(counter, _)| rank(counter.rate.severity));
    let Some((worst, _)) = worst else {
        if news.stands(condition) {
            news.wake(condition, 0);
        }
        news.ok(
            condition,
            "BelowRates",
            "No counter has risen too fast of late.",
        );
        return;
    };
    let left = over.iter().map(|(_, left)| *left);
    news.wake(condition, left.min().unwrap_or_default().max(1));
    let what: Vec<String> = over
        .iter()
        .map(|(Counter { rate, what, .. }, _)| {
            format!("{} {what} or more within {} s", rate.count, rate.within_s)
        })
        .collect();
    let problem = news
        .problem(condition, worst.rate.severity, worst.reason)
        .action(worst.rate.action)
        .message(format!(
            "{}. Over after {} s without.",
            what.join("; "),
            worst.rate.quiet_s
        ))
        .clears(&[
            clear::POLICY,
            clear::GPU_RESET,
            clear::NODE_REBOOT,
            clear::REPLACEMENT,
            clear::OPERATOR,
        ]);
    news.say(problem);
}
