//! `devicectl explain NAME`: of each problem of one GPU the rule, the evidence, what clears it, and what to
//! run (design H12).

use std::io::{self, Write};

use device_api_proto::native::{Condition, Gpu, owner};
use serde::Serialize;

use super::describe::{clear, since};
use super::resolve;
use crate::args::{Args, Format, Selectors};
use crate::client::{Client, qualified};
use crate::failure::Failure;
use crate::output::Output;
use crate::remedy::{self, Named, Remedy};
use crate::table;
use crate::text::{escape, shell_word};
use crate::view::ConditionView;
use crate::words::{self, Judgement};

/// The derived condition: it has no rule but the others.
const READY: &str = "Ready";

/// Reason of a condition that no policy owns any more.
const OWNER_GONE: &str = "OwnerGone";

/// What stands while an operator keeps the daemon from the driver: that is what ends it.
const RELEASED: (&str, &str) = ("NvmlReachable", "Released");
const ATTACH: &str = "devicectl nvml attach";

/// The way of clearing that is its owner's word.
const POLICY: &str = "policy";

/// The action whose remedy reports the reset that it makes.
const COMPONENT_RESET: &str = "COMPONENT_RESET";

/// The way of clearing that needs the daemon to know of a reset.
const GPU_RESET: &str = "gpu-reset";

/// Of a problem of a GPU that is gone: there is nothing to be done about it, nor does anything clear it.
const KEPT: &str = "should the GPU be in the machine again, this stands again";

pub(super) async fn run<W: Write>(
    args: &Args,
    name: &str,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let listed = client.list(&Selectors::default()).await?;
    let gpu = resolve(&listed.gpus, name)?;
    match args.output {
        Format::Table | Format::Wide => {
            let now = jiff::Timestamp::now();
            out.print(|to, colour| explain(to, gpu, now, colour))
        }
        Format::Json => out.json(&Explained::of(gpu)),
        Format::Yaml => out.yaml(&Explained::of(gpu), false),
    }
}

/// What `-o json` prints; the rules are those of [`crate::view`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    name: String,
    health: &'static str,
    recommended_action: String,
    remedy: &'static str,
    commands: Vec<String>,
    problems: Vec<ExplainedProblem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplainedProblem {
    #[serde(flatten)]
    condition: ConditionView,
    rule: String,
    /// When it is known again, of what is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    known_again: String,
    remedy: &'static str,
    commands: Vec<String>,
}

impl Explained {
    fn of(gpu: &Gpu) -> Self {
        let action = words::action(gpu);
        let remedy = advice(gpu);
        let problem = |condition: &Condition| ExplainedProblem {
            rule: rule(condition),
            known_again: known_again(condition),
            remedy: if words::gone(gpu).is_some() {
                remedy::OF_GONE
            } else {
                remedy::of_action(&condition.recommended_action, &named(gpu)).says
            },
            commands: commands(condition, gpu),
            condition: ConditionView::from(condition),
        };
        Self {
            name: qualified(gpu),
            health: words::health(gpu),
            recommended_action: action.to_owned(),
            remedy: remedy.says,
            commands: remedy.command.into_iter().collect(),
            problems: problems(gpu).map(problem).collect(),
        }
    }
}

fn named(gpu: &Gpu) -> Named {
    let spec = gpu.spec.as_ref();
    let parent = spec.map(|spec| &spec.mig_parent);
    let parent = parent.filter(|parent| !parent.is_empty());
    Named {
        name: parent.cloned().unwrap_or_else(|| qualified(gpu)),
        pci: spec.map_or_else(String::new, |spec| spec.pci_address.clone()),
    }
}

/// What is the matter: problems, those that decide first; and what is not known, which may be why the
/// health is not.
fn problems(gpu: &Gpu) -> impl Iterator<Item = &Condition> {
    let of = |wanted: Judgement| {
        let conditions = words::conditions(gpu).iter();
        conditions
            .filter(|condition| condition.r#type != READY)
            .filter(move |condition| words::judgement(condition) == wanted)
    };
    let mut problems: Vec<_> = of(Judgement::Problem).collect();
    problems.sort_by_key(|condition| (!condition.counted, std::cmp::Reverse(condition.severity)));
    problems.into_iter().chain(of(Judgement::Unknown))
}

fn explain(to: &mut dyn Write, gpu: &Gpu, now: jiff::Timestamp, colour: bool) -> io::Result<()> {
    let health = table::health(gpu).show(colour);
    let status = gpu.status.clone().unwrap_or_default();
    let from = match (&*status.health_condition, &*status.health_reason) {
        ("", _) => String::new(),
        (condition, "") => format!(", by {condition}"),
        (condition, reason) => format!(", by {condition}: {reason}"),
    };
    writeln!(
        to,
        "{} is {health}{}",
        escape(&qualified(gpu)),
        escape(&from)
    )?;
    let action = words::action(gpu);
    let advice = advice(gpu);
    line(to, "Action", &format!("{action}: {}", advice.says))?;
    if let Some(command) = &advice.command {
        line(to, "Run", command)?;
    }
    let mut any = false;
    for condition in problems(gpu) {
        any = true;
        writeln!(to)?;
        problem(to, condition, gpu, now)?;
    }
    if !any {
        writeln!(to, "\nNo problem stands.")?;
    }
    Ok(())
}

/// What is to be done about the GPU.
fn advice(gpu: &Gpu) -> Remedy {
    match words::gone(gpu) {
        Some(_) => remedy::of_gone(&named(gpu)),
        None => remedy::of_action(words::action(gpu), &named(gpu)),
    }
}

fn problem(
    to: &mut dyn Write,
    condition: &Condition,
    gpu: &Gpu,
    now: jiff::Timestamp,
) -> io::Result<()> {
    let judgement = words::judgement(condition);
    let severity = match judgement {
        Judgement::Problem => format!("problem, {}", words::severity(condition)),
        Judgement::Ok | Judgement::Unknown => judgement.word().to_owned(),
    };
    let drill = if condition.drill { "  DRILL" } else { "" };
    writeln!(to, "{}  {severity}{drill}", escape(&condition.r#type))?;
    line(to, "Rule", &rule(condition))?;
    line(to, "Reason", &condition.reason)?;
    line(to, "Message", &condition.message)?;
    line(
        to,
        "Since",
        &since(condition.last_transition_time.as_ref(), now),
    )?;
    if !condition.counted {
        line(to, "Counted", "no: it changes no health")?;
    }
    line(to, "Cause", &cause(condition))?;
    for evidence in &condition.evidence {
        let when = words::rfc3339(evidence.observed_time.as_ref()).unwrap_or_default();
        let told = format!("{} {when}: {}", evidence.source, evidence.text);
        line(to, "Evidence", &told)?;
    }
    if words::gone(gpu).is_some() && judgement == Judgement::Problem {
        return line(to, "Kept", KEPT);
    }
    let is_gone = is_ownerless(condition);
    for way in &condition.clears {
        // Said below.
        if !(is_gone && way.on == POLICY) {
            let when = match &*way.on {
                GPU_RESET if is_operators(condition) => remedy::of_reset(shows_reset(gpu)),
                on => remedy::of_clear(on),
            };
            let told = format!("{}: {when}", clear(way));
            line(to, "Clears", &told)?;
        }
    }
    if is_gone {
        let told = format!(
            "{POLICY}: once a policy that owns {} judges here again and says so: put {} back, or another",
            condition.r#type,
            condition.owner.as_ref().map_or("it", |owner| &owner.name)
        );
        line(to, "Clears", &told)?;
    }
    line(to, "Clears", &known_again(condition))?;
    if judgement == Judgement::Problem {
        let action = &condition.recommended_action;
        let says = remedy::of_action(action, &named(gpu)).says;
        let action = if action.is_empty() { "NONE" } else { action };
        line(to, "Action", &format!("{action}: {says}"))?;
    }
    commands(condition, gpu)
        .iter()
        .try_for_each(|command| line(to, "Run", command))
}

/// When that is over of which nobody knows how it is; empty where it is known, or said of whose policy is gone.
fn known_again(condition: &Condition) -> String {
    if words::judgement(condition) != Judgement::Unknown || is_ownerless(condition) {
        return String::new();
    }
    let owner = condition.owner.as_ref();
    let (kind, name) = owner.map_or((owner::Kind::Unspecified, ""), |owner| {
        (owner.kind(), &*owner.name)
    });
    let by_owner = || match kind {
        owner::Kind::Policy => format!("once policy {name} can tell again how it is"),
        owner::Kind::Provider => format!("once provider {name} says again how it is"),
        owner::Kind::Host | owner::Kind::Unspecified => "by itself, once it is known".to_owned(),
    };
    let said = remedy::of_unknown(&condition.r#type, &condition.reason);
    said.filter(|_| kind != owner::Kind::Provider)
        .map_or_else(by_owner, str::to_owned)
}

/// Its policy is gone, or does not own its type any more, and nobody else does.
fn is_ownerless(condition: &Condition) -> bool {
    let owner = condition.owner.as_ref();
    let is_a_policys = owner.is_some_and(|owner| owner.kind() == owner::Kind::Policy);
    is_a_policys && condition.reason == OWNER_GONE
}

/// Whose judgement it is: of a policy with its version and all of its digest.
fn rule(condition: &Condition) -> String {
    let Some(owner) = &condition.owner else {
        return "nobody's".to_owned();
    };
    match owner.kind() {
        owner::Kind::Policy => {
            let digest = match &*owner.digest {
                "" => String::new(),
                digest => format!(", sha256:{digest}"),
            };
            let gone = if is_ownerless(condition) {
                "; it is gone, or owns this type no more"
            } else {
                ""
            };
            format!("policy {} {}{digest}{gone}", owner.name, owner.version)
        }
        owner::Kind::Provider => format!("provider {}", owner.name),
        owner::Kind::Host => remedy::of_host(&condition.r#type).0.to_owned(),
        owner::Kind::Unspecified => "of an owner that this devicectl does not know".to_owned(),
    }
}

fn cause(condition: &Condition) -> String {
    let number = |what: &str, number: u64| (number != 0).then(|| format!("{what} {number}"));
    let parts = [
        number("signal", condition.cause_signal),
        number("incident", condition.incident),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What to run: what remedies it, and what tells more of its rule.
fn commands(condition: &Condition, gpu: &Gpu) -> Vec<String> {
    if words::gone(gpu).is_some() {
        return Vec::new();
    }
    let mut commands = Vec::new();
    if is_released(condition) {
        commands.push(ATTACH.to_owned());
    }
    if words::judgement(condition) == Judgement::Problem {
        let remedy = remedy::of_action(&condition.recommended_action, &named(gpu));
        commands.extend(remedy.command);
    }
    let owner = condition.owner.as_ref();
    commands.extend(owner.and_then(|owner| match owner.kind() {
        // There may be none of that name to be described.
        owner::Kind::Policy if is_ownerless(condition) => Some("devicectl policy list".to_owned()),
        owner::Kind::Policy => Some(format!(
            "devicectl policy describe {}",
            shell_word(&owner.name)
        )),
        owner::Kind::Provider => Some("devicectl provider list".to_owned()),
        owner::Kind::Host => remedy::of_host(&condition.r#type).1.map(str::to_owned),
        owner::Kind::Unspecified => None,
    }));
    if is_operators(condition) {
        commands.extend(report_reset(condition, gpu));
        commands.push(clear_by_hand(condition, gpu));
    }
    commands
}

/// What is run after a reset that was made in another way than the remedy's, and of which NVML need not tell.
fn report_reset(condition: &Condition, gpu: &Gpu) -> Option<String> {
    let is_remedied = condition.recommended_action == COMPONENT_RESET;
    let mut clears = condition.clears.iter();
    let is_missed = !is_remedied && !shows_reset(gpu) && clears.any(|clear| clear.on == GPU_RESET);
    is_missed.then(|| remedy::report_reset(&named(gpu), "WHY"))
}

/// Whether a reset shows in what NVML tells of this GPU: in a recovery action that it satisfies and that NVML's field
/// tells (the kernel log's word alone is none), or in a pending row remap.
fn shows_reset(gpu: &Gpu) -> bool {
    words::conditions(gpu).iter().any(|condition| {
        let mut evidence = condition.evidence.iter();
        let is_shown = match &*condition.r#type {
            "RowRemap" => condition.reason == "RemapPending",
            "RecoveryActionRequired" => {
                condition.recommended_action == COMPONENT_RESET
                    && evidence.any(|told| told.source == "field-230")
            }
            _ => false,
        };
        is_shown && words::judgement(condition) == Judgement::Problem
    })
}

/// Whether it is a problem that an operator may clear.
fn is_operators(condition: &Condition) -> bool {
    let is_clearable = condition
        .owner
        .as_ref()
        .is_some_and(|owner| match owner.kind() {
            owner::Kind::Policy => true,
            owner::Kind::Host => remedy::is_clearable_by_hand(&condition.r#type),
            owner::Kind::Provider | owner::Kind::Unspecified => false,
        });
    is_clearable && words::judgement(condition) == Judgement::Problem && !is_released(condition)
}

fn is_released(condition: &Condition) -> bool {
    (&*condition.r#type, &*condition.reason) == RELEASED
}

/// What an operator runs who knows that it is over.
fn clear_by_hand(condition: &Condition, gpu: &Gpu) -> String {
    let (name, type_) = (qualified(gpu), &condition.r#type);
    let (name, type_) = (shell_word(&name), shell_word(type_));
    format!("devicectl gpu clear {name} {type_} --reason WHY")
}

/// A line, unless there is nothing to say.
fn line(to: &mut dyn Write, key: &str, value: &str) -> io::Result<()> {
    if value.is_empty() {
        Ok(())
    } else {
        writeln!(to, "  {:<10}{}", format!("{key}:"), escape(value))
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
