use std::fmt::Debug;

use device_api_core::clock::{BootId, WallTime};
use device_api_core::condition::{Condition, Evidence, Owner, Polarity};
use device_api_core::device::{
    DeviceInfo, Fabric, Hardware, MigInstance, NvLink, Parent, PcieLimits, Peer, PowerLimits,
};
use device_api_core::durable::{
    AssumedFault, IncidentMemory, LoweredFloor, Numbers, PolicyMemory, WakeCause, WakeMemory,
};
use device_api_core::ids::{IncidentId, PciAddress, SignalSeq};
use device_api_core::incident::{Account, Incident, IncidentState, IncidentVerdict};
use device_api_core::policy::PolicyId;
use device_api_core::seating::Fallback;
use device_api_core::signal::{Attr, Signal, SignalKind, Source, Value};
use device_api_core::verdict::{Clear, ClearOn, Judgement, Severity};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::Arc;
use std::time::Duration;

use super::*;

/// Anything a text may be: empty, NUL, unpaired quotes, characters beyond the basic plane.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("\0\u{7f}\"\\\u{2028}\u{10ffff}🦀 \n".to_owned()),
        any::<String>(),
    ]
}

fn arc() -> impl Strategy<Value = Arc<str>> {
    text().prop_map(Into::into)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), Just((1 << 53) + 1), any::<u64>()]
}

fn wall() -> impl Strategy<Value = WallTime> {
    number().prop_map(|unix_ns| WallTime { unix_ns })
}

fn boot_time() -> impl Strategy<Value = BootTime> {
    number().prop_map(|ns| BootTime { ns })
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::MAX), Just(Duration::ZERO), any::<Duration>()]
}

fn uuid() -> impl Strategy<Value = DeviceUuid> {
    text().prop_map(|uuid| DeviceUuid::new(&uuid))
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        select(vec![
            Source::Nvml,
            Source::Kmsg,
            Source::Field230,
            Source::Host
        ]),
        arc().prop_map(Source::Provider),
    ]
}

fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        Just(Owner::Host),
        arc().prop_map(Owner::Provider),
        (arc(), arc(), arc()).prop_map(|(name, version, digest)| Owner::Policy(PolicyId {
            name,
            version,
            digest
        })),
    ]
}

fn polarity() -> impl Strategy<Value = Polarity> {
    select(vec![Polarity::TrueIsHealthy, Polarity::TrueIsProblem])
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Flag),
        any::<i64>().prop_map(Value::Int),
        // Every NaN there is, both zeros, both infinities.
        prop_oneof![
            select(vec![
                f64::NAN,
                -f64::NAN,
                -0.0,
                f64::INFINITY,
                f64::MIN_POSITIVE
            ]),
            any::<u64>().prop_map(f64::from_bits),
        ]
        .prop_map(Value::Real),
        text().prop_map(Value::Text),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ]
}

fn attrs() -> impl Strategy<Value = Vec<Attr>> {
    vec(
        (text(), value()).prop_map(|(key, value)| Attr { key, value }),
        0..4,
    )
}

fn signal() -> impl Strategy<Value = Signal> {
    let ids = (
        number(),
        uuid(),
        select(SignalKind::ALL.to_vec()),
        option::of(number()),
        wall(),
        boot_time(),
    );
    let links = (any::<u32>(), number(), option::of(number()), any::<bool>());
    let words = (option::of(text()), vec(source(), 0..4), text(), attrs());
    (ids, links, words).prop_map(|(ids, links, words)| Signal {
        seq: SignalSeq(ids.0),
        device: ids.1,
        kind: ids.2,
        code: ids.3,
        observed_at: ids.4,
        observed_boot: ids.5,
        repeats: links.0,
        incident: IncidentId(links.1),
        root: links.2.map(IncidentId),
        drill: links.3,
        instance: words.0,
        sources: words.1,
        evidence: words.2,
        attrs: words.3,
        samples: None,
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let judged = (
        arc(),
        select(vec![Judgement::Ok, Judgement::Problem, Judgement::Unknown]),
        polarity(),
        select(vec![Severity::Info, Severity::Warning, Severity::Fatal]),
        select(device_api_core::action::Action::ALL.to_vec()),
        owner(),
    );
    let said = (
        text(),
        text(),
        vec((select(ClearOn::ALL.to_vec()), duration()), 0..3),
        vec((source(), wall(), text()), 0..3),
    );
    let times = (
        wall(),
        wall(),
        option::of(number()),
        option::of(number()),
        option::of(uuid()),
    );
    (judged, said, times, any::<bool>(), any::<bool>()).prop_map(
        |(judged, said, times, drill, counted)| Condition {
            type_: judged.0,
            instance: times.4,
            state: judged.1,
            polarity: judged.2,
            severity: judged.3,
            action: judged.4,
            owner: judged.5,
            reason: said.0,
            message: said.1,
            clears: said
                .2
                .into_iter()
                .map(|(on, after)| Clear { on, after })
                .collect(),
            evidence: said
                .3
                .into_iter()
                .map(|(source, observed_at, text)| Evidence {
                    source,
                    observed_at,
                    text,
                })
                .collect(),
            transition: times.0,
            heartbeat: times.1,
            incident: times.2.map(IncidentId),
            cause: times.3.map(SignalSeq),
            drill,
            counted,
        },
    )
}

fn pci() -> impl Strategy<Value = PciAddress> {
    any::<(u32, u8, u8, u8)>().prop_map(|(domain, bus, device, function)| PciAddress {
        domain,
        bus,
        device,
        function,
    })
}

fn hardware() -> impl Strategy<Value = Hardware> {
    let maybe = || option::of(any::<u32>());
    let nvlink = (
        any::<u32>(),
        maybe(),
        option::of(text()),
        option::of(pci()),
        maybe(),
    )
        .prop_map(|(link, version, remote, remote_pci, remote_link)| NvLink {
            link,
            version,
            remote,
            remote_pci,
            remote_link,
        });
    let peer = (uuid(), text()).prop_map(|(uuid, path)| Peer { uuid, path });
    let fabric =
        (text(), option::of(text()), maybe()).prop_map(|(state, cluster_uuid, clique)| Fabric {
            state,
            cluster_uuid,
            clique,
        });
    let limits = (maybe(), maybe(), maybe(), maybe(), maybe());
    let near = (option::of(text()), maybe(), option::of(any::<bool>()));
    (
        limits,
        vec(nvlink, 0..3),
        vec(peer, 0..3),
        option::of(fabric),
        near,
    )
        .prop_map(|(limits, nvlinks, peers, fabric, near)| Hardware {
            mig_mode: near.2,
            power: PowerLimits {
                min_mw: limits.0,
                max_mw: limits.1,
                default_mw: limits.2,
            },
            pcie: PcieLimits {
                generation_max: limits.3,
                width_max: limits.4,
            },
            nvlinks,
            peers,
            cpu_affinity: near.0,
            numa_node: near.1,
            fabric,
        })
}

fn info() -> impl Strategy<Value = DeviceInfo> {
    let place = || (uuid(), any::<u32>(), option::of(any::<u32>()), text());
    let mig = (place(), option::of(number())).prop_map(
        |((uuid, gpu_instance, compute_instance, profile), memory_bytes)| MigInstance {
            uuid,
            gpu_instance,
            compute_instance,
            profile,
            memory_bytes,
        },
    );
    let parent = place().prop_map(|(gpu, gpu_instance, compute_instance, profile)| Parent {
        gpu,
        gpu_instance,
        compute_instance,
        profile,
    });
    let numbers = (
        option::of(pci()),
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        option::of(number()),
    );
    let words = (text(), text(), text(), text(), text());
    let rest = (
        vec(mig, 0..3),
        any::<bool>(),
        hardware(),
        btree_map(text(), text(), 0..4),
        option::of(parent),
    );
    (uuid(), numbers, words, rest).prop_map(|(uuid, numbers, words, rest)| DeviceInfo {
        uuid,
        pci: numbers.0,
        index: numbers.1,
        minor: numbers.2,
        memory_bytes: numbers.3,
        product: words.0,
        architecture: words.1,
        serial: words.2,
        driver_version: words.3,
        cuda_version: words.4,
        mig: rest.0,
        simulated: rest.1,
        hardware: rest.2,
        labels: rest.3,
        parent: rest.4,
    })
}

fn device() -> impl Strategy<Value = Change> {
    let rest = (any::<bool>(), option::of(pci()));
    (info(), vec(condition(), 0..3), rest).prop_map(|(info, conditions, rest)| {
        Change::Device(DeviceRecord {
            info: Arc::new(info),
            conditions: conditions.into(),
            is_deleted: rest.0,
            last_slot: rest.1,
        })
    })
}

fn object() -> impl Strategy<Value = Change> {
    let times = (wall(), wall());
    (arc(), arc(), arc(), number(), times, number(), uuid()).prop_map(
        |(namespace, name, uid, generation, times, version, uuid)| {
            Change::Object(ObjectRecord {
                key: ObjectKey { namespace, name },
                uid,
                generation,
                created: times.0,
                ready_since: times.1,
                version: ResourceVersion(version),
                uuid,
            })
        },
    )
}

fn wake() -> impl Strategy<Value = WakeMemory> {
    let cause = (
        select(SignalKind::ALL.to_vec()),
        number(),
        option::of(number()),
        text(),
    )
        .prop_map(|(kind, incident, root, evidence)| WakeCause {
            kind,
            incident: IncidentId(incident),
            root: root.map(IncidentId),
            evidence,
        });
    (text(), boot_time(), any::<bool>(), option::of(cause)).prop_map(|(name, due, drill, cause)| {
        WakeMemory {
            name,
            due,
            drill,
            cause,
        }
    })
}

fn memory() -> impl Strategy<Value = Change> {
    let state = btree_map(text(), vec(any::<u8>(), 0..40), 0..4);
    let policy = (
        arc(),
        any::<u32>(),
        state,
        vec(wake(), 0..3),
        vec(signal(), 0..2),
        option::of(boot_time()),
    )
        .prop_map(|(policy, schema, state, wakes, failed, kept_until)| {
            Arc::new(PolicyMemory {
                policy,
                schema,
                state: state.into(),
                wakes,
                failed,
                kept_until,
            })
        });
    let rule = select(Fallback::ALL.to_vec());
    let assumed =
        (option::of(arc()), rule, text(), signal()).prop_map(|(policy, rule, why, signal)| {
            AssumedFault {
                policy,
                rule,
                why,
                signal,
            }
        });
    let lowered = (vec(arc(), 0..3), signal()).prop_map(|(by, signal)| LoweredFloor { by, signal });
    let quiet = vec((arc(), boot_time()), 0..3);
    (
        uuid(),
        vec(policy, 0..3),
        vec(signal(), 0..2),
        vec(lowered, 0..2),
        vec(assumed, 0..2),
        vec(signal(), 0..2),
        quiet,
        vec(arc(), 0..2),
    )
        .prop_map(
            |(uuid, policies, floors, lowered, assumed, awaiting, quiet, held)| {
                Change::Memory(
                    uuid,
                    DeviceMemory {
                        policies,
                        floors,
                        lowered,
                        assumed,
                        awaiting,
                        quiet,
                        held,
                    },
                )
            },
        )
}

fn account() -> impl Strategy<Value = Account> {
    (source(), wall(), wall(), number(), text()).prop_map(
        |(source, first_seen, last_seen, count, evidence)| Account {
            source,
            first_seen,
            last_seen,
            count,
            evidence,
        },
    )
}

fn incident_verdict() -> impl Strategy<Value = IncidentVerdict> {
    let state = select(vec![Judgement::Ok, Judgement::Problem, Judgement::Unknown]);
    let severity = select(vec![Severity::Info, Severity::Warning, Severity::Fatal]);
    let policy = (arc(), arc(), arc());
    (policy, text(), state, severity, text()).prop_map(
        |((name, version, digest), condition, state, severity, reason)| IncidentVerdict {
            policy: PolicyId {
                name,
                version,
                digest,
            },
            condition,
            state,
            severity,
            reason,
        },
    )
}

fn incident() -> impl Strategy<Value = Change> {
    let ids = (number(), uuid(), option::of(number()), option::of(text()));
    let kind = (select(SignalKind::ALL.to_vec()), option::of(number()));
    let times = (wall(), wall(), number(), any::<bool>());
    let told = (vec(account(), 0..3), vec(incident_verdict(), 0..3));
    let state = prop_oneof![
        Just(IncidentState::Open),
        (wall(), text()).prop_map(|(at, why)| IncidentState::Closed { at, why }),
    ];
    let kept = (number(), boot_time(), vec(arc(), 0..3));
    (ids, kind, times, told, state, kept).prop_map(|(ids, kind, times, told, state, kept)| {
        Change::Incident(IncidentMemory {
            incident: Incident {
                id: IncidentId(ids.0),
                device: ids.1,
                kind: kind.0,
                code: kind.1,
                root: ids.2.map(IncidentId),
                instance: ids.3,
                first_seen: times.0,
                last_seen: times.1,
                count: times.2,
                drill: times.3,
                accounts: told.0,
                verdicts: told.1,
                state,
            },
            last: SignalSeq(kept.0),
            last_boot: kept.1,
            raised: kept.2,
        })
    })
}

fn claim() -> impl Strategy<Value = Change> {
    (arc(), owner(), arc(), option::of(polarity())).prop_map(
        |(type_, owner, identity, polarity)| {
            Change::Claim(Claim {
                type_,
                owner,
                identity,
                polarity,
            })
        },
    )
}

fn lease() -> impl Strategy<Value = Change> {
    (arc(), arc(), arc(), duration(), boot_time()).prop_map(
        |(provider, identity, id, duration, ends)| {
            Change::Lease(LeaseRecord {
                provider,
                identity,
                id,
                duration,
                ends,
            })
        },
    )
}

fn log_position() -> impl Strategy<Value = Change> {
    prop_oneof![
        (arc(), number()).prop_map(|(boot, sequence)| LogPosition::Record {
            boot: BootId(boot),
            sequence
        }),
        ((number(), number()), number()).prop_map(|(id, offset)| LogPosition::File { id, offset }),
    ]
    .prop_map(Change::LogPosition)
}

/// NaN is not equal to itself, but looks the same; what it looks like besides is in its bits.
fn looks(thing: &impl Debug) -> String {
    format!("{thing:?}")
}

fn real_bits(change: &Change) -> Vec<u64> {
    let Change::Memory(_, memory) = change else {
        return Vec::new();
    };
    let failed = memory.policies.iter().flat_map(|policy| &policy.failed);
    let signals = failed.chain(&memory.floors).chain(&memory.awaiting);
    let signals = signals.chain(memory.lowered.iter().map(|lowered| &lowered.signal));
    let signals = signals.chain(memory.assumed.iter().map(|assumed| &assumed.signal));
    signals
        .flat_map(|signal| &signal.attrs)
        .filter_map(|attr| match attr.value {
            Value::Real(real) => Some(real.to_bits()),
            Value::Flag(_) | Value::Int(_) | Value::Text(_) | Value::Bytes(_) => None,
        })
        .collect()
}

fn numbers() -> impl Strategy<Value = Change> {
    (1_u64.., any::<u64>()).prop_map(|(signal, incident)| {
        Change::Numbers(Numbers {
            signal: SignalSeq(signal),
            incident: IncidentId(incident),
        })
    })
}

/// Writes a change and reads it back.
fn there_and_back(change: &Change) -> Change {
    let (slot, goes) = Slot::of(change);
    assert!(!goes);
    let value = encode(change).expect("encoded").expect("a value");
    let mut snapshot = Snapshot::default();
    decode(&slot, &value, &mut snapshot, &mut Head::default()).expect("decoded");
    let mut all = Vec::new();
    all.extend(snapshot.devices.into_iter().map(Change::Device));
    all.extend(snapshot.objects.into_iter().map(Change::Object));
    let memories = snapshot.memories.into_iter();
    all.extend(memories.map(|(uuid, memory)| Change::Memory(uuid, memory)));
    all.extend(snapshot.incidents.into_iter().map(Change::Incident));
    all.extend(snapshot.claims.into_iter().map(Change::Claim));
    all.extend(snapshot.leases.into_iter().map(Change::Lease));
    all.extend(snapshot.log.map(Change::LogPosition));
    let numbers = Some(snapshot.numbers).filter(|numbers| *numbers != Numbers::default());
    all.extend(numbers.map(Change::Numbers));
    assert_eq!(all.len(), 1);
    all.remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_kind_survives_a_round_trip_whatever_its_values(change in prop_oneof![
        device(), object(), memory(), incident(), claim(), lease(), log_position(), numbers(),
    ]) {
        let back = there_and_back(&change);
        prop_assert_eq!(looks(&back), looks(&change));
        prop_assert_eq!(real_bits(&back), real_bits(&change));
    }

    #[test]
    fn bytes_that_are_no_record_are_refused_and_never_a_panic(
        table in select(Table::ALL.to_vec()),
        bytes in vec(any::<u8>(), 0..60),
    ) {
        let slot = Slot::new(table, META_HEAD);
        let _ = decode(&slot, &bytes, &mut Snapshot::default(), &mut Head::default());
    }
}

#[test]
fn samples_are_not_kept() {
    let mut signal: Signal = Signal::of_form(Default::default()).expect("all defaults");
    signal.samples = Some(Arc::default());
    let kept: Signal = take(&put(&signal).expect("encoded")).expect("decoded");
    assert_eq!(kept.samples, None);
}

/// What version 1 wrote must be read for ever: if this fails, the format changed unseen.
#[test]
fn what_version_1_wrote_is_read_and_a_missing_field_takes_its_default() {
    let old = br#"{"info":{"uuid":"GPU-1","pci":[0,27,0,0],"product":"H100","labels":{"a":"b"},
        "from_the_future":{"x":1}},"conditions":[{"type_":"XidFault","state":"problem",
        "polarity":"true-is-problem","severity":"fatal","action":"RESTART_BM",
        "owner":{"policy":{"name":"xid-policy","version":"1","digest":"d"}},
        "clears":[{"on":"quiet","after":[60,0]}],"evidence":[{"source":{"provider":"p"},
        "observed_at":7,"text":"t"}],"incident":18446744073709551615}]}"#;
    let record: DeviceRecord = take(old).expect("decoded");
    assert_eq!(record.info.product, "H100");
    assert_eq!(record.info.pci.map(|pci| pci.bus), Some(27));
    let condition = &record.conditions[0];
    assert_eq!(condition.incident, Some(IncidentId(u64::MAX)));
    assert_eq!(condition.owner.to_string(), "policy:xid-policy");
    assert_eq!(condition.clears[0].after, Duration::from_secs(60));
    assert!(condition.is_problem() && !record.is_deleted);
}

#[test]
fn an_incident_that_lacks_fields_is_open_and_one_of_a_later_kind_costs_itself_alone() {
    let old = br#"{"incident":{"id":7,"device":"GPU-1","kind":"xid","code":79,"count":2,
        "accounts":[{"source":"nvml","count":2}],"from_the_future":1},"raised":["XidCriticalError"]}"#;
    let kept: IncidentMemory = take(old).expect("decoded");
    assert_eq!(kept.incident.state, IncidentState::Open);
    assert_eq!((kept.incident.id, kept.incident.count), (IncidentId(7), 2));
    assert_eq!(&*kept.raised[0], "XidCriticalError");
    let closed = br#"{"incident":{"state":{"closed":{"at":9,"why":"node-reboot"}}}}"#;
    let closed: IncidentMemory = take(closed).expect("decoded");
    let why = IncidentState::Closed {
        at: WallTime { unix_ns: 9 },
        why: "node-reboot".to_owned(),
    };
    assert_eq!(closed.incident.state, why);
    take::<IncidentMemory>(br#"{"incident":{"kind":"smell"}}"#).expect_err("no word of ours");
}

#[test]
fn objects_whose_names_run_together_have_keys_of_their_own() {
    let slot = |namespace: &str, name: &str| {
        let key = ObjectKey::new(namespace, name);
        Slot::of(&Change::ObjectGone(key)).0
    };
    assert_ne!(slot("a", "b/c"), slot("a/b", "c"));
}
