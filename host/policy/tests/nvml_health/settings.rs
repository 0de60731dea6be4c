//! What an operator may set, as docs/schemas/nvml-health.schema.json has it, and what is refused.

use serde_json::Value;

use crate::bench::try_load;

pub(crate) fn schema() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/schemas/nvml-health.schema.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A table of the keys of an object's schema.
pub(crate) fn table(properties: &Value) -> String {
    let mut text = "| key | what | range | default |\n| --- | --- | --- | --- |\n".to_owned();
    for (key, of) in properties.as_object().unwrap() {
        let what = of["description"].as_str().unwrap_or_default();
        let range = match (&of["minimum"], &of["maximum"]) {
            (Value::Number(least), Value::Number(most)) => format!("{least} to {most}"),
            _ => String::new(),
        };
        let default = match of.get("default") {
            Some(Value::String(word)) => format!("`{word}`"),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        text += &format!("| `{key}` | {what} | {range} | {default} |\n");
    }
    text
}

/// Configurations that are refused.
pub(crate) const REFUSED: [&str; 6] = [
    r#"{"throttle_quiet": 30}"#,
    r#"{"throttle_quiet_s": "30s"}"#,
    r#"{"temperature_max_c": 353}"#,
    r#"{"disabled": ["GpuLost"]}"#,
    r#"{"rates": {"pcie.replay": {"count": 9}}}"#,
    r#"{"rates": {"pcie.replays": {"within_s": 60}}}"#,
];

/// Why, in the component's words.
pub(crate) fn refusal(config: &str) -> String {
    let why = try_load(config).expect_err(config);
    let (_, why) = why.split_once("config: ").unwrap_or(("", &why));
    why.to_owned()
}

#[test]
fn where_a_key_is_refused_the_component_names_those_of_the_schema() {
    let root = schema();
    let named = |config: &str| -> Vec<String> {
        let why = refusal(config);
        let (_, keys) = why.split_once("the keys here are ").expect(&why);
        let (keys, _) = keys.split_once(" (").expect(&why);
        let mut keys: Vec<String> = keys.split(", ").map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    };
    let described = |schema: &Value| -> Vec<String> {
        let mut keys: Vec<String> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(named(r#"{"no_such_key": 1}"#), described(&root));
    assert_eq!(
        named(r#"{"rates": {"pcie.replays": {"count": 1, "no_such_key": 1}}}"#),
        described(&root["$defs"]["rate"])
    );
    assert!(
        refusal(r#"{"rates": {"x": {}}}"#)
            .starts_with("rates.x: expected one of ecc.volatile.corrected, ")
    );
}
