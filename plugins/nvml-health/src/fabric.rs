//! The NVLink fabric, on products that have one: whether the GPU is registered with it, and what the fabric
//! says of its part (nvml.h, `nvmlGpuFabricInfo…`). Registration takes a while after boot.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{Info, action, clear, reading, subscribe};

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

/// What is wrong with it: the worst first.
struct Fault {
    severity: Severity,
    reason: &'static str,
    action: &'static str,
    what: String,
}

/// The pairs of bits of `fabric.health` of which 1 means that it is so.
const HEALTH: [(u32, Severity, &str, &str, &str); 4] = [
    (
        4,
        Severity::Warning,
        "RouteUnhealthy",
        action::CONTACT_SUPPORT,
        "its route is unhealthy",
    ),
    (
        0,
        Severity::Warning,
        "DegradedBandwidth",
        action::CONTACT_SUPPORT,
        "its bandwidth is degraded",
    ),
    (
        2,
        Severity::Info,
        "Recovering",
        action::NONE,
        "its route is being recovered",
    ),
    (
        6,
        Severity::Info,
        "Recovering",
        action::NONE,
        "it recovers from an access timeout",
    ),
];
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
    let Some(state) = news.int(reading::FABRIC_STATE) else {
        return Ok(());
    };
    let is_registered = ![NOT_STARTED, IN_PROGRESS].contains(&state);
    let mut faults = Vec::new();
    if is_registered {
        faults.extend(failed(news.int(reading::FABRIC_STATUS).unwrap_or(0)));
        faults.extend(unhealthy(news.int(reading::FABRIC_HEALTH).unwrap_or(0)));
    } else {
        let how = if state == NOT_STARTED {
            "has not begun"
        } else {
            "does not end"
        };
        faults.push(Fault {
            severity: Severity::Warning,
            reason: "NotRegistered",
            action: action::NONE,
            what: format!("registration {how}: look at the fabric manager, and its log"),
        });
    }
    let wait = Wait {
        condition: CONDITION,
        name: WAKE,
        begin_s: if is_registered { 0 } else { settle_s },
        end_s: 0,
    };
    match (wait.judge(news, !faults.is_empty())?, faults.first()) {
        (Now::Problem, Some(worst)) => {
            let what: Vec<&str> = faults.iter().map(|fault| fault.what.as_str()).collect();
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

fn failed(status: i64) -> Option<Fault> {
    (status != 0).then(|| Fault {
        severity: Severity::Fatal,
        reason: "RegistrationFailed",
        action: action::CONTACT_SUPPORT,
        what: format!(
            "registration failed (NVML return code {status}), so that CUDA can't use the GPU: look at the fabric \
             manager's log"
        ),
    })
}

fn unhealthy(mask: i64) -> Vec<Fault> {
    let is_so = |shift: &u32| mask >> shift & 0b11 == 1;
    let bits = HEALTH.iter().filter(|(shift, ..)| is_so(shift));
    let bit = |(_, severity, reason, action, what): &(
        u32,
        Severity,
        &'static str,
        &'static str,
        &str,
    )| Fault {
        severity: *severity,
        reason,
        action,
        what: (*what).to_owned(),
    };
    let mut faults: Vec<Fault> = bits.map(bit).collect();
    let configuration = mask >> CONFIGURATION_SHIFT & 0b1111;
    if configuration > 1 {
        let known = usize::try_from(configuration - 2).ok();
        let which = known.and_then(|at| CONFIGURATIONS.get(at)).copied();
        let wrong = Fault {
            severity: Severity::Warning,
            reason: "WrongConfiguration",
            action: action::CONTACT_SUPPORT,
            what: match which {
                Some(which) => format!("its configuration is wrong: {which}"),
                None => format!("its configuration is wrong (NVML's number {configuration})"),
            },
        };
        let lesser = faults
            .iter()
            .position(|fault| fault.severity == Severity::Info);
        faults.insert(lesser.unwrap_or(faults.len()), wrong);
    }
    faults
}
