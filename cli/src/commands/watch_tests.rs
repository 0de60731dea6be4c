//! What is watched.

use super::*;

fn gpu(name: &str, version: i64) -> Gpu {
    Gpu {
        resource_version: version,
        ..crate::table::tests::gpu(name)
    }
}

fn event(kind: EventType, name: &str, version: i64) -> WatchGpusResponse {
    WatchGpusResponse {
        r#type: kind.into(),
        gpu: Some(gpu(name, version)),
        resource_version: version,
        initial_state_end: false,
    }
}

#[test]
fn w1_a_new_list_shows_exactly_what_changed_meanwhile() {
    let mut seen = Seen::default();
    for (kind, name, version) in [
        (EventType::Added, "a", 1),
        (EventType::Added, "b", 2),
        (EventType::Added, "c", 3),
        (EventType::Added, "d", 4),
        (EventType::Deleted, "d", 5),
    ] {
        assert!(seen.take(event(kind, name, version)).is_some());
    }
    assert_eq!(seen.version, 5);
    let gpus = vec![gpu("a", 1), gpu("b", 101), gpu("d", 102)];
    let changes = seen.relist(ListGpusResponse {
        gpus,
        resource_version: 110,
    });
    let shown: Vec<_> = changes
        .iter()
        .map(|change| (change.kind, change.gpu.name.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (EventType::Deleted, "c"),
            (EventType::Modified, "b"),
            (EventType::Added, "d")
        ]
    );
    assert_eq!(seen.version, 110);
    let gpus = vec![gpu("a", 1), gpu("b", 101), gpu("d", 102)];
    assert_eq!(
        seen.relist(ListGpusResponse {
            gpus,
            resource_version: 110
        }),
        []
    );
}

#[test]
fn lines_of_a_stream_stand_under_their_heads() {
    let mut out = Output {
        to: Vec::new(),
        colour: false,
    };
    heads(Format::Table, &mut out).unwrap();
    let change = Change {
        kind: EventType::Modified,
        gpu: gpu("GPU-6f185d59-caa4-e21b-7e96-c6aba97f1ac9", 9),
    };
    print(Format::Table, &change, &mut out).unwrap();
    let text = String::from_utf8(out.to).unwrap();
    let [heads, line] = text.lines().collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    for (head, cell) in [
        ("TYPE", "MODIFIED"),
        ("INDEX", "3       GPU"),
        ("NAME", "GPU-6f"),
        ("HEALTH", "Healthy"),
    ] {
        assert_eq!(heads.find(head), line.find(cell), "{text}");
    }
}
