//! Errors of an NVSwitch: the GPUs behind it have them (design N4).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::clock::Clock as _;
use device_api_core::condition::{self, Condition, GONE};
use device_api_core::device::{DeviceInfo, NvLink};
use device_api_core::durable::LogPosition;
use device_api_core::health::Health;
use device_api_core::ids::DeviceUuid;
use device_api_core::incident::Wanted;
use device_api_core::limits;
use device_api_core::ports::DeviceCache as _;
use device_api_core::signal::{Attr, Observation, SignalKind, Source, Target};
use device_api_core::verdict::{Judgement, Severity};

use crate::log;
use crate::rig::*;

const SWITCH: &str = "0000:07:00.0";
const OTHER: &str = "0000:08:00.0";
/// As the pipeline has it.
const SETTLED_AFTER: Duration = Duration::from_mins(1);
const HELD_MAX: Duration = Duration::from_mins(10);

fn fatal() -> Arc<Scripted> {
    let says = says(
        "p",
        Judgement::Problem,
        Severity::Fatal,
        Action::ComponentReset,
    );
    Scripted::new("p", vec![every(SignalKind::Sxid)], says)
}

/// A policy, and a node of which no GPU is known.
fn node() -> (Arc<Scripted>, Rig) {
    let policy = fatal();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.cache.devices.lock().unwrap().clear();
    (policy, rig)
}

fn sxid(switch: &str, link: Option<i64>) -> Observation {
    let severity = Attr::text("severity", "fatal");
    let link = link.map(|link| Attr::int("link", link));
    Observation {
        code: Some(20034),
        evidence: format!("nvidia-nvswitch0: SXid (PCI:{switch}): 20034, Fatal"),
        attrs: std::iter::once(severity).chain(link).collect(),
        ..Observation::new(
            SignalKind::Sxid,
            Target::Pci(switch.parse().unwrap()),
            Source::Kmsg,
        )
    }
}

/// GPU `n`, each of whose links leads to a switch and a port of it, or is down.
fn wired(n: u8, ends: &[Option<(&str, Option<u32>)>]) -> DeviceInfo {
    let link = |(link, end): (usize, &Option<(&str, Option<u32>)>)| NvLink {
        link: u32::try_from(link).unwrap(),
        version: Some(4),
        remote: end.map(|_| "switch".to_owned()),
        remote_pci: end.map(|(switch, _)| switch.parse().unwrap()),
        remote_link: end.and_then(|(_, port)| port),
    };
    let mut info = DeviceInfo {
        pci: format!("0000:{:02x}:00.0", 0x10 + n).parse().ok(),
        ..DeviceInfo::bare(uuid(n))
    };
    info.hardware.nvlinks = ends.iter().enumerate().map(link).collect();
    info
}

/// One at a port of each of both switches.
fn gpu_at(n: u8) -> DeviceInfo {
    let port = Some(u32::from(n));
    wired(n, &[Some((SWITCH, port)), Some((OTHER, port))])
}

fn uuid(n: u8) -> DeviceUuid {
    DeviceUuid::new(&format!("GPU-{n}"))
}

fn found(rig: &Rig, info: DeviceInfo) {
    rig.sink.device_found(info, Arc::default());
}

/// The GPUs that were told of, each so often.
fn told(policy: &Scripted) -> Vec<(String, u32)> {
    let mut told = Vec::new();
    while policy.waiting() > 0 {
        let signals = policy.answer().into_iter();
        told.extend(signals.map(|signal| (signal.device.to_string(), signal.repeats)));
    }
    told.sort();
    told
}

fn once(gpus: &[u8]) -> Vec<(String, u32)> {
    gpus.iter().map(|n| (uuid(*n).to_string(), 1)).collect()
}

#[test]
fn n4_an_error_at_a_port_is_of_the_gpu_there_and_one_of_the_switch_of_all_behind_it() {
    let (policy, rig) = node();
    for n in 0..4 {
        found(&rig, gpu_at(n));
    }
    let elsewhere = wired(4, &[Some((OTHER, Some(4)))]);
    found(&rig, elsewhere);
    found(&rig, wired(5, &[]));
    rig.sink.observe(sxid(SWITCH, Some(2)));
    assert!(rig.cache.is_up(&uuid(2)), "its readers wait");
    assert!(!rig.cache.is_up(&uuid(1)));
    assert_eq!(told(&policy), once(&[2]));
    assert_eq!(rig.cache.health(&uuid(2)).0, Health::Unhealthy);
    rig.sink.observe(sxid(SWITCH, None));
    assert_eq!(told(&policy), once(&[0, 1, 2, 3]));
    let listed = rig.incidents.incidents(&Wanted::newest()).listed;
    let mut of: Vec<_> = listed
        .iter()
        .map(|incident| (incident.device.to_string(), incident.code, incident.count))
        .collect();
    of.sort();
    let one = |n, count| (uuid(n).to_string(), Some(20034), count);
    assert_eq!(of, [one(0, 1), one(1, 1), one(2, 2), one(3, 1)]);
    rig.later(HELD_MAX * 2);
    assert_eq!(told(&policy), [], "each once");
}

#[test]
fn n4_where_the_driver_tells_no_port_all_behind_the_switch_are_meant() {
    let (policy, rig) = node();
    found(&rig, wired(0, &[Some((SWITCH, None))]));
    found(&rig, wired(1, &[Some((SWITCH, None))]));
    found(&rig, gpu_at(2));
    rig.sink.observe(sxid(SWITCH, Some(7)));
    assert_eq!(told(&policy), once(&[0, 1]), "GPU 2 is at another port");
    rig.sink.observe(sxid(SWITCH, Some(2)));
    assert_eq!(told(&policy), once(&[2]), "and this one is its own");
}

#[test]
fn n4_a_port_between_switches_reaches_all_once_it_is_known_to_be_no_gpus() {
    let (policy, rig) = node();
    found(&rig, gpu_at(0));
    rig.sink.observe(sxid(SWITCH, Some(60)));
    rig.sink.observe(sxid(SWITCH, Some(60)));
    found(&rig, gpu_at(1));
    assert_eq!(told(&policy), [], "it may be of one that is not found yet");
    rig.later(SETTLED_AFTER);
    let twice = |n| (uuid(n).to_string(), 2);
    assert_eq!(told(&policy), [twice(0), twice(1)]);
    rig.sink.observe(sxid(SWITCH, Some(61)));
    assert_eq!(told(&policy), once(&[0, 1]), "at once by now");
    found(&rig, gpu_at(0));
    rig.later(HELD_MAX);
    assert_eq!(told(&policy), [], "each once");
}

#[test]
fn n4_an_error_that_comes_before_the_gpus_waits_for_them_and_holds_the_log() {
    let (policy, rig) = node();
    let lines = log::lines(|| {
        rig.sink.observe(sxid(SWITCH, Some(1)));
        rig.sink.observe(sxid(SWITCH, None));
    });
    assert_eq!(lines, [], "nobody has looked yet");
    let position = LogPosition::File {
        id: (1, 1),
        offset: 1,
    };
    let decided = || rig.cache.log.lock().unwrap().clone();
    rig.sink.log_read(position.clone());
    assert_eq!(decided(), None);
    found(&rig, gpu_at(0));
    assert_eq!(told(&policy), once(&[0]));
    found(&rig, gpu_at(1));
    assert_eq!(told(&policy), once(&[1, 1]));
    found(&rig, gpu_at(1));
    assert_eq!(told(&policy), [], "it was only found anew");
    rig.later(Duration::from_secs(20));
    assert_eq!(decided(), Some(position));
    // Long after, in another slot: it was not there.
    rig.later(SETTLED_AFTER);
    found(&rig, gpu_at(2));
    assert_eq!(told(&policy), []);
}

#[test]
fn n4_an_error_of_a_switch_that_no_gpu_is_behind_is_told_once_as_the_drill_that_it_is() {
    let (policy, rig) = node();
    let simulated = DeviceInfo {
        simulated: true,
        ..wired(0, &[Some((OTHER, Some(0)))])
    };
    found(&rig, simulated);
    rig.later(SETTLED_AFTER);
    let lines = log::lines(|| {
        rig.sink.observe(sxid(SWITCH, Some(1)));
        rig.sink.observe(sxid(SWITCH, Some(1)));
    });
    let [(line, drill)] = &*lines else {
        panic!("{lines:?}")
    };
    assert!(line.contains("NVSwitch error, of no GPU"), "{line}");
    assert_eq!(*drill, Some(true), "the node is simulated");
    rig.sink.log_read(LogPosition::File {
        id: (1, 1),
        offset: 1,
    });
    assert!(rig.cache.log.lock().unwrap().is_some(), "nothing waits");
    // Its links come up, and one leads there.
    let up = wired(0, &[Some((OTHER, Some(0))), Some((SWITCH, Some(1)))]);
    found(&rig, up);
    assert_eq!(told(&policy), [("GPU-0".to_owned(), 2)]);
}

#[test]
fn n4_a_link_that_is_down_is_still_known_to_lead_there_and_a_gpu_that_is_gone_has_none() {
    let (policy, rig) = node();
    found(&rig, gpu_at(0));
    found(&rig, gpu_at(1));
    found(&rig, wired(1, &[None, Some((OTHER, Some(1)))]));
    rig.sink.observe(sxid(SWITCH, Some(1)));
    assert_eq!(told(&policy), once(&[1]));
    let now = rig.clock.wall();
    let mut gone = |conditions: &mut Vec<Condition>| {
        let gone = Condition::of_host(GONE, Judgement::Problem, "Replaced", now);
        condition::upsert(conditions, gone);
    };
    rig.cache.change(&uuid(1), &mut gone);
    rig.sink.observe(sxid(SWITCH, None));
    assert_eq!(told(&policy), once(&[0]));
}

#[test]
fn n4_errors_that_wait_are_bounded_and_fatal_ones_stay() {
    let (policy, rig) = node();
    rig.sink.observe(sxid(SWITCH, None));
    for link in 0..2 * i64::try_from(limits::SXIDS_HELD_MAX).unwrap() {
        let mild = Observation {
            attrs: vec![Attr::text("severity", "non-fatal"), Attr::int("link", link)],
            ..sxid(SWITCH, None)
        };
        rig.sink.observe(mild);
    }
    found(&rig, wired(0, &[Some((SWITCH, None))]));
    let mut signals = Vec::new();
    while policy.waiting() > 0 {
        signals.extend(policy.answer());
    }
    assert_eq!(signals.len(), limits::SXIDS_HELD_MAX);
    assert_eq!(signals[0].attrs, sxid(SWITCH, None).attrs);
}
