//! A swap goes from GPU to GPU: what comes meanwhile finds its own GPU done (C3, H6). What did not change is
//! remembered without a copy, and what nobody claims is forgotten (H3).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_api_core::durable::PolicyMemory;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, Evaluation, Outcome, PolicyInfo};
use device_api_core::ports::{Policy, Reply};
use device_api_core::seating::{Seating, Terms};
use device_api_core::signal::{Observation, SignalKind, Target};
use device_api_core::verdict::Wake;

use crate::rig::*;

const LATER: Duration = Duration::from_secs(60);

type Act = Box<dyn FnOnce() + Send>;

/// Does something when it is asked first: in the midst of the swap that seats it.
struct Meddler {
    inner: Arc<Scripted>,
    act: Mutex<Option<Act>>,
}

impl std::fmt::Debug for Meddler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Policy for Meddler {
    fn info(&self) -> &PolicyInfo {
        self.inner.info()
    }

    fn terms(&self) -> &Terms {
        self.inner.terms()
    }

    fn evaluate(&self, evaluation: Evaluation, reply: Reply) {
        let act = self.act.lock().unwrap().take();
        self.inner.evaluate(evaluation, reply);
        if let Some(act) = act {
            act();
        }
    }
}

fn second() -> DeviceUuid {
    DeviceUuid::new("GPU-1")
}

fn xid_of_second(code: u64) -> Observation {
    Observation {
        target: Target::Uuid(second()),
        ..xid(code)
    }
}

/// Remembers that it was here, and wants to be woken.
fn notes(evaluation: &Evaluation) -> Outcome {
    let mut said = Evaluated {
        state: evaluation.state.clone(),
        ..Evaluated::default()
    };
    said.state.insert("n".to_owned(), vec![7]);
    if evaluation
        .signals
        .first()
        .is_some_and(|signal| signal.kind == SignalKind::Xid)
    {
        said.decision.wakes.push(Wake {
            name: "look".to_owned(),
            after: LATER,
        });
    }
    Ok(said)
}

fn version(schema: u32) -> Arc<Scripted> {
    Scripted::of_schema(schema, "p", vec![every(SignalKind::Xid)], notes)
}

/// Two GPUs, of which the policy remembers something, and it has an XID of the first to judge.
fn two_gpus(policy: &Arc<Scripted>) -> Arc<Rig> {
    let rig = Rig::new(std::slice::from_ref(policy));
    rig.found("GPU-1", "0000:1c:00.0");
    rig.sink.observe(xid_of_second(13));
    policy.answer();
    rig.xid(13);
    Arc::new(rig)
}

/// Seats one of another schema, and acts when the first GPU is done and the second one is not.
fn swap_and(rig: &Arc<Rig>, new: &Arc<Scripted>, act: fn(&Rig)) {
    let meddler = Meddler {
        inner: new.clone(),
        act: Mutex::new(Some(Box::new({
            let rig = Arc::downgrade(rig);
            move || act(&rig.upgrade().expect("it swaps"))
        }))),
    };
    let seating = Seating {
        policy: Arc::new(meddler),
        rejudged: Vec::new(),
        insist: false,
    };
    rig.seats.seat(seating).unwrap();
}

#[test]
fn c3_h6_what_comes_in_the_midst_of_a_swap_finds_its_gpu_swapped() {
    let (old, new) = (version(1), version(2));
    let rig = two_gpus(&old);
    swap_and(&rig, &new, |rig| rig.sink.observe(xid_of_second(31)));
    assert_eq!((old.waiting(), new.waiting()), (1, 2));
    for expected in [(gpu(), 13), (second(), 31)] {
        let (evaluation, reply) = new.take();
        let signal = &evaluation.signals[0];
        assert_eq!((signal.device.clone(), signal.code.unwrap()), expected);
        assert!(evaluation.state.is_empty(), "not the old one's");
        reply(notes(&evaluation));
    }
    let memories = rig.cache.memories.lock().unwrap();
    let schemas = |memory: &Arc<PolicyMemory>| (memory.schema, memory.kept_until.is_some());
    let of_second = memories[&second()].policies.iter().map(schemas);
    assert_eq!(of_second.collect::<Vec<_>>(), [(1, true), (2, false)]);
}

#[test]
fn h3_h6_a_timer_that_is_due_in_the_midst_of_a_swap_is_still_its_policys() {
    let (old, new) = (version(1), version(2));
    let rig = two_gpus(&old);
    swap_and(&rig, &new, |rig| rig.later(LATER));
    assert_eq!(new.waiting(), 1, "it has set none");
    let back = version(1);
    rig.seat(&back).unwrap();
    rig.later(Duration::ZERO);
    let kinds = |(evaluation, _): (Evaluation, Reply)| {
        let signal = &evaluation.signals[0];
        (signal.device.clone(), signal.kind)
    };
    assert_eq!(back.waiting(), 2);
    let mut asked = [kinds(back.take()), kinds(back.take())];
    asked.sort();
    let expected = [(gpu(), SignalKind::Xid), (second(), SignalKind::Timer)];
    assert_eq!(asked, expected);
}

#[test]
fn h3_what_was_left_behind_is_forgotten_when_nobody_claims_it() {
    const DAY: Duration = Duration::from_hours(24);
    let policy = version(1);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(13);
    policy.answer();
    rig.seats.unseat("p");
    rig.later(limits::ABSENT_MEMORY_AGE_MAX - DAY);
    let rig = rig.restarted(&[], false);
    rig.found_again();
    assert_eq!(rig.remembered("n"), [(1, vec![7])]);
    rig.later(DAY - Duration::from_secs(1));
    rig.xid(8);
    assert_eq!(rig.remembered("n"), [(1, vec![7])], "for its return");
    rig.later(Duration::from_secs(1));
    rig.xid(9);
    assert_eq!(rig.remembered("n"), []);
}

#[test]
fn h3_what_did_not_change_is_remembered_without_a_copy() {
    let left = Scripted::new("left", vec![every(SignalKind::Xid)], notes);
    let quiet = Scripted::new("quiet", vec![every(SignalKind::GpuFound)], notes);
    let rig = Rig::new(&[left.clone(), quiet.clone()]);
    rig.found_again();
    quiet.answer();
    rig.xid(13);
    left.answer();
    rig.seats.unseat("left");
    let loud = Scripted::new("loud", vec![every(SignalKind::Xid)], |evaluation| {
        let mut said = notes(evaluation)?;
        let codes = evaluation.signals.iter().filter_map(|signal| signal.code);
        said.state
            .insert("code".to_owned(), vec![codes.sum::<u64>() as u8]);
        Ok(said)
    });
    rig.seat(&loud).unwrap();
    let judged = |code| {
        rig.xid(code);
        loud.answer();
        let memories = rig.cache.memories.lock().unwrap();
        memories[&gpu()].policies.clone()
    };
    let (before, after) = (judged(31), judged(43));
    let is_shared = std::iter::zip(&before, &after).map(|(a, b)| (&*b.policy, Arc::ptr_eq(a, b)));
    let expected = [("left", true), ("quiet", true), ("loud", false)];
    let mut is_shared: Vec<_> = is_shared.collect();
    is_shared.sort_by_key(|(name, _)| expected.iter().position(|(known, _)| known == name));
    assert_eq!(is_shared, expected);
}
