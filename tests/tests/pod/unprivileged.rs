//! What the daemon's process may, by the kernel's word, and that it is all that it needs.

use anyhow::{Result, ensure};
use rustix::thread::{capabilities, set_capabilities};

use crate::manifest::{list, port};
use crate::probe::ask;
use crate::release::Release;

/// What a runtime gives every container.
const OF_THE_RUNTIME: [&str; 2] = ["/proc", "/dev/"];

/// As some runtimes have their root, and who tests may run under one: a container has none of it for that.
fn let_all_be_inherited() -> Result<()> {
    let mut sets = capabilities(None)?;
    sets.inheritable = sets.permitted;
    Ok(set_capabilities(None, sets)?)
}

#[tokio::test]
async fn the_daemon_serves_eight_gpus_with_nothing_but_what_the_chart_gives_it() -> Result<()> {
    let Some(mut release) = Release::install("")? else {
        return Ok(());
    };
    let_all_be_inherited()?;
    let running = release.started().await?;
    let mut client = release.healthy().await?;
    ensure!(client.list().await?.gpus.len() == 8);

    let status = running.status()?;
    let is = |key: &str, value: &str| status.get(key).is_some_and(|found| found == value);
    let none = "0000000000000000";
    for (key, value) in [
        ("Uid", "65534 65534 65534 65534"),
        ("Gid", "65534 65534 65534 65534"),
        ("Groups", "65534"),
        ("CapInh", none),
        ("CapPrm", none),
        ("CapEff", none),
        ("CapBnd", none),
        ("CapAmb", none),
        ("NoNewPrivs", "1"),
    ] {
        ensure!(is(key, value), "{key} is not {value}: {status:?}");
    }
    // The first of its namespace: it reaps, and no default action ends it.
    ensure!(status["NSpid"].ends_with(" 1"), "{status:?}");

    let container = release.container();
    let mounts = list(container, "volumeMounts").iter();
    let writable = mounts.filter(|mount| mount["readOnly"] != true);
    let writable: Vec<_> = writable
        .filter_map(|mount| mount["mountPath"].as_str())
        .collect();
    ensure!(writable == ["/var/run/device-api", "/var/lib/device-api"]);
    for path in running.writable()? {
        let is_of_the_runtime = OF_THE_RUNTIME.iter().any(|given| path.starts_with(given));
        ensure!(
            is_of_the_runtime || writable.contains(&&*path),
            "{path} can be written"
        );
    }

    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let (is_well, said) = ask(&running, container, probe)?;
        ensure!(is_well, "{probe}: {said}");
    }
    let (code, metrics) = running.http(port(container, "metrics")?, "/metrics")?;
    ensure!(code == 200 && metrics.contains("device_api_server_cache_gpus_healthy 8"));
    Ok(())
}
