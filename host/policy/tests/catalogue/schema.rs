//! docs/schemas/xid-policy.schema.json beside the component. That both take the same values is tested where the policy
//! is built (plugins/xid-policy/tests/schema), since a component takes half a second to load.

use serde_json::{Value, json};

use crate::asked::try_load;
use crate::validator::accepts;

pub(crate) fn schema() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/schemas/xid-policy.schema.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn component(config: &Value) -> Result<(), String> {
    try_load(&config.to_string(), 100_000).map(drop)
}

/// Where the component refuses a key it names those that it knows: the schema's, at each depth.
#[test]
fn the_schema_has_the_components_keys() {
    let root = schema();
    let inner = |key: &str| &root["properties"][key]["additionalProperties"];
    for (config, schema) in [
        (json!({ "no_such_key": 1 }), &root),
        (
            json!({ "overrides": { "46": { "no_such_key": 1 } } }),
            inner("overrides"),
        ),
        (
            json!({ "windows": { "46": { "no_such_key": 1 } } }),
            inner("windows"),
        ),
    ] {
        let why = component(&config).unwrap_err();
        let known = why.split("the keys here are ").nth(1).expect(&why);
        let mut known: Vec<&str> = known.trim().split(", ").collect();
        known.sort_unstable();
        let mut described: Vec<&String> =
            schema["properties"].as_object().unwrap().keys().collect();
        described.sort_unstable();
        assert_eq!(described, known, "{why}");
    }
}

#[test]
fn what_only_the_policy_can_refuse_is_told_with_what_to_do() {
    for (config, part) in [
        (
            json!({ "ignored": [43], "extra_fatal": [43] }),
            "ignored: 43 is also in extra_fatal or overrides; say one of them",
        ),
        (
            json!({ "extra_fatal": [43], "overrides": { "43": {} } }),
            "extra_fatal: 43 is also in overrides; say one of them",
        ),
        (
            json!({ "windows": { "13": { "count": 3, "within_s": 120 } } }),
            "lower apart_s or count",
        ),
    ] {
        assert!(accepts(&schema(), &schema(), &config), "{config}");
        let why = component(&config).unwrap_err();
        assert!(why.contains(part), "{why}");
    }
}
