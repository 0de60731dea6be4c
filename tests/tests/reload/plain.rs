//! A policy directory of plain files, by the daemon's own look, by `SIGHUP` and by `devicectl` (design H6).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tonic::Code;

use crate::rig::{Rig, is_running, sha256, tally};

/// How often the daemon looks by itself.
const LOOK: Duration = Duration::from_secs(1);

#[tokio::test]
async fn h6_files_that_are_added_replaced_and_removed_are_noticed() -> Result<()> {
    let rig = Rig::start(&[("tally.wasm", &tally("version=1")?)], &[])?;
    let mut client = rig.ready().await?;
    let beside = tally("name=other")?;
    rig.put("any-name.wasm", &beside)?;
    rig.node
        .daemon
        .wait_for(&["policy swapped", "policy=other"])?;
    client.reload().await?;
    is_running(&client.policy("other").await?, &sha256(&beside)?)?;

    let second = tally("version=2")?;
    rig.put("tally.wasm", &second)?;
    rig.node
        .daemon
        .wait_for(&["policy swapped", &sha256(&second)?])?;
    client.reload().await?;
    is_running(&client.policy("tally").await?, &sha256(&second)?)?;
    is_running(&client.policy("other").await?, &sha256(&beside)?)?;

    rig.remove("any-name.wasm")?;
    rig.node
        .daemon
        .wait_for(&["policy removed", "policy=other"])?;
    client.reload().await?;
    let gone = client.policy("other").await.err().context("it is there")?;
    let status = gone.downcast_ref::<tonic::Status>().context("no status")?;
    assert_eq!(status.code(), Code::NotFound, "{status}");
    is_running(&client.policy("tally").await?, &sha256(&second)?)?;
    Ok(())
}

/// Each change is made after the one before was taken up, so that the daemon's own looks would need a second
/// for each.
#[tokio::test]
async fn h6_a_hangup_has_the_directory_looked_at_at_once() -> Result<()> {
    const CHANGES: u32 = 10;
    let versions = [tally("version=a")?, tally("version=b")?];
    let rig = Rig::start(&[("tally.wasm", &versions[1])], &[])?;
    let mut client = rig.ready().await?;
    // Both are compiled.
    for version in &versions {
        rig.put("tally.wasm", version)?;
        client.reload().await?;
    }
    let words = ["policy swapped", "policy=tally"];
    let is_swap = |line: &&String| words.iter().all(|word| line.contains(word));
    let before = rig.node.daemon.log().iter().filter(is_swap).count();
    let began = Instant::now();
    for change in 0..usize::try_from(CHANGES)? {
        rig.put("tally.wasm", &versions[change % 2])?;
        rig.node.daemon.signal(Signal::HUP)?;
        rig.node.daemon.wait_for_nth(&words, before + change + 1)?;
    }
    let took = began.elapsed();
    assert!(
        took < LOOK * (CHANGES - 1),
        "{CHANGES} changes took {took:?}"
    );
    client.reload().await?;
    is_running(&client.policy("tally").await?, &sha256(&versions[1])?)?;
    Ok(())
}

#[tokio::test]
async fn h6_an_operator_has_it_looked_at_and_is_told_what_came_of_it() -> Result<()> {
    let rig = Rig::start(&[("tally.wasm", &tally("version=1")?)], &[])?;
    let mut client = rig.ready().await?;
    let (code, said) = rig.devicectl(&["policy", "reload"])?;
    ensure!(
        code == Some(0) && row(&said, "tally").contains("unchanged"),
        "{said}"
    );
    let second = tally("version=2")?;
    rig.put("tally.wasm", &second)?;
    let (code, said) = rig.devicectl(&["policy", "reload"])?;
    let digest = sha256(&second)?;
    let short = digest.get(..12).context("short")?;
    let swapped = row(&said, "tally");
    ensure!(code == Some(0) && swapped.contains(short), "{said}");
    is_running(&client.policy("tally").await?, &digest)?;

    // Whom nobody wants any more, and who can't be had.
    rig.put("tally.wasm", b"no wasm at all")?;
    let (code, said) = rig.devicectl(&["policy", "reload"])?;
    ensure!(
        code == Some(1) && row(&said, "tally").contains("refused"),
        "{said}"
    );
    rig.put("policies.yaml", "policies: []\n")?;
    rig.remove("tally.wasm")?;
    let (code, said) = rig.devicectl(&["policy", "reload"])?;
    ensure!(
        code == Some(0) && row(&said, "tally").contains("removed"),
        "{said}"
    );
    Ok(())
}

fn row<'a>(said: &'a str, name: &str) -> &'a str {
    said.lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default()
}
