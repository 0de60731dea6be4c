//! Guests that need more than a daemon of their own.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::policy_service_client::PolicyServiceClient;
use device_api_proto::native::{
    AcceptPolicyRequest, ConditionStatus, Gpu, Health, ListPoliciesRequest, PolicyPhase,
};
use device_api_tests::hostile::Hostile;
use device_api_tests::{condition_of, health_of};

use crate::harm::Examined;
use crate::load::{self, Readers, Stimulus, Watchers};
use crate::rig::{Rig, file};
use crate::turn;

/// Those that this file has tests of.
pub(crate) const TESTED: [Hostile; 9] = [
    Hostile::ChangesWhileRead,
    Hostile::CompileBomb,
    Hostile::DuplicateName,
    Hostile::EveryGpuFatal,
    Hostile::FalseFriend,
    Hostile::InfoChanges,
    Hostile::PoisonHeir,
    Hostile::PoisonWriter,
    Hostile::TimerStorm,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h1_of_two_policies_of_one_name_the_later_is_refused_naming_both() -> Result<()> {
    let _turn = turn().await;
    let (first, second) = (Hostile::BrinkOfTheDeadline, Hostile::DuplicateName);
    let rig = Rig::with(&[first, second]).await?;
    let words = format!("is named \"{}\", and so is {}", first.name(), file(first));
    rig.node
        .daemon
        .wait_for(&["ERROR", &file(second), &words])?;
    let watchers = Watchers::of(&rig.node).await?;
    rig.is_judged_by_the_bundled(watchers, "XidCriticalError")
        .await?;
    rig.is_unharmed()?;
    Ok(())
}

/// The floor is the host's; whoever is in the bundled policy's place finds nothing wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h8_a_false_friend_in_a_bundled_policys_place_can_not_talk_a_gpu_off_the_bus_away()
-> Result<()> {
    let _turn = turn().await;
    let guest = Hostile::FalseFriend;
    let rig = Rig::idle().await?;
    let examined = Examined {
        policy: "xid-policy".to_owned(),
        witness: "FaultFloor",
        ..Examined::of(guest)
    };
    let row = rig
        .examine(&examined, async |rig| {
            let answered = rig.answered("xid-policy")?;
            ensure!(answered > 0, "it was not asked");
            Ok(format!(
                "it finds all well ({answered} calls); the floor holds"
            ))
        })
        .await?;
    eprintln!("{row}");
    Ok(())
}

/// State outlives a version: one that chokes on what its predecessor left costs itself, and no other state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h3_a_state_that_poisons_the_next_version_costs_that_version_only() -> Result<()> {
    let _turn = turn().await;
    let (writer, heir) = (Hostile::PoisonWriter, Hostile::PoisonHeir);
    let of = |guest| Examined {
        policy: "poison".to_owned(),
        ..Examined::of(guest)
    };
    let mut rig = Rig::idle().await?;
    let row = rig
        .examine(&of(writer), async |rig| {
            ensure!(rig.answered("poison")? > 0, "it was not asked");
            Ok("its own conditions, and a poisoned state".to_owned())
        })
        .await?;
    eprintln!("{row}");
    rig.replace(writer, heir).await?;
    let (gpu, name) = (0, rig.node.uuid(0)?);
    let mut client = rig.node.native().await?;
    let mut watch = client.watch(0).await?;
    rig.node.sim()?.xid(gpu, &[119])?;
    let judged = watch
        .until(&name, "told of XID 119", |gpu| {
            condition_of(gpu, "XidCriticalError").is_some()
        })
        .await?;
    let left =
        condition_of(&judged, "PoisonWriter").context("what its predecessor said is gone")?;
    ensure!(left.reason == "OwnerGone", "{left:?}");
    rig.has_failed("poison", "trap", "a state is text")?;
    rig.is_unharmed()?;
    eprintln!(
        "{:26} its calls fail: trap, on its predecessor's state",
        heir.name()
    );
    Ok(())
}

/// Slices in which a guest that fails should long be quarantined: some 8 s of back-off, and a slice of
/// 1,600 reads takes a tenth of a second at least.
const SLICES_UNTIL_QUARANTINE: u32 = 400;

/// Calls for timers that make a storm: 32 for each of seven GPUs, and again when they come back.
const TIMER_CALLS: u64 = 60;

/// Its timers go on while nothing else happens, so what is quiet comes before the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_a_storm_of_timers_comes_once_a_second_and_hurts_nobody() -> Result<()> {
    let _turn = turn().await;
    let guest = Hostile::TimerStorm;
    let rig = Rig::with(&[guest]).await?;
    let watchers = Watchers::of(&rig.node).await?;
    let mut readers = Readers::of(&rig.node).await?;
    let mut quiet = Duration::ZERO;
    for _ in 0..3 {
        quiet = quiet.max(readers.slice(&rig.node, Stimulus::None).await?);
    }
    ensure!(
        rig.answered(guest.name())? == 0,
        "it was asked before anything happened"
    );
    // The best slice counts, as in `load::compare`.
    let mut hostile = Duration::MAX;
    while rig.answered(guest.name())? < TIMER_CALLS {
        hostile = hostile.min(readers.slice(&rig.node, Stimulus::FAULTS).await?);
    }
    ensure!(
        !load::is_too_slow(quiet, hostile),
        "reads' p99 went from {quiet:?} to {hostile:?}"
    );
    rig.is_judged_by_the_bundled(watchers, "XidCriticalError")
        .await?;
    let growth = rig.is_unharmed()?;
    eprintln!(
        "{:26} {} calls, p99 {quiet:?} -> {hostile:?}, +{growth} MiB, {} lines of log",
        guest.name(),
        rig.answered(guest.name())?,
        rig.node.daemon.log().len()
    );
    Ok(())
}

/// What it changes to is a component now and half of one then: whatever comes of it, it is of one reading.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h6_a_file_that_changes_while_it_is_read_is_loaded_or_refused_as_a_whole() -> Result<()> {
    let _turn = turn().await;
    let guest = Hostile::ChangesWhileRead;
    let rig = Rig::idle().await?;
    let watchers = Watchers::of(&rig.node).await?;
    let mut readers = Readers::of(&rig.node).await?;
    let loading = rig.begin_to_load(guest).await?;
    readers.slice(&rig.node, Stimulus::FAULTS).await?;
    let came = match loading.await? {
        Err(refused) => {
            let refused = refused.to_string();
            ensure!(refused.contains("changes while it is read"), "{refused}");
            "the set is refused: it changes while it is read"
        }
        Ok(()) => {
            let told = rig.node.daemon.wait_for(&[&file(guest), "policy"])?;
            if told.contains("ERROR") {
                "refused at load"
            } else {
                "loaded"
            }
        }
    };
    rig.is_judged_by_the_bundled(watchers, "XidCriticalError")
        .await?;
    rig.is_unharmed()?;
    eprintln!("{:26} {came}", guest.name());
    Ok(())
}

/// It is not waited for until its deadline, which takes minutes (`host/wasm/src/compile/` has tests of that);
/// that nobody else waits for it is what counts here, an end of the daemon included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h10_nobody_waits_for_a_compile_bomb() -> Result<()> {
    let _turn = turn().await;
    let guest = Hostile::CompileBomb;
    let mut rig = Rig::idle().await?;
    let watchers = Watchers::of(&rig.node).await?;
    let mut readers = Readers::of(&rig.node).await?;
    let mut quiet = Duration::ZERO;
    for _ in 0..load::PAIRS_MAX {
        quiet = quiet.max(readers.slice(&rig.node, Stimulus::None).await?);
    }
    let loading = rig.begin_to_load(guest).await?;
    while rig.children()? == 0 {
        ensure!(!loading.is_finished(), "{:?}", loading.await);
        readers.slice(&rig.node, Stimulus::None).await?;
    }
    // The best slice counts, as in `load::compare`.
    let mut meanwhile = Duration::MAX;
    for _ in 0..load::PAIRS_MAX {
        meanwhile = meanwhile.min(readers.slice(&rig.node, Stimulus::None).await?);
    }
    ensure!(
        !load::is_too_slow(quiet, meanwhile),
        "reads' p99 went from {quiet:?} to {meanwhile:?}"
    );
    rig.is_judged_by_the_bundled(watchers, "XidCriticalError")
        .await?;
    let growth = rig.is_unharmed()?;
    ensure!(
        !loading.is_finished() && rig.children()? > 0,
        "it was compiled: make it worse"
    );
    loading.abort();
    rig.node.stop(rustix::process::Signal::TERM)?;
    eprintln!(
        "{:26} p99 {quiet:?} -> {meanwhile:?} while it is compiled, +{growth} MiB",
        guest.name()
    );
    Ok(())
}

/// A sleeper that was admitted, and fails at all that is asked of it from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h5_a_guest_that_only_fails_backs_off_and_is_quarantined() -> Result<()> {
    let _turn = turn().await;
    let guest = Hostile::LoopInEvaluate;
    let rig = Rig::with(&[guest]).await?;
    let watchers = Watchers::of(&rig.node).await?;
    let mut readers = Readers::of(&rig.node).await?;
    let client = rig.node.native().await?;
    let mut policies = PolicyServiceClient::new(client.channel);
    let (mut slices, mut phases) = (0, Vec::new());
    while !phases.contains(&PolicyPhase::Quarantined) {
        ensure!(
            slices < SLICES_UNTIL_QUARANTINE,
            "never quarantined, but {phases:?}"
        );
        readers.slice(&rig.node, Stimulus::FAULTS).await?;
        slices += 1;
        let listed = policies
            .list_policies(ListPoliciesRequest {})
            .await?
            .into_inner()
            .policies;
        let own = listed
            .iter()
            .find(|policy| policy.name == guest.name())
            .context("it is gone")?;
        if phases.last() != Some(&own.phase()) {
            phases.push(own.phase());
        }
    }
    rig.says(&["policy quarantined", guest.name()])?;
    let calls = rig.calls(guest.name(), "deadline")?;
    readers.slice(&rig.node, Stimulus::FAULTS).await?;
    ensure!(
        rig.calls(guest.name(), "deadline")? == calls,
        "it was asked after that"
    );
    rig.is_judged_by_the_bundled(watchers, "XidCriticalError")
        .await?;
    rig.is_unharmed()?;
    eprintln!(
        "{:26} quarantined after {calls} calls: {phases:?}",
        guest.name()
    );
    Ok(())
}

/// The brake holds it; an operator who lets it in all the same gets what it says, beside what others say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h9_a_guest_that_finds_every_gpu_dead_is_held_until_an_operator_accepts_it() -> Result<()> {
    let _turn = turn().await;
    let guest = Hostile::EveryGpuFatal;
    let rig = Rig::with(&[guest]).await?;
    rig.says(&["policy held", guest.name()])?;
    let mut client = rig.node.healthy().await?;
    ensure!(rig.answered(guest.name())? == 0, "it judges");
    let mut policies = PolicyServiceClient::new(client.channel.clone());
    let listed = policies
        .list_policies(ListPoliciesRequest {})
        .await?
        .into_inner()
        .policies;
    let own = listed
        .into_iter()
        .find(|policy| policy.name == guest.name());
    let held = own
        .and_then(|policy| policy.held)
        .context("it is not held")?;
    let accept = AcceptPolicyRequest {
        name: guest.name().to_owned(),
        digest: held.digest,
    };
    policies.accept_policy(accept).await?;
    for gpu in rig.node.gpus() {
        let is_dead = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
        let dead = client
            .watch(0)
            .await?
            .until(&gpu.uuid, "said to be dead", is_dead)
            .await?;
        let status = dead.status.clone().context("no status")?;
        ensure!(status.health_condition == "EveryGpuFatal", "{status:?}");
        let reached = condition_of(&dead, "NvmlReachable").context("what others say is gone")?;
        ensure!(reached.status() == ConditionStatus::True, "{reached:?}");
    }
    let watchers = Watchers::of(&rig.node).await?;
    rig.is_judged_by_the_bundled(watchers, "XidCriticalError")
        .await?;
    rig.is_unharmed()?;
    eprintln!(
        "{:26} held; once accepted, its own conditions",
        guest.name()
    );
    Ok(())
}

/// Needs WASI: nothing else could make a difference.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h3_a_guest_that_describes_itself_otherwise_each_time_is_held_to_its_first_word()
-> Result<()> {
    let _turn = turn().await;
    let guest = Hostile::InfoChanges;
    let rig = Rig::idle().await?;
    let examined = Examined::of(guest);
    let row = rig
        .examine(&examined, async |rig| {
            let (answered, failed) = (
                rig.answered(guest.name())?,
                rig.calls(guest.name(), "unavailable")?,
            );
            let trapped = rig.calls(guest.name(), "trap")?;
            ensure!(trapped > 0, "no new instance was made");
            Ok(format!(
                "{answered} calls answered, {trapped} trapped, {failed} unavailable"
            ))
        })
        .await?;
    eprintln!("{row}");
    Ok(())
}
