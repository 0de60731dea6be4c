//! `devicectl policy reload|quarantine|release|accept|pause|resume`.

use std::io::{self, Write};

use device_api_proto::native::{
    AcceptPolicyRequest, PausePolicyRequest, Policy, PolicyChange, PolicyOutcome,
    QuarantinePolicyRequest, ReleasePolicyRequest, ResumePolicyRequest,
};
use tonic::Code;

use super::{list, short, version};
use crate::args::{Args, Format};
use crate::client::{Client, OnPolicy, Report};
use crate::commands::ask;
use crate::failure::Failure;
use crate::output::Output;
use crate::policy_view::ReportView;
use crate::table::{self, Cell, Paint};
use crate::text::escape;
use crate::words;

const HEADS: [&str; 4] = ["NAME", "CHANGE", "DIGEST", "DETAIL"];

/// What is to be done to one policy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order<'a> {
    /// Empty digest: of the version that the question shows, or else whichever is asked.
    Quarantine {
        reason: &'a str,
        digest: &'a str,
    },
    Release {
        digest: &'a str,
    },
    Accept {
        digest: &'a str,
    },
    Pause {
        reason: &'a str,
    },
    Resume,
}

impl Order<'_> {
    fn request(self, name: &str) -> OnPolicy {
        let name = name.to_owned();
        match self {
            Self::Quarantine { reason, digest } => OnPolicy::Quarantine(QuarantinePolicyRequest {
                name,
                reason: reason.to_owned(),
                digest: digest.to_owned(),
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

    /// Of the version that was shown, and no other that has come in its place since.
    pub(super) fn shown(self, policy: &Policy) -> OnPolicy {
        let mut request = self.request(&policy.name);
        if let (OnPolicy::Quarantine(it), Some(active)) = (&mut request, &policy.active)
            && it.digest.is_empty()
        {
            it.digest.clone_from(&active.digest);
        }
        request
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
    let mut request = order.request(name);
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
        request = order.shown(policy);
    }
    let report = match client.command(request).await {
        Ok(report) => report,
        Err(failure) => return Err(known_names(client, name, failure).await),
    };
    show(args, &report, out, |to, colour| {
        print(to, &report, colour)?;
        writeln!(to)?;
        match &report.policy {
            Some(policy) => {
                let wide = args.output == Format::Wide;
                list::print(to, std::slice::from_ref(policy), wide, colour)
            }
            None => writeln!(to, "Policy {} is no longer there.", escape(name)),
        }
    })?;
    not_taken(refusals(&report, Some(name)))
}

fn show<W: Write>(
    args: &Args,
    report: &Report,
    out: &mut Output<W>,
    table: impl FnOnce(&mut dyn Write, bool) -> io::Result<()>,
) -> Result<(), Failure> {
    match args.output {
        Format::Json => out.json(&ReportView::from(report)),
        Format::Yaml => out.yaml(&ReportView::from(report), false),
        Format::Table | Format::Wide => out.print(|to, colour| table(to, colour)),
    }
}

fn not_taken(what: Option<String>) -> Result<(), Failure> {
    what.map_or(Ok(()), |what| Err(Failure::NotTaken { what }))
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
    let report = client.reload_policies().await?;
    show(args, &report, out, |to, colour| print(to, &report, colour))?;
    not_taken(refusals(&report, None))
}

/// What was refused, of one policy or of all; `None`: nothing.
pub(super) fn refusals(report: &Report, of: Option<&str>) -> Option<String> {
    if !report.refused.is_empty() {
        return Some(format!("the whole set ({})", report.refused));
    }
    let policy = report.policy.as_ref();
    let wanted = policy.and_then(|policy| policy.refused.as_ref());
    // One that was refused before it could say its name goes by its file's.
    let is_its_file = |outcome: &PolicyOutcome| {
        wanted.is_some_and(|it| !it.digest.is_empty() && it.digest == outcome.digest)
    };
    let is_meant = |outcome: &&PolicyOutcome| {
        of.is_none_or(|name| outcome.name == name || is_its_file(outcome))
    };
    let refused: Vec<_> = report
        .outcomes
        .iter()
        .filter(|outcome| outcome.change() == PolicyChange::Refused)
        .filter(is_meant)
        .map(|outcome| outcome.name.as_str())
        .collect();
    (!refused.is_empty()).then(|| refused.join(", "))
}

pub(super) fn print(to: &mut dyn Write, answer: &Report, colour: bool) -> io::Result<()> {
    if answer.outcomes.is_empty() {
        let why = if answer.refused.is_empty() {
            "There are no policies to load."
        } else {
            "No version was taken up: the set was refused."
        };
        return writeln!(to, "{why}");
    }
    if !answer.refused.is_empty() {
        writeln!(to, "The set was refused; of the one before:")?;
    }
    let rows = answer.outcomes.iter().map(|outcome| {
        let change = words::policy_change(outcome.change());
        let paint = match outcome.change() {
            PolicyChange::Swapped => Some(Paint::Good),
            PolicyChange::Held | PolicyChange::Compiling => Some(Paint::Warning),
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
