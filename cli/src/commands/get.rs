//! `devicectl get gpus [NAME…]`

use std::io::Write;

use device_api_proto::native::Gpu;

use super::resolve;
use crate::args::{Args, Format, Selectors};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, HEADS, HEADS_WIDE};
use crate::view::{GpuList, GpuView};

pub(super) async fn run<W: Write>(
    args: &Args,
    names: &[String],
    selectors: &Selectors,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let listed = client.list(selectors).await?;
    let gpus: Vec<&Gpu> = if names.is_empty() {
        listed.gpus.iter().collect()
    } else {
        names
            .iter()
            .map(|name| resolve(&listed.gpus, name))
            .collect::<Result<_, _>>()?
    };
    let is_selected = *selectors != Selectors::default();
    match (args.output, gpus.as_slice()) {
        (Format::Table, _) => print_table(&gpus, is_selected, false, out),
        (Format::Wide, _) => print_table(&gpus, is_selected, true, out),
        // One that was asked for by name is printed as such, as kubectl does.
        (Format::Json, [gpu]) if !names.is_empty() => out.json(&GpuView::from(*gpu)),
        (Format::Yaml, [gpu]) if !names.is_empty() => out.yaml(&GpuView::from(*gpu), false),
        (Format::Json, _) => out.json(&list(&gpus, listed.resource_version)),
        (Format::Yaml, _) => out.yaml(&list(&gpus, listed.resource_version), false),
    }
}

fn list(gpus: &[&Gpu], version: i64) -> GpuList {
    GpuList {
        resource_version: version.to_string(),
        gpus: gpus.iter().map(|gpu| GpuView::from(*gpu)).collect(),
    }
}

fn print_table<W: Write>(
    gpus: &[&Gpu],
    is_selected: bool,
    wide: bool,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let now = jiff::Timestamp::now();
    let mut gpus = gpus.to_vec();
    // As people count them; the daemon lists by name.
    gpus.sort_by_key(|gpu| {
        gpu.spec
            .as_ref()
            .and_then(|spec| spec.index)
            .unwrap_or(u32::MAX)
    });
    let rows: Vec<_> = gpus
        .iter()
        .map(|gpu| table::gpu_row(gpu, now, wide))
        .collect();
    let heads: &[&str] = if wide { &HEADS_WIDE } else { &HEADS };
    out.print(|to, colour| {
        if rows.is_empty() && is_selected {
            return writeln!(to, "No GPUs are selected.");
        }
        if rows.is_empty() {
            return writeln!(
                to,
                "No GPUs: the daemon has found none yet (its /readyz says why)."
            );
        }
        table::write(to, heads, &rows, colour)
    })
}
