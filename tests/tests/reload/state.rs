//! What a policy remembers, and its timers, over swaps, roll-backs and restarts (design H3, H4).

use anyhow::{Result, bail};
use device_api_proto::native::Condition;
use rustix::process::Signal;

use crate::rig::{Rig, has_words, tally};

#[tokio::test]
async fn h3_state_outlives_swaps_restarts_and_a_version_with_another_schema() -> Result<()> {
    let mut rig = Rig::start(&[("tally.wasm", &tally("version=1")?)], &[])?;
    let mut client = rig.ready().await?;
    let mut watch = client.watch(0).await?;
    for count in 1..=3 {
        rig.xid(0, 31)?;
        rig.counted(&mut watch, 0, &format!("schema=0 version=1 31={count}"))
            .await?;
    }
    // Of the same schema: it goes on.
    rig.swap_to(&mut client, "version=2").await?;
    rig.xid(0, 31)?;
    rig.counted(&mut watch, 0, "schema=0 version=2 31=4")
        .await?;
    // Of another: it begins with what it remembers of the journal that it judged.
    rig.swap_to(&mut client, "version=3 schema=1").await?;
    for count in 5..=6 {
        rig.xid(0, 31)?;
        rig.counted(&mut watch, 0, &format!("schema=1 version=3 31={count}"))
            .await?;
    }
    // A restart, with neither journal nor instance of before.
    for signal in [Signal::TERM, Signal::KILL] {
        rig.node.stop(signal)?;
        rig.node.start_again()?;
        client = rig.ready().await?;
        watch = client.watch(0).await?;
        rig.xid(1, 31)?;
        rig.counted(&mut watch, 1, "schema=1 version=3").await?;
    }
    rig.xid(0, 31)?;
    rig.counted(&mut watch, 0, "schema=1 version=3 31=7")
        .await?;
    // Rolled back, it finds what it left, over the restarts too.
    rig.swap_to(&mut client, "version=2").await?;
    rig.xid(0, 31)?;
    rig.counted(&mut watch, 0, "schema=0 version=2 31=5")
        .await?;
    // And so does the other.
    rig.swap_to(&mut client, "version=3 schema=1").await?;
    rig.xid(0, 31)?;
    rig.counted(&mut watch, 0, "schema=1 version=3 31=8").await
}

/// Times that it is tried to be quicker than a timer.
const RACES: u32 = 3;

fn reminded(condition: &Condition) -> bool {
    condition.reason == "Reminded"
}

#[tokio::test]
async fn h3_a_timer_comes_to_the_version_that_has_the_seat_then() -> Result<()> {
    let versions = ["version=1 wakes=45", "version=2 wakes=45"];
    let rig = Rig::start(&[("tally.wasm", &tally(versions[1])?)], &[])?;
    let mut client = rig.ready().await?;
    let mut watch = client.watch(0).await?;
    // Both are compiled; the second has the seat.
    rig.swap_to(&mut client, versions[0]).await?;
    rig.swap_to(&mut client, versions[1]).await?;
    for gpu in 0..RACES {
        rig.xid(gpu, 45)?;
        rig.counted(&mut watch, gpu, "version=2 45=1").await?;
        rig.swap_to(&mut client, versions[0]).await?;
        let said = rig.until(&mut watch, gpu, "TallyTimer", reminded).await?;
        assert!(has_words(&said.message, "45=1"), "{said:?}");
        if has_words(&said.message, "version=1") {
            return Ok(());
        }
        // It was due before that version was there.
        rig.swap_to(&mut client, versions[1]).await?;
    }
    bail!("the version that set it had it each time")
}

#[tokio::test]
async fn h3_a_timer_outlives_a_restart() -> Result<()> {
    let mut rig = Rig::start(&[("tally.wasm", &tally("wakes=45")?)], &[])?;
    for gpu in 0..RACES {
        let mut client = rig.ready().await?;
        let mut watch = client.watch(0).await?;
        rig.xid(gpu, 45)?;
        rig.counted(&mut watch, gpu, "45=1").await?;
        rig.node.stop(Signal::TERM)?;
        rig.node.start_again()?;
        let mut watch = rig.ready().await?.watch(0).await?;
        // `Restarted`: it was said before the restart.
        let said = rig.until(&mut watch, gpu, "TallyTimer", |_| true).await?;
        if reminded(&said) {
            assert!(has_words(&said.message, "45=1"), "{said:?}");
            return Ok(());
        }
    }
    bail!("the run that set it had it each time")
}
