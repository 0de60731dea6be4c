//! How each reason comes about, and how it is over: told in readings, asked of the component.

mod told;

use std::collections::BTreeSet;
use std::time::Duration;

use device_api_core::ports::Policy as _;
use device_api_core::signal::{Attr, SignalKind, Value};
use device_api_core::verdict::{ClearOn, Judgement, Verdict};

use crate::bench::{Gpu, load};

/// What happens to a GPU that was well.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    Reads(&'static str, i64),
    Flag(&'static str, bool),
    Text(&'static str, &'static str),
    Lacks(&'static [&'static str]),
    Passes(u64),
    Lost,
    Found,
    /// An event of NVML's.
    Ecc,
}

pub(crate) struct Story {
    pub(crate) condition: &'static str,
    pub(crate) reason: String,
    /// In the words of the page.
    pub(crate) readings: String,
    pub(crate) when: String,
    pub(crate) threshold: String,
    /// What the site has to set for it.
    pub(crate) config: String,
    pub(crate) bad: Vec<Step>,
    /// What the policy itself takes for its end; empty: only the host can end it.
    pub(crate) over: Vec<Step>,
}

use Step::{Ecc, Flag, Found, Lacks, Lost, Passes, Reads, Text};

fn story(
    (condition, reason): (&'static str, &str),
    readings: &str,
    (when, threshold): (&str, &str),
    bad: &[Step],
    over: &[Step],
) -> Story {
    Story {
        condition,
        reason: reason.to_owned(),
        readings: readings.to_owned(),
        when: when.to_owned(),
        threshold: threshold.to_owned(),
        config: String::new(),
        bad: bad.to_vec(),
        over: over.to_vec(),
    }
}

impl Story {
    fn with(self, config: &str) -> Self {
        let config = config.to_owned();
        Self { config, ..self }
    }

    /// Plays it: what was said when it was bad.
    #[track_caller]
    pub(crate) fn play(&self) -> Verdict {
        let (condition, reason) = (self.condition, &*self.reason);
        let mut gpu = Gpu::found(&load(&self.config));
        play(&mut gpu, &self.bad);
        let bad = gpu.said[condition].clone();
        assert_ne!(bad.state, Judgement::Ok, "{condition} {reason}: {bad:?}");
        assert_eq!(&*bad.reason, reason, "{condition}: {bad:?}");
        let others = gpu.said.values().filter(|verdict| {
            verdict.state != Judgement::Ok
                && verdict.condition != condition
                && condition != "GpuLost"
        });
        let others: Vec<_> = others.map(|verdict| &verdict.condition).collect();
        assert!(
            others.is_empty() || self.bad.iter().any(|step| matches!(step, Lost)),
            "{condition} {reason}: {others:?} too"
        );
        let ends_itself = bad.state == Judgement::Unknown
            || bad.clears.iter().any(|clear| clear.on == ClearOn::Policy);
        assert_eq!(
            !self.over.is_empty(),
            ends_itself,
            "{condition} {reason}: it names what it does itself"
        );
        if ends_itself {
            play(&mut gpu, &self.over);
            let over = &gpu.said[condition];
            assert_eq!(over.state, Judgement::Ok, "{condition} {reason}: {over:?}");
        } else {
            gpu.see(SignalKind::GpuFound, Vec::new());
            let still = &gpu.said[condition];
            assert_ne!(still.state, Judgement::Ok, "{condition} {reason}");
            gpu.clear(condition);
            gpu.see(SignalKind::GpuFound, Vec::new());
            assert_eq!(
                gpu.said[condition].state,
                Judgement::Ok,
                "{condition} {reason}"
            );
        }
        bad
    }
}

pub(crate) fn play(gpu: &mut Gpu, steps: &[Step]) {
    for step in steps {
        match *step {
            Reads(key, value) => gpu.read(key, Value::Int(value)),
            Flag(key, value) => gpu.read(key, Value::Flag(value)),
            Text(key, value) => gpu.read(key, Value::Text(value.to_owned())),
            Lacks(keys) => gpu.lacks(keys),
            Passes(seconds) => gpu.pass(Duration::from_secs(seconds)),
            Lost => gpu.see(SignalKind::GpuLost, Vec::new()),
            Found => gpu.see(SignalKind::GpuFound, Vec::new()),
            Ecc => gpu.see(SignalKind::Ecc, vec![Attr::text("error", "uncorrected")]),
        }
    }
}

/// All of them, in the order of the page.
pub(crate) fn all() -> Vec<Story> {
    let parts = [
        told::presence(),
        told::sensors(),
        told::memory(),
        told::links(),
        told::fabric(),
        told::rates(),
    ];
    parts.into_iter().flatten().collect()
}

/// What is well, and what was turned off.
const WELL: [&str; 13] = [
    "Answers",
    "WithinLimits",
    "NotThrottled",
    "WithinRange",
    "NoUncontainedErrors",
    "BelowRates",
    "BelowThreshold",
    "NonePending",
    "BelowLimit",
    "FullLink",
    "AllUp",
    "Registered",
    "NotJudged",
];

#[test]
fn every_reason_has_a_story_with_its_end() {
    let told: BTreeSet<(String, String)> = all()
        .iter()
        .map(|story| {
            story.play();
            (story.condition.to_owned(), story.reason.clone())
        })
        .collect();
    let policy = load("");
    let owns = policy.info().owns.iter();
    let declared: BTreeSet<(String, String)> = owns
        .flat_map(|owned| {
            let bad = owned
                .reasons
                .iter()
                .filter(|reason| !WELL.contains(&reason.as_str()));
            bad.map(|reason| (owned.condition.clone(), reason.clone()))
        })
        .collect();
    assert_eq!(told, declared);
}

#[test]
fn a_gpu_that_is_well_is_called_so_and_what_it_lacks_is_not_judged() {
    let policy = load("");
    let gpu = Gpu::found(&policy);
    assert!(
        gpu.said
            .values()
            .all(|verdict| verdict.state == Judgement::Ok)
    );
    // No counter of ECC errors has a rate.
    let unjudged: Vec<&str> = policy
        .info()
        .owns
        .iter()
        .map(|owned| owned.condition.as_str())
        .filter(|condition| !gpu.said.contains_key(*condition))
        .collect();
    assert_eq!(unjudged, ["EccErrorRate"]);
}
