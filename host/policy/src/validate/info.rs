//! What a policy says of itself when it is configured.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::condition::HOST_OWNED;
use device_api_core::limits::{
    OWNED_TYPES_MAX, REASON_BYTES_MAX, REASONS_PER_TYPE_MAX, SUBSCRIPTIONS_MAX,
};
use device_api_core::policy::{Filter, OwnedType, PolicyId, PolicyInfo, Subscription};
use device_api_core::signal::{Attr, SignalKind, Value};

use super::{Invalid, Valid, at_most, attrs, name, quote};
use crate::bindings::gpu::device_policy::types as wit;

/// Keys that a policy may read; docs/readings.md has two dozen.
const READINGS_MAX: usize = 128;

/// A policy's own description, and what of it this host passed over.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) info: PolicyInfo,
    /// Kinds that this host can't send; their subscriptions are skipped.
    pub(crate) unknown_kinds: Vec<String>,
}

pub(crate) fn describe(said: &wit::Info, digest: &Arc<str>) -> Valid<Described> {
    name("info.name", &said.name)?;
    name("info.version", &said.version)?;
    attrs("info.attrs", &said.attrs)?;

    at_most("info.owns", said.owns.len(), OWNED_TYPES_MAX)?;
    let mut types = BTreeSet::new();
    let mut owns = Vec::with_capacity(said.owns.len());
    for owned in &said.owns {
        owns.push(owned_type(owned)?);
        if !types.insert(&owned.condition) {
            return Err(Invalid(format!(
                "info.owns: condition {} is declared twice",
                quote(&owned.condition)
            )));
        }
    }

    at_most(
        "info.subscriptions",
        said.subscriptions.len(),
        SUBSCRIPTIONS_MAX,
    )?;
    let mut unknown_kinds = Vec::new();
    let mut subscriptions = Vec::with_capacity(said.subscriptions.len());
    for (at, subscription) in said.subscriptions.iter().enumerate() {
        match SignalKind::from_word(&subscription.kind) {
            Some(kind) => subscriptions.push(Subscription {
                kind,
                filter: filter(at, kind, &subscription.where_)?,
            }),
            None => unknown_kinds.push(quote(&subscription.kind)),
        }
    }

    at_most("info.readings", said.readings.len(), READINGS_MAX)?;
    for key in &said.readings {
        name("info.readings", key)?;
    }
    let id = PolicyId {
        name: said.name.as_str().into(),
        version: said.version.as_str().into(),
        digest: Arc::clone(digest),
    };
    let info = PolicyInfo {
        id,
        state_schema: said.state_schema,
        subscriptions,
        owns,
        readings: said.readings.clone(),
    };
    Ok(Described {
        info,
        unknown_kinds,
    })
}

fn owned_type(owned: &wit::Owned) -> Valid<OwnedType> {
    name("info.owns, condition", &owned.condition)?;
    let place = format!("info.owns, condition {}", quote(&owned.condition));
    if HOST_OWNED.contains(&owned.condition.as_str()) {
        return Err(Invalid::at(
            &place,
            "belongs to the host: choose another name",
        ));
    }
    if owned.reasons.is_empty() {
        return Err(Invalid::at(
            &place,
            "declares no reason, and needs one at least",
        ));
    }
    at_most(
        &format!("{place}, reasons"),
        owned.reasons.len(),
        REASONS_PER_TYPE_MAX,
    )?;
    let mut reasons = BTreeSet::new();
    for reason in &owned.reasons {
        if !is_camel_case(reason) || reason.len() > REASON_BYTES_MAX {
            let rule =
                format!("is not CamelCase (letters and digits, {REASON_BYTES_MAX} bytes at most)");
            return Err(Invalid::at(
                &place,
                format!("reason {} {rule}", quote(reason)),
            ));
        }
        if !reasons.insert(reason) {
            return Err(Invalid::at(
                &place,
                format!("reason {} is declared twice", quote(reason)),
            ));
        }
    }
    Ok(OwnedType {
        condition: owned.condition.clone(),
        true_is_problem: owned.true_is_problem,
        reasons: owned.reasons.clone(),
    })
}

fn is_camel_case(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric())
}

/// An unknown key is refused: to ignore it would send more than was asked for (docs/signals.md).
fn filter(at: usize, kind: SignalKind, where_: &[wit::Attr]) -> Valid<Filter> {
    let place = format!("info.subscriptions[{at}] ({kind}), where");
    let mut filter = Filter::default();
    let (mut code, mut from, mut to) = (None, None, None);
    for attr in &attrs(&place, where_)? {
        let is_code = matches!(kind, SignalKind::Xid | SignalKind::Sxid);
        let is_reading = kind == SignalKind::Reading;
        match attr.key.as_str() {
            "code" if is_code => code = Some(code_of(&place, attr)?),
            "code-from" if is_code => from = Some(code_of(&place, attr)?),
            "code-to" if is_code => to = Some(code_of(&place, attr)?),
            "key" if is_reading => filter.key = Some(text_of(&place, attr)?),
            "deadband" if is_reading => filter.deadband = number_of(&place, attr)?,
            "above" if is_reading => filter.above = Some(number_of(&place, attr)?),
            "below" if is_reading => filter.below = Some(number_of(&place, attr)?),
            "relative-to" if is_reading => filter.relative_to = Some(text_of(&place, attr)?),
            "min-interval-ms" if is_reading => {
                filter.min_interval = Some(Duration::from_millis(code_of(&place, attr)?));
            }
            _ => {
                return Err(Invalid::at(
                    &place,
                    format!("{} does not narrow this kind", quote(&attr.key)),
                ));
            }
        }
    }
    filter.codes = match (code, from, to) {
        (None, None, None) => None,
        (Some(code), None, None) => Some((code, code)),
        (None, Some(from), Some(to)) if from <= to => Some((from, to)),
        _ => {
            return Err(Invalid::at(
                &place,
                "give code alone, or code-from and a code-to that is not less",
            ));
        }
    };
    let has_threshold = filter.above.is_some() || filter.below.is_some();
    if filter.relative_to.is_some() && (filter.key.is_none() || !has_threshold) {
        return Err(Invalid::at(
            &place,
            "relative-to needs a key, and above or below, which count from the reading that it names",
        ));
    }
    if filter.deadband < 0.0 {
        return Err(Invalid::at(
            &place,
            format!("deadband {} is negative", filter.deadband),
        ));
    }
    Ok(filter)
}

fn code_of(place: &str, attr: &Attr) -> Valid<u64> {
    let code = match &attr.value {
        Value::Int(int) => u64::try_from(*int).ok(),
        Value::Flag(_) | Value::Real(_) | Value::Text(_) | Value::Bytes(_) => None,
    };
    code.ok_or_else(|| {
        Invalid::at(
            place,
            format!("{} is not an int of 0 or more", quote(&attr.key)),
        )
    })
}

fn text_of(place: &str, attr: &Attr) -> Valid<String> {
    match &attr.value {
        Value::Text(text) => name(place, text).map(|()| text.clone()),
        Value::Flag(_) | Value::Int(_) | Value::Real(_) | Value::Bytes(_) => Err(Invalid::at(
            place,
            format!("{} is not a text", quote(&attr.key)),
        )),
    }
}

fn number_of(place: &str, attr: &Attr) -> Valid<f64> {
    match &attr.value {
        Value::Real(real) => Ok(*real),
        // Readings are far below 2^53, from where on this would round.
        Value::Int(int) => Ok(*int as f64),
        Value::Flag(_) | Value::Text(_) | Value::Bytes(_) => Err(Invalid::at(
            place,
            format!("{} is not a number", quote(&attr.key)),
        )),
    }
}

#[cfg(test)]
mod tests;
