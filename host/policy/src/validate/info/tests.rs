use super::*;

fn said() -> wit::Info {
    wit::Info {
        name: "test-policy".to_owned(),
        version: "1.2.3".to_owned(),
        state_schema: 1,
        subscriptions: Vec::new(),
        owns: vec![owned("TestFault", &["Broken", "Fine"])],
        readings: vec!["temperature.gpu".to_owned()],
        attrs: Vec::new(),
    }
}

fn owned(condition: &str, reasons: &[&str]) -> wit::Owned {
    let reasons = reasons.iter().map(|&reason| reason.to_owned()).collect();
    wit::Owned {
        condition: condition.to_owned(),
        true_is_problem: true,
        reasons,
    }
}

fn subscribed(kind: &str, where_: &[(&str, wit::Value)]) -> wit::Info {
    let attr = |(key, value): &(&str, wit::Value)| wit::Attr {
        key: (*key).to_owned(),
        value: value.clone(),
    };
    let where_ = where_.iter().map(attr).collect();
    wit::Info {
        subscriptions: vec![wit::Subscription {
            kind: kind.to_owned(),
            where_,
        }],
        ..said()
    }
}

fn describe(said: &wit::Info) -> Valid<Described> {
    super::describe(said, &"digest".into())
}

#[track_caller]
fn refused(said: wit::Info, word: &str) {
    let Invalid(what) = describe(&said).unwrap_err();
    assert!(what.contains(word), "{what}");
}

#[test]
fn a_good_description_is_taken_as_it_is() {
    let info = describe(&said()).unwrap().info;
    assert_eq!(
        (&*info.id.name, &*info.id.version, &*info.id.digest),
        ("test-policy", "1.2.3", "digest")
    );
    assert_eq!(info.owned("TestFault").unwrap().reasons, ["Broken", "Fine"]);
}

#[test]
fn names_are_bounded_and_plain() {
    refused(
        wit::Info {
            name: String::new(),
            ..said()
        },
        "info.name: is empty",
    );
    refused(
        wit::Info {
            version: String::new(),
            ..said()
        },
        "info.version: is empty",
    );
    refused(
        wit::Info {
            name: "a".repeat(254),
            ..said()
        },
        "has 254 bytes",
    );
    refused(
        wit::Info {
            name: "a\x1b[31m".to_owned(),
            ..said()
        },
        r"a\u{1b}[31m",
    );
    refused(
        wit::Info {
            readings: vec![String::new()],
            ..said()
        },
        "info.readings: is empty",
    );
    refused(
        wit::Info {
            readings: vec!["k".to_owned(); READINGS_MAX + 1],
            ..said()
        },
        "at most 128",
    );
}

#[test]
fn types_and_reasons_are_held_to_the_contract() {
    let owns = |owns: Vec<wit::Owned>| wit::Info { owns, ..said() };
    for host_owned in HOST_OWNED {
        refused(
            owns(vec![owned(host_owned, &["Why"])]),
            "belongs to the host",
        );
    }
    refused(
        owns(vec![owned("A", &["Why"]), owned("A", &["Why"])]),
        "declared twice",
    );
    refused(owns(vec![owned("A", &[])]), "declares no reason");
    refused(owns(vec![owned("A", &["Why", "Why"])]), "declared twice");
    for reason in ["", "lower", "With Space", "Dash-ed", "Größe"] {
        refused(owns(vec![owned("A", &[reason])]), "not CamelCase");
    }
    refused(
        owns(vec![owned("A", &["Aa".repeat(65).as_str()])]),
        "not CamelCase",
    );
    let many = (0..=OWNED_TYPES_MAX)
        .map(|at| owned(&format!("T{at}"), &["Why"]))
        .collect();
    refused(owns(many), "33 entries");
}

#[test]
fn an_unknown_kind_is_skipped_and_told() {
    let described = describe(&subscribed("rumour", &[("whatever", wit::Value::Int(1))])).unwrap();
    assert_eq!(described.unknown_kinds, ["\"rumour\""]);
    assert!(described.info.subscriptions.is_empty());
}

#[test]
fn subscriptions_are_narrowed_by_the_keys_of_their_kind() {
    use wit::Value::{Int, Real, Text};
    let filter = |kind, where_: &[(&str, wit::Value)]| {
        describe(&subscribed(kind, where_))
            .map(|described| described.info.subscriptions[0].filter.clone())
    };
    assert_eq!(filter("xid", &[]).unwrap(), Filter::default());
    assert_eq!(
        filter("xid", &[("code", Int(79))]).unwrap().codes,
        Some((79, 79))
    );
    let range = [("code-from", Int(144)), ("code-to", Int(150))];
    assert_eq!(filter("sxid", &range).unwrap().codes, Some((144, 150)));
    let text = Text("temperature.gpu".to_owned());
    let reading = [
        ("key", text.clone()),
        ("above", Int(90)),
        ("deadband", Real(0.5)),
        ("min-interval-ms", Int(9)),
    ];
    let expected = Filter {
        key: Some("temperature.gpu".to_owned()),
        above: Some(90.0),
        deadband: 0.5,
        min_interval: Some(Duration::from_millis(9)),
        ..Filter::default()
    };
    assert_eq!(filter("reading", &reading).unwrap(), expected);
    let slowdown = Text("temperature.slowdown".to_owned());
    let to_a_reading = [
        ("key", text.clone()),
        ("relative-to", slowdown.clone()),
        ("below", Int(0)),
        ("above", Int(-3)),
    ];
    let expected = Filter {
        key: Some("temperature.gpu".to_owned()),
        relative_to: Some("temperature.slowdown".to_owned()),
        below: Some(0.0),
        above: Some(-3.0),
        ..Filter::default()
    };
    assert_eq!(filter("reading", &to_a_reading).unwrap(), expected);
}

#[test]
fn subscriptions_that_narrow_by_what_they_can_not_are_refused() {
    use wit::Value::{Int, Real, Text};
    let text = Text("temperature.gpu".to_owned());
    let slowdown = Text("temperature.slowdown".to_owned());
    for (kind, where_, word) in [
        ("xid", vec![("code", Int(-1))], "int of 0 or more"),
        (
            "xid",
            vec![("code", Text("79".to_owned()))],
            "int of 0 or more",
        ),
        ("xid", vec![("code-from", Int(5))], "give code alone"),
        (
            "xid",
            vec![("code-from", Int(5)), ("code-to", Int(4))],
            "give code alone",
        ),
        (
            "xid",
            vec![("code", Int(5)), ("code-to", Int(5))],
            "give code alone",
        ),
        ("xid", vec![("above", Int(5))], "does not narrow"),
        ("timer", vec![("code", Int(5))], "does not narrow"),
        (
            "reading",
            vec![("colour", Int(5))],
            "\"colour\" does not narrow",
        ),
        ("reading", vec![("key", Int(5))], "not a text"),
        ("reading", vec![("above", text)], "not a number"),
        (
            "reading",
            vec![("above", Real(f64::NAN))],
            "not a finite number",
        ),
        ("reading", vec![("deadband", Real(-1.0))], "negative"),
        ("reading", vec![("relative-to", Int(5))], "not a text"),
        (
            "reading",
            vec![("relative-to", slowdown.clone()), ("above", Int(0))],
            "relative-to needs a key",
        ),
        (
            "reading",
            vec![("relative-to", slowdown.clone()), ("key", slowdown.clone())],
            "and above or below",
        ),
        ("timer", vec![("relative-to", slowdown)], "does not narrow"),
    ] {
        refused(subscribed(kind, &where_), word);
    }
}
