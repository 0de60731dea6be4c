//! `devicectl gpu clear NAME CONDITION --reason TEXT`: a problem is over because an operator says so.

use std::io::{self, Write};

use device_api_proto::native::{ClearConditionRequest, Gpu};

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
    condition: &str,
    reason: &str,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let listed = client.list(&Selectors::default()).await?;
    let gpu = resolve(&listed.gpus, name)?;
    let request = ClearConditionRequest {
        name: gpu.name.clone(),
        namespace: gpu.namespace.clone(),
        condition_type: condition.to_owned(),
        reason: reason.to_owned(),
    };
    // One that was deleted since is shown as it was.
    let now = client.clear(request).await?;
    let gpu = now.as_ref().unwrap_or(gpu);
    match args.output {
        Format::Json => out.json(&GpuView::from(gpu)),
        Format::Yaml => out.yaml(&GpuView::from(gpu), false),
        Format::Table | Format::Wide => out.print(|to, colour| print(to, gpu, condition, colour)),
    }
}

fn print(to: &mut dyn Write, gpu: &Gpu, condition: &str, colour: bool) -> io::Result<()> {
    let (name, condition) = (qualified(gpu), escape(condition));
    writeln!(to, "{condition} of {} is cleared.", escape(&name))?;
    let stands = words::conditions(gpu)
        .iter()
        .any(|other| other.r#type == condition && words::judgement(other) == Judgement::Problem);
    if stands {
        writeln!(to, "It was seen again since, and stands.")?;
    }
    let health = table::health(gpu).show(colour);
    writeln!(to, "{} is {health} now.", escape(&name))
}
