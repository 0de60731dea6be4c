//! Whatever is wrong with a file is told with its place, and in our words.

use device_api_core::limits::POLICIES_FILE_VALUES_MAX as VALUES_MAX;

use super::*;

/// What a library would say of it: about programs, not about the file.
const LIBRARY_WORDS: [&str; 22] = [
    "variant",
    "enum",
    "untagged",
    "serde",
    "saphyr",
    "DuplicateKeyPolicy",
    "Options",
    "udget",
    "reached",
    "from_str",
    "from_multiple",
    "Option<",
    "eserializ",
    "struct",
    "visitor",
    "missing field",
    "unknown field",
    "nvalid type",
    "nvalid value",
    "expected one of",
    "u64",
    "Scalar",
];

/// Refused in one short line with these words, and none of a library.
#[track_caller]
fn told(text: &str, words: &[&str]) {
    let shown: String = text.chars().take(200).collect();
    let Refusal(why) = parse(text, &Limits::default()).expect_err(&shown);
    assert_eq!(why.lines().count(), 1, "{why:?}");
    assert!(why.len() < 700, "{why:?}");
    for word in words {
        assert!(why.contains(word), "{shown:?}: {why:?} lacks {word:?}");
    }
    for word in LIBRARY_WORDS {
        assert!(!why.contains(word), "{why:?} has {word:?}");
    }
}

/// An entry with this line in it.
fn entry(line: &str) -> String {
    format!("policies:\n  - name: a\n    {line}\n")
}

/// Values that are no text, and what each is.
const NO_TEXT: [(&str, &str); 10] = [
    ("~", "empty"),
    ("", "empty"),
    ("7", "7 is a number"),
    ("-1", "-1 is a number"),
    ("3.5", "3.5 is a number"),
    ("1e3", "1e3 is a number"),
    (".nan", ".nan is a number"),
    ("yes", "yes is true or false"),
    ("[a]", "a list"),
    ("{a: 1}", "keys of its own"),
];

#[test]
fn h7_what_is_no_text_is_told_with_its_field_and_what_is_wanted() {
    for (field, wanted) in [
        ("name", "a name"),
        ("file", "the name of a file"),
        ("sha256", "a SHA-256"),
        ("mode", "one of enforce, shadow, paused"),
        ("fallback", "one of catalogue, unhealthy, ignore"),
    ] {
        for (value, is) in NO_TEXT {
            let text = match field {
                "name" => format!("policies:\n  - mode: shadow\n    name: {value}\n"),
                _ => entry(&format!("{field}: {value}")),
            };
            let path = format!("line 3, policies[0].{field}: ");
            told(&text, &[&path, is, wanted]);
        }
    }
}

#[test]
fn h7_what_is_no_list_or_map_is_told_with_its_field_and_what_is_wanted() {
    for (value, is) in NO_TEXT {
        let grants = match value {
            "[a]" => ["policies[0].grants[0]", "\"a\" is none of gpu-lost"],
            _ => [is, "a list of names of floors is wanted"],
        };
        told(&entry(&format!("grants: {value}")), &grants);
        if !value.is_empty() {
            let one = ["policies[0].grants[0]", is, "one of gpu-lost"];
            told(&entry(&format!("grants: [{value}]")), &one);
        }
        let limits = match value {
            "{a: 1}" => ["policies[0].limits.a", "there is no such key"],
            _ => [is, "a map of component-bytes-max"],
        };
        told(&entry(&format!("limits: {value}")), &limits);
    }
    for value in ["7", "a", "yes", "[a]", "2026-11-21"] {
        told(value, &["line 1", "a map of policies is wanted"]);
        let listed = format!("policies: [{value}]");
        told(&listed, &["policies[0]", "a map of name, file"]);
    }
    for value in ["7", "a", "yes", "{a: 1}"] {
        let wanted = ["line 1, policies: ", "a list of policies"];
        told(&format!("policies: {value}"), &wanted);
    }
}

#[test]
fn h7_a_wrong_limit_is_told_as_it_is_written() {
    for value in [
        "-1",
        "3.5",
        "1e3",
        ".inf",
        "0x10",
        "'-1'",
        "7 GiB",
        "010",
        "99999999999999999999",
    ] {
        let text = entry(&format!("limits: {{memory-bytes-max: {value}}}"));
        let shown = value.trim_matches('\'');
        let field = "line 3, policies[0].limits.memory-bytes-max: ";
        if value.starts_with('9') {
            // More than any range has, however it is shown.
            told(&text, &[field, "between"]);
        } else {
            told(&text, &[field, shown]);
        }
    }
    for (value, is) in [
        ("~", "empty"),
        ("on", "true or false"),
        ("[1]", "list"),
        ("{}", "keys"),
    ] {
        let text = entry(&format!("limits: {{tables-max: {value}}}"));
        told(&text, &["policies[0].limits.tables-max", is, "16MiB"]);
    }
}

#[test]
fn h7_what_can_be_no_configuration_is_told_with_its_place() {
    told(
        &entry("config: {a: [1, .nan]}"),
        &["policies[0].config.a[1]", ".nan"],
    );
    told(
        &entry("config: {1: a}"),
        &["policies[0].config", "the key 1", "quotes"],
    );
    told(
        &entry("config: {[a]: b}"),
        &["policies[0].config", "a key is"],
    );
}

#[test]
fn h7_what_is_no_yaml_is_told_with_its_line() {
    told(
        &entry("mode: shadow\n    mode: paused"),
        &["line 4", "\"mode\" is there twice"],
    );
    told(
        "policies: []\npolicies: []\n",
        &["line 2", "\"policies\" is there twice"],
    );
    let limits = entry("limits: {tables-max: 1, tables-max: 2}");
    told(&limits, &["line 3", "\"tables-max\" is there twice"]);
    let config = entry("config: {a: 1, a: 2}");
    told(&config, &["line 3", "\"a\" is there twice"]);
    told("policies: []\n---\npolicies: []\n", &["second document"]);
    told("policies: [*none]\n", &["line 1", "anchor"]);
    told("policies: &a [*a]\n", &["line 1", "anchor"]);
    told("policies: [!include x]\n", &["line 1"]);
    told("policies:\n  - name: !!int a\n", &["line 2", "tag"]);
    told("policies:\n  - <<: 7\n    name: a\n", &["line 2", "<<"]);
    for broken in [
        "policies: [\n",
        "policies: [}",
        "a: b: c",
        "policies: 'a",
        "@",
        "\u{0}",
    ] {
        told(broken, &["it is no YAML"]);
    }
}

#[test]
fn h7_what_unfolds_to_too_much_is_refused_before_it_takes_room() {
    let deep = format!("policies: [{}{}]", "[".repeat(100), "]".repeat(100));
    told(&deep, &["line 1", "levels"]);
    let wide = format!("policies: [{}1]", "1,".repeat(VALUES_MAX));
    told(&wide, &["values", "right file"]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
    for at in 1..12 {
        let below = format!("*a{}, ", at - 1).repeat(8);
        bomb += &format!("a{at}: &a{at} [{below}]\n");
    }
    told(&bomb, &["values", "right file"]);
    let long = "é".repeat(10_000);
    told(&format!("policies: [{long}]"), &["policies[0]"]);
    told(
        &format!("policies: [{{name: {long}}}]"),
        &["policies[0].name"],
    );
    told(&format!("{}: 1", "é".repeat(500)), &["no such key"]);
}
