//! Values made of a schema, so that a key or a bound that changes on one side is missed.

use serde_json::{Map, Value, json};

use crate::validator::{resolve, size};

/// Values that a schema takes, and values that it does not.
pub(crate) fn samples(root: &Value, schema: &Value) -> (Vec<Value>, Vec<Value>) {
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
    let (bare, mut good) = (bare(root, schema), Vec::new());
    let mut bad = vec![json!([]), json!("x")];
    let with = |key: &str, value: Value| {
        let mut object = bare.clone();
        object.insert(key.to_owned(), value);
        Value::Object(object)
    };
    good.push(Value::Object(bare.clone()));
    for needed in bare.keys() {
        let mut less = bare.clone();
        less.remove(needed);
        bad.push(Value::Object(less));
    }
    let mut under = |key: &str, schema: &Value| {
        let (goods, bads) = samples(root, schema);
        good.extend(goods.into_iter().map(|value| with(key, value)));
        bad.extend(bads.into_iter().map(|value| with(key, value)));
    };
    let each = &schema["additionalProperties"];
    if *each == Value::Bool(false) {
        for (key, schema) in schema["properties"].as_object().unwrap() {
            under(key, schema);
        }
        bad.push(with("no_such_key", json!(1)));
    } else {
        under("46", each);
        let many = (0..=size(&schema["maxProperties"])).map(|at| (at.to_string(), json!({})));
        bad.push(Value::Object(many.collect()));
        bad.push(json!({ "x46": {} }));
        bad.push(json!({ "": {} }));
    }
    (good, bad)
}

/// An object with no more than it needs.
fn bare(root: &Value, schema: &Value) -> Map<String, Value> {
    let required = schema.get("required").and_then(Value::as_array);
    let needed = required.into_iter().flatten().map(|key| {
        let key = key.as_str().unwrap();
        let (good, _) = samples(root, &schema["properties"][key]);
        (key.to_owned(), good[0].clone())
    });
    needed.collect()
}
