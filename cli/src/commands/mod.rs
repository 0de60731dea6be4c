//! One command a file.

mod clear;
mod delete;
mod describe;
mod explain;
mod get;
mod incidents;
mod nvml;
mod policy;
mod provider;
mod report_reset;
mod watch;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use device_api_proto::native::Gpu;

use crate::args::{Args, Command, GpuCommand, ProviderCommand};
use crate::client::qualified;
use crate::failure::Failure;
use crate::output::Output;
use crate::text::escape;

pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let mut out = Output::stdout();
    match &args.command {
        Command::Get {
            kind: _,
            names,
            selectors,
        } => get::run(args, names, selectors, &mut out).await,
        Command::Describe { kind: _, name }
        | Command::Gpu {
            command: GpuCommand::Describe { name },
        } => describe::run(args, name, &mut out).await,
        Command::Explain { kind: _, name }
        | Command::Gpu {
            command: GpuCommand::Explain { name },
        } => explain::run(args, name, &mut out).await,
        Command::Gpu {
            command:
                GpuCommand::Clear {
                    name,
                    condition,
                    reason,
                },
        } => clear::run(args, name, condition, reason, &mut out).await,
        Command::Gpu {
            command: GpuCommand::ReportReset { name, reason },
        } => report_reset::run(args, name, reason, &mut out).await,
        Command::Gpu {
            command: GpuCommand::Delete { name, yes },
        } => delete::run(args, name, *yes, &mut out).await,
        Command::Incidents { gpu, all } => {
            incidents::run(args, gpu.as_deref(), *all, &mut out).await
        }
        Command::Nvml { command } => nvml::run(args, command, &mut out).await,
        Command::Policy { command } => policy::run(args, command, &mut out).await,
        Command::Watch {
            kind: _,
            selectors,
            exact,
            bookmarks,
        } => {
            let wanted = watch::Wanted {
                socket: &args.socket,
                output: args.output,
                selectors,
                exact: *exact,
                bookmarks: *bookmarks,
            };
            watch::run(&wanted, &mut out).await
        }
        Command::Provider {
            command: ProviderCommand::List,
        } => provider::list(args, &mut out).await,
        Command::Provider {
            command: ProviderCommand::Forget { name, yes },
        } => provider::forget(args, name, *yes, &mut out).await,
    }
}

/// Asks whoever sits at the terminal; where nobody does, that is a no.
fn ask(question: &str) -> io::Result<bool> {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Ok(false);
    }
    write!(stderr, "{} [y/N] ", escape(question))?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The GPU that `name` means: its name (with the namespace, where that is needed), its index, its
/// PCI address, or the beginning of its UUID, with or without `GPU-`.
fn resolve<'a>(gpus: &'a [Gpu], name: &str) -> Result<&'a Gpu, Failure> {
    let spec = |gpu: &'a Gpu| gpu.spec.as_ref();
    let index: Option<u32> = name.parse().ok();
    let pci = pci_address(name);
    // A MIG instance has its GPU's address.
    let address = |gpu: &'a Gpu| {
        let whole = spec(gpu).filter(|spec| spec.mig_parent.is_empty());
        whole.and_then(|spec| pci_address(&spec.pci_address))
    };
    let ways: [&dyn Fn(&&'a Gpu) -> bool; 4] = [
        &|gpu| gpu.name == name || qualified(gpu) == name,
        &|gpu| index.is_some() && spec(gpu).and_then(|spec| spec.index) == index,
        &|gpu| pci.is_some() && address(gpu) == pci,
        &|gpu| begins(&gpu.name, name) || spec(gpu).is_some_and(|spec| begins(&spec.uuid, name)),
    ];
    for way in ways {
        let mut found = gpus.iter().filter(way);
        match (found.next(), found.next()) {
            (None, _) => {}
            (Some(gpu), None) => return Ok(gpu),
            (Some(_), Some(_)) => {
                let candidates = gpus.iter().filter(way).map(qualified).collect();
                return Err(Failure::Ambiguous {
                    name: name.to_owned(),
                    candidates,
                });
            }
        }
    }
    Err(Failure::NotFound {
        name: name.to_owned(),
        known: known(gpus),
    })
}

fn known(gpus: &[Gpu]) -> String {
    /// Names in one message; a node has eight GPUs, seldom more.
    const NAMES_MAX: usize = 16;
    if gpus.is_empty() {
        return "the daemon knows none".to_owned();
    }
    let names: Vec<String> = gpus.iter().take(NAMES_MAX).map(qualified).collect();
    let more = if gpus.len() > NAMES_MAX { ", …" } else { "" };
    format!("there are {}{more}", names.join(", "))
}

/// Digits of a UUID that must be given at least, where `GPU-` or `MIG-` does not say that it is one: fewer are more
/// likely a mistyped index.
const UUID_DIGITS_MIN: usize = 4;

/// Whether `name` begins with `part`, case aside; where `part` does not begin with `GPU-` or `MIG-`, that aside too.
fn begins(name: &str, part: &str) -> bool {
    let (name, part) = (name.to_ascii_lowercase(), part.to_ascii_lowercase());
    let bare = |text: &str| {
        let bare = text
            .strip_prefix("gpu-")
            .or_else(|| text.strip_prefix("mig-"));
        bare.map(str::to_owned)
    };
    match bare(&part) {
        Some(digits) => !digits.is_empty() && name.starts_with(&part),
        None => {
            let name = bare(&name).unwrap_or(name);
            part.len() >= UUID_DIGITS_MIN && name.starts_with(&part)
        }
    }
}

/// Domain, bus, device and function of an address in any of its usual forms.
fn pci_address(text: &str) -> Option<[u32; 4]> {
    let (address, function) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = address.rsplit(':');
    let (device, bus) = (parts.next()?, parts.next()?);
    let domain = parts.next().unwrap_or("0");
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let address = [
        number(domain)?,
        number(bus)?,
        number(device)?,
        number(function)?,
    ];
    parts.next().is_none().then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(namespace: &str, name: &str, uuid: &str, index: u32, pci: &str) -> Gpu {
        let mut gpu = crate::table::tests::gpu(name);
        gpu.namespace = namespace.to_owned();
        let spec = gpu.spec.as_mut().unwrap();
        spec.uuid = uuid.to_owned();
        spec.index = Some(index);
        spec.pci_address = pci.to_owned();
        gpu
    }

    #[track_caller]
    fn check(name: &str, expected: Result<u32, &str>) {
        let mut instance = gpu("default", "MIG-bbbb-1", "MIG-bbbb-1", 4, "0000:43:00.0");
        instance.spec.as_mut().unwrap().mig_parent = "GPU-aaaa-2".to_owned();
        let gpus = [
            gpu("default", "GPU-aaaa-1", "GPU-aaaa-1", 0, "0000:1b:00.0"),
            gpu("default", "GPU-aaaa-2", "GPU-aaaa-2", 1, "0000:43:00.0"),
            gpu("default", "1", "GPU-cccc-3", 2, "0001:43:00.0"),
            gpu("other", "1", "GPU-9add-4", 3, "0002:43:00.0"),
            instance,
        ];
        let found = resolve(&gpus, name).map(|gpu| gpu.spec.as_ref().unwrap().index.unwrap());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn a_gpu_may_be_named_in_four_ways() {
        check("GPU-aaaa-1", Ok(0));
        check("0", Ok(0));
        check("43:00.0", Ok(1));
        check("00000001:43:00", Ok(2));
        check("gpu-AAAA-2", Ok(1));
        check("cccc", Ok(2));
        check("bbbb", Ok(4));
        check("MIG-b", Ok(4));
        check("mig-BBB", Ok(4));
        check("GPU-c", Ok(2));
        check("GPU-b", Err("\"GPU-b\" not found"));
        check("MIG-", Err("\"MIG-\" not found"));
        check("bbb", Err("\"bbb\" not found"));
        check("9a", Err("\"9a\" not found"));
        check("other/1", Ok(3));
        check("1", Err("may be any of 1, other/1"));
        check("GPU-aaaa", Err("may be any of GPU-aaaa-1, GPU-aaaa-2"));
        check(
            "7",
            Err("\"7\" not found; there are GPU-aaaa-1, GPU-aaaa-2, 1, other/1, MIG-bbbb-1"),
        );
        check("", Err("not found"));
        assert!(
            resolve(&[], "x")
                .unwrap_err()
                .to_string()
                .ends_with("the daemon knows none")
        );
    }
}
