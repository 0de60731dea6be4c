//! What judges and who writes: policies, GPUs of which nobody says how they are, providers that are lost.

use std::collections::BTreeSet;

use device_api_proto::native::{
    Condition, DaemonPartState, GetDaemonStatusResponse, Gpu, ListPoliciesResponse, Policy,
    PolicyMode, PolicyPhase, PolicySetAside, Provider, owner,
};

use super::check::{Check, State};
use super::daemon::part;
use crate::client::qualified;
use crate::text::shell_word;
use crate::words::{self, Judgement};

const SET: &str = "policies.set";
const SAVED: &str = "policies.saved";
const SAFE_MODE: &str = "policies.safe-mode";
const RUNNING: &str = "policies.running";
const REFUSED: &str = "policies.refused";
const HELD: &str = "policies.held";
const QUARANTINED: &str = "policies.quarantined";
const READY: &str = "policies.ready";
const KNOWN: &str = "gpus.known";
const LOST: &str = "providers.lost";

/// Condition of a GPU whose policies do not all judge it.
const POLICY_READY: &str = "PolicyReady";
/// Reason of what a provider said that is gone.
const PROVIDER_LOST: &str = "ProviderLost";

/// Names in one line.
const NAMES_MAX: usize = 8;

pub(super) fn policies(
    listed: &ListPoliciesResponse,
    daemon: Option<&GetDaemonStatusResponse>,
) -> Vec<Check> {
    let policies = &listed.policies;
    let safe_mode = safe_mode(policies, daemon);
    let is_safe_mode = safe_mode.state == State::Warn;
    vec![
        safe_mode,
        set(listed),
        saved(listed),
        running(policies, is_safe_mode),
        refused(policies),
        aside(HELD, policies, |policy| policy.held.as_slice(), held),
        aside(
            QUARANTINED,
            policies,
            |policy| &policy.quarantined,
            quarantined,
        ),
    ]
}

fn safe_mode(policies: &[Policy], daemon: Option<&GetDaemonStatusResponse>) -> Check {
    let off = daemon
        .and_then(|status| part(status, "policies"))
        .filter(|part| part.state() == DaemonPartState::Off);
    match off {
        Some(part) => Check::warn(
            SAFE_MODE,
            format!(
                "no policy is loaded, the vendor's class of a fault counts: {}",
                part.detail
            ),
            "start the daemon without --safe-mode (chart: policies.safeMode=false) once the policy that was the reason is gone",
        ),
        None if policies.is_empty() => Check::fail(
            SAFE_MODE,
            "there is no policy: the vendor's class of a fault counts",
            "devicectl policy reload says why none could be loaded",
        ),
        None => Check::ok(SAFE_MODE, "off"),
    }
}

fn set(listed: &ListPoliciesResponse) -> Check {
    if listed.refused.is_empty() {
        return Check::ok(SET, "taken as it is in the directory");
    }
    Check::fail(
        SET,
        format!(
            "refused as a whole, what ran before runs on: {}",
            listed.refused
        ),
        "mend policies.yaml or the directory as it says, then devicectl policy reload",
    )
}

fn saved(listed: &ListPoliciesResponse) -> Check {
    let fix = "make the state directory writable (see store.durable), then decide again: devicectl policy list";
    match (&*listed.unsaved, &*listed.damage) {
        ("", "") => Check::ok(
            SAVED,
            "quarantines, pauses and what was accepted survive a restart",
        ),
        ("", damage) => Check::warn(
            SAVED,
            damage,
            "devicectl policy list says what is to be decided anew",
        ),
        (unsaved, _) => Check::fail(
            SAVED,
            format!("a restart forgets what was decided: {unsaved}"),
            fix,
        ),
    }
}

fn running(policies: &[Policy], is_safe_mode: bool) -> Check {
    if policies.is_empty() || is_safe_mode {
        return Check::skipped(RUNNING, "no policy is loaded");
    }
    let (mut failed, mut waiting, mut commands) = (Vec::new(), Vec::new(), Vec::new());
    // Of those that were refused from the start another check tells.
    let loaded: Vec<&Policy> = policies
        .iter()
        .filter(|policy| policy.phase() != PolicyPhase::Refused || policy.refused.is_none())
        .collect();
    for policy in &loaded {
        let name = shell_word(&policy.name);
        let phase = words::policy_phase(policy.phase());
        let said = match &*policy.detail {
            "" => format!("{} is {phase}", policy.name),
            detail => format!("{} is {phase}: {detail}", policy.name),
        };
        match policy.phase() {
            PolicyPhase::Running | PolicyPhase::LastGood => {}
            PolicyPhase::Paused => {
                waiting.push(said);
                commands.push(match policy.mode() {
                    PolicyMode::Paused => format!("mode: enforce of {name} in policies.yaml"),
                    PolicyMode::Enforce | PolicyMode::Shadow | PolicyMode::Unspecified => {
                        format!("devicectl policy resume {name}")
                    }
                });
            }
            PolicyPhase::Compiling | PolicyPhase::StandIn => {
                waiting.push(said);
                commands.push(format!("devicectl policy describe {name}"));
            }
            PolicyPhase::BackOff
            | PolicyPhase::Quarantined
            | PolicyPhase::Refused
            | PolicyPhase::Unspecified => {
                failed.push(said);
                commands.push(format!("devicectl policy describe {name}"));
            }
        }
    }
    commands.truncate(NAMES_MAX);
    let fix = commands.join(" ; ");
    if !failed.is_empty() {
        failed.append(&mut waiting);
        return Check::fail(RUNNING, failed.join("; "), fix);
    }
    if !waiting.is_empty() {
        return Check::warn(RUNNING, waiting.join("; "), fix);
    }
    if loaded.is_empty() {
        return Check::skipped(RUNNING, format!("none is left: see {REFUSED}"));
    }
    Check::ok(RUNNING, format!("{} judge", loaded.len()))
}

fn refused(policies: &[Policy]) -> Check {
    let refused: Vec<String> = policies
        .iter()
        .filter_map(|policy| {
            let aside = policy.refused.as_ref()?;
            Some(format!("{}: {}", policy.name, aside.why))
        })
        .collect();
    if refused.is_empty() {
        return Check::ok(REFUSED, "none");
    }
    let fix = "mend what it says, put the component there again, then devicectl policy reload";
    Check::fail(REFUSED, refused.join("; "), fix)
}

/// Versions that were set aside, and the command for the first of them.
fn aside<'a, S: AsRef<[PolicySetAside]> + 'a>(
    id: &'static str,
    policies: &'a [Policy],
    of: impl Fn(&'a Policy) -> S,
    command: fn(&str, &PolicySetAside) -> String,
) -> Check {
    let mut said = Vec::new();
    let mut commands = Vec::new();
    for policy in policies {
        for version in of(policy).as_ref() {
            said.push(format!(
                "{} {}: {}",
                policy.name, version.version, version.why
            ));
            commands.push(command(&policy.name, version));
        }
    }
    if said.is_empty() {
        return Check::ok(id, "none");
    }
    said.truncate(NAMES_MAX);
    commands.truncate(NAMES_MAX);
    Check::warn(id, said.join("; "), commands.join(" ; "))
}

fn held(name: &str, aside: &PolicySetAside) -> String {
    let (name, digest) = (shell_word(name), shell_word(short(&aside.digest)));
    format!(
        "devicectl policy describe {name}, then devicectl policy accept {name} --digest {digest}"
    )
}

fn quarantined(name: &str, aside: &PolicySetAside) -> String {
    let (name, digest) = (shell_word(name), shell_word(short(&aside.digest)));
    format!("replace it, or devicectl policy release {name} --digest {digest}")
}

/// As many digits of a digest as commands want.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// How GPUs are, where nobody knows; and whose policies fail, of which `others` may have told.
pub(super) fn gpus(gpus: &[Gpu], others: &[Check]) -> Vec<Check> {
    let causes = [SAFE_MODE, SET, RUNNING, REFUSED, QUARANTINED, HELD];
    let told: Vec<&str> = others
        .iter()
        .filter(|check| matches!(check.state, State::Warn | State::Fail))
        .map(|check| check.id)
        .filter(|id| causes.contains(id))
        .collect();
    vec![ready(gpus, &told), known(gpus)]
}

/// `told`: the checks that have told why; one cause is one failure.
fn ready(gpus: &[Gpu], told: &[&str]) -> Check {
    let is_ill = |condition: &&Condition| {
        condition.r#type == POLICY_READY && words::judgement(condition) != Judgement::Ok
    };
    let ill: BTreeSet<&str> = gpus
        .iter()
        .flat_map(words::conditions)
        .filter(is_ill)
        .map(|condition| &*condition.message)
        .collect();
    if ill.is_empty() {
        return Check::ok(READY, "every GPU is judged by all policies");
    }
    let ill: Vec<&str> = ill.into_iter().take(NAMES_MAX).collect();
    let why = format!("{POLICY_READY} is not True: {}", ill.join("; "));
    if told.is_empty() {
        return Check::fail(
            READY,
            why,
            "devicectl policy list says which, and what to do",
        );
    }
    Check::warn(READY, why, format!("as {} says", told.join(", ")))
}

fn known(gpus: &[Gpu]) -> Check {
    if gpus.is_empty() {
        return Check::skipped(KNOWN, "the daemon knows no GPU");
    }
    let unknown: Vec<String> = gpus
        .iter()
        .filter(|gpu| words::health(gpu) == "Unknown")
        .map(qualified)
        .collect();
    let Some(first) = unknown.first() else {
        return Check::ok(KNOWN, format!("the health of {} GPUs is known", gpus.len()));
    };
    let fix = format!("devicectl explain {}", shell_word(first));
    let count = unknown.len();
    let mut names = unknown;
    names.truncate(NAMES_MAX);
    let why = format!(
        "{count} of {} are Unknown: {}",
        gpus.len(),
        names.join(", ")
    );
    Check::fail(KNOWN, why, fix)
}

/// `gpus`: where they were listed.
pub(super) fn providers(providers: &[Provider], gpus: Option<&[Gpu]>) -> Check {
    let Some(gpus) = gpus else {
        return Check::skipped(
            LOST,
            "their conditions are the GPUs', which were not listed",
        );
    };
    let lost: BTreeSet<&str> = gpus
        .iter()
        .flat_map(words::conditions)
        .filter(|condition| condition.reason == PROVIDER_LOST)
        .filter_map(|condition| condition.owner.as_ref())
        // What the host derives of it is the host's own.
        .filter(|owner| owner.kind() == owner::Kind::Provider)
        .map(|owner| &*owner.name)
        .collect();
    let Some(first) = lost.first() else {
        return Check::ok(LOST, format!("none of {}", providers.len()));
    };
    let fix = format!(
        "start it again; one that does not come back: devicectl provider forget {}",
        shell_word(first)
    );
    let names: Vec<&str> = lost.iter().copied().take(NAMES_MAX).collect();
    let why = format!(
        "{} renewed no lease: what they called healthy is Unknown",
        names.join(", ")
    );
    Check::fail(LOST, why, fix)
}

#[cfg(test)]
#[path = "judged_tests.rs"]
mod tests;
