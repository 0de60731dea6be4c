use super::*;

/// A key, its line, and its values with the lines that are their own.
type Expected<'a> = (&'a str, u64, &'a [(&'a str, Option<u64>)]);

#[track_caller]
fn check(text: &str, expected: &[Expected<'_>]) {
    let word = |(text, line): &(&str, Option<u64>)| Word {
        text: (*text).to_owned(),
        line: *line,
    };
    let expected: Vec<_> = expected
        .iter()
        .map(|(key, line, values)| Entry {
            key: (*key).to_owned(),
            line: *line,
            values: values.iter().map(word).collect(),
        })
        .collect();
    assert_eq!(parse(text), Ok(expected));
}

#[test]
fn scalars_and_lists_are_read_with_their_lines() {
    check("", &[]);
    check("# nothing yet\n", &[]);
    check(
        "health-port: 8081\n\n# twice\nunix-socket:\n  - /a\n  - '/b'\nkmsg-drill: true\nshutdown-timeout: 10s\ngrpc-address: \"\"\n",
        &[
            ("health-port", 1, &[("8081", None)]),
            ("unix-socket", 4, &[("/a", Some(5)), ("/b", Some(6))]),
            ("kmsg-drill", 7, &[("true", None)]),
            ("shutdown-timeout", 8, &[("10s", None)]),
            ("grpc-address", 9, &[("", None)]),
        ],
    );
    check(
        "nvml-ignored-xids: [43,\n  45]\n",
        &[("nvml-ignored-xids", 1, &[("43", Some(1)), ("45", Some(2))])],
    );
    check(
        "limits:\n  gpus: 7\n  request-time: 5s\nhealth-port: 1\n",
        &[
            (
                "limits",
                1,
                &[("gpus=7", Some(2)), ("request-time=5s", Some(3))],
            ),
            ("health-port", 4, &[("1", None)]),
        ],
    );
    check(
        "limits:\n  - gpus: 7\n  - watches: 8\n",
        &[("limits", 1, &[("gpus=7", Some(2)), ("watches=8", Some(3))])],
    );
}

#[test]
fn a_word_is_what_it_is_to_a_flag() {
    for word in ["off", "no", "yes", "on", "n", "false"] {
        check(&format!("a: {word}\n"), &[("a", 1, &[(word, None)])]);
    }
}

#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let why = parse(text).expect_err("refused");
    assert!(
        words.iter().all(|word| why.contains(word)),
        "{why:?} lacks one of {words:?}"
    );
    assert_eq!(why.lines().count(), 1, "{why:?}");
    for advice in ["Options", "from_str", "unit value"] {
        assert!(!why.contains(advice), "{why:?} is for programmers");
    }
}

#[test]
fn what_is_no_list_of_settings_is_refused_with_its_line() {
    refused(
        "health-port: 1\nhealth-port: 2\n",
        &["`health-port` is there twice", "line 2"],
    );
    refused("a: 1\n---\nb: 2\n", &["a second document", "line 3"]);
    refused("a:\n  b: [1, 2]\n", &["line", "one value"]);
    refused("a: {}\n", &["`a` in line 1 has no value"]);
    refused("- a\n- b\n", &["line 1"]);
    refused("just words\n", &["line 1"]);
    refused("a: [1\n", &["line"]);
    refused(
        "health-port: 1\nunix-socket: []\n",
        &["`unix-socket` in line 2 has no value"],
    );
    refused(
        "a: 1\nhealth-port:\n",
        &["`health-port` in line 2 has no value"],
    );
    refused("a: ~\n", &["`a` in line 1 has no value"]);
    refused(
        "a:\n  - 1\n  -\n",
        &["entry of a list in line", "has no value"],
    );
    refused("health-port: 28084.0\n", &["with a point", "line 1"]);
    refused("a:\n  - 1e3\n", &["an exponent", "line 2"]);
}

#[test]
fn an_endless_file_is_cut_off() {
    let error = read(Path::new("/dev/zero")).expect_err("refused");
    assert!(matches!(error, FileError::TooLarge { .. }), "{error}");
}
