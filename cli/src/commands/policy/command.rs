//! `devicectl policy reload|quarantine|release|accept|pause|resume`.

use std::io::{self, Write};

use device_api_proto::native::{
    AcceptPolicyRequest, PausePolicyRequest, Policy, PolicyChange, QuarantinePolicyRequest,
    ReleasePolicyRequest, ReloadPoliciesResponse, ResumePolicyRequest,
};
use tonic::Code;

use super::{list, short, version};
use crate::args::{Args, Format};
use crate::client::{Client, OnPolicy};
use crate::commands::ask;
use crate::failure::Failure;
use crate::output::Output;
use crate::policy_view::{PolicyView, ReloadView};
use crate::table::{self, Cell, Paint};
use crate::text::escape;
use crate::words;

const HEADS: [&str; 4] = ["NAME", "CHANGE", "DIGEST", "DETAIL"];

/// What is to be done to one policy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order<'a> {
    Quarantine { reason: &'a str },
    Release { digest: &'a str },
    Accept { digest: &'a str },
    Pause { reason: &'a str },
    Resume,
}

impl Order<'_> {
    fn request(self, name: &str) -> OnPolicy {
        let name = name.to_owned();
        match self {
            Self::Quarantine { reason } => OnPolicy::Quarantine(QuarantinePolicyRequest {
                name,
                reason: reason.to_owned(),
            }),
            Self::Release { digest } => OnPolicy::Release(ReleasePolicyRequest {
                name,
                digest: digest.to_owned(),
            }),
            Self::Accept { digest } => OnPolicy::Accept(AcceptPolicyRequest {
                name,
                digest: digest.to_owned(),
            }),
            Self::Pause { reason } => OnPolicy::Pause(PausePolicyRequest {
                name,
                reason: reason.to_owned(),
            }),
            Self::Resume => OnPolicy::Resume(ResumePolicyRequest { name }),
        }
    }

    /// What is asked before it is done; `None`: nothing, as it takes nothing out of service or has been said
    /// yes to by naming the digest.
    fn question(self, policy: &Policy) -> Option<String> {
        let name = &policy.name;
        match self {
            Self::Quarantine { .. } => {
                let active = policy.active.as_ref()?;
                let good = policy.last_good.as_ref();
                let then = match good.filter(|good| good.digest != active.digest) {
                    Some(good) => format!("{} takes over", version(&good.version, &good.digest)),
                    None => "an older good one takes over, or else the fallback".to_owned(),
                };
                let active = version(&active.version, &active.digest);
                Some(format!(
                    "Set {active} of policy {name} aside, over restarts too? Then {then}."
                ))
            }
            Self::Release { digest: "" } => {
                let count = policy.quarantined.len();
                Some(format!(
                    "Let all {count} quarantined versions of policy {name} be tried again?"
                ))
            }
            Self::Release { digest } => {
                let released = version("", digest);
                Some(format!("Let {released} of policy {name} be tried again?"))
            }
            Self::Pause { .. } => Some(format!(
                "Have policy {name} not asked, over restarts too? Then the fallback applies to its signals."
            )),
            Self::Accept { .. } | Self::Resume => None,
        }
    }

    fn undone(self, name: &str) -> String {
        match self {
            Self::Quarantine { .. } => format!("policy {name:?} was not quarantined"),
            Self::Release { .. } => format!("policy {name:?} was not released"),
            Self::Accept { .. } => format!("policy {name:?} was not accepted"),
            Self::Pause { .. } => format!("policy {name:?} was not paused"),
            Self::Resume => format!("policy {name:?} was not resumed"),
        }
    }
}

pub(super) async fn run<W: Write>(
    args: &Args,
    client: &mut Client,
    name: &str,
    order: Order<'_>,
    yes: bool,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    if !yes {
        let policies = client.policies().await?;
        let Some(policy) = policies.iter().find(|policy| policy.name == name) else {
            return Err(unknown(&policies, name));
        };
        let question = order.question(policy);
        if let Some(question) = question
            && !ask(&question).map_err(Failure::Output)?
        {
            let what = order.undone(name);
            return Err(Failure::Unconfirmed { what });
        }
    }
    let policy = match client.command(order.request(name)).await {
        Ok(policy) => policy,
        Err(failure) => return Err(known_names(client, name, failure).await),
    };
    match (args.output, &policy) {
        (Format::Table | Format::Wide, Some(policy)) => {
            let wide = args.output == Format::Wide;
            let policies = std::slice::from_ref(policy);
            out.print(|to, colour| list::print(to, policies, wide, colour))
        }
        (Format::Table | Format::Wide, None) => {
            out.print(|to, _| writeln!(to, "Policy {} is no longer there.", escape(name)))
        }
        (Format::Json, policy) => out.json(&policy.as_ref().map(PolicyView::from)),
        (Format::Yaml, policy) => out.yaml(&policy.as_ref().map(PolicyView::from), false),
    }
}

/// The daemon's word that there is no such policy, with those that there are.
pub(super) async fn known_names(client: &mut Client, name: &str, failure: Failure) -> Failure {
    let is_unknown =
        matches!(&failure, Failure::Refused(status) if status.code() == Code::NotFound);
    if !is_unknown {
        return failure;
    }
    match client.policies().await {
        Ok(policies) => unknown(&policies, name),
        Err(_gone) => failure,
    }
}

fn unknown(policies: &[Policy], name: &str) -> Failure {
    let names: Vec<_> = policies.iter().map(|one| one.name.as_str()).collect();
    let known = if names.is_empty() {
        "there is none".to_owned()
    } else {
        format!("there are {}", names.join(", "))
    };
    let name = name.to_owned();
    Failure::NoPolicy { name, known }
}

pub(super) async fn reload<W: Write>(
    args: &Args,
    client: &mut Client,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let answer = client.reload_policies().await?;
    match args.output {
        Format::Json => out.json(&ReloadView::from(&answer))?,
        Format::Yaml => out.yaml(&ReloadView::from(&answer), false)?,
        Format::Table | Format::Wide => out.print(|to, colour| print(to, &answer, colour))?,
    }
    refusals(&answer).map_or(Ok(()), |what| Err(Failure::NotTaken { what }))
}

/// What was refused; `None`: nothing.
pub(super) fn refusals(answer: &ReloadPoliciesResponse) -> Option<String> {
    if !answer.refused.is_empty() {
        return Some(format!("the whole set ({})", answer.refused));
    }
    let outcomes = answer.outcomes.iter();
    let refused: Vec<_> = outcomes
        .filter(|outcome| outcome.change() == PolicyChange::Refused)
        .map(|outcome| outcome.name.as_str())
        .collect();
    (!refused.is_empty()).then(|| refused.join(", "))
}

pub(super) fn print(
    to: &mut dyn Write,
    answer: &ReloadPoliciesResponse,
    colour: bool,
) -> io::Result<()> {
    if !answer.refused.is_empty() {
        return writeln!(to, "Nothing was changed: the set was refused.");
    }
    if answer.outcomes.is_empty() {
        return writeln!(to, "There are no policies to load.");
    }
    let rows = answer.outcomes.iter().map(|outcome| {
        let change = words::policy_change(outcome.change());
        let paint = match outcome.change() {
            PolicyChange::Swapped => Some(Paint::Good),
            PolicyChange::Held => Some(Paint::Warning),
            PolicyChange::Refused => Some(Paint::Bad),
            PolicyChange::Unchanged | PolicyChange::Removed | PolicyChange::Unspecified => None,
        };
        vec![
            Cell::new(&outcome.name),
            Cell::painted(change, paint),
            Cell::new(short(&outcome.digest)),
            Cell::new(&outcome.detail),
        ]
    });
    table::write(to, &HEADS, &rows.collect::<Vec<_>>(), colour)?;
    if answer
        .outcomes
        .iter()
        .any(|outcome| outcome.change() == PolicyChange::Held)
    {
        writeln!(to, "\nWhat is held, and why:\n    devicectl policy list")?;
    }
    Ok(())
}
