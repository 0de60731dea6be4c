//! docs/schemas/xid-policy.schema.json and the policy's own reading of its configuration: what one takes, the
//! other takes. Values are made of the schema, so that a key or a bound that changes on one side is missed.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod samples;
mod validator;

use device_policy_sdk::Policy as _;
use serde_json::Value;
use xid_policy::XidPolicy;

use samples::samples;
use validator::accepts;

/// What the policy refuses beyond its schema, which can't say it.
const BEYOND: [&str; 2] = ["never fills", "is also in"];

fn schema() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/schemas/xid-policy.schema.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn policy(config: &Value) -> Result<(), String> {
    XidPolicy::configure(&config.to_string()).map(drop)
}

#[track_caller]
fn agree(root: &Value, config: &Value) -> bool {
    let schemas = accepts(root, root, config);
    let read = policy(config);
    let is_beyond = |why: &String| BEYOND.iter().any(|word| why.contains(word));
    let short: String = config.to_string().chars().take(300).collect();
    match &read {
        Ok(()) => assert!(schemas, "the policy takes, the schema refuses {short}"),
        Err(why) if schemas => assert!(is_beyond(why), "the schema takes {short}: {why}"),
        Err(_) => {}
    }
    schemas
}

#[test]
fn the_schema_and_the_policy_take_the_same() {
    let root = schema();
    let (good, bad) = samples(&root, &root);
    assert!(
        good.len() > 25 && bad.len() > 50,
        "{} {}",
        good.len(),
        bad.len()
    );
    for config in &good {
        assert!(agree(&root, config), "made as valid: {config}");
    }
    for config in &bad {
        assert!(!agree(&root, config), "made as invalid: {config}");
    }
}
