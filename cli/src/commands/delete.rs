//! `devicectl gpu delete NAME`: the entry of a GPU that is gone and not to come back.
//!
//! The daemon deletes whatever it is told to. One that is in the machine would be shown no more, with whatever is
//! wrong with it, so that is asked for first.

use std::io::{self, Write};

use device_api_proto::native::Gpu;
use serde::Serialize;

use super::{ask, resolve};
use crate::args::{Args, Format, Selectors};
use crate::client::{Client, qualified};
use crate::failure::Failure;
use crate::output::Output;
use crate::text::escape;
use crate::words;

/// What `-o json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Deleted {
    /// Its MIG instances first.
    deleted: Vec<String>,
    /// Whether it was known to be gone.
    was_gone: bool,
}

pub(super) async fn run<W: Write>(
    args: &Args,
    name: &str,
    yes: bool,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let listed = client.list(&Selectors::default()).await?;
    let gpu = resolve(&listed.gpus, name)?;
    let was_gone = words::gone(gpu).is_some();
    if !was_gone && !yes && !is_confirmed(gpu).map_err(Failure::Output)? {
        let what = format!(
            "{} was not deleted: it is not known to be gone ({})",
            qualified(gpu),
            words::health(gpu)
        );
        return Err(Failure::Unconfirmed { what });
    }
    // Its instances are nothing without it.
    let mut all: Vec<&Gpu> = instances(&listed.gpus, gpu).collect();
    all.push(gpu);
    for gpu in &all {
        client.delete(gpu).await?;
    }
    let deleted = all.iter().map(|gpu| qualified(gpu)).collect();
    let view = Deleted { deleted, was_gone };
    match args.output {
        Format::Json => out.json(&view),
        Format::Yaml => out.yaml(&view, false),
        Format::Table | Format::Wide => out.print(|to, _| print(to, &view)),
    }
}

/// The MIG instances that a GPU had.
fn instances<'a>(gpus: &'a [Gpu], gpu: &Gpu) -> impl Iterator<Item = &'a Gpu> {
    let uuid = gpu.spec.as_ref().map(|spec| spec.uuid.clone());
    let uuid = uuid.filter(|uuid| !uuid.is_empty());
    gpus.iter().filter(move |other| {
        let parent = other.spec.as_ref().map(|spec| &spec.mig_parent);
        uuid.is_some() && parent == uuid.as_ref()
    })
}

fn is_confirmed(gpu: &Gpu) -> io::Result<bool> {
    ask(&format!(
        "{} is {}, and not known to be gone. Show it no more, whatever is wrong with it, until somebody creates it again?",
        qualified(gpu),
        words::health(gpu)
    ))
}

fn print(to: &mut dyn Write, view: &Deleted) -> io::Result<()> {
    for name in &view.deleted {
        writeln!(to, "{} is deleted.", escape(name))?;
    }
    let then = if view.was_gone {
        "What stood against it is kept, and is shown with it, should it be in the machine again."
    } else {
        "It is not shown until somebody creates it again; what stands against it is kept until then."
    };
    writeln!(to, "{then}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(uuid: &str, parent: &str) -> Gpu {
        let mut gpu = crate::table::tests::gpu(uuid);
        let spec = gpu.spec.as_mut().unwrap();
        spec.uuid = uuid.to_owned();
        spec.mig_parent = parent.to_owned();
        gpu
    }

    #[test]
    fn n9_the_instances_that_a_gpu_had_go_with_it_and_no_others() {
        let gpus = [
            gpu("GPU-1", ""),
            gpu("MIG-a", "GPU-1"),
            gpu("GPU-2", ""),
            gpu("MIG-b", "GPU-2"),
        ];
        let of = |at: usize| -> Vec<_> {
            let instances = instances(&gpus, &gpus[at]);
            instances.map(|gpu| gpu.name.as_str()).collect()
        };
        assert_eq!(of(0), ["MIG-a"]);
        assert_eq!(of(1), Vec::<&str>::new());
        let unknown = gpu("", "");
        assert_eq!(instances(&gpus, &unknown).count(), 0);
    }

    #[test]
    fn it_says_what_becomes_of_it() {
        let said = |was_gone| {
            let mut out = Vec::new();
            let deleted = vec!["GPU-1\u{1b}[2J".to_owned()];
            print(&mut out, &Deleted { deleted, was_gone }).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(said(true).starts_with("GPU-1\\u{1b}[2J is deleted.\nWhat stood against it"));
        assert!(said(false).contains("until somebody creates it again"));
    }
}
