//! A policy directory that is a mounted ConfigMap, swapped as the kubelet does it (design H6).

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::Policy;
use device_api_tests::{ConfigMap, Native, Node, http};

use crate::rig::{Rig, active, is_running, sha256, tally};

/// By when a change is noticed (design H6), and what a busy machine may add until it is taken up: two
/// components are compiled meanwhile.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_secs(5);

/// Two swaps nearer than this are to end in the second.
const AT_ONCE: Duration = Duration::from_millis(200);

fn other(settings: &str) -> Result<Vec<u8>> {
    tally(&format!("name=other {settings}"))
}

/// Listed, so that each name is known whatever its file holds.
const BOTH: &[u8] =
    b"policies:\n  - name: tally\n    file: tally.wasm\n  - name: other\n    file: other.wasm\n";

/// Waits until a version is in its seat, by itself: when that was.
async fn seated(rig: &Rig, client: &mut Native, version: &str) -> Result<(Policy, SystemTime)> {
    rig.node.daemon.wait_for(&["policy swapped", version])?;
    // That is in the log a moment before it is shown; who asks for a reload is answered after that.
    client.reload().await?;
    let policy = client.policy("tally").await?;
    let since = policy.active.as_ref().and_then(|active| active.since);
    let since = since.context("nobody knows since when")?;
    Ok((policy, SystemTime::try_from(since)?))
}

#[tokio::test]
async fn h6_a_configmap_is_swapped_once_and_twice_at_once() -> Result<()> {
    let builder = Node::builder()?.gpus(2);
    let first = tally("version=1")?;
    let mut map = ConfigMap::mount(builder.dir().join("policies"), &[("tally.wasm", &first)])?;
    let rig = Rig::on(map.root().to_owned(), &[])(builder)?;
    let mut client = rig.ready().await?;
    is_running(&client.policy("tally").await?, &sha256(&first)?)?;

    let second = tally("version=2")?;
    let wanted = sha256(&second)?;
    let changed = SystemTime::now();
    map.write(&[("tally.wasm", &second)])?;
    let (policy, since) = seated(&rig, &mut client, &wanted).await?;
    is_running(&policy, &wanted)?;
    let took = since.duration_since(changed)?;
    assert!(took < NOTICED_WITHIN + BUSY, "it took {took:?}");

    // Right behind one another, with no look or one in between.
    let (third, fourth) = (tally("version=3")?, tally("version=4")?);
    let wanted = sha256(&fourth)?;
    let changed = SystemTime::now();
    map.write(&[("tally.wasm", &third)])?;
    map.write(&[("tally.wasm", &fourth)])?;
    let both = changed.elapsed()?;
    assert!(
        both < AT_ONCE,
        "not at once, but within {both:?}: is the disk so slow?"
    );
    let (policy, since) = seated(&rig, &mut client, &wanted).await?;
    is_running(&policy, &wanted)?;
    let took = since.duration_since(changed)?;
    assert!(took < NOTICED_WITHIN + BUSY, "it took {took:?}");
    // And it stays: there is nothing else to be seen.
    let report = client.reload().await?;
    ensure!(report.refused.is_empty(), "{report:?}");
    is_running(&client.policy("tally").await?, &wanted)?;
    Ok(())
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one directory, through all that may become of it"
)]
async fn h6_a_set_that_is_half_bad_or_gone_costs_no_policy_that_runs() -> Result<()> {
    let builder = Node::builder()?.gpus(2);
    let (first, beside) = (tally("version=1")?, other("version=1")?);
    let set: [(&str, &[u8]); 3] = [
        ("policies.yaml", BOTH),
        ("tally.wasm", &first),
        ("other.wasm", &beside),
    ];
    let mut map = ConfigMap::mount(builder.dir().join("policies"), &set)?;
    let rig = Rig::on(map.root().to_owned(), &[])(builder)?;
    let mut client = rig.ready().await?;
    let beside_digest = sha256(&beside)?;
    is_running(&client.policy("other").await?, &beside_digest)?;

    // Half of it is bad: the other half is taken.
    let second = tally("version=2")?;
    let wanted = sha256(&second)?;
    map.write(&[
        ("policies.yaml", BOTH),
        ("tally.wasm", &second),
        ("other.wasm", b"\0asm, almost"),
    ])?;
    seated(&rig, &mut client, &wanted).await?;
    is_running(&client.policy("tally").await?, &wanted)?;
    let refused = client.policy("other").await?;
    assert_eq!(active(&refused)?, beside_digest);
    let why = refused.refused.context("not refused")?.why;
    assert!(why.contains("other.wasm"), "{why}");

    // What says what is wanted is bad: nothing is taken, the good file neither.
    let third = tally("version=3")?;
    map.write(&[
        ("policies.yaml", b"policies:\n  - nam: tally\n"),
        ("tally.wasm", &third),
    ])?;
    let told = rig
        .node
        .daemon
        .wait_for(&["policies.yaml is refused", "running set stays"])?;
    assert!(told.contains("nam"), "{told}");
    stays(
        &rig,
        &mut client,
        &[("tally", &wanted), ("other", &beside_digest)],
    )
    .await?;

    // No file at all.
    map.write(&[])?;
    rig.node
        .daemon
        .wait_for(&["is empty", "running set stays"])?;
    stays(
        &rig,
        &mut client,
        &[("tally", &wanted), ("other", &beside_digest)],
    )
    .await?;

    // The volume is gone, and is there again, with another version in it.
    let away = rig.node.dir().join("away");
    std::fs::rename(map.root(), &away)?;
    rig.node
        .daemon
        .wait_for(&["can't be read", "running set stays"])?;
    stays(
        &rig,
        &mut client,
        &[("tally", &wanted), ("other", &beside_digest)],
    )
    .await?;
    let (_, detail) = http(&rig.node.address("/healthz")?, "/readyz")?;
    assert!(detail.contains("can't be read"), "{detail}");
    let fourth = tally("version=4")?;
    let mut away = map.at(away);
    away.write(&[
        ("policies.yaml", BOTH),
        ("tally.wasm", &fourth),
        ("other.wasm", &beside),
    ])?;
    std::fs::rename(away.root(), &rig.policies)?;
    let wanted = sha256(&fourth)?;
    seated(&rig, &mut client, &wanted).await?;
    stays(
        &rig,
        &mut client,
        &[("tally", &wanted), ("other", &beside_digest)],
    )
    .await?;
    let (_, detail) = http(&rig.node.address("/healthz")?, "/readyz")?;
    assert!(!detail.contains("can't be read"), "{detail}");
    Ok(())
}

/// These versions are asked, and go on counting.
async fn stays(rig: &Rig, client: &mut Native, set: &[(&str, &str)]) -> Result<()> {
    for (name, digest) in set {
        let policy = client.policy(name).await?;
        ensure!(active(&policy)? == *digest, "{name}: {policy:?}");
    }
    rig.is_asked("TallyCount").await?;
    rig.is_asked("OtherCount").await
}
