//! The daemon itself: does it answer, is it of our version, ready, of this boot, and how does it log.

use device_api_proto::native::{DaemonPart, DaemonPartState, GetDaemonStatusResponse, Gpu};
use tonic::Code;

use super::ask::Readyz;
use super::check::{Check, State};
use super::place::Place;
use crate::failure::Failure;
use crate::words;

const ANSWERS: &str = "api.answers";
const VERSION: &str = "api.version";
const ACCESS: &str = "api.access";
const CALLS: &str = "api.calls";
const READY: &str = "daemon.ready";
const PARTS: &str = "daemon.parts";
const LOG: &str = "daemon.log-level";
const BOOT: &str = "daemon.boot-id";
const CLOCK: &str = "daemon.clock";
const CERTIFICATE: &str = "tls.certificate";

/// Those that other checks look at.
const PARTS_CHECKED: [&str; 6] = [
    "nvml",
    "nvml-calls",
    "kernel-log",
    "store",
    "policies",
    "tls",
];

/// How far two clocks of one machine may be apart: an answer takes milliseconds.
const CLOCK_SECONDS_MAX: i64 = 5;

/// No machine with this daemon runs before it was written: 2025-01-01.
const CLOCK_EARLIEST: i64 = 1_735_689_600;

/// What renews certificates does so with a third of their time left; one that is a day from its end was missed.
const CERTIFICATE_SECONDS_MIN: i64 = 24 * 3600;

pub(super) fn answers(daemon: &Result<GetDaemonStatusResponse, Failure>) -> Vec<Check> {
    let ours = env!("CARGO_PKG_VERSION");
    match daemon {
        Ok(status) => vec![
            Check::ok(
                ANSWERS,
                format!("device-api-server {} answers", status.version),
            ),
            version(ours, &status.version),
            access(status),
        ],
        Err(Failure::Refused(status)) if status.code() == Code::Unimplemented => vec![
            Check::ok(ANSWERS, "a daemon answers"),
            Check::warn(
                VERSION,
                format!(
                    "the daemon is older than this devicectl ({ours}), and does not say how it is"
                ),
                "use the devicectl of the daemon's release, which its image holds",
            ),
        ],
        Err(failure) => vec![Check::fail(
            ANSWERS,
            failure.to_string(),
            "see the daemon's log; if it hangs, restart it, and report what the log says",
        )],
    }
}

/// Those that failed while the daemon answers others; what they would have told is not looked at.
pub(super) fn calls(failed: &[(&str, &Failure)]) -> Check {
    if failed.is_empty() {
        return Check::ok(CALLS, "all were answered");
    }
    let is_unknown = |failure: &Failure| matches!(failure, Failure::Refused(status) if status.code() == Code::Unimplemented);
    let said: Vec<String> = failed
        .iter()
        .map(|(call, failure)| format!("{call}: {failure}"))
        .collect();
    let why = said.join("; ");
    if failed.iter().all(|(_, failure)| is_unknown(failure)) {
        let fix = "use the devicectl of the daemon's release, which its image holds";
        return Check::warn(CALLS, why, fix);
    }
    let fix = "see the daemon's log for why, then run this again: what these calls tell was not looked at";
    Check::fail(CALLS, why, fix)
}

/// The same minor version, or before 1.0 too, speaks the same API.
fn version(ours: &str, theirs: &str) -> Check {
    let minor = |version: &str| {
        let mut parts = version.split('.').map(str::to_owned);
        (parts.next(), parts.next())
    };
    if minor(ours) == minor(theirs) {
        return Check::ok(VERSION, format!("devicectl {ours}, daemon {theirs}"));
    }
    Check::warn(
        VERSION,
        format!("devicectl is {ours}, the daemon {theirs}: one may lack what the other has"),
        "use the devicectl of the daemon's release, which its image holds",
    )
}

fn access(status: &GetDaemonStatusResponse) -> Check {
    let caller = &status.caller;
    if status.read_only.is_empty() {
        return Check::ok(ACCESS, format!("{caller} may read and write"));
    }
    Check::ok(ACCESS, format!("{caller} reads: {}", status.read_only))
}

pub(super) fn ready(status: &GetDaemonStatusResponse) -> Check {
    if status.ready {
        return Check::ok(READY, "ready");
    }
    let why = match &status.waiting[..] {
        [] => "it is going down".to_owned(),
        waiting => format!("it waits for {}", waiting.join(", ")),
    };
    Check::fail(READY, why, "see its log for what holds it up")
}

/// Where the socket did not answer.
pub(super) fn readyz(answer: std::io::Result<Readyz>, address: std::net::SocketAddr) -> Check {
    match answer {
        Err(error) => Check::skipped(
            READY,
            format!("no /readyz at {address} (--health-address): {error}"),
        ),
        Ok(Readyz { is_ready, lines }) => {
            let word = if is_ready { "ready" } else { "not ready" };
            let lines = lines.join("; ");
            let why = format!("{address} says {word}: {lines}");
            if is_ready {
                return Check::ok(READY, why);
            }
            Check::fail(READY, why, "see the daemon's log for what holds it up")
        }
    }
}

/// Whether a check says what [`readyz`] says of a daemon that is ready.
pub(super) fn says_ready(check: &Check) -> bool {
    check.id == READY && check.state == State::Ok
}

pub(super) fn part<'a>(status: &'a GetDaemonStatusResponse, name: &str) -> Option<&'a DaemonPart> {
    status.parts.iter().find(|part| part.name == name)
}

/// Those that no check of ours knows.
pub(super) fn parts(status: &GetDaemonStatusResponse) -> Check {
    let ill: Vec<String> = status
        .parts
        .iter()
        .filter(|part| !PARTS_CHECKED.contains(&&*part.name))
        .filter(|part| part.state() == DaemonPartState::Degraded)
        .map(|part| format!("{}: {}", part.name, part.detail))
        .collect();
    if ill.is_empty() {
        let names: Vec<&str> = status.parts.iter().map(|part| &*part.name).collect();
        return Check::ok(PARTS, format!("it has {}", names.join(", ")));
    }
    Check::fail(PARTS, ill.join("; "), "see the daemon's log")
}

pub(super) fn log(status: &GetDaemonStatusResponse) -> Check {
    let log = status.log.clone().unwrap_or_default();
    let until = words::rfc3339(log.until.as_ref());
    match (log.is_set, until) {
        (false, _) => Check::ok(LOG, format!("as at the start: {}", log.filter)),
        (true, Some(until)) => Check::ok(LOG, format!("{} until {until}", log.filter)),
        (true, None) => Check::warn(
            LOG,
            format!("someone set {}, without an end", log.filter),
            "devicectl log-level reset",
        ),
    }
}

pub(super) fn boot(place: &Place, status: &GetDaemonStatusResponse) -> Check {
    let Some(here) = place.read("/proc/sys/kernel/random/boot_id") else {
        return Check::skipped(BOOT, "this machine does not tell its boot");
    };
    if here == status.boot_id.trim() {
        return Check::ok(BOOT, format!("boot {here}"));
    }
    Check::warn(
        BOOT,
        format!(
            "this boot is {here}, to the daemon it is {}: what ends with a reboot may stand, or go",
            status.boot_id
        ),
        "have --boot-id-file name /proc/sys/kernel/random/boot_id of the host; or devicectl runs on another machine",
    )
}

/// `gpus`: where they were listed.
pub(super) fn clock(
    place: &Place,
    status: &GetDaemonStatusResponse,
    gpus: Option<&[Gpu]>,
) -> Check {
    let fix = "have the machine's clock set (chrony, systemd-timesyncd), then restart the daemon";
    let now = place.now.as_second();
    if now < CLOCK_EARLIEST {
        let why = format!(
            "it is {} here: certificates and times of faults are wrong",
            place.now
        );
        return Check::fail(CLOCK, why, fix);
    }
    let Some(theirs) = status.time else {
        return Check::skipped(CLOCK, "the daemon tells no time");
    };
    let apart = theirs.seconds.saturating_sub(now);
    if apart.abs() > CLOCK_SECONDS_MAX {
        let why = format!("the daemon's clock is {apart} s from ours");
        return Check::warn(CLOCK, why, fix);
    }
    let Some(gpus) = gpus else {
        let why = format!("{}, as far as is known without the GPUs", place.now);
        return Check::ok(CLOCK, why);
    };
    let changed = gpus.iter().flat_map(words::conditions);
    let latest = changed
        .filter_map(|condition| condition.last_transition_time)
        .map(|time| time.seconds)
        .max();
    match latest.map(|latest| latest.saturating_sub(now)) {
        Some(ahead) if ahead > CLOCK_SECONDS_MAX => Check::warn(
            CLOCK,
            format!("a condition changed {ahead} s from now: the clock was set back"),
            "nothing, if it is right now; what is shown of ages is wrong until then",
        ),
        _ => Check::ok(CLOCK, place.now.to_string()),
    }
}

pub(super) fn certificate(place: &Place, status: &GetDaemonStatusResponse) -> Check {
    let Some(expires) = status.certificate_expires else {
        return Check::skipped(CERTIFICATE, "the daemon speaks no TLS");
    };
    let fix = "put a new certificate where --tls-cert points (chart: tls.secretName); it is taken within a second";
    let left = expires.seconds.saturating_sub(place.now.as_second());
    let at = words::rfc3339(Some(&expires)).unwrap_or_default();
    if left <= 0 {
        return Check::fail(
            CERTIFICATE,
            format!("it ran out at {at}: no client connects over TCP"),
            fix,
        );
    }
    let broken = part(status, "tls").filter(|part| part.state() == DaemonPartState::Degraded);
    if let Some(part) = broken {
        return Check::warn(CERTIFICATE, part.detail.clone(), fix);
    }
    if left < CERTIFICATE_SECONDS_MIN {
        return Check::warn(CERTIFICATE, format!("it runs out at {at}"), fix);
    }
    Check::ok(CERTIFICATE, format!("good until {at}"))
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
