//! The NVLink fabric, on products that have one: whether the GPU is registered with it, and what the fabric
//! says of its part (nvml.h, `nvmlGpuFabricInfo…`). Registration takes a while after boot.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, action, clear, reading, subscribe};

use crate::faults::{self, Fault, Judged, Told};
use crate::news::{NOT_JUDGED, News};
use crate::wait::{Now, Wait};

pub(crate) const CONDITION: &str = "Fabric";
const WAKE: &str = "fabric";
const KEYS: [&str; 3] = [
    reading::FABRIC_STATE,
    reading::FABRIC_STATUS,
    reading::FABRIC_HEALTH,
];

const NOT_STARTED: i64 = 1;
const IN_PROGRESS: i64 = 2;

/// A pair of bits of `fabric.health`.
struct Pair {
    shift: u32,
    /// Its place in the policy's state.
    place: &'static str,
    how: (Severity, &'static str),
    reason: &'static str,
    /// What it says where it is 1.
    what: &'static str,
}

const WARNING: (Severity, &str) = (Severity::Warning, action::CONTACT_SUPPORT);
const RECOVERS: (Severity, &str) = (Severity::Info, action::NONE);

/// The worst first.
const HEALTH: [Pair; 4] = [
    Pair {
        shift: 4,
        place: "RouteUnhealthy",
        how: WARNING,
        reason: "RouteUnhealthy",
        what: "its route is unhealthy",
    },
    Pair {
        shift: 0,
        place: "DegradedBandwidth",
        how: WARNING,
        reason: "DegradedBandwidth",
        what: "its bandwidth is degraded",
    },
    Pair {
        shift: 2,
        place: "RouteRecovery",
        how: RECOVERS,
        reason: "Recovering",
        what: "its route is being recovered",
    },
    Pair {
        shift: 6,
        place: "TimeoutRecovery",
        how: RECOVERS,
        reason: "Recovering",
        what: "it recovers from an access timeout",
    },
];
/// How many of these are worse than a wrong configuration.
const WORSE: usize = 2;
const CONFIGURATION_SHIFT: u32 = 8;
/// From 2 on; 0 is not told, 1 none.
const CONFIGURATIONS: [&str; 4] = [
    "a wrong system GUID",
    "a wrong chassis serial number",
    "no partition",
    "too few NVLinks",
];

pub(crate) fn declare(info: Info) -> Info {
    KEYS.into_iter()
        .fold(
            info.owns(
                CONDITION,
                true,
                &[
                    "Registered",
                    "NotRegistered",
                    "RegistrationFailed",
                    "RouteUnhealthy",
                    "DegradedBandwidth",
                    "WrongConfiguration",
                    "Recovering",
                    NOT_JUDGED,
                ],
            ),
            |info, key| info.subscribe(subscribe::reading(key, 0)),
        )
        .readings(&KEYS)
}

/// `settle_s`: how long registration may take.
///
/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>, settle_s: u64) -> Result<(), String> {
    if !news.woke(WAKE) && !news.is_about(&KEYS) {
        return Ok(());
    }
    let wait = Wait {
        condition: CONDITION,
        name: WAKE,
        begin_s: settle_s,
        end_s: 0,
    };
    let Some(state) = news.int(reading::FABRIC_STATE) else {
        wait.put_off(news);
        return Ok(());
    };
    let is_registered = ![NOT_STARTED, IN_PROGRESS].contains(&state);
    let mut faults = vec![registration(state, is_registered)];
    faults.push(failed(is_registered, news.int(reading::FABRIC_STATUS)));
    faults.extend(unhealthy(is_registered, news.int(reading::FABRIC_HEALTH)));
    let wrong = match faults::judge(news, CONDITION, wait.begins(news), &faults)? {
        Judged::Wrong(wrong) => wrong,
        Judged::Fine => Vec::new(),
        Judged::Unknown => {
            wait.put_off(news);
            return Ok(());
        }
    };
    let begin_s = if is_registered { 0 } else { settle_s };
    let said = Wait { begin_s, ..wait }.judge(news, !wrong.is_empty())?;
    match (said, wrong.first()) {
        (Now::Problem, Some(worst)) => {
            let what: Vec<&str> = wrong.iter().map(|wrong| wrong.words.as_str()).collect();
            let problem = news
                .problem(CONDITION, worst.severity, worst.reason)
                .action(worst.action)
                .message(format!("Of the NVLink fabric: {}.", what.join("; ")))
                .clears(&[
                    clear::POLICY,
                    clear::GPU_RESET,
                    clear::NODE_REBOOT,
                    clear::REPLACEMENT,
                    clear::OPERATOR,
                ]);
            news.say(problem);
        }
        (Now::Ok, _) => news.ok(
            CONDITION,
            "Registered",
            "Registered with the NVLink fabric, which tells of nothing wrong.",
        ),
        (Now::Waits | Now::Problem, _) => {}
    }
    Ok(())
}

fn registration(state: i64, is_registered: bool) -> Fault {
    let told = Told::when(Some(!is_registered), || {
        let how = if state == NOT_STARTED {
            "has not begun"
        } else {
            "does not end"
        };
        format!("registration {how}: look at the fabric manager, and its log")
    });
    Fault::new("NotRegistered", (Severity::Warning, action::NONE), told)
}

/// What came of a registration before is over with a new one.
fn failed(is_registered: bool, status: Option<i64>) -> Fault {
    let status = status
        .filter(|_| is_registered)
        .or((!is_registered).then_some(0));
    let told = Told::when(status.map(|status| status != 0), || {
        format!(
            "registration failed (NVML return code {}), so that CUDA can't use the GPU: look at the fabric manager's \
             log",
            status.unwrap_or_default()
        )
    });
    let how = (Severity::Fatal, action::CONTACT_SUPPORT);
    Fault::new("RegistrationFailed", how, told)
}

/// The worst first.
fn unhealthy(is_registered: bool, mask: Option<i64>) -> Vec<Fault> {
    let told = |is_so: &dyn Fn(i64) -> Option<bool>, what: String| {
        let is_so = if is_registered {
            mask.and_then(is_so)
        } else {
            Some(false)
        };
        Told::when(is_so, || what)
    };
    let bits = HEALTH.iter().map(|pair| {
        let is_so = |mask: i64| match mask >> pair.shift & 0b11 {
            1 => Some(true),
            2 => Some(false),
            _ => None,
        };
        let told = told(&is_so, pair.what.to_owned());
        Fault::new(pair.reason, pair.how, told).named(pair.place)
    });
    let mut faults: Vec<Fault> = bits.collect();
    let which = |mask: i64| mask >> CONFIGURATION_SHIFT & 0b1111;
    let is_wrong = |mask: i64| (which(mask) > 0).then(|| which(mask) > 1);
    let wrong = told(&is_wrong, configuration(mask.map_or(0, which)));
    faults.insert(WORSE, Fault::new("WrongConfiguration", WARNING, wrong));
    faults
}

/// `which`: from 2 on.
fn configuration(which: i64) -> String {
    let known = which.checked_sub(2).and_then(|at| usize::try_from(at).ok());
    match known.and_then(|at| CONFIGURATIONS.get(at)) {
        Some(known) => format!("its configuration is wrong: {known}"),
        None => format!("its configuration is wrong (NVML's number {which})"),
    }
}
