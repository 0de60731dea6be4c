//! The policies' ConfigMap, as the kubelet mounts and swaps it, read by a daemon that owns none of it.

use anyhow::{Context as _, Result, ensure};
use device_api_tests::{Native, guests};

use crate::release::Release;

/// A ConfigMap of the site.
const VALUES: &str = "
policies:
  source: configMap
  configMap: site-policies
";

/// The same component in other bytes: a custom section, which nobody reads.
const OTHER: [u8; 4] = [0, 2, 1, b'x'];

async fn digest(client: &mut Native) -> Result<String> {
    let policy = client.policy("tally").await?;
    Ok(policy.active.context("nobody judges")?.digest)
}

#[tokio::test]
async fn the_config_map_is_swapped_while_it_runs() -> Result<()> {
    let Some(mut release) = Release::install(VALUES)? else {
        return Ok(());
    };
    let first = guests::TALLY_GUEST;
    let second = [first, &OTHER].concat();
    release
        .machine
        .config_map("site-policies", &[("tally.wasm", first)])?;
    let running = release.started().await?;
    let mut client = release.healthy().await?;
    // Answered once what is compiled has its seat.
    client.reload().await?;
    let before = digest(&mut client).await?;
    release
        .machine
        .config_map("site-policies", &[("tally.wasm", &second)])?;
    running.process.wait_for(&["policy swapped", "tally"])?;
    client.reload().await?;
    let after = digest(&mut client).await?;
    ensure!(before != after, "still {before}");

    // The pod that comes next has what this one had.
    running.signal(rustix::process::Signal::TERM)?;
    let (status, said) = running.end()?;
    ensure!(status.code() == Some(0), "{status}\n{said}");
    let _running = release.started().await?;
    let mut client = release.healthy().await?;
    client.reload().await?;
    ensure!(digest(&mut client).await? == after);
    Ok(())
}
