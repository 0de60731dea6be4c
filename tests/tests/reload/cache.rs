//! Compiled code is kept from one run to the next, and believed only where it is ours and whole (design H10).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Condition, ConditionStatus};
use device_api_tests::condition_of;
use rustix::process::Signal;

use crate::rig::{Rig, has_words, is_running, sha256, tally};

/// What was compiled, taken from the cache, and found damaged, in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    compiled: u64,
    hits: u64,
    damaged: u64,
}

fn counts(rig: &Rig) -> Result<Counts> {
    let metrics = rig.node.metrics()?;
    let count = |name: &str| {
        let prefix = format!("device_api_server_policy_compile_{name}_total ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&prefix));
        value
            .with_context(|| format!("no {prefix}"))?
            .parse()
            .context("no number")
    };
    Ok(Counts {
        compiled: count("compiled")?,
        hits: count("cache_hits")?,
        damaged: count("cache_damaged")?,
    })
}

/// Starts it once more, and waits until all is loaded.
async fn again(rig: &mut Rig, digest: &str) -> Result<Counts> {
    rig.node.stop(Signal::TERM)?;
    rig.node.start_again()?;
    let mut client = rig.ready().await?;
    is_running(&client.policy("tally").await?, digest)?;
    rig.is_asked("TallyCount").await?;
    counts(rig)
}

fn code(rig: &Rig) -> PathBuf {
    rig.node.dir().join("state/code")
}

fn files(rig: &Rig) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(code(rig))? {
        files.push(entry?.path());
    }
    Ok(files)
}

#[tokio::test]
async fn h10_a_second_start_compiles_nothing_but_what_was_damaged() -> Result<()> {
    let component = tally("version=1")?;
    let digest = sha256(&component)?;
    let mut rig = Rig::start(&[("tally.wasm", &component)], &[])?;
    let mut client = rig.ready().await?;
    is_running(&client.policy("tally").await?, &digest)?;
    let first = counts(&rig)?;
    // The bundled two, and it.
    ensure!(first.compiled == 3 && first.damaged == 0, "{first:?}");
    ensure!(files(&rig)?.len() == 3, "{:?}", files(&rig)?);

    let second = again(&mut rig, &digest).await?;
    ensure!(
        second.compiled == 0 && second.hits >= 3 && second.damaged == 0,
        "{second:?}"
    );

    // A bit of the code is another one.
    let file = files(&rig)?.into_iter().next().context("no code")?;
    let mut bytes = fs::read(&file)?;
    let at = bytes.len() / 2;
    *bytes.get_mut(at).context("an empty file")? ^= 1;
    fs::write(&file, bytes)?;
    let third = again(&mut rig, &digest).await?;
    ensure!(third.compiled == 1 && third.damaged == 1, "{third:?}");
    let fourth = again(&mut rig, &digest).await?;
    ensure!(fourth.compiled == 0 && fourth.damaged == 0, "{fourth:?}");
    Ok(())
}

#[tokio::test]
async fn h10_a_cache_that_others_may_write_to_is_not_used_and_policies_run_all_the_same()
-> Result<()> {
    let component = tally("version=1")?;
    let digest = sha256(&component)?;
    let mut rig = Rig::start(&[("tally.wasm", &component)], &[])?;
    rig.ready().await?;
    fs::set_permissions(code(&rig), Permissions::from_mode(0o777))?;
    let counted = again(&mut rig, &digest).await?;
    ensure!(counted.compiled >= 3 && counted.hits == 0, "{counted:?}");
    let told = rig.node.daemon.wait_for(&["WARN", "has mode 0777"])?;
    assert!(
        told.contains("chmod 0700") && told.contains("state/code"),
        "{told}"
    );
    Ok(())
}

/// Waits until the policy was told so often, over all runs, that each GPU was found.
async fn found(rig: &Rig, times: u32) -> Result<()> {
    let said = format!("found={times}");
    for gpu in [0, 1] {
        let mut watch = rig.node.native().await?.watch(0).await?;
        let is_it = |condition: &Condition| has_words(&condition.message, &said);
        rig.until(&mut watch, gpu, "TallyFound", is_it).await?;
    }
    Ok(())
}

/// What was fine is said again by a policy that had to be compiled while the GPUs were found.
#[tokio::test]
async fn h6_h10_a_start_with_state_and_without_code_asks_all_policies_of_the_gpus_once()
-> Result<()> {
    let component = tally("version=1 found=yes")?;
    let mut rig = Rig::start(&[("tally.wasm", &component)], &[])?;
    rig.ready().await?;
    found(&rig, 1).await?;
    // With its code, and then without it.
    for run in 2..=4 {
        rig.node.stop(Signal::TERM)?;
        if run > 2 {
            fs::remove_dir_all(code(&rig))?;
        }
        rig.node.start_again()?;
        let mut client = rig.ready().await?;
        found(&rig, run).await?;
        // Once: nothing is asked again after what came later.
        rig.is_asked("TallyCount").await?;
        found(&rig, run).await?;
        for gpu in client.list().await?.gpus {
            let ready = condition_of(&gpu, "PolicyReady");
            ensure!(
                ready.is_none_or(|ready| ready.status() == ConditionStatus::True),
                "{ready:?}"
            );
        }
    }
    Ok(())
}
