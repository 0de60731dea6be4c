//! `devicectl describe gpu NAME`: all that is known of one GPU, for reading.

use std::io::{self, Write};

use device_api_proto::native::{Clear, Condition, Gpu, GpuSpec, GpuStatus, Owner, owner};

use super::resolve;
use crate::args::{Args, Format, Selectors};
use crate::client::Client;
use crate::failure::Failure;
use crate::hardware;
use crate::output::Output;
use crate::table::{self, Cell, Paint};
use crate::text::escape;
use crate::view::GpuView;
use crate::words::{self, Judgement};

/// Digits of a policy's digest that tell versions apart on a screen.
const DIGEST_DIGITS: usize = 12;

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
            out.print(|to, colour| describe(to, gpu, now, colour))
        }
        Format::Json => out.json(&GpuView::from(gpu)),
        Format::Yaml => out.yaml(&GpuView::from(gpu), false),
    }
}

fn describe(to: &mut dyn Write, gpu: &Gpu, now: jiff::Timestamp, colour: bool) -> io::Result<()> {
    let none = GpuSpec::default();
    fact(to, "Name", &gpu.name)?;
    fact(to, "Namespace", &gpu.namespace)?;
    let none_known = GpuStatus::default();
    let status = gpu.status.as_ref().unwrap_or(&none_known);
    let decider = cause(
        &status.health_condition,
        &status.health_reason,
        status.health_incident,
    );
    let adviser = cause(
        &status.recommended_action_condition,
        &status.recommended_action_reason,
        status.recommended_action_incident,
    );
    cell(to, "Health", &table::health(gpu), &decider, colour)?;
    cell(to, "Action", &table::action(gpu), &adviser, colour)?;
    describe_spec(to, gpu.spec.as_ref().unwrap_or(&none))?;
    fact(to, "Created", &since(gpu.creation_timestamp.as_ref(), now))?;
    fact(
        to,
        "Version",
        &format!("{} (generation {})", gpu.resource_version, gpu.generation),
    )?;
    fact(to, "UID", &gpu.uid)?;
    let conditions = words::conditions(gpu);
    if conditions.is_empty() {
        return writeln!(to, "Conditions:    none: nothing has been observed yet");
    }
    writeln!(to, "Conditions:")?;
    conditions
        .iter()
        .try_for_each(|condition| describe_condition(to, condition, now, colour))
}

/// A condition that decides, why, and the incident behind it.
fn cause(condition: &str, reason: &str, incident: u64) -> String {
    let reason = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    let incident = if incident == 0 {
        String::new()
    } else {
        format!(", incident {incident}")
    };
    format!("{condition}{reason}{incident}")
}

/// What the GPU is: its facts, those that are known.
fn describe_spec(to: &mut dyn Write, spec: &GpuSpec) -> io::Result<()> {
    fact(to, "UUID", &spec.uuid)?;
    fact(
        to,
        "Index",
        &spec
            .index
            .map(|index| index.to_string())
            .unwrap_or_default(),
    )?;
    fact(
        to,
        "Minor",
        &spec
            .minor
            .map(|minor| format!("{minor} (/dev/nvidia{minor})"))
            .unwrap_or_default(),
    )?;
    fact(to, "PCI address", &spec.pci_address)?;
    fact(to, "Product", &spec.product)?;
    fact(to, "Architecture", &spec.architecture)?;
    let memory = spec
        .memory_bytes
        .map(|bytes| format!("{} ({bytes} bytes)", table::memory(bytes)));
    fact(to, "Memory", &memory.unwrap_or_default())?;
    fact(to, "Serial", &spec.serial)?;
    fact(to, "Driver", &spec.driver_version)?;
    fact(to, "CUDA", &spec.cuda_version)?;
    fact(to, "MIG parent", &spec.mig_parent)?;
    fact(to, "MIG profile", &spec.mig_profile)?;
    if let Some(number) = spec.mig_gpu_instance {
        fact(
            to,
            "MIG place",
            &mig_place(number, spec.mig_compute_instance),
        )?;
    }
    for instance in &spec.mig_instances {
        let place = mig_place(instance.gpu_instance, instance.compute_instance);
        let memory = instance.memory_bytes.map(table::memory);
        let memory = memory.map_or_else(String::new, |memory| format!(", {memory}"));
        let shown = format!("{} {} ({place}{memory})", instance.profile, instance.uuid);
        fact(to, "MIG instance", shown.trim_start())?;
    }
    for (key, value) in spec.hardware.iter().flat_map(hardware::facts) {
        fact(to, key, &value)?;
    }
    let mut labels: Vec<String> = spec
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort_unstable();
    fact(to, "Labels", &labels.join(", "))?;
    fact(
        to,
        "Simulated",
        if spec.simulated {
            "yes: whatever it reports is a drill"
        } else {
            ""
        },
    )
}

/// GPU instance and compute instance, as `nvidia-smi` calls them.
fn mig_place(gpu_instance: u32, compute_instance: Option<u32>) -> String {
    let compute = compute_instance.map_or_else(String::new, |number| format!(", CI {number}"));
    format!("GI {gpu_instance}{compute}")
}

fn describe_condition(
    to: &mut dyn Write,
    condition: &Condition,
    now: jiff::Timestamp,
    colour: bool,
) -> io::Result<()> {
    let judgement = words::judgement(condition);
    let (word, paint) = match judgement {
        Judgement::Ok => ("ok".to_owned(), Paint::Good),
        Judgement::Unknown => ("unknown".to_owned(), Paint::Faint),
        Judgement::Problem => {
            let severity = words::severity(condition);
            (
                format!("problem, {severity}"),
                if severity == "fatal" {
                    Paint::Bad
                } else {
                    Paint::Warning
                },
            )
        }
    };
    let drill = if condition.drill { "  DRILL" } else { "" };
    let word = Cell::painted(&word, Some(paint)).show(colour);
    writeln!(
        to,
        "  {}  {}  {word}{drill}",
        escape(&condition.r#type),
        words::status(condition)
    )?;
    detail(
        to,
        "Since",
        &since(condition.last_transition_time.as_ref(), now),
    )?;
    detail(
        to,
        "Confirmed",
        &since(condition.last_heartbeat_time.as_ref(), now),
    )?;
    detail(to, "Reason", &condition.reason)?;
    detail(to, "Message", &condition.message)?;
    if judgement == Judgement::Problem {
        detail(to, "Action", &condition.recommended_action)?;
    }
    detail(
        to,
        "Owner",
        &condition.owner.as_ref().map(owned_by).unwrap_or_default(),
    )?;
    // The host's own condition is what health is derived *to*.
    let derived = condition
        .owner
        .as_ref()
        .is_some_and(|owner| owner.kind() == owner::Kind::Host);
    detail(
        to,
        "Counted",
        if condition.counted || derived {
            ""
        } else {
            "no: it changes no health"
        },
    )?;
    let signal =
        (condition.cause_signal != 0).then(|| format!("signal {}", condition.cause_signal));
    detail(to, "Caused by", &signal.unwrap_or_default())?;
    let incident = (condition.incident != 0).then(|| condition.incident.to_string());
    detail(to, "Incident", &incident.unwrap_or_default())?;
    let clears: Vec<String> = condition.clears.iter().map(clear).collect();
    detail(to, "Cleared by", &clears.join(", or "))?;
    for evidence in &condition.evidence {
        let when = words::rfc3339(evidence.observed_time.as_ref()).unwrap_or_default();
        detail(to, "Evidence", &format!("{} {when}", evidence.source))?;
        writeln!(to, "      {}", escape(&evidence.text))?;
    }
    Ok(())
}

/// A line of the head, unless there is nothing to say.
fn fact(to: &mut dyn Write, key: &str, value: &str) -> io::Result<()> {
    if value.is_empty() {
        Ok(())
    } else {
        writeln!(to, "{:<15}{}", format!("{key}:"), escape(value))
    }
}

fn cell(to: &mut dyn Write, key: &str, value: &Cell, from: &str, colour: bool) -> io::Result<()> {
    let from = if from.is_empty() {
        String::new()
    } else {
        format!(" (from {})", escape(from))
    };
    writeln!(to, "{:<15}{}{from}", format!("{key}:"), value.show(colour))
}

/// A line of a condition, unless there is nothing to say.
fn detail(to: &mut dyn Write, key: &str, value: &str) -> io::Result<()> {
    if value.is_empty() {
        Ok(())
    } else {
        writeln!(to, "    {:<12}{}", format!("{key}:"), escape(value))
    }
}

pub(super) fn since(time: Option<&prost_types::Timestamp>, now: jiff::Timestamp) -> String {
    let time = words::timestamp(time);
    time.map(|time| format!("{time} ({} ago)", table::age(Some(time), now)))
        .unwrap_or_default()
}

fn owned_by(owner: &Owner) -> String {
    let version = if owner.version.is_empty() {
        String::new()
    } else {
        format!("@{}", owner.version)
    };
    let digest = owner.digest.get(..DIGEST_DIGITS).unwrap_or(&owner.digest);
    let digest = if digest.is_empty() {
        String::new()
    } else {
        format!(" ({digest})")
    };
    format!(
        "{} {}{version}{digest}",
        words::owner_kind(owner),
        owner.name
    )
    .trim_end()
    .to_owned()
}

pub(super) fn clear(clear: &Clear) -> String {
    let after = clear
        .after
        .as_ref()
        .filter(|after| after.seconds != 0 || after.nanos != 0);
    after.map_or_else(
        || clear.on.clone(),
        |after| format!("{} for {}", clear.on, table::span(after.seconds)),
    )
}

#[cfg(test)]
#[path = "describe_tests.rs"]
pub(super) mod tests;
