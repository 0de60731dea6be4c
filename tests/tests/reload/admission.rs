//! What a new version does to what stands: held where it would do much, and judged again where it is let in
//! (design H6, H9).

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{
    AcceptPolicyRequest, Condition, ConditionStatus, Health, PolicyChange, Severity, owner,
};
use device_api_tests::health_of;

use crate::rig::{Rig, has_words, is_running, outcome, sha256, tally};

fn is_problem(condition: &Condition) -> bool {
    condition.status() == ConditionStatus::True
}

fn digest_of(condition: &Condition) -> &str {
    condition.owner.as_ref().map_or("", |owner| &owner.digest)
}

#[tokio::test]
async fn h9_a_held_version_changes_nothing_until_it_is_accepted() -> Result<()> {
    let first = tally("version=1")?;
    let rig = Rig::start(&[("tally.wasm", &first)], &[])?;
    let mut client = rig.ready().await?;
    let mut watch = client.watch(0).await?;
    for gpu in 0..3 {
        rig.xid(gpu, 31)?;
        rig.counted(&mut watch, gpu, "version=1 31=1").await?;
    }
    let second = tally("version=2 fatal=31")?;
    let held = sha256(&second)?;
    rig.put("tally.wasm", &second)?;
    let report = client.reload().await?;
    let outcome = outcome(&report, "tally")?;
    ensure!(outcome.change() == PolicyChange::Held, "{outcome:?}");
    let policy = client.policy("tally").await?;
    is_running(&policy, &sha256(&first)?)?;
    let aside = policy.held.context("nothing is held")?;
    assert!(
        aside.digest == held && aside.why.contains("3 GPUs Unhealthy"),
        "{aside:?}"
    );

    // The old one judges what comes, and what stands is as it was.
    rig.xid(0, 31)?;
    rig.counted(&mut watch, 0, "version=1 31=2").await?;
    for gpu in client.list().await?.gpus {
        assert_eq!(health_of(&gpu), Health::Healthy, "{}", gpu.name);
    }

    let request = AcceptPolicyRequest {
        name: "tally".to_owned(),
        digest: held.clone(),
    };
    client.policies.accept_policy(request).await?;
    is_running(&client.policy("tally").await?, &held)?;
    for gpu in 0..3 {
        let said = rig.until(&mut watch, gpu, "TallyFault", is_problem).await?;
        assert_eq!(
            (said.severity(), digest_of(&said)),
            (Severity::Fatal, &*held)
        );
        let gpu = client.get(&rig.node.uuid(gpu)?).await?;
        assert_eq!(health_of(&gpu), Health::Unhealthy, "{}", gpu.name);
    }
    let untouched = client.get(&rig.node.uuid(3)?).await?;
    assert_eq!(health_of(&untouched), Health::Healthy);
    // It was given the count of the one before.
    rig.xid(0, 31)?;
    rig.counted(&mut watch, 0, "version=2 31=3").await
}

#[tokio::test]
async fn h6_what_stands_is_judged_again_at_a_swap_up_and_down() -> Result<()> {
    let rig = Rig::start(&[("tally.wasm", &tally("version=1")?)], &[])?;
    let mut client = rig.ready().await?;
    let mut watch = client.watch(0).await?;
    rig.xid(0, 31)?;
    rig.counted(&mut watch, 0, "31=1").await?;
    let name = rig.node.uuid(0)?;

    for (settings, severity, health) in [
        ("version=2 warning=31", Severity::Warning, Health::Degraded),
        ("version=3 fatal=31", Severity::Fatal, Health::Unhealthy),
        ("version=4 warning=31", Severity::Warning, Health::Degraded),
    ] {
        let digest = rig.swap_to(&mut client, settings).await?;
        let is_its = |condition: &Condition| digest_of(condition) == digest;
        let said = rig.until(&mut watch, 0, "TallyFault", is_its).await?;
        assert_eq!(
            (said.status(), said.severity()),
            (ConditionStatus::True, severity),
            "{said:?}"
        );
        let gpu = client.get(&name).await?;
        assert_eq!(health_of(&gpu), health, "{settings}: {gpu:?}");
    }
    // One that says nothing of it takes it back.
    rig.swap_to(&mut client, "version=5").await?;
    let over = |condition: &Condition| condition.status() == ConditionStatus::False;
    let said = rig.until(&mut watch, 0, "TallyFault", over).await?;
    assert_eq!(said.reason, "Rejudged");
    assert_eq!(health_of(&client.get(&name).await?), Health::Healthy);
    Ok(())
}

#[tokio::test]
async fn h6_what_an_unloaded_policy_said_stays_until_its_owner_is_back() -> Result<()> {
    // Its directory is empty without it, and is meant to be.
    let none = ("policies.yaml", &b"policies: []\n"[..]);
    let rig = Rig::start(&[none, ("tally.wasm", &tally("version=1 fatal=31")?)], &[])?;
    let mut client = rig.ready().await?;
    let mut watch = client.watch(0).await?;
    rig.xid(0, 31)?;
    rig.until(&mut watch, 0, "TallyFault", is_problem).await?;
    rig.xid(1, 13)?;
    rig.counted(&mut watch, 1, "13=1").await?;

    rig.remove("tally.wasm")?;
    let report = client.reload().await?;
    let removed = outcome(&report, "tally")?;
    ensure!(removed.change() == PolicyChange::Removed, "{removed:?}");
    let gone = |condition: &Condition| condition.reason == "OwnerGone";
    let said = rig.until(&mut watch, 0, "TallyFault", gone).await?;
    assert!(
        is_problem(&said) && said.message.contains("31=1"),
        "{said:?}"
    );
    let said = rig.until(&mut watch, 1, "TallyCount", gone).await?;
    assert_eq!(
        said.status(),
        ConditionStatus::Unknown,
        "what was fine is not known any more"
    );
    let (first, second) = (rig.node.uuid(0)?, rig.node.uuid(1)?);
    assert_eq!(health_of(&client.get(&first).await?), Health::Unhealthy);
    assert_eq!(
        health_of(&client.get(&second).await?),
        Health::Healthy,
        "it does not count"
    );

    let digest = rig.swap_to(&mut client, "version=2 fatal=31").await?;
    let is_owned = |condition: &Condition| {
        let owner = condition.owner.clone().unwrap_or_default();
        owner.kind() == owner::Kind::Policy
            && owner.digest == digest
            && condition.reason != "OwnerGone"
    };
    let said = rig.until(&mut watch, 0, "TallyFault", is_owned).await?;
    assert!(is_problem(&said), "{said:?}");
    let said = rig.until(&mut watch, 1, "TallyCount", is_owned).await?;
    assert_eq!(said.reason, "Counted");
    // And it finds its state.
    rig.xid(1, 13)?;
    let counted = |condition: &Condition| has_words(&condition.message, "version=2 13=2");
    rig.until(&mut watch, 1, "TallyCount", counted).await?;
    Ok(())
}
