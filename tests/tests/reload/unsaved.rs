//! What an operator is told where the state directory takes no more, and what a damaged ledger costs (design H5).

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::http;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::rig::{Rig, sha256, tally};

/// How long the daemon may take to save what it could not: it tries each second.
const PATIENCE: Duration = Duration::from_secs(30);

/// No file of the daemon may grow past so many bytes: to it, a full disk.
fn limit(rig: &Rig, bytes: Option<u64>) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(rig.node.daemon.pid())?);
    let limits = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, limits)?;
    Ok(())
}

fn readyz(rig: &Rig) -> Result<String> {
    let (code, told) = http(&rig.node.address("/healthz")?, "/readyz")?;
    ensure!(code == 200, "{code} {told}");
    Ok(told)
}

#[tokio::test]
async fn h5_what_cannot_be_saved_is_no_success_and_is_saved_later() -> Result<()> {
    let first = tally("version=1")?;
    let mut rig = Rig::start(&[("tally.wasm", &first)], &[])?;
    let mut client = rig.ready().await?;
    let bad = sha256(&first)?;
    limit(&rig, Some(1))?;

    let order = [
        "policy",
        "quarantine",
        "tally",
        "--reason=TICKET-9",
        "--yes",
    ];
    let (code, said) = rig.devicectl(&order)?;
    ensure!(code == Some(1), "{said}");
    for word in ["for this run only", "ledger.json", "a restart forgets it"] {
        ensure!(said.contains(word), "{said:?} lacks {word:?}");
    }
    let audited = ["audit", "QuarantinePolicy", "Unavailable"];
    let line = rig.node.daemon.wait_for(&audited)?;
    ensure!(line.contains("for this run only"), "{line}");
    // It protects all the same, and whoever looks is told.
    let policy = client.policy("tally").await?;
    ensure!(policy.active.is_none(), "{policy:?}");
    let (_, listed) = rig.devicectl(&["policy", "list"])?;
    ensure!(
        listed.starts_with("What is decided of policies can't be saved"),
        "{listed}"
    );
    let told = readyz(&rig)?;
    ensure!(told.contains("can't be saved"), "{told}");
    let metric = "device_api_server_policy_ledger_writable";
    ensure!(rig.node.metrics()?.contains(&format!("{metric} 0\n")));
    let release = ["policy", "release", "tally", "--digest", &bad, "--yes"];
    let (code, said) = rig.devicectl(&release)?;
    ensure!(
        code == Some(0),
        "what is not on the disk needs no saving: {said}"
    );
    let (code, said) = rig.devicectl(&order)?;
    ensure!(code == Some(1), "{said}");

    limit(&rig, None)?;
    let saved = async {
        while !rig.node.metrics()?.contains(&format!("{metric} 1\n")) {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, saved)
        .await
        .context("not saved")??;
    ensure!(!readyz(&rig)?.contains("can't be saved"));
    rig.node.stop(Signal::KILL)?;
    rig.node.start_again()?;
    let mut client = rig.ready().await?;
    let policy = client.policy("tally").await?;
    ensure!(policy.active.is_none(), "{policy:?}");
    ensure!(
        policy.quarantined.iter().any(|aside| aside.digest == bad),
        "{policy:?}"
    );
    Ok(())
}

#[tokio::test]
async fn h5_after_a_damaged_ledger_nothing_that_was_quarantined_judges_unasked() -> Result<()> {
    let first = tally("version=1")?;
    let mut rig = Rig::start(&[("tally.wasm", &first)], &[])?;
    rig.ready().await?;
    let bad = sha256(&first)?;
    let order = ["policy", "quarantine", "tally", "--reason=wrong", "--yes"];
    let (code, said) = rig.devicectl(&order)?;
    ensure!(code == Some(0), "{said}");
    rig.node.stop(Signal::TERM)?;
    let ledger = rig.node.dir().join("state/policies/ledger.json");
    let whole = std::fs::read(&ledger)?;
    let half = whole.get(..whole.len() / 2).context("empty")?;
    std::fs::write(&ledger, half)?;

    rig.node.start_again()?;
    let line = rig
        .node
        .daemon
        .wait_for(&["the ledger of policies could not be read"])?;
    ensure!(
        line.contains("ERROR") && line.contains("damaged-"),
        "{line}"
    );
    let mut client = rig.ready().await?;
    let policy = client.policy("tally").await?;
    ensure!(policy.active.is_none(), "{policy:?}");
    let held = policy.held.context("not held")?;
    ensure!(
        held.digest == bad && held.why.contains("policy accept tally"),
        "{held:?}"
    );
    let told = readyz(&rig)?;
    ensure!(
        told.contains("the ledger of policies could not be read"),
        "{told}"
    );
    let metrics = rig.node.metrics()?;
    ensure!(metrics.contains("device_api_server_policy_ledger_set_aside_total 1\n"));
    // The bundled ones came with the daemon, and judge.
    ensure!(client.policy("xid-policy").await?.active.is_some());
    let (code, said) = rig.devicectl(&["policy", "accept", "tally", "--digest", &bad])?;
    ensure!(code == Some(0), "{said}");
    ensure!(client.policy("tally").await?.active.is_some());
    Ok(())
}
