//! `kill -9` at any point: every acknowledged write is found, and no version is given out again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use device_api_core::ports::StateLog;

use crate::common::{Dice, batch, object, open, version_of};

/// Kills in the ordinary test, and in the long one (`--ignored`).
const KILLS: u64 = 200;
const KILLS_LONG: u64 = 5000;

const DIRECTORY: &str = "DEVICE_API_STORE_TEST_KILL";
const NAMES: u64 = 16;
/// Writes that the child has under way at once.
const AT_ONCE: usize = 8;

#[test]
fn c5_c6_kill_9_loses_nothing_acknowledged_and_repeats_no_version() {
    kill(KILLS);
}

#[test]
#[ignore = "takes a minute"]
fn c5_c6_kill_9_many_times() {
    kill(KILLS_LONG);
}

fn kill(times: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut dice = Dice(times);
    // By object: the newest version acknowledged, and the newest given out.
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    let mut newest_given = 0;
    for round in 0..times {
        let (given, durable) = one_life(dir.path(), dice.roll(60));
        for version in given {
            newest_given = newest_given.max(version);
        }
        for version in durable {
            let newest = acknowledged.entry(version % NAMES).or_default();
            *newest = version.max(*newest);
        }
        let fixture = open(dir.path());
        assert!(fixture.start.base.0 > newest_given, "round {round}");
        newest_given = fixture.start.base.0;
        let snapshot = fixture.start.snapshot.unwrap_or_default();
        for (name, version) in &acknowledged {
            let found = version_of(&snapshot, &format!("gpu-{name}"));
            assert!(
                found >= Some(*version),
                "round {round}: gpu-{name} {found:?} < {version}"
            );
        }
        assert_eq!(crate::common::names(dir.path()), ["store.redb"]);
    }
    assert!(acknowledged.len() as u64 == NAMES, "the children wrote");
}

/// Starts a writer and kills it after so many acknowledgements; returns the versions that it gave out,
/// and those it was told to be durable.
fn one_life(dir: &Path, acknowledgements: u64) -> (Vec<u64>, Vec<u64>) {
    let mut child = Command::new(std::env::current_exe().expect("known"))
        .args([
            "--exact",
            "kill::writes_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let (mut given, mut durable) = (Vec::new(), Vec::new());
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        match line.split_once(' ') {
            Some(("given", version)) => given.extend(version.parse::<u64>()),
            Some(("durable", version)) => durable.extend(version.parse::<u64>()),
            _ => {}
        }
        if !killed && (durable.len() as u64 > acknowledgements) {
            child.kill().expect("killed");
            killed = true;
        }
    }
    assert!(!child.wait().expect("ended").success(), "it was killed");
    (given, durable)
}

#[test]
#[ignore = "a child of the tests before"]
fn writes_until_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let say = |line: String| {
        // One write call: a line is whole or not there.
        let _ = std::io::stdout()
            .lock()
            .write_all(format!("{line}\n").as_bytes());
    };
    let fixture = open(Path::new(&dir));
    let base = fixture.start.base.0;
    say(format!("\ngiven {base}"));
    let (tell, told) = mpsc::channel();
    for version in base + 1.. {
        say(format!("given {version}"));
        let change = object(&format!("gpu-{}", version % NAMES), version);
        fixture.store.append(batch(version, vec![change]));
        let tell = tell.clone();
        fixture.store.synced(Box::new(move |result| {
            tell.send((version, result)).expect("awaited");
        }));
        if version - base >= AT_ONCE as u64 {
            let (version, result) = told.recv().expect("told");
            assert_eq!(result, Ok(()));
            say(format!("durable {version}"));
        }
    }
}
