//! What stands by a reading is taken back by that reading alone: while it can't be had nobody knows, and whatever else
//! is told says nothing of it.

use std::collections::BTreeSet;

use device_api_core::signal::Miss;
use device_api_core::verdict::{Judgement, Verdict};

use crate::bench::{Gpu, load};
use crate::stories::{Step, Story, all, play};

/// What a reading is judged with.
const TOGETHER: [(&str, &[&str]); 6] = [
    (
        "temperature.gpu",
        &["temperature.slowdown", "temperature.shutdown"],
    ),
    ("temperature.memory", &["temperature.memory-max"]),
    ("power.limit", &["power.limit-min"]),
    ("pcie.link-width", &["pcie.link-width-max"]),
    (
        "pcie.link-generation",
        &["pcie.link-generation-max", "utilization.gpu"],
    ),
    (
        "retired-pages.pending",
        &["retired-pages.corrected", "retired-pages.uncorrected"],
    ),
];

/// The readings that a story is told in, and what they are judged with.
fn keys(story: &Story) -> BTreeSet<&'static str> {
    let of = |step: &Step| match step {
        Step::Reads(key, _) | Step::Flag(key, _) => Some(*key),
        Step::Text(..)
        | Step::Lacks(_)
        | Step::Passes(_)
        | Step::Lost
        | Step::Found
        | Step::Ecc => None,
    };
    let mut keys: BTreeSet<&str> = story.bad.iter().filter_map(of).collect();
    for (key, others) in TOGETHER {
        if keys.contains(key) {
            keys.extend(others);
        }
    }
    keys
}

/// What came of it, where it is not what should have.
fn told_wrong(story: &Story, missed: &[&'static str], miss: Miss) -> Option<String> {
    let condition = story.condition;
    let mut gpu = Gpu::found(&load(&story.config));
    play(&mut gpu, &story.bad);
    let before = gpu.said[condition].clone();
    assert_eq!(before.state, Judgement::Problem, "{before:?}");
    gpu.misses(missed, miss);
    gpu.tells_all();
    let still = gpu.said[condition].clone();
    gpu.has_all_again();
    play(&mut gpu, &story.over);
    let over = &gpu.said[condition];
    let stands = |said: &Verdict| (said.state, said.reason.clone(), said.message.clone());
    let ends = story.over.is_empty() || over.state == Judgement::Ok;
    let is_right = stands(&still) == stands(&before) && ends;
    let what = || {
        let (still, over) = (stands(&still), stands(over));
        format!(
            "{:?}, {missed:?} {miss:?}: {still:?}, then {over:?}",
            stands(&before)
        )
    };
    (!is_right).then(what)
}

#[test]
fn what_stands_by_a_reading_stands_while_it_cannot_be_read() {
    let (mut conditions, mut tried, mut wrong) = (BTreeSet::new(), 0, Vec::new());
    for story in all() {
        // `nvml.state` is the host's own word, and never absent.
        let keys: Vec<_> = keys(&story)
            .into_iter()
            .filter(|key| *key != "nvml.state")
            .collect();
        for miss in [Miss::Unreachable, Miss::NotSupported] {
            let each = keys.iter().map(std::slice::from_ref);
            for missed in each.chain((keys.len() > 1).then_some(&keys[..])) {
                wrong.extend(told_wrong(&story, missed, miss));
                conditions.insert(story.condition);
                tried += 1;
            }
        }
    }
    let judged_by_readings: Vec<_> = conditions.into_iter().collect();
    assert_eq!(
        judged_by_readings,
        [
            "ClockThrottle",
            "EccErrorRate",
            "EccErrors",
            "Fabric",
            "MemoryTemperature",
            "NvLink",
            "NvLinkErrorRate",
            "PcieErrorRate",
            "PcieLink",
            "PowerLimit",
            "RetiredPages",
            "RowRemap",
            "SramErrors",
            "Temperature"
        ]
    );
    assert!(tried > 100, "{tried}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
