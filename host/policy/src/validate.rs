//! What a guest says, held against the contract. Words that this host does not know are counted and
//! read as the contract has it; anything else outside of it is refused as a whole, saying where.

pub(crate) mod decision;
pub(crate) mod info;

use device_api_core::limits::{ATTRS_PER_SIGNAL_MAX, NAME_BYTES_MAX};
use device_api_core::signal::{Attr, Value, printable};

use crate::bindings::gpu::device_policy::types as wit;

/// Length of one value of an attribute; evidence, the longest that the host hands out, has as much.
const ATTR_VALUE_BYTES_MAX: usize = 1024;

/// How much of a guest's word is quoted in a message about it.
const QUOTE_BYTES_MAX: usize = 64;

/// What is wrong and where, for an operator or a policy's author to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid(pub(crate) String);

type Valid<T> = Result<T, Invalid>;

impl Invalid {
    fn at(place: &str, what: impl std::fmt::Display) -> Self {
        Self(format!("{place}: {what}"))
    }
}

fn quote(text: &str) -> String {
    let shown = printable(text, QUOTE_BYTES_MAX);
    let more = if text.len() > QUOTE_BYTES_MAX {
        "…"
    } else {
        ""
    };
    format!("\"{shown}{more}\"")
}

fn at_most(place: &str, count: usize, max: usize) -> Valid<()> {
    if count > max {
        Err(Invalid::at(
            place,
            format!("{count} entries, and at most {max} are allowed"),
        ))
    } else {
        Ok(())
    }
}

/// A name that becomes a label, an owner, a type: bounded, and nothing to escape in it.
fn name(place: &str, text: &str) -> Valid<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    if text.is_empty() {
        Err(Invalid::at(place, "is empty"))
    } else if text.len() > NAME_BYTES_MAX {
        Err(Invalid::at(
            place,
            format!(
                "has {} bytes, and at most {NAME_BYTES_MAX} are allowed",
                text.len()
            ),
        ))
    } else if text.chars().all(is_plain) {
        Ok(())
    } else {
        Err(Invalid::at(
            place,
            format!(
                "{} has characters other than letters, digits and -_./+",
                quote(text)
            ),
        ))
    }
}

fn attrs(place: &str, attrs: &[wit::Attr]) -> Valid<Vec<Attr>> {
    at_most(place, attrs.len(), ATTRS_PER_SIGNAL_MAX)?;
    attrs.iter().map(|given| attr(place, given)).collect()
}

fn attr(place: &str, given: &wit::Attr) -> Valid<Attr> {
    name(&format!("{place}, key of an attribute"), &given.key)?;
    let place = format!("{place}, attribute {}", quote(&given.key));
    let bounded = |bytes: usize| match bytes {
        0..=ATTR_VALUE_BYTES_MAX => Ok(()),
        _ => Err(Invalid::at(
            &place,
            format!("has {bytes} bytes, and at most {ATTR_VALUE_BYTES_MAX} are allowed"),
        )),
    };
    let value = match &given.value {
        wit::Value::Flag(flag) => Value::Flag(*flag),
        wit::Value::Int(int) => Value::Int(*int),
        wit::Value::Real(real) => Value::Real(finite(&place, *real)?),
        wit::Value::Text(text) => {
            bounded(text.len())?;
            Value::Text(printable(text, ATTR_VALUE_BYTES_MAX))
        }
        wit::Value::Bytes(bytes) => {
            bounded(bytes.len())?;
            Value::Bytes(bytes.clone())
        }
    };
    Ok(Attr {
        key: given.key.clone(),
        value,
    })
}

fn finite(place: &str, real: f64) -> Valid<f64> {
    if real.is_finite() {
        Ok(real)
    } else {
        Err(Invalid::at(place, format!("{real} is not a finite number")))
    }
}
