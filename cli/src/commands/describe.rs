//! `devicectl describe gpu NAME`: all that is known of one GPU, for reading.

use std::io::{self, Write};

use device_api_proto::native::{Clear, Condition, Gpu, GpuSpec, Owner, owner};

use super::resolve;
use crate::args::{Args, Format};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Cell, Paint};
use crate::text::escape;
use crate::view::{self, GpuView, Judgement};

/// Digits of a policy's digest that tell versions apart on a screen.
const DIGEST_DIGITS: usize = 12;

pub(super) async fn run<W: Write>(
    args: &Args,
    name: &str,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let listed = client.list().await?;
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
    let (decider, adviser) = gpu.status.as_ref().map_or(("", ""), |status| {
        (
            status.health_condition.as_str(),
            status.recommended_action_condition.as_str(),
        )
    });
    cell(to, "Health", &table::health(gpu), decider, colour)?;
    cell(to, "Action", &table::action(gpu), adviser, colour)?;
    describe_spec(to, gpu.spec.as_ref().unwrap_or(&none))?;
    fact(to, "Created", &since(gpu.creation_timestamp.as_ref(), now))?;
    fact(
        to,
        "Version",
        &format!("{} (generation {})", gpu.resource_version, gpu.generation),
    )?;
    fact(to, "UID", &gpu.uid)?;
    let conditions = view::conditions(gpu);
    if conditions.is_empty() {
        return writeln!(to, "Conditions:    none: nothing has been observed yet");
    }
    writeln!(to, "Conditions:")?;
    conditions
        .iter()
        .try_for_each(|condition| describe_condition(to, condition, now, colour))
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

fn describe_condition(
    to: &mut dyn Write,
    condition: &Condition,
    now: jiff::Timestamp,
    colour: bool,
) -> io::Result<()> {
    let judgement = view::judgement(condition);
    let (word, paint) = match judgement {
        Judgement::Ok => ("ok".to_owned(), Paint::Good),
        Judgement::Unknown => ("unknown".to_owned(), Paint::Faint),
        Judgement::Problem => {
            let severity = view::severity(condition);
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
        view::status(condition)
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
    let incident = (condition.incident != 0).then(|| condition.incident.to_string());
    detail(to, "Incident", &incident.unwrap_or_default())?;
    let clears: Vec<String> = condition.clears.iter().map(clear).collect();
    detail(to, "Cleared by", &clears.join(", or "))?;
    for evidence in &condition.evidence {
        let when = view::rfc3339(evidence.observed_time.as_ref()).unwrap_or_default();
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

fn since(time: Option<&prost_types::Timestamp>, now: jiff::Timestamp) -> String {
    let time = view::timestamp(time);
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
        view::owner_kind(owner),
        owner.name
    )
    .trim_end()
    .to_owned()
}

fn clear(clear: &Clear) -> String {
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
mod tests {
    use super::*;
    use crate::table::tests::{gpu, problem};
    use device_api_proto::native::{Evidence, Health, Severity};

    fn time(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn sick_gpu() -> Gpu {
        let mut gpu = gpu("GPU-1");
        gpu.creation_timestamp = time(0);
        let status = gpu.status.as_mut().unwrap();
        status.health = Health::Unhealthy.into();
        status.health_condition = "XidFatal".to_owned();
        status.recommended_action = "RESTART_BM".to_owned();
        status.recommended_action_condition = "XidFatal".to_owned();
        status.conditions = vec![Condition {
            severity: Severity::Fatal.into(),
            message: "gone\x1b[2J".to_owned(),
            recommended_action: "RESTART_BM".to_owned(),
            last_transition_time: time(900),
            owner: Some(Owner {
                kind: owner::Kind::Policy.into(),
                name: "xid-policy".to_owned(),
                version: "0.1.0".to_owned(),
                digest: "0123456789abcdef".to_owned(),
            }),
            clears: vec![
                Clear {
                    on: "node-reboot".to_owned(),
                    after: None,
                },
                Clear {
                    on: "quiet".to_owned(),
                    after: Some(prost_types::Duration {
                        seconds: 600,
                        nanos: 0,
                    }),
                },
            ],
            evidence: vec![Evidence {
                source: "kmsg".to_owned(),
                observed_time: time(899),
                text: "NVRM: Xid\n".to_owned(),
            }],
            incident: 4,
            drill: true,
            ..problem("XidFatal", "FallenOffTheBus")
        }];
        gpu
    }

    #[test]
    fn a_sick_gpu_is_described_in_full() {
        let gpu = sick_gpu();
        let mut out = Vec::new();
        describe(
            &mut out,
            &gpu,
            jiff::Timestamp::from_second(1_000).unwrap(),
            false,
        )
        .unwrap();
        let expected = "\
Name:          GPU-1
Namespace:     default
Health:        Unhealthy (from XidFatal)
Action:        RESTART_BM (from XidFatal)
UUID:          GPU-1
Index:         3
PCI address:   0000:a1:00.0
Product:       NVIDIA H100 80GB HBM3
Memory:        79.6Gi (85520809984 bytes)
Created:       1970-01-01T00:00:00Z (16m ago)
Version:       7 (generation 0)
Conditions:
  XidFatal  True  problem, fatal  DRILL
    Since:      1970-01-01T00:15:00Z (100s ago)
    Reason:     FallenOffTheBus
    Message:    gone\\u{1b}[2J
    Action:     RESTART_BM
    Owner:      policy xid-policy@0.1.0 (0123456789ab)
    Counted:    no: it changes no health
    Incident:   4
    Cleared by: node-reboot, or quiet for 10m
    Evidence:   kmsg 1970-01-01T00:14:59Z
      NVRM: Xid\\n
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_gpu_of_which_nothing_is_known_is_described_too() {
        let mut out = Vec::new();
        describe(&mut out, &Gpu::default(), jiff::Timestamp::UNIX_EPOCH, true).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("Health:        \x1b[2mUnknown\x1b[0m\n"),
            "{text:?}"
        );
        assert!(
            text.ends_with("nothing has been observed yet\n"),
            "{text:?}"
        );
    }
}
