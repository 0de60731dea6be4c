//! `devicectl policy describe NAME`: all that is known of one policy, for reading.

use std::io::{self, Write};

use device_api_proto::native::{
    GetPolicyResponse, Policy, PolicyCounters, PolicySetAside, PolicySubscription, PolicyVersion,
};

use super::{command, list, short};
use crate::args::{Args, Format};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::policy_view::DetailView;
use crate::table;
use crate::text::escape;
use crate::words;

pub(super) async fn run<W: Write>(
    args: &Args,
    client: &mut Client,
    name: &str,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let detail = match client.policy(name).await {
        Ok(detail) => detail,
        Err(failure) => return Err(command::known_names(client, name, failure).await),
    };
    match args.output {
        Format::Table | Format::Wide => {
            let now = jiff::Timestamp::now();
            out.print(|to, colour| describe(to, &detail, now, colour))
        }
        Format::Json => out.json(&DetailView::from(&detail)),
        Format::Yaml => out.yaml(&DetailView::from(&detail), false),
    }
}

pub(super) fn describe(
    to: &mut dyn Write,
    detail: &GetPolicyResponse,
    now: jiff::Timestamp,
    colour: bool,
) -> io::Result<()> {
    let nobody = Policy::default();
    let policy = detail.policy.as_ref().unwrap_or(&nobody);
    fact(to, "Name", &policy.name)?;
    fact(to, "Mode", words::policy_mode(policy.mode()))?;
    let why = if policy.detail.is_empty() {
        String::new()
    } else {
        format!(": {}", escape(&policy.detail))
    };
    writeln!(
        to,
        "{:<15}{}{why}",
        "Phase:",
        list::phase(policy).show(colour)
    )?;
    fact(to, "Active", &taken_up(policy.active.as_ref(), now))?;
    fact(to, "Last good", &taken_up(policy.last_good.as_ref(), now))?;
    for (key, asides) in [
        ("Held", policy.held.as_slice()),
        ("Quarantined", policy.quarantined.as_slice()),
        ("Refused", policy.refused.as_slice()),
    ] {
        for aside in asides {
            fact(to, key, &set_aside(aside, now))?;
            writeln!(to, "{:<15}{}", "", escape(&aside.why))?;
        }
    }
    terms(to, detail)?;
    counters(
        to,
        policy
            .counters
            .as_ref()
            .unwrap_or(&PolicyCounters::default()),
    )?;
    records(to, detail)?;
    let notes = list::notes(policy);
    let commands = notes.iter().flat_map(|note| &note.commands);
    let describes = |command: &&String| !command.starts_with("devicectl policy describe ");
    let commands: Vec<_> = commands.filter(describes).collect();
    if !commands.is_empty() {
        writeln!(to, "To do:")?;
    }
    for command in commands {
        writeln!(to, "  {}", escape(command))?;
    }
    Ok(())
}

fn taken_up(version: Option<&PolicyVersion>, now: jiff::Timestamp) -> String {
    version.map_or_else(
        || "none".to_owned(),
        |it| {
            let since = table::age(words::timestamp(it.since.as_ref()), now);
            format!(
                "{} sha256:{} ({}, {since})",
                it.version, it.digest, it.origin
            )
        },
    )
}

fn set_aside(aside: &PolicySetAside, now: jiff::Timestamp) -> String {
    let since = table::age(words::timestamp(aside.since.as_ref()), now);
    let digest = if aside.digest.is_empty() {
        String::new()
    } else {
        format!("sha256:{} ", aside.digest)
    };
    format!("{} {digest}({}, {since})", aside.version, aside.origin)
        .trim_start()
        .to_owned()
}

fn terms(to: &mut dyn Write, detail: &GetPolicyResponse) -> io::Result<()> {
    fact(to, "Fallback", words::policy_fallback(detail.fallback()))?;
    fact(to, "May lower", &detail.grants.join(", "))?;
    for owned in &detail.owns {
        let polarity = if owned.true_is_problem {
            "True is a problem"
        } else {
            "True is healthy"
        };
        let reasons = owned.reasons.join(", ");
        let says = format!("{} ({polarity}): {reasons}", owned.condition_type);
        fact(to, "Owns", &says)?;
    }
    for wanted in &detail.subscriptions {
        fact(to, "Wants", &subscription(wanted))?;
    }
    fact(to, "May read", &detail.readings.join(", "))?;
    fact(to, "State schema", &detail.state_schema.to_string())?;
    let limits = detail.limits.iter();
    let limits: Vec<_> = limits
        .map(|limit| format!("{}={}", limit.name, limit.value))
        .collect();
    fact(to, "Limits", &limits.join(", "))
}

fn subscription(wanted: &PolicySubscription) -> String {
    let mut parts = vec![wanted.kind.clone()];
    match (wanted.code_min, wanted.code_max) {
        (Some(from), Some(to)) if from == to => parts.push(from.to_string()),
        (Some(from), Some(to)) => parts.push(format!("{from}-{to}")),
        (Some(from), None) => parts.push(format!("from {from}")),
        (None, Some(to)) => parts.push(format!("to {to}")),
        (None, None) => {}
    }
    if !wanted.key.is_empty() {
        parts.push(wanted.key.clone());
    }
    let bound = |bound: f64| match wanted.relative_to.as_str() {
        "" => bound.to_string(),
        from if bound == 0.0 => from.to_owned(),
        from => format!("{from}{bound:+}"),
    };
    parts.extend(wanted.above.map(|above| format!("above {}", bound(above))));
    parts.extend(wanted.below.map(|below| format!("below {}", bound(below))));
    if wanted.deadband != 0.0 {
        parts.push(format!("changes over {}", wanted.deadband));
    }
    let interval = wanted.min_interval.as_ref();
    let interval = interval.and_then(|it| std::time::Duration::try_from(*it).ok());
    parts.extend(interval.map(|it| format!("every {it:?} at most")));
    parts.join(" ")
}

fn counters(to: &mut dyn Write, counters: &PolicyCounters) -> io::Result<()> {
    let failed = counters.failures.iter().filter(|count| count.calls != 0);
    let failed: Vec<_> = failed
        .map(|count| format!("{} {}", count.calls, words::policy_failure(count.kind())))
        .collect();
    let failed = if failed.is_empty() {
        "none failed".to_owned()
    } else {
        failed.join(", ")
    };
    let p99 = list::p99(&counters.latency);
    let p99 = if p99.is_empty() {
        String::new()
    } else {
        format!("; p99 {p99}")
    };
    fact(to, "Calls", &format!("{} ({failed}){p99}", counters.calls))?;
    let hit = counters.limits_hit.iter().filter(|count| count.times != 0);
    let hit: Vec<_> = hit
        .map(|count| format!("{} {}", count.times, words::policy_limit(count.kind())))
        .collect();
    fact(to, "Limits hit", &hit.join(", "))?;
    let used = format!(
        "{} memory at most, {} state of one GPU at most, {} instances",
        list::kibibytes(counters.memory_bytes_peak),
        list::kibibytes(counters.state_bytes_peak),
        counters.instances
    );
    fact(to, "Used", &used)?;
    for (key, count) in [
        ("Swaps", counters.swaps),
        ("Quarantines", counters.quarantines),
        ("Log dropped", counters.log_lines_suppressed),
        ("Unknown words", counters.unknown_words),
    ] {
        if count != 0 {
            fact(to, key, &count.to_string())?;
        }
    }
    if counters.shadow_compared + counters.shadow_dropped != 0 {
        let compared = format!(
            "{} of {} batches judged otherwise, {} dropped",
            counters.shadow_disagreements, counters.shadow_compared, counters.shadow_dropped
        );
        fact(to, "Shadow", &compared)?;
    }
    Ok(())
}

fn records(to: &mut dyn Write, detail: &GetPolicyResponse) -> io::Result<()> {
    if !detail.verdict_diff.is_empty() {
        writeln!(to, "Judges otherwise than the version before:")?;
    }
    for line in &detail.verdict_diff {
        writeln!(to, "  {}", escape(line))?;
    }
    if !detail.failures.is_empty() {
        writeln!(to, "Latest failures:")?;
    }
    for failure in &detail.failures {
        let when = words::rfc3339(failure.time.as_ref()).unwrap_or_default();
        let kind = words::policy_failure(failure.kind());
        let says = format!(
            "{when} {} {kind}: {}",
            short(&failure.digest),
            failure.detail
        );
        writeln!(to, "  {}", escape(&says))?;
    }
    if !detail.disagreements.is_empty() {
        writeln!(to, "Latest disagreements:")?;
    }
    for it in &detail.disagreements {
        let when = words::rfc3339(it.time.as_ref()).unwrap_or_default();
        let says = format!(
            "{when} {} {} {} on {}: {}, and not {}",
            short(&it.digest),
            it.device,
            it.condition_type,
            it.signal,
            it.shadow,
            it.enforced
        );
        writeln!(to, "  {}", escape(&says))?;
    }
    Ok(())
}

/// A line, unless there is nothing to say.
fn fact(to: &mut dyn Write, key: &str, value: &str) -> io::Result<()> {
    if value.is_empty() {
        Ok(())
    } else {
        writeln!(to, "{:<15}{}", format!("{key}:"), escape(value))
    }
}
