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
use crate::remedy;
use crate::table;
use crate::text::{escape, shell_word};
use crate::view::ConditionView;
use crate::words::{self, Judgement};

/// The derived condition: it has no rule but the others.
const READY: &str = "Ready";

/// Reason of a condition that no policy owns any more.
const OWNER_GONE: &str = "OwnerGone";

/// The way of clearing that is its owner's word.
const POLICY: &str = "policy";

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
    remedy: &'static str,
    commands: Vec<String>,
}

impl Explained {
    fn of(gpu: &Gpu) -> Self {
        let action = words::action(gpu);
        let remedy = remedy::of_action(action, pci(gpu));
        let problem = |condition: &Condition| ExplainedProblem {
            rule: rule(condition),
            remedy: remedy::of_action(&condition.recommended_action, pci(gpu)).says,
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

fn pci(gpu: &Gpu) -> &str {
    gpu.spec.as_ref().map_or("", |spec| &spec.pci_address)
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
    let advice = remedy::of_action(action, pci(gpu));
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
    let is_gone = is_ownerless(condition);
    for way in &condition.clears {
        // Said below.
        if !(is_gone && way.on == POLICY) {
            let told = format!("{}: {}", clear(way), remedy::of_clear(&way.on));
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
    if judgement == Judgement::Problem {
        let action = &condition.recommended_action;
        let says = remedy::of_action(action, pci(gpu)).says;
        let action = if action.is_empty() { "NONE" } else { action };
        line(to, "Action", &format!("{action}: {says}"))?;
    }
    commands(condition, gpu)
        .iter()
        .try_for_each(|command| line(to, "Run", command))
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
    let mut commands = Vec::new();
    if words::judgement(condition) == Judgement::Problem {
        let remedy = remedy::of_action(&condition.recommended_action, pci(gpu));
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
    commands.extend(clear_by_hand(condition, gpu));
    commands
}

/// What an operator runs who knows that it is over; `None`: it is none of his to clear.
fn clear_by_hand(condition: &Condition, gpu: &Gpu) -> Option<String> {
    let owner = condition.owner.as_ref()?;
    let is_clearable = match owner.kind() {
        owner::Kind::Policy => true,
        owner::Kind::Host => remedy::is_clearable_by_hand(&condition.r#type),
        owner::Kind::Provider | owner::Kind::Unspecified => false,
    };
    let is_meant = is_clearable && words::judgement(condition) == Judgement::Problem;
    is_meant.then(|| {
        let (name, type_) = (qualified(gpu), &condition.r#type);
        let (name, type_) = (shell_word(&name), shell_word(type_));
        format!("devicectl gpu clear {name} {type_} --reason WHY")
    })
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
