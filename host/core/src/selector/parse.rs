//! Selectors as text.

use super::{BadSelector, Field, FieldTerm, LabelTerm, Wants};
use crate::limits::{
    LABEL_VALUE_BYTES_MAX, NAME_BYTES_MAX, SELECTOR_BYTES_MAX, SELECTOR_TERMS_MAX,
    SELECTOR_VALUES_MAX,
};

fn bad<T>(why: impl Into<String>) -> Result<T, BadSelector> {
    Err(BadSelector(why.into()))
}

/// Reads a label selector; the empty one selects all.
///
/// # Errors
/// [`BadSelector`] names the term.
pub fn labels(text: &str) -> Result<Vec<LabelTerm>, BadSelector> {
    terms(text)?.into_iter().map(label_term).collect()
}

/// Reads a field selector; the empty one selects all.
///
/// # Errors
/// [`BadSelector`] names the term, and the fields there are.
pub fn fields(text: &str) -> Result<Vec<FieldTerm>, BadSelector> {
    terms(text)?.into_iter().map(field_term).collect()
}

/// Splits at the commas that are not in parentheses.
fn terms(text: &str) -> Result<Vec<&str>, BadSelector> {
    if text.len() > SELECTOR_BYTES_MAX {
        return bad(format!(
            "{} bytes; at most {SELECTOR_BYTES_MAX}",
            text.len()
        ));
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut depth = 0_usize;
    let parts: Vec<&str> = text
        .split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
        .collect();
    if parts.len() > SELECTOR_TERMS_MAX {
        return bad(format!(
            "{} terms; at most {SELECTOR_TERMS_MAX}",
            parts.len()
        ));
    }
    Ok(parts)
}

fn label_term(term: &str) -> Result<LabelTerm, BadSelector> {
    let (key, wants) = if let Some((key, value)) = term.split_once("!=") {
        (key, Wants::NotIn(vec![label_value(term, value)?]))
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (key, Wants::In(vec![label_value(term, value)?]))
    } else if let Some((head, list)) = term.split_once('(') {
        let values = label_values(term, list)?;
        match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => (*key, Wants::In(values)),
            [key, "notin"] => (*key, Wants::NotIn(values)),
            _ => {
                return bad(format!(
                    "{term:?}: write `key in (a, b)` or `key notin (a, b)`"
                ));
            }
        }
    } else if let Some(key) = term.strip_prefix('!') {
        (key, Wants::Absent)
    } else {
        (term, Wants::Exists)
    };
    Ok(LabelTerm {
        key: label_key(term, key)?,
        wants,
    })
}

fn label_key(term: &str, key: &str) -> Result<String, BadSelector> {
    let key = key.trim();
    let is_key = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    // A prefix (a DNS name), a slash and a name.
    if key.is_empty() || key.len() > NAME_BYTES_MAX + 64 || !key.bytes().all(is_key) {
        return bad(format!("{term:?}: {key:?} is no label key"));
    }
    Ok(key.to_owned())
}

fn label_value(term: &str, value: &str) -> Result<String, BadSelector> {
    let value = value.trim();
    let is_value = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.len() > LABEL_VALUE_BYTES_MAX || !value.bytes().all(is_value) {
        return bad(format!("{term:?}: {value:?} is no label value"));
    }
    Ok(value.to_owned())
}

fn label_values(term: &str, list: &str) -> Result<Vec<String>, BadSelector> {
    let Some(list) = list.trim_end().strip_suffix(')') else {
        return bad(format!("{term:?}: the list does not end in ')'"));
    };
    let values = list
        .split(',')
        .map(|value| label_value(term, value))
        .collect::<Result<Vec<_>, _>>()?;
    if values.len() > SELECTOR_VALUES_MAX {
        return bad(format!(
            "{} values in one list; at most {SELECTOR_VALUES_MAX}",
            values.len()
        ));
    }
    Ok(values)
}

fn field_term(term: &str) -> Result<FieldTerm, BadSelector> {
    let (path, equal, value) = if let Some((path, value)) = term.split_once("!=") {
        (path, false, value)
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, true, value)
    } else {
        return bad(format!("{term:?}: write `field=value` or `field!=value`"));
    };
    let path = path.trim();
    let Some(field) = Field::ALL.into_iter().find(|field| field.path() == path) else {
        let known: Vec<_> = Field::ALL.into_iter().map(Field::path).collect();
        return bad(format!(
            "{path:?} is no field to select by; these are: {}",
            known.join(", ")
        ));
    };
    Ok(FieldTerm {
        field,
        equal,
        value: value.trim().to_owned(),
        pci: value.trim().parse().ok(),
    })
}
