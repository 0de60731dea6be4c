//! `devicectl gpu report-reset NAME --reason TEXT`: a GPU was reset, as an operator says who has done it.

use std::io::{self, Write};

use device_api_proto::native::{Gpu, ReportResetRequest};

use super::resolve;
use crate::args::{Args, Format, Selectors};
use crate::client::{Client, qualified};
use crate::failure::Failure;
use crate::output::Output;
use crate::table;
use crate::text::escape;
use crate::view::GpuView;
use crate::words::{self, Judgement};

pub(super) async fn run<W: Write>(
    args: &Args,
    name: &str,
    reason: &str,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let listed = client.list(&Selectors::default()).await?;
    let before = resolve(&listed.gpus, name)?;
    let request = ReportResetRequest {
        name: before.name.clone(),
        namespace: before.namespace.clone(),
        reason: reason.to_owned(),
        lease_id: String::new(),
    };
    // One that was deleted since is shown as it was.
    let now = client.report_reset(request).await?;
    let now = now.as_ref().unwrap_or(before);
    match args.output {
        Format::Json => out.json(&GpuView::from(now)),
        Format::Yaml => out.yaml(&GpuView::from(now), false),
        Format::Table | Format::Wide => out.print(|to, colour| print(to, before, now, colour)),
    }
}

/// What the report has ended, and what stands all the same.
fn print(to: &mut dyn Write, before: &Gpu, now: &Gpu, colour: bool) -> io::Result<()> {
    let name = qualified(now);
    writeln!(to, "That {} was reset is noted.", escape(&name))?;
    let standing = problems(now);
    for type_ in problems(before) {
        if !standing.contains(&type_) {
            writeln!(to, "{} is cleared.", escape(type_))?;
        }
    }
    for type_ in standing {
        writeln!(to, "{} stands.", escape(type_))?;
    }
    let health = table::health(now).show(colour);
    writeln!(to, "{} is {health} now.", escape(&name))
}

/// The types of its problems that count, but for the one that is derived from them.
fn problems(gpu: &Gpu) -> Vec<&str> {
    let counted = words::conditions(gpu)
        .iter()
        .filter(|condition| condition.counted && condition.r#type != "Ready");
    let problems = counted.filter(|condition| words::judgement(condition) == Judgement::Problem);
    problems.map(|condition| &*condition.r#type).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{gpu, problem};
    use device_api_proto::native::Condition;

    #[test]
    fn n7_what_a_reset_has_ended_and_what_it_has_not_is_said() {
        let counted = |type_: &str| Condition {
            counted: true,
            ..problem(type_, "Why")
        };
        let with = |types: &[&str]| {
            let mut gpu = gpu("GPU-1");
            let status = gpu.status.as_mut().unwrap();
            status.conditions = types.iter().map(|type_| counted(type_)).collect();
            gpu
        };
        let mut out = Vec::new();
        let (before, now) = (with(&["FaultFloor", "Temperature"]), with(&["Temperature"]));
        print(&mut out, &before, &now, false).unwrap();
        let expected = "\
That GPU-1 was reset is noted.
FaultFloor is cleared.
Temperature stands.
GPU-1 is Healthy now.
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
