use super::*;

#[test]
fn h2_every_limit_has_its_name_and_range_and_none_is_forgotten() {
    let names: Vec<_> = Limits::rows().iter().map(LimitRow::name).collect();
    assert_eq!(names, Limits::NAMES);
    // Each row is of a field of its own: a change in one shows in that one alone.
    for row in &ROWS {
        let mut changed = Limits::default();
        (row.set)(&mut changed, row.max);
        let differing: Vec<_> = ROWS
            .iter()
            .filter(|other| (other.get)(&changed) != (other.get)(&Limits::default()))
            .map(LimitRow::name)
            .collect();
        assert_eq!(differing, [row.name]);
    }
    // And there are as many rows as there are fields.
    let fields = format!("{:?}", Limits::default());
    assert_eq!(fields.matches(": ").count(), ROWS.len(), "{fields}");
    assert_eq!(Limits::default().check(), Ok(()));
}

#[test]
fn h2_each_is_set_by_name_within_its_ceiling() {
    for row in Limits::rows() {
        for bound in [row.min, row.max] {
            let mut limits = Limits::default();
            limits.set(row.name, &row.show(bound)).unwrap();
            assert_eq!((row.get)(&limits), bound, "{}", row.name);
            assert_eq!(limits.check(), Ok(()));
        }
        let above = row.show(row.max + 1);
        let below = row.min.checked_sub(1).map(|below| row.show(below));
        for outside in [Some(above), below].into_iter().flatten() {
            let outside = match (row.unit, outside.as_str()) {
                // Without its unit a duration is none.
                (Unit::Micros, "0") => "0us".to_owned(),
                _ => outside,
            };
            let mut limits = Limits::default();
            let error = limits.set(row.name, &outside).unwrap_err();
            assert!(matches!(error, LimitError::Range { .. }), "{error:?}");
            assert_eq!(limits, Limits::default(), "nothing is changed");
        }
        let mut limits = Limits::default();
        limits.set(row.name, &row.default_value()).unwrap();
        assert_eq!(limits, Limits::default());
    }
}

#[test]
fn values_are_written_as_elsewhere() {
    let mut limits = Limits::default();
    for (name, value, expected) in [
        ("memory-bytes-max", "32MiB", 32 << 20),
        ("memory_bytes_max", "65536", 1 << 16),
        ("memory-bytes-max", "512Ki", 1 << 19),
    ] {
        limits.set(name, value).unwrap();
        assert_eq!(limits.memory_bytes_max, expected);
    }
    for (value, expected) in [("5ms", 5_000), ("1500us", 1_500), ("1s", 1_000_000)] {
        limits.set("call-deadline", value).unwrap();
        assert_eq!(limits.call_deadline, Duration::from_micros(expected));
    }
    let written = |name: &str| {
        let row = Limits::rows().iter().find(|row| row.name() == name);
        row.unwrap().value(&limits)
    };
    assert_eq!(written("memory-bytes-max"), "512KiB");
    assert_eq!(written("call-deadline"), "1s");
}

#[test]
fn a_bad_setting_says_what_is_wrong_with_it() {
    let refused = |name, value| Limits::default().set(name, value).unwrap_err().to_string();
    assert_eq!(
        refused("memory-bytes-max", "2GiB"),
        "limit memory-bytes-max is 2GiB: set it to between 64KiB and 256MiB"
    );
    assert_eq!(
        refused("call-deadline", "5"),
        "limit call-deadline is \"5\": expected a whole number and one of us, ms, s, as in 5ms"
    );
    for value in ["", "ms", "1.5ms", "-1ms", "5 ms", "5MS", "five"] {
        let error = refused("call-deadline", value);
        assert!(error.contains("expected"), "{error}");
    }
    let error = refused("host-calls-max", "99999999999999999999999");
    assert!(error.contains("between 1 and 1000000"), "{error}");
    let error = refused("fuel", "1");
    assert!(
        error.starts_with("there is no limit \"fuel\": there are component-bytes-max, "),
        "{error}"
    );
    let error = refused(&"x\n".repeat(1000), "1");
    assert!(error.len() < 500 && !error.contains('\n'), "{error}");
}
