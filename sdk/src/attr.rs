//! Attributes by key.

use crate::types::{Attr, Value};

/// The value named `key`.
pub fn find<'a>(attrs: &'a [Attr], key: &str) -> Option<&'a Value> {
    attrs
        .iter()
        .find(|attr| attr.key == key)
        .map(|attr| &attr.value)
}

/// The text named `key`; `None` where it is absent or no text.
pub fn text<'a>(attrs: &'a [Attr], key: &str) -> Option<&'a str> {
    match find(attrs, key)? {
        Value::Text(text) => Some(text),
        Value::Flag(_) | Value::Int(_) | Value::Real(_) | Value::Bytes(_) => None,
    }
}

/// The integer named `key`, or a flag as 0 and 1; `None` where it is absent or neither.
pub fn int(attrs: &[Attr], key: &str) -> Option<i64> {
    match find(attrs, key)? {
        Value::Int(value) => Some(*value),
        Value::Flag(value) => Some(i64::from(*value)),
        Value::Real(_) | Value::Text(_) | Value::Bytes(_) => None,
    }
}

/// A text attribute.
pub fn of_text(key: &str, value: impl Into<String>) -> Attr {
    Attr {
        key: key.to_owned(),
        value: Value::Text(value.into()),
    }
}

/// An integer attribute.
pub fn of_int(key: &str, value: i64) -> Attr {
    Attr {
        key: key.to_owned(),
        value: Value::Int(value),
    }
}
