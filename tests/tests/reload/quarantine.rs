//! Versions that fail, or in whose calls the daemon dies, and who judges in their place (design H5).

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{PolicyPhase, QuarantinePolicyRequest, ReleasePolicyRequest};
use device_api_tests::Watch;
use rustix::process::Signal;

use crate::rig::{Rig, active, is_running, sha256, tally};

/// Failures after which a version that does nothing else is long quarantined: some 8 s of back-offs, and each
/// failure is followed by a look at where it is.
const FAULTS_UNTIL_QUARANTINED: u32 = 20_000;

/// Crashes until a digest is surely quarantined: at the most that is doubted of each (`ledger.rs`), four.
const CRASHES_MAX: u32 = 4;

#[tokio::test]
async fn h5_a_version_that_fails_gives_way_to_the_last_good_one_over_a_restart_too() -> Result<()> {
    let first = tally("version=1")?;
    let mut rig = Rig::start(&[("tally.wasm", &first)], &[])?;
    let mut client = rig.ready().await?;
    let mut watch = client.watch(0).await?;
    rig.xid(0, 31)?;
    rig.counted(&mut watch, 0, "version=1 31=1").await?;
    let good = sha256(&first)?;
    let bad = rig.swap_to(&mut client, "version=2 traps=43").await?;
    rig.xid(0, 31)?;
    rig.counted(&mut watch, 0, "version=2 31=2").await?;

    let mut faults = 0;
    loop {
        let policy = client.policy("tally").await?;
        if policy.quarantined.iter().any(|aside| aside.digest == bad) {
            break;
        }
        faults += 1;
        ensure!(
            faults < FAULTS_UNTIL_QUARANTINED,
            "never quarantined: {policy:?}"
        );
        rig.xid(0, 43)?;
        // The read waits for what comes of it.
        client.get(&rig.node.uuid(0)?).await?;
    }
    let told = rig.node.daemon.wait_for(&["policy quarantined", "trap"])?;
    assert!(told.contains("tally"), "{told}");
    judged_by(&rig, &good, &bad).await?;
    // What the bad one failed on is judged by the good one after all, once each; the rest was folded.
    let said = rig
        .until(&mut watch, 0, "TallyCount", |said| {
            said.message.contains("43=")
        })
        .await?;
    assert!(said.message.contains("version=1"), "{said:?}");

    // The directory holds the bad one only.
    rig.node.stop(Signal::TERM)?;
    rig.node.start_again()?;
    rig.ready().await?;
    judged_by(&rig, &good, &bad).await?;
    assert_eq!(
        std::fs::read(rig.policies.join("tally.wasm"))?,
        tally("version=2 traps=43")?
    );

    // A file with another digest is another version.
    let third = tally("version=3")?;
    rig.put("tally.wasm", &third)?;
    let mut client = rig.node.native().await?;
    client.reload().await?;
    is_running(&client.policy("tally").await?, &sha256(&third)?)?;
    Ok(())
}

/// The good one stands in for the bad one, and counts on.
async fn judged_by(rig: &Rig, good: &str, bad: &str) -> Result<()> {
    let policy = rig.node.native().await?.policy("tally").await?;
    ensure!(policy.phase() == PolicyPhase::LastGood, "{policy:?}");
    ensure!(active(&policy)? == good, "{policy:?}");
    let mut quarantined = policy.quarantined.iter();
    let aside = quarantined.find(|aside| aside.digest == bad);
    ensure!(
        !aside.context("not quarantined")?.why.is_empty(),
        "{policy:?}"
    );
    rig.is_asked("TallyCount").await
}

/// Kills the daemon while the policy is in a call. What is stopped can't leave it.
async fn kill_in_call(rig: &mut Rig, digest: &str) -> Result<()> {
    for attempt in 1..=10 {
        rig.xid(0, 43)?;
        rig.node.daemon.wait_for_nth(&["busy over 43"], attempt)?;
        rig.node.daemon.signal(Signal::STOP)?;
        stopped(rig)?;
        if marked(rig, digest)? {
            return rig.node.stop(Signal::KILL);
        }
        // The call was over: on a starved machine it is as short as that.
        rig.node.daemon.signal(Signal::CONT)?;
    }
    bail!("it is never caught in a call")
}

/// Kills the daemon while the policy is in none.
async fn kill_between_calls(rig: &mut Rig, watch: &mut Watch, digest: &str) -> Result<()> {
    rig.xid(1, 31)?;
    rig.until(watch, 1, "TallyCount", |_| true).await?;
    rig.node.daemon.signal(Signal::STOP)?;
    stopped(rig)?;
    ensure!(!marked(rig, digest)?, "who has answered is in no call");
    rig.node.stop(Signal::KILL)
}

/// Waits until all of its threads have stopped.
fn stopped(rig: &Rig) -> Result<()> {
    let tasks = PathBuf::from(format!("/proc/{}/task", rig.node.daemon.pid()));
    let deadline = std::time::Instant::now() + device_api_tests::PATIENCE;
    loop {
        let mut all = true;
        for task in std::fs::read_dir(&tasks)? {
            let stat = std::fs::read_to_string(task?.path().join("stat"));
            // `TID (NAME) STATE …`
            let stat = stat.unwrap_or_default();
            let state = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .trim_start()
                .chars()
                .next();
            all &= state.is_none_or(|state| state == 'T');
        }
        if all {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "it does not stop");
        std::thread::yield_now();
    }
}

/// Whether the crash marker says that a call is under way.
fn marked(rig: &Rig, digest: &str) -> Result<bool> {
    let mut found = false;
    for entry in std::fs::read_dir(rig.node.dir().join("state/policies/calls"))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with(digest) {
            found |= std::fs::read(&path)?.first() == Some(&b'!');
        }
    }
    Ok(found)
}

/// Half a second in a call, which leaves time to be caught in it.
const SLOW: [(&str, &str); 2] = [("limit", "barrier-wait=1s"), ("policy-deadline", "500ms")];

#[tokio::test]
async fn h5_a_version_in_whose_calls_the_daemon_dies_is_quarantined_and_can_be_released()
-> Result<()> {
    let component = tally("busy=43")?;
    let digest = sha256(&component)?;
    let mut rig = Rig::start(&[("tally.wasm", &component)], &SLOW)?;
    let mut client = rig.ready().await?;
    is_running(&client.policy("tally").await?, &digest)?;

    // Once may be chance, and a run that ends elsewhere forgives it.
    kill_in_call(&mut rig, &digest).await?;
    rig.node.start_again()?;
    rig.node
        .daemon
        .wait_for(&["died during a call", &digest, "strikes=1"])?;
    client = rig.ready().await?;
    is_running(&client.policy("tally").await?, &digest)?;
    let mut watch = client.watch(0).await?;
    kill_between_calls(&mut rig, &mut watch, &digest).await?;
    rig.node.start_again()?;
    client = rig.ready().await?;
    is_running(&client.policy("tally").await?, &digest)?;

    let mut crashes = 0;
    let policy = loop {
        crashes += 1;
        ensure!(crashes <= CRASHES_MAX, "it is not quarantined");
        kill_in_call(&mut rig, &digest).await?;
        rig.node.start_again()?;
        let strikes = format!("strikes={crashes}");
        rig.node
            .daemon
            .wait_for(&["died during a call", &digest, &strikes])?;
        client = rig.ready().await?;
        let policy = client.policy("tally").await?;
        if !policy.quarantined.is_empty() {
            break policy;
        }
    };
    assert!(crashes >= 2, "once is no rule");
    assert_eq!(policy.phase(), PolicyPhase::Quarantined, "{policy:?}");
    assert!(policy.active.is_none(), "{policy:?}");
    let aside = policy.quarantined.first().context("not quarantined")?;
    let why = format!("died during its calls, {crashes} times in a row");
    assert!(
        aside.digest == digest && aside.why.contains(&why),
        "{aside:?}"
    );
    let (_, said) = rig.devicectl(&["policy", "list"])?;
    assert!(
        said.contains("quarantined") && said.contains(&why),
        "{said}"
    );

    // Once it is tried again, it is asked again.
    let request = ReleasePolicyRequest {
        name: "tally".to_owned(),
        digest: digest.clone(),
    };
    client.policies.release_policy(request).await?;
    is_running(&client.policy("tally").await?, &digest)?;
    rig.is_asked("TallyCount").await
}

#[tokio::test]
async fn h5_a_good_version_is_not_blamed_for_a_daemon_that_is_killed() -> Result<()> {
    let component = tally("version=1")?;
    let digest = sha256(&component)?;
    let mut rig = Rig::start(&[("tally.wasm", &component)], &[])?;
    for _ in 0..3 {
        let mut client = rig.ready().await?;
        let mut watch = client.watch(0).await?;
        kill_between_calls(&mut rig, &mut watch, &digest).await?;
        rig.node.start_again()?;
    }
    let mut client = rig.ready().await?;
    let policy = client.policy("tally").await?;
    is_running(&policy, &digest)?;
    assert!(policy.quarantined.is_empty(), "{policy:?}");
    let blamed = rig.node.daemon.log();
    let mut blamed = blamed
        .iter()
        .filter(|line| line.contains("died during a call"));
    assert_eq!(blamed.next(), None);
    Ok(())
}

/// Faults that come while nobody is asked of them.
const FAULTS_WHILE_OUT: u64 = 1_000;

/// Different ones: the guest asks the host of each at each.
const FAULTS: u64 = 20;

/// Lines about it that the log has at most then: the causes are that it is quarantined, and, in the moment before,
/// that its thread is let go of; and each once more if that takes longer than a minute.
const LINES_MAX: usize = 4;

#[tokio::test]
async fn h2_h5_a_version_that_is_out_with_nobody_in_its_place_does_not_fill_the_log() -> Result<()>
{
    let rig = Rig::start(&[("tally.wasm", &tally("version=1")?)], &[])?;
    let mut client = rig.ready().await?;
    let request = QuarantinePolicyRequest {
        name: "tally".to_owned(),
        reason: "it is tried".to_owned(),
        ..Default::default()
    };
    client.policies.quarantine_policy(request).await?;
    let gpu = rig.node.uuid(0)?;
    for at in 0..FAULTS_WHILE_OUT {
        rig.xid(0, 1 + at % FAULTS)?;
        // The read waits for what comes of it.
        client.get(&gpu).await?;
    }
    let failed = client.policy("tally").await?.counters.context("none")?;
    let failed: u64 = failed.failures.iter().map(|count| count.calls).sum();
    ensure!(
        failed >= FAULTS_WHILE_OUT / 2,
        "it was asked {failed} times"
    );
    let log = rig.node.daemon.log();
    let is_about = |line: &&String| line.contains("gave no decision") && line.contains("tally");
    let lines: Vec<_> = log.iter().filter(is_about).collect();
    ensure!(
        (1..=LINES_MAX).contains(&lines.len()),
        "{} lines: {lines:?}",
        lines.len()
    );
    // What it failed on first is kept: a version that may be asked is asked of it.
    let mut watch = client.watch(0).await?;
    let request = ReleasePolicyRequest {
        name: "tally".to_owned(),
        ..Default::default()
    };
    client.policies.release_policy(request).await?;
    rig.until(&mut watch, 0, "TallyCount", |said| {
        said.message.contains(" 5=")
    })
    .await?;
    Ok(())
}
