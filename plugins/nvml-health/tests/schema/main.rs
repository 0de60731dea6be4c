//! docs/schemas/nvml-health.schema.json and the policy's own reading of its configuration: what one takes, the
//! other takes; and the defaults that the schema tells are the policy's.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

// The one checker of schemas.
#[path = "../../../xid-policy/tests/schema/samples.rs"]
mod samples;
#[path = "../../../xid-policy/tests/schema/validator.rs"]
mod validator;

use device_policy_sdk::Policy as _;
use nvml_health::NvmlHealth;
use serde_json::{Value, json};

use samples::samples;
use validator::accepts;

fn schema() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/schemas/nvml-health.schema.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn policy(config: &Value) -> Result<(), String> {
    NvmlHealth::configure(&config.to_string()).map(drop)
}

#[test]
fn the_schema_and_the_policy_take_the_same() {
    let root = schema();
    let (good, bad) = samples(&root, &root);
    assert!(
        good.len() > 300 && bad.len() > 400,
        "{} {}",
        good.len(),
        bad.len()
    );
    for config in &good {
        assert!(accepts(&root, &root, config), "made as valid: {config}");
        assert_eq!(policy(config), Ok(()), "{config}");
    }
    for config in &bad {
        assert!(!accepts(&root, &root, config), "made as invalid: {config}");
        let why = policy(config).expect_err("made as invalid");
        assert!(why.starts_with("config: "), "{config}: {why}");
    }
}

/// A default that is written out must change nothing.
#[test]
fn the_schemas_defaults_are_the_policys() {
    let root = schema();
    let debug = |config: &Value| {
        let (policy, _) = NvmlHealth::configure(&config.to_string()).unwrap();
        format!("{policy:?}")
    };
    let written = |schema: &Value| -> Value {
        let properties = schema["properties"].as_object().unwrap().iter();
        let given =
            properties.filter_map(|(key, of)| Some((key.clone(), of.get("default")?.clone())));
        Value::Object(given.collect())
    };
    let defaults = written(&root);
    assert!(defaults.as_object().unwrap().len() >= 6, "{defaults}");
    assert_eq!(debug(&defaults), debug(&json!({})));
    let mut rate = written(&root["$defs"]["rate"]);
    assert_eq!(rate.as_object().unwrap().len(), 4, "{rate}");
    rate["count"] = json!(5);
    let rates = |rate: &Value| json!({ "rates": { "ecc.volatile.corrected": rate } });
    assert_eq!(debug(&rates(&rate)), debug(&rates(&json!({ "count": 5 }))));
}
