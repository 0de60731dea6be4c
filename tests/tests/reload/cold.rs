//! A start that has everything to compile (design H6, H9, H10): the first one, and each after the code was
//! lost or the engine changed.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Policy, PolicyChange};
use device_api_tests::{Native, Node, PATIENCE};
use rustix::process::Signal;

use crate::rig::{DEADLINE, Rig, active, outcome, put, sha256, tally};

/// Waits until a policy is as wanted.
async fn until(client: &mut Native, name: &str, is_so: impl Fn(&Policy) -> bool) -> Result<Policy> {
    let deadline = SystemTime::now() + PATIENCE;
    loop {
        let last = client.policy(name).await;
        if let Ok(policy) = &last
            && is_so(policy)
        {
            return last;
        }
        ensure!(SystemTime::now() < deadline, "{last:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn h10_a_first_start_tells_of_nothing_refused_or_removed() -> Result<()> {
    // Its name is not its file's, which is all that is known of it until it is compiled.
    let rig = Rig::start(&[("file.wasm", &tally("version=1")?)], &[])?;
    let mut client = rig.ready().await?;
    until(&mut client, "tally", |policy| policy.active.is_some()).await?;
    for line in rig.node.daemon.log() {
        for word in ["policy refused", "policy removed", " ERROR "] {
            ensure!(!line.contains(word), "{line}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn h6_a_set_that_breaks_while_it_is_compiled_first_is_seated_all_the_same() -> Result<()> {
    let builder = Node::builder()?.gpus(1);
    let policies = builder.dir().join("policies");
    std::fs::create_dir(&policies)?;
    put(&policies, "file.wasm", &tally("version=1")?)?;
    let listed = b"policies: [{name: tally, file: file.wasm}]";
    put(&policies, "policies.yaml", listed)?;
    let node = builder
        .flag("policy-dir", policies.to_string_lossy())
        .flag("policy-deadline", DEADLINE)
        .spawn()?;
    node.daemon.wait_for(&["policy compiling"])?;
    put(&policies, "policies.yaml", b"x: 1")?;
    node.daemon.wait_for(&["policies.yaml is refused"])?;
    node.daemon.wait_for(&["started"])?;
    let mut client = node.native().await?;
    for name in ["tally", "xid-policy", "nvml-health"] {
        until(&mut client, name, |policy| policy.active.is_some()).await?;
    }
    node.healthy().await?;
    Ok(())
}

#[tokio::test]
async fn h9_what_is_held_stays_held_and_what_judged_judges_over_a_restart_without_code()
-> Result<()> {
    let (first, second) = (tally("version=1")?, tally("version=2 fatal=31")?);
    let (judges, held) = (sha256(&first)?, sha256(&second)?);
    let mut rig = Rig::start(&[("tally.wasm", &first)], &[])?;
    let mut client = rig.ready().await?;
    let mut watch = client.watch(0).await?;
    for gpu in 0..3 {
        rig.xid(gpu, 31)?;
        rig.counted(&mut watch, gpu, "version=1 31=1").await?;
    }
    rig.put("tally.wasm", &second)?;
    let report = client.reload().await?;
    let outcome = outcome(&report, "tally")?;
    ensure!(outcome.change() == PolicyChange::Held, "{outcome:?}");
    rig.node.stop(Signal::TERM)?;
    std::fs::remove_dir_all(rig.node.dir().join("state/code"))?;
    rig.node.start_again()?;
    let mut client = rig.node.native().await?;
    let policy = until(&mut client, "tally", |policy| policy.held.is_some()).await?;
    let aside = policy.held.as_ref().context("nothing is held")?;
    ensure!(aside.digest == held, "{aside:?}");
    ensure!(active(&policy)? == judges, "{policy:?}");
    rig.node.healthy().await?;
    rig.is_asked("TallyCount").await
}
