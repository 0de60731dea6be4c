//! The policies' ConfigMap, as the kubelet mounts and swaps it, read by a daemon that owns none of it.

use anyhow::{Context as _, Result, ensure};
use device_api_tests::{Native, guests};

use crate::release::{Release, compiled};

/// A ConfigMap of the site.
const VALUES: &str = "
policies:
  source: configMap
  configMap: site-policies
";

/// The same component in other bytes: a custom section, which nobody reads.
const OTHER: [u8; 4] = [0, 2, 1, b'x'];

async fn digest(client: &mut Native) -> Result<String> {
    let policy = compiled(client, "tally").await?;
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
    let before = digest(&mut client).await?;
    release
        .machine
        .config_map("site-policies", &[("tally.wasm", &second)])?;
    running.process.wait_for(&["policy swapped", "tally"])?;
    let after = digest(&mut client).await?;
    ensure!(before != after, "still {before}");

    // The pod that comes next has what this one had.
    running.signal(rustix::process::Signal::TERM)?;
    let (status, said) = running.end()?;
    ensure!(status.code() == Some(0), "{status}\n{said}");
    let _running = release.started().await?;
    let mut client = release.healthy().await?;
    ensure!(digest(&mut client).await? == after);
    Ok(())
}

/// Where else policies come from, and how the node has them there.
#[tokio::test]
async fn an_image_and_a_directory_of_the_node_are_read_as_well() -> Result<()> {
    const REFERENCE: &str = "registry.example.org/gpu-policies:1";
    const FOLDER: &str = "/opt/gpu-policies";
    let files = [("tally.wasm", guests::TALLY_GUEST)];
    for values in [
        format!("policies: {{source: image, image: {{reference: '{REFERENCE}'}}}}"),
        format!("policies: {{source: hostPath, hostPath: {FOLDER}}}"),
    ] {
        let Some(mut release) = Release::install(&values)? else {
            return Ok(());
        };
        release.machine.image(REFERENCE, &files)?;
        let folder = release.machine.path(FOLDER);
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes)?;
        }
        let running = release.started().await?;
        let mut client = release.healthy().await?;
        digest(&mut client).await.context(values)?;
        let writable = running.writable()?;
        let is_there = |path: &String| path == "/etc/device-api/policies";
        ensure!(!writable.iter().any(is_there), "it can be written");
    }
    Ok(())
}
