//! What a watch is told.

use device_api_core::clock::WallTime;
use device_api_core::device::DeviceInfo;
use device_api_core::health::{Derived, Health};
use device_api_core::ids::DeviceUuid;

use super::*;

fn event(type_: EventType, version: u64) -> Event {
    let uuid = DeviceUuid::new("GPU-0");
    let gpu = Arc::new(Gpu {
        key: ObjectKey::new("", "gpu-0"),
        uid: "uid".into(),
        generation: 1,
        created: WallTime::default(),
        version: ResourceVersion(version),
        uuid: uuid.clone(),
        device: Arc::new(DeviceInfo::bare(uuid)),
        conditions: [].into(),
        derived: Derived::default(),
        ready_since: WallTime::default(),
        encoded: Default::default(),
    });
    Event {
        type_,
        before: (type_ != EventType::Added).then(|| gpu.clone()),
        gpu,
    }
}

#[track_caller]
fn check(input: &[(EventType, u64)], expected: &[(EventType, u64)]) {
    let cell = Cell::new(Selection::all(), None);
    for (type_, version) in input {
        cell.push(&event(*type_, *version));
    }
    let events = cell.take().expect("open");
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.type_, event.gpu.version.0))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn w2_merged_changes_keep_truthful_types() {
    use EventType::{Added, Deleted, Modified};
    check(&[(Added, 1)], &[(Added, 1)]);
    check(&[(Added, 1), (Modified, 2), (Modified, 3)], &[(Added, 3)]);
    check(&[(Modified, 2), (Modified, 3)], &[(Modified, 3)]);
    check(&[(Modified, 2), (Deleted, 3)], &[(Deleted, 3)]);
    check(&[(Added, 1), (Deleted, 2)], &[]);
    check(&[(Deleted, 2), (Added, 3)], &[(Deleted, 2), (Added, 3)]);
    check(
        &[(Deleted, 2), (Added, 3), (Modified, 4)],
        &[(Deleted, 2), (Added, 4)],
    );
    check(&[(Deleted, 2), (Added, 3), (Deleted, 4)], &[(Deleted, 4)]);
    check(&[(Added, 1), (Deleted, 2), (Added, 3)], &[(Added, 3)]);
}

#[test]
fn w2_an_exact_watch_tells_each_change_or_ends() {
    let all = || Cell::new(Selection::all(), Some(2));
    let cell = all();
    for version in 1..=2 {
        cell.push(&event(EventType::Added, version));
    }
    assert_eq!(cell.take().map(|events| events.len()), Ok(2));
    for version in 3..=5 {
        cell.push(&event(EventType::Added, version));
    }
    assert_eq!(cell.take(), Err(WatchEnd::Behind { max: 2 }));
    assert_eq!(cell.take(), Err(WatchEnd::Behind { max: 2 }), "for good");
}

#[test]
fn w3_entering_a_selection_is_added_and_leaving_it_deleted_merged_or_not() {
    use EventType::{Added, Deleted, Modified};
    /// One GPU's changes, as what kind, its health then, and its version; what it was before.
    #[track_caller]
    fn check(
        before: Option<Health>,
        changes: &[(EventType, Health)],
        merged: &[EventType],
        exact: &[EventType],
    ) {
        let selection = Selection {
            fields: device_api_core::selector::fields("status.health=Unhealthy").expect("fits"),
            ..Selection::all()
        };
        let with = |health, version| {
            let mut gpu = Gpu::clone(&event(Added, version).gpu);
            gpu.derived.health = health;
            Arc::new(gpu)
        };
        for (exact, expected) in [(None, merged), (Some(9), exact)] {
            let cell = Cell::new(selection.clone(), exact);
            let mut before = before.map(|health| with(health, 1));
            for (version, (type_, health)) in (2..).zip(changes) {
                let gpu = with(*health, version);
                cell.push(&Event {
                    type_: *type_,
                    gpu: gpu.clone(),
                    before,
                });
                before = (*type_ != Deleted).then_some(gpu);
            }
            let told = cell.take().expect("open");
            let types: Vec<_> = told.iter().map(|event| event.type_).collect();
            assert_eq!(types, expected, "exact: {exact:?}");
            assert!(told.is_sorted_by_key(|event| event.gpu.version));
        }
    }
    use Health::{Healthy, Unhealthy};
    let (ok, bad) = (Some(Healthy), Some(Unhealthy));
    check(None, &[(Added, Unhealthy)], &[Added], &[Added]);
    check(None, &[(Added, Healthy)], &[], &[]);
    check(ok, &[(Modified, Unhealthy)], &[Added], &[Added]);
    check(bad, &[(Modified, Healthy)], &[Deleted], &[Deleted]);
    check(bad, &[(Modified, Unhealthy)], &[Modified], &[Modified]);
    check(ok, &[(Modified, Healthy)], &[], &[]);
    check(bad, &[(Deleted, Unhealthy)], &[Deleted], &[Deleted]);
    check(ok, &[(Deleted, Healthy)], &[], &[]);
    // In and out again, and out and in again, before the client is sent anything.
    let (goes, comes) = ((Modified, Healthy), (Modified, Unhealthy));
    check(ok, &[comes, goes], &[], &[Added, Deleted]);
    check(bad, &[goes, comes], &[Modified], &[Deleted, Added]);
    check(ok, &[comes, (Deleted, Unhealthy)], &[], &[Added, Deleted]);
    check(bad, &[goes, (Deleted, Healthy)], &[Deleted], &[Deleted]);
    check(
        bad,
        &[(Deleted, Unhealthy), (Added, Healthy)],
        &[Deleted],
        &[Deleted],
    );
    check(
        ok,
        &[(Deleted, Healthy), (Added, Unhealthy)],
        &[Added],
        &[Added],
    );
}

#[tokio::test(start_paused = true)]
async fn w3_bookmarks_mark_the_end_of_the_state_and_where_an_idle_watch_is() {
    let hub = Arc::new(Serial::new(Hub::new(ResourceVersion(1), None, 8)));
    let cell = Arc::new(Cell::new(Selection::all(), None));
    hub.with(|hub| hub.register(&cell));
    let at = ResourceVersion(1);
    let bookmarks = Bookmarks::new(hub.clone(), Duration::from_secs(30), at, true);
    let start = vec![event(EventType::Added, 1)];
    let mut watcher = Watcher::new(cell, Some(bookmarks), start);
    let mark = |version, initial| {
        Ok(Told::Bookmark {
            version: ResourceVersion(version),
            initial,
        })
    };
    assert!(matches!(watcher.next().await, Ok(Told::Changes(_))));
    assert_eq!(watcher.next().await, mark(1, true));
    // Something it does not watch.
    hub.with(|hub| hub.publish(Vec::new(), ResourceVersion(7)));
    let started = Instant::now();
    assert_eq!(watcher.next().await, mark(7, false));
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    // A change that waits is told before any mark.
    hub.with(|hub| hub.publish(vec![event(EventType::Modified, 8)], ResourceVersion(8)));
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(matches!(watcher.next().await, Ok(Told::Changes(_))));
}

#[tokio::test]
async fn a_closed_watch_tells_what_is_left_and_ends() {
    let cell = Arc::new(Cell::new(Selection::all(), None));
    cell.push(&event(EventType::Modified, 2));
    cell.close();
    let start = vec![event(EventType::Added, 1)];
    let mut watcher = Watcher::new(cell, None, start);
    for _ in 0..2 {
        assert!(matches!(watcher.next().await, Ok(Told::Changes(_))));
    }
    assert_eq!(watcher.next().await, Err(WatchEnd::Closed));
}
