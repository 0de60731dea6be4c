//! As much of JSON Schema as the schemas of the bundled policies use; a keyword that it does not know fails the
//! test, so that none is believed to be checked which is not.

use serde_json::{Map, Value};

/// The only pattern in use: a code.
const CODE: &str = "^[0-9]{1,19}$";

/// Keywords that say nothing of validity.
const PROSE: [&str; 5] = ["$schema", "$defs", "title", "description", "default"];

/// Whether the schema takes the value.
pub(crate) fn accepts(root: &Value, schema: &Value, value: &Value) -> bool {
    keywords(schema)
        .iter()
        .filter(|(keyword, _)| !PROSE.contains(&keyword.as_str()))
        .all(|(keyword, rule)| keyword_accepts(root, schema, keyword, rule, value))
}

fn keyword_accepts(
    root: &Value,
    schema: &Value,
    keyword: &str,
    rule: &Value,
    value: &Value,
) -> bool {
    match keyword {
        "$ref" => accepts(root, resolve(root, rule), value),
        "enum" => rule.as_array().unwrap().contains(value),
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "integer" => value.is_i64() || value.is_u64(),
            other => panic!("type {other}"),
        },
        "minimum" => value.as_number().is_none_or(|_| at_least(value, rule)),
        "maximum" => value.as_number().is_none_or(|_| at_least(rule, value)),
        "maxItems" => value
            .as_array()
            .is_none_or(|items| items.len() <= size(rule)),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| accepts(root, rule, item))),
        "maxProperties" => value.as_object().is_none_or(|map| map.len() <= size(rule)),
        "propertyNames" => {
            assert_eq!(*rule, serde_json::json!({ "pattern": CODE }));
            let is_code = |name: &String| {
                (1..=19).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_digit())
            };
            value.as_object().is_none_or(|map| map.keys().all(is_code))
        }
        "required" => value.as_object().is_none_or(|map| {
            let keys = rule.as_array().unwrap().iter();
            keys.map(|key| key.as_str().unwrap())
                .all(|key| map.contains_key(key))
        }),
        "properties" => value.as_object().is_none_or(|map| {
            map.iter().all(|(key, value)| {
                rule.get(key)
                    .is_none_or(|schema| accepts(root, schema, value))
            })
        }),
        "additionalProperties" => value.as_object().is_none_or(|map| {
            let known = |key: &String| {
                schema
                    .get("properties")
                    .is_some_and(|known| known.get(key).is_some())
            };
            map.iter()
                .filter(|(key, _)| !known(key))
                .all(|(_, value)| *rule != Value::Bool(false) && accepts(root, rule, value))
        }),
        other => panic!("the keyword {other:?} is not checked: teach it to this test"),
    }
}

pub(crate) fn resolve<'a>(root: &'a Value, reference: &Value) -> &'a Value {
    let path = reference.as_str().unwrap().strip_prefix('#').unwrap();
    root.pointer(path).expect("what $ref points to")
}

pub(crate) fn size(rule: &Value) -> usize {
    usize::try_from(rule.as_u64().unwrap()).unwrap()
}

fn at_least(value: &Value, other: &Value) -> bool {
    match (value.as_u64(), other.as_u64()) {
        (Some(value), Some(other)) => value >= other,
        _ => value.as_f64() >= other.as_f64(),
    }
}

fn keywords(schema: &Value) -> &Map<String, Value> {
    schema.as_object().expect("a schema")
}
