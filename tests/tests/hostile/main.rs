//! The kit of hostile guests (`tests/guests/`), each in a running daemon under read and watch load: it costs
//! its own policy, and nothing else (design H1, H2, H5).
//!
//! `cases.rs` says what must come of each, `harm.rs` what may not come of any, `load.rs` how reads are
//! measured. `-- --nocapture` shows a table.

mod apart;
mod cases;
mod harm;
mod load;
mod rig;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::guests;
use device_api_tests::hostile::Hostile;
use tokio::sync::{Mutex, MutexGuard};

use crate::cases::{Outcome, outcome};
use crate::harm::Examined;
use crate::load::{Readers, Stimulus, Watchers};
use crate::rig::{Rig, file};

/// One test at a time, since they measure.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Guests of one outcome, one daemon each; all of them are tried, then what failed is told.
async fn each(guests: impl Iterator<Item = Hostile>) -> Result<()> {
    let _turn = turn().await;
    let mut failed = Vec::new();
    for guest in guests {
        if let Err(error) = examined(guest).await {
            eprintln!("{:26} FAILED: {error:#}", guest.name());
            failed.push(format!("{}: {error:#}", guest.name()));
        }
    }
    ensure!(
        failed.is_empty(),
        "{} of the guests hurt others:\n{}",
        failed.len(),
        failed.join("\n")
    );
    Ok(())
}

async fn examined(guest: Hostile) -> Result<()> {
    let rig = Rig::idle().await?;
    let examined = Examined::of(guest);
    let row = rig
        .examine(&examined, async |rig| {
            came(rig, &examined.policy, outcome(guest)).await
        })
        .await?;
    eprintln!("{row}");
    Ok(())
}

/// Kinds of failures that a call may end in.
const KINDS: [&str; 5] = ["refused", "trap", "deadline", "invalid", "unavailable"];

/// Holds what came of a guest against what must.
async fn came(rig: &Rig, policy: &str, outcome: Outcome) -> Result<String> {
    // On a starved machine any guest may miss its deadline.
    let only = |allowed: &[&str]| -> Result<()> {
        for kind in KINDS
            .iter()
            .filter(|kind| **kind != "deadline" && !allowed.contains(*kind))
        {
            ensure!(rig.calls(policy, kind)? == 0, "calls failed as {kind}");
        }
        Ok(())
    };
    match outcome {
        Outcome::Fails(kind, words) => {
            rig.has_failed(policy, kind, words)?;
            ensure!(
                rig.calls(policy, kind)? > 0,
                "a failure that the metrics don't know"
            );
            ensure!(rig.answered(policy)? == 0, "calls were answered");
            // Not asked for a while, after so many failures.
            only(&[kind, "unavailable"])?;
            Ok(format!("its calls fail: {kind}"))
        }
        Outcome::OwnConditions => {
            only(&[])?;
            let answered = rig.answered(policy)?;
            ensure!(answered > 0, "no call was answered");
            Ok(format!("its own conditions ({answered} calls)"))
        }
        Outcome::Says(words) => {
            only(&[])?;
            rig.has_said(policy, words).await?;
            Ok(format!("its own conditions: {words}"))
        }
        Outcome::Fitful(kind) => {
            only(&[kind, "unavailable"])?;
            let (answered, failed) = (rig.answered(policy)?, rig.calls(policy, kind)?);
            ensure!(
                answered > 0 && failed > 0,
                "{answered} calls were answered, {failed} failed as {kind}"
            );
            Ok(format!(
                "{answered} calls answered, {failed} failed: {kind}"
            ))
        }
        Outcome::Refused(words) => {
            rig.says(&["ERROR", &format!("{policy}.wasm"), words])?;
            Ok("refused at load".to_owned())
        }
        Outcome::Apart => Ok(String::new()),
    }
}

/// All of an outcome; to look at one guest alone, `DEVICE_API_HOSTILE` names it.
fn all(wanted: impl Fn(Outcome) -> bool) -> impl Iterator<Item = Hostile> {
    let only = std::env::var("DEVICE_API_HOSTILE").ok();
    let is_meant = move |guest: &Hostile| only.as_ref().is_none_or(|only| only == guest.name());
    Hostile::ALL
        .iter()
        .copied()
        .filter(is_meant)
        .filter(move |guest| wanted(outcome(*guest)))
}

/// One at a time: a reload by hand tries again all that was refused, and each is measured for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h1_h2_what_can_not_be_admitted_is_refused_by_name_and_the_others_judge() -> Result<()> {
    let _turn = turn().await;
    let rig = Rig::idle().await?;
    let watchers = Watchers::of(&rig.node).await?;
    let mut readers = Readers::of(&rig.node).await?;
    for guest in all(|outcome| matches!(outcome, Outcome::Refused(_))) {
        let (quiet, loading) = rig.load_under(&mut readers, guest).await?;
        ensure!(
            !load::is_too_slow(quiet, loading),
            "{}: reads' p99 went from {quiet:?} to {loading:?} while it was loaded",
            guest.name()
        );
        let came = came(&rig, guest.name(), outcome(guest))
            .await
            .with_context(|| guest.name())?;
        let (_, ready) = device_api_tests::http(&rig.node.address("/readyz")?, "/readyz")?;
        ensure!(
            ready.contains(&file(guest)),
            "/readyz says nothing of {}",
            file(guest)
        );
        rig.unload(guest).await?;
        eprintln!(
            "{:26} {came}, p99 {:>5} -> {:>5} µs while it is loaded",
            guest.name(),
            quiet.as_micros(),
            loading.as_micros()
        );
    }
    rig.is_judged_by_the_bundled(watchers, "XidCriticalError")
        .await?;
    rig.is_unharmed()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_a_guest_that_uses_up_a_limit_fails_and_hurts_nobody() -> Result<()> {
    each(all(|outcome| {
        matches!(outcome, Outcome::Fails("deadline" | "trap", _))
    }))
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h5_a_guest_that_says_what_it_may_not_fails_and_hurts_nobody() -> Result<()> {
    each(all(|outcome| {
        matches!(outcome, Outcome::Fails("invalid" | "refused", _))
    }))
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h5_a_guest_that_answers_writes_conditions_of_its_own_and_hurts_nobody() -> Result<()> {
    each(all(|outcome| {
        matches!(
            outcome,
            Outcome::OwnConditions | Outcome::Says(_) | Outcome::Fitful(_)
        )
    }))
    .await
}

/// So that no outcome falls between the tests above.
#[test]
fn every_outcome_has_a_test() {
    let has_one = |outcome| match outcome {
        Outcome::Refused(_) | Outcome::OwnConditions | Outcome::Says(_) | Outcome::Fitful(_) => {
            true
        }
        Outcome::Fails(kind, _) => ["deadline", "trap", "invalid", "refused"].contains(&kind),
        Outcome::Apart => false,
    };
    let all = Hostile::ALL.iter().copied();
    let apart: Vec<Hostile> = all.filter(|guest| !has_one(outcome(*guest))).collect();
    assert_eq!(apart, apart::TESTED);
    assert!(Hostile::ALL.len() >= 40, "{} guests", Hostile::ALL.len());
}

/// Comparisons until one must have found what is slow on purpose.
const TRIES_MAX: usize = 4;

/// What the others measure with can fail: a policy that does no wrong, and takes some milliseconds for each of
/// far more faults than in the tests above, is found too slow in every pair of slices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_are_held_up_are_found_too_slow() -> Result<()> {
    let _turn = turn().await;
    let rig = Rig::idle().await?;
    rig.load_file("slow.wasm", guests::SLOW_GUEST).await?;
    let mut readers = Readers::of(&rig.node).await?;
    let mut pairs = Vec::new();
    // Where others keep the machine busy the quiet slices are slow too, and hide it.
    for _ in 0..TRIES_MAX {
        let pair = load::compare(&rig.node, &mut readers, Stimulus::FaultEvery(8)).await?;
        pairs.push(pair);
        if load::is_too_slow(pair.0, pair.1) {
            eprintln!("held up on purpose: p99 {:?} -> {:?}", pair.0, pair.1);
            return Ok(());
        }
    }
    anyhow::bail!("p99s that are called the same: {pairs:?}")
}
