//! docs/schemas/xid-policy.schema.json and the policy's own reading of its configuration: what one takes, the
//! other takes. Values are made of the schema, so that a key or a bound that changes on one side is missed.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod validator;

use device_policy_sdk::Policy as _;
use serde_json::{Value, json};
use xid_policy::XidPolicy;

use validator::{accepts, resolve, size};

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

/// Values that a schema takes, and values that it does not.
fn samples(root: &Value, schema: &Value) -> (Vec<Value>, Vec<Value>) {
    if let Some(reference) = schema.get("$ref") {
        return samples(root, resolve(root, reference));
    }
    if let Some(words) = schema.get("enum") {
        let words = words.as_array().unwrap().clone();
        return (words, vec![json!("no-such-word"), json!(7), json!(null)]);
    }
    match schema["type"].as_str().unwrap() {
        "integer" => integers(schema),
        "array" => {
            let (good, bad) = samples(root, &schema["items"]);
            let many = vec![json!(1); size(&schema["maxItems"]) + 1];
            let mut good: Vec<Value> = good.into_iter().map(|item| json!([item])).collect();
            good.push(json!([]));
            let mut bad: Vec<Value> = bad.into_iter().map(|item| json!([item])).collect();
            bad.extend([json!(many), json!({}), json!(43)]);
            (good, bad)
        }
        "object" => objects(root, schema),
        other => panic!("type {other}"),
    }
}

fn integers(schema: &Value) -> (Vec<Value>, Vec<Value>) {
    let (least, most) = (
        schema["minimum"].as_u64().unwrap(),
        schema["maximum"].as_u64().unwrap(),
    );
    let mut bad = vec![json!("7"), json!(1.5), json!(true), json!(-1)];
    bad.extend(least.checked_sub(1).map(|less| json!(less)));
    bad.extend(most.checked_add(1).map(|more| json!(more)));
    (vec![json!(least), json!(most)], bad)
}

fn objects(root: &Value, schema: &Value) -> (Vec<Value>, Vec<Value>) {
    let (mut good, mut bad) = (vec![json!({})], vec![json!([]), json!("x")]);
    let mut under = |key: &str, schema: &Value| {
        let (goods, bads) = samples(root, schema);
        good.extend(goods.into_iter().map(|value| json!({ key: value })));
        bad.extend(bads.into_iter().map(|value| json!({ key: value })));
    };
    match &schema["additionalProperties"] {
        Value::Bool(false) => {
            for (key, schema) in schema["properties"].as_object().unwrap() {
                under(key, schema);
            }
            bad.push(json!({ "no_such_key": 1 }));
        }
        each => {
            under("46", each);
            let many = (0..=size(&schema["maxProperties"])).map(|at| (at.to_string(), json!({})));
            bad.push(Value::Object(many.collect()));
            bad.push(json!({ "x46": {} }));
            bad.push(json!({ "": {} }));
        }
    }
    (good, bad)
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
