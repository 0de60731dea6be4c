//! What the chart knows of our settings is made of the table of flags: per key of `config` a rule of its schema, and the
//! bounds of durations and sizes, which a schema can't compare, for its templates.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;

use clap::{Arg, ArgAction, CommandFactory};
use serde_json::{Value, json};

use super::Args;
use crate::config;
use crate::limits::for_chart as limits;
use crate::units::{parse_duration, parse_size};

/// Set to anything, the test writes the files instead of comparing them.
const WRITE: &str = "WRITE_DOCS";

const SCHEMA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../charts/device-api-server/values.schema.json"
);
const BOUNDS_FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../charts/device-api-server/files/bounds.yaml"
);

/// What the schema has around the rules of `config`.
const BEGIN: &str = "      \"$comment\": \"Generated: `WRITE_DOCS=1 cargo test -p device-api-runtime chart` writes it anew.\",\n      \"additionalProperties\": false,\n      \"properties\": {\n";
const END: &str = "\n      }\n    },\n    \"log\": {";

const DURATION: &str = "[0-9]+(us|µs|ms|s|m|h)";
const SIZE: &str = "[0-9]+((K|M|G)iB?)?";

/// What comes before the amount, the least and the most of each setting that is one. The daemon is asked below whether
/// they are so.
const BOUNDS: [(&str, &str, &str, &str); 10] = [
    ("provider-timeout", "uid:1001=", "1s", "24h"),
    ("shutdown-timeout", "", "0s", "10m"),
    ("nvml-poll-interval", "", "100ms", "1m"),
    ("nvml-fault-interval", "", "100ms", "1m"),
    ("nvml-counter-interval", "", "100ms", "1h"),
    ("nvml-limit-interval", "", "100ms", "1h"),
    ("nvml-inventory-interval", "", "100ms", "1h"),
    ("nvml-stale-after", "", "100ms", "1h"),
    ("policy-deadline", "", "1ms", "25ms"),
    ("policy-memory", "", "1MiB", "256MiB"),
];

fn settings() -> Vec<Arg> {
    let command = Args::command();
    let settings = command.get_arguments().filter(|arg| {
        let other = ["config", "check-config", "help", "version"];
        arg.get_long().is_some_and(|flag| !other.contains(&flag))
    });
    settings.cloned().collect()
}

fn words(pattern: &str) -> Value {
    json!({"type": "string", "pattern": format!("^{pattern}$")})
}

fn numbers(min: u64, max: u64) -> Value {
    json!({"type": "integer", "minimum": min, "maximum": max})
}

/// Of one value.
fn rule(arg: &Arg) -> Value {
    if matches!(arg.get_action(), ArgAction::Count) {
        return numbers(0, 2);
    }
    let values = arg.get_possible_values();
    let values: Vec<_> = values.iter().map(|value| value.get_name()).collect();
    let name = arg.get_value_names().expect("a value").join(" ");
    let identity = |kinds: &str| format!("({kinds}):.+");
    match &*name {
        // As YAML has it, and as a word.
        "BOOL" => json!({"enum": [true, false, "true", "false"]}),
        _ if !values.is_empty() => json!({"enum": values}),
        "PATH" | "IP" | "IP:PORT" => json!({"type": "string"}),
        "PORT" => numbers(0, u16::MAX.into()),
        "UID" | "GID" => numbers(0, u32::MAX.into()),
        "DURATION" => words(DURATION),
        "SIZE" => json!({"anyOf": [words(SIZE), {"type": "integer", "minimum": 0}]}),
        "IDENTITY" => words(&identity("cn|dns|uri")),
        "IDENTITY=DURATION" => words(&format!("{}={DURATION}", identity("uid|cn|dns|uri"))),
        "PATTERN=POLARITY" => {
            let letters = "[-A-Za-z0-9_./]";
            words(&format!(
                "({letters}+|{letters}*\\*{letters}*)=(true-is-healthy|true-is-problem)"
            ))
        }
        "XIDS" => {
            let number = json!({"type": "integer", "minimum": 0});
            let list = words(" *([0-9]+ *(, *[0-9]+ *)*)?");
            json!({"anyOf": [list, number, {"type": "array", "minItems": 1, "items": number}]})
        }
        "NAME=VALUE" => {
            let names: Vec<_> = limits().iter().map(|limit| limit.name).collect();
            words(&format!("({})=.+", names.join("|")))
        }
        other => panic!("{other}: say what the chart may take for it"),
    }
}

fn list_or_one(arg: &Arg) -> Value {
    let one = rule(arg);
    if matches!(arg.get_action(), ArgAction::Append) {
        json!({"anyOf": [one, {"type": "array", "minItems": 1, "items": one}]})
    } else {
        one
    }
}

fn rule_of_limits() -> Value {
    let mut properties = serde_json::Map::new();
    for limit in limits() {
        let rule = match limit.unit {
            "count" => numbers(limit.min, limit.max),
            "duration" => words(DURATION),
            "size" => json!({"anyOf": [words(SIZE), {"type": "integer", "minimum": 0}]}),
            other => panic!("{other}: say what the chart may take for it"),
        };
        properties.insert(limit.name.to_owned(), rule);
    }
    json!({"type": "object", "minProperties": 1, "additionalProperties": false, "properties": properties})
}

/// On one line; the same whatever order the map of a build has.
fn line(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<_> = fields
                .iter()
                .map(|(key, value)| format!("\"{key}\": {}", line(value)))
                .collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(line).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

fn rules() -> String {
    let mut rules: Vec<_> = settings()
        .iter()
        .map(|arg| (arg.get_long().expect("a flag").to_owned(), list_or_one(arg)))
        .collect();
    rules.push(("limits".to_owned(), rule_of_limits()));
    rules.sort_by(|(a, _), (b, _)| a.cmp(b));
    let lines: Vec<_> = rules
        .iter()
        .map(|(key, rule)| format!("        \"{key}\": {}", line(rule)))
        .collect();
    lines.join(",\n")
}

fn bounds() -> String {
    let mut text =
        "# Generated: `WRITE_DOCS=1 cargo test -p device-api-runtime chart` writes it anew.\n"
            .to_owned();
    for (setting, _, min, max) in BOUNDS {
        writeln!(text, "{setting}: [{min}, {max}]").expect("written");
    }
    let settings = settings();
    let of = |flag: &str| {
        let arg = settings.iter().find(|arg| arg.get_long() == Some(flag));
        let defaults = arg.expect("a flag").get_default_values();
        defaults.first().expect("a default").to_string_lossy()
    };
    text += &format!(
        "defaults:\n  shutdown-timeout: {}\n",
        of("shutdown-timeout")
    );
    text += "limits:\n";
    for limit in limits().iter().filter(|limit| limit.unit != "count") {
        writeln!(
            text,
            "  {}: [{}, {}]",
            limit.name, limit.shown_min, limit.shown_max
        )
        .expect("written");
    }
    text
}

#[test]
fn what_the_chart_knows_of_the_settings_is_what_the_table_has() {
    let schema = fs::read_to_string(SCHEMA).expect("the schema");
    let (before, rest) = schema.split_once(BEGIN).expect("where it begins");
    let (old, after) = rest.split_once(END).expect("where it ends");
    let (rules, bounds) = (rules(), bounds());
    if std::env::var_os(WRITE).is_some() {
        fs::write(SCHEMA, [before, BEGIN, &rules, END, after].concat()).expect("written");
        fs::write(BOUNDS_FILE, bounds).expect("written");
        return;
    }
    assert!(
        old == rules,
        "values.schema.json is stale: {WRITE}=1 writes it anew"
    );
    let is = fs::read_to_string(BOUNDS_FILE).expect("the bounds");
    assert!(
        is == bounds,
        "files/bounds.yaml is stale: {WRITE}=1 writes it anew"
    );
}

#[test]
fn the_bounds_that_the_chart_knows_are_the_daemons() {
    let takes = |flag: &str, value: &str| {
        let argv = ["device-api-server".into(), format!("--{flag}={value}")];
        config::load(&argv.map(OsString::from), &|_| None).is_ok()
    };
    for (flag, before, min, max) in BOUNDS {
        let amount = |text: &str| -> (u64, &str) {
            parse_duration(text).map_or_else(
                |_| (parse_size(text).expect("an amount").bytes, ""),
                |time| (u64::try_from(time.as_micros()).expect("a bound"), "us"),
            )
        };
        for (value, fits) in [
            (Some(amount(min)), true),
            (Some(amount(max)), true),
            (
                amount(min)
                    .0
                    .checked_sub(1)
                    .map(|less| (less, amount(min).1)),
                false,
            ),
            (Some((amount(max).0 + 1, amount(max).1)), false),
        ] {
            let Some((value, unit)) = value else { continue };
            let value = format!("{before}{value}{unit}");
            assert_eq!(takes(flag, &value), fits, "--{flag}={value}");
        }
    }
    let amounts = settings();
    let amounts = amounts.iter().filter(|arg| {
        let name = arg.get_value_names().unwrap_or_default().join(" ");
        name.ends_with("DURATION") || name == "SIZE"
    });
    for arg in amounts {
        let flag = arg.get_long().expect("a flag");
        assert!(
            BOUNDS.iter().any(|(other, ..)| *other == flag),
            "--{flag}: say its bounds"
        );
    }
}
