//! The published schema and the parser take the same files, as far as a schema can tell.

use serde_json::{Value, json};

use super::*;

fn schema() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/schemas/policies.schema.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn is_digits(text: &str) -> bool {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain && (text == "0" || !text.starts_with('0'))
}

fn ends(text: &str, units: &[&str]) -> bool {
    let mut units = units.iter();
    units.any(|unit| text.strip_suffix(unit).is_some_and(is_digits))
}

/// Each pattern of the schema, in Rust: a new one is added here.
fn fits(pattern: &str, text: &str) -> bool {
    let file = |text: &str| !text.starts_with(['.', '/']) && !text.contains('/');
    match pattern {
        "^[A-Za-z0-9_./+-]{1,253}$" => {
            let known = |c: char| c.is_ascii_alphanumeric() || "_./+-".contains(c);
            (1..=253).contains(&text.len()) && text.chars().all(known)
        }
        "^[^./][^/]*\\.wasm$" => file(text) && text.ends_with(".wasm") && text != ".wasm",
        "^[0-9A-Fa-f]{64}$" => text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "^(0|[1-9][0-9]*)$" => is_digits(text),
        "^(0|[1-9][0-9]*)([KMG]iB?)?$" => ends(text, &["", "Ki", "Mi", "Gi", "KiB", "MiB", "GiB"]),
        "^(0|[1-9][0-9]*)(us|µs|ms|s)$" => ends(text, &["us", "µs", "ms", "s"]),
        other => panic!("a pattern that this test does not know: {other}"),
    }
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("a type that this test does not know: {other}"),
    }
}

/// What of JSON Schema the published one uses; anything else fails the test.
fn allows(schema: &Value, value: &Value) -> bool {
    let rules = schema.as_object().unwrap();
    rules.iter().all(|(rule, what)| match rule.as_str() {
        "$schema" | "title" | "description" | "default" | "properties" => true,
        "type" => match what.as_array() {
            Some(names) => {
                let mut names = names.iter();
                names.any(|name| is_of_type(name.as_str().unwrap(), value))
            }
            None => is_of_type(what.as_str().unwrap(), value),
        },
        "enum" => what.as_array().unwrap().contains(value),
        "pattern" => value
            .as_str()
            .is_none_or(|text| fits(what.as_str().unwrap(), text)),
        "minimum" => value
            .as_i64()
            .is_none_or(|value| Some(value) >= what.as_i64()),
        "maxItems" => value
            .as_array()
            .is_none_or(|all| all.len() <= usize::try_from(what.as_u64().unwrap()).unwrap()),
        "items" => value
            .as_array()
            .is_none_or(|all| all.iter().all(|item| allows(what, item))),
        "required" => value.as_object().is_none_or(|all| {
            let mut names = what.as_array().unwrap().iter();
            names.all(|name| all.contains_key(name.as_str().unwrap()))
        }),
        "additionalProperties" => {
            assert_eq!(*what, false);
            value.as_object().is_none_or(|all| {
                let known = schema["properties"].as_object().unwrap();
                all.iter()
                    .all(|(key, value)| known.get(key).is_some_and(|rule| allows(rule, value)))
            })
        }
        other => panic!("a rule that this test does not know: {other}"),
    })
}

/// Every way in which a value is written, and some.
fn values() -> Vec<Value> {
    let texts = [
        "",
        "a",
        "a b",
        "a.wasm",
        ".a.wasm",
        "a/b.wasm",
        "/a.wasm",
        "a.WASM",
        "a.bin",
        ".wasm",
        "enforce",
        "shadow",
        "paused",
        "Enforce",
        "catalogue",
        "unhealthy",
        "ignore",
        "xid-79",
        "xid-13",
        "7",
        "07",
        "8MiB",
        "8Mi",
        "8MB",
        "8 MiB",
        "-8MiB",
        "20ms",
        "2000us",
        "2000µs",
        "1m",
        "true",
        "null",
    ];
    let mut all: Vec<Value> = texts.map(Value::from).to_vec();
    all.extend([json!(null), json!(true), json!(3), json!(-3), json!(3.5)]);
    all.extend([
        json!([]),
        json!({}),
        json!(["xid-79", "gpu-lost"]),
        json!(["xid-13"]),
        json!([7]),
    ]);
    all.extend([
        json!("e".repeat(64)),
        json!("g".repeat(64)),
        json!("n".repeat(253)),
    ]);
    all.extend([json!("n".repeat(254)), json!({"a": 1})]);
    all
}

#[track_caller]
fn agree(document: &Value) {
    let text = document.to_string();
    let parsed = parse(&text, &Limits::default());
    let is_range = |refusal: &Refusal| refusal.0.contains(": set it to between");
    match parsed {
        Ok(_) => assert!(allows(&schema(), document), "the schema refuses {text}"),
        // How much is allowed is in docs/limits.md.
        Err(refusal) if is_range(&refusal) => {}
        Err(refusal) => assert!(!allows(&schema(), document), "{text}: {refusal}"),
    }
}

#[test]
fn h7_schema_and_parser_take_the_same_values_of_every_key() {
    for value in values() {
        agree(&value);
        agree(&json!({"policies": value}));
        agree(&json!({"policies": [value]}));
        agree(&json!({"Policies": [], "policies": value}));
        for key in KEYS {
            let mut entry = json!({"name": "p"});
            entry[key] = value.clone();
            agree(&json!({"policies": [entry]}));
        }
        for limit in Limits::NAMES {
            agree(&json!({"policies": [{"name": "p", "limits": {limit: value}}]}));
        }
    }
    let entries = |count: usize| -> Vec<Value> {
        (0..count)
            .map(|at| json!({"name": format!("p{at}")}))
            .collect()
    };
    agree(&json!({"policies": entries(POLICIES_MAX)}));
    agree(&json!({"policies": entries(POLICIES_MAX + 1)}));
    agree(&json!({"policies": [{"file": "a.wasm"}]}));
    agree(&json!({"policies": [], "version": 1}));
}

#[test]
fn h7_a_key_is_written_as_it_stands_in_the_schema_and_in_no_other_way() {
    let other_ways = |key: &str| [key.replace('-', "_"), key.to_uppercase(), format!("{key} ")];
    for limit in Limits::NAMES {
        for other in other_ways(limit).iter().filter(|other| *other != limit) {
            let document = json!({"policies": [{"name": "p", "limits": {other: 7}}]});
            agree(&document);
            let Refusal(why) = parse(&document.to_string(), &Limits::default()).unwrap_err();
            assert!(
                why.contains(other.trim()) && why.contains("no such key"),
                "{why}"
            );
        }
    }
    for key in KEYS {
        for other in other_ways(key).iter().filter(|other| *other != key) {
            agree(&json!({"policies": [{"name": "p", other: "a"}]}));
        }
    }
}

#[test]
fn h7_the_schema_has_the_parsers_keys_and_words() {
    let schema = schema();
    let list = &schema["properties"]["policies"];
    let item = &list["items"]["properties"];
    assert_eq!(list["maxItems"], POLICIES_MAX);
    let keys = |properties: &Value| -> Vec<String> {
        let mut keys: Vec<String> = properties.as_object().unwrap().keys().cloned().collect();
        keys.sort_unstable();
        keys
    };
    let sorted = |names: &[&str]| {
        let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(keys(item), sorted(&KEYS));
    assert_eq!(keys(&item["limits"]["properties"]), sorted(&Limits::NAMES));
    assert_eq!(item["mode"]["enum"], json!(Mode::ALL.map(Mode::as_str)));
    let fallbacks = json!(Fallback::ALL.map(Fallback::as_str));
    assert_eq!(item["fallback"]["enum"], fallbacks);
    assert_eq!(item["grants"]["items"]["enum"], json!(floor::NAMES));
}
