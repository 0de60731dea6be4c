//! `policies.yaml`: on what terms a site runs each policy (design H7; docs/policies.md has the
//! reference). Strict: what is not understood refuses the file as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use device_api_core::floor;
use device_api_core::limits::{NAME_BYTES_MAX, POLICIES_MAX};
use device_api_core::policy_status::Mode;
use device_api_core::seating::{Fallback, Grant, Terms};
use device_api_wasm::Limits;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::directory::ENDING;

/// The file's name in the policy directory.
pub const POLICIES_FILE: &str = "policies.yaml";

/// Size of the file. A ConfigMap holds 1 MiB in all; sixteen policies with a page of configuration each
/// have some 64 KiB.
pub(crate) const FILE_BYTES_MAX: usize = 256 * 1024;

/// Digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;

/// One policy of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed {
    pub(crate) name: Arc<str>,
    /// Of its entry, from 1.
    pub(crate) line: u64,
    /// In the policy directory; `None`: the bundled one of that name.
    pub(crate) file: Option<String>,
    /// Lower-case hex.
    pub(crate) sha256: Option<String>,
    pub(crate) mode: Mode,
    pub(crate) terms: Terms,
    pub(crate) limits: Limits,
    /// JSON; empty: the guest's defaults.
    pub(crate) config: String,
}

/// Why the file is refused: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    policies: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    name: Spanned<String>,
    file: Option<Spanned<String>>,
    sha256: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
    fallback: Option<Spanned<String>>,
    #[serde(default)]
    grants: Vec<Spanned<String>>,
    #[serde(default)]
    limits: BTreeMap<String, Spanned<Scalar>>,
    config: Option<serde_json::Value>,
}

/// A limit as it is written: `64`, `16MiB` or `20ms`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(u64),
    Text(String),
}

/// Reads the file; `defaults` are the limits of an entry that names none.
pub(crate) fn parse(text: &str, defaults: &Limits) -> Result<Vec<Listed>, Refusal> {
    if text.len() > FILE_BYTES_MAX {
        return Err(Refusal(format!(
            "more than {FILE_BYTES_MAX} bytes: is it the right file?"
        )));
    }
    // `None`: an empty file, or one of comments only.
    let document: Option<Document> = serde_saphyr::from_str(text).map_err(|error| {
        let plain = error.without_snippet().to_string();
        Refusal(plain.lines().map(str::trim).collect::<Vec<_>>().join(" "))
    })?;
    let items = document
        .map(|document| document.policies)
        .unwrap_or_default();
    if items.len() > POLICIES_MAX {
        return Err(Refusal(format!(
            "policies has {} entries, and at most {POLICIES_MAX} are allowed",
            items.len()
        )));
    }
    let mut listed: Vec<Listed> = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let next = checked(at, item, defaults)?;
        if let Some(first) = listed.iter().find(|other| other.name == next.name) {
            return Err(Refusal(format!(
                "line {}, policies[{at}].name: {:?} is listed twice, on line {} too: remove one, or give a \
                 shadow a name of its own",
                next.line, next.name, first.line
            )));
        }
        listed.push(next);
    }
    Ok(listed)
}

fn checked(at: usize, item: Item, defaults: &Limits) -> Result<Listed, Refusal> {
    let line = item.name.referenced.line();
    let refused = |line: u64, field: &str, what: &str| refusal(line, at, field, what);
    let name = item.name.value;
    if !is_plain(&name) {
        let what = format!(
            "{name:?} is no name: 1 to {NAME_BYTES_MAX} letters, digits and -_./+, as the policy names itself"
        );
        return Err(refused(line, "name", &what));
    }
    if let Some(file) = &item.file {
        file_name(&file.value).map_err(|what| refused(file.referenced.line(), "file", &what))?;
    }
    if let Some(pin) = &item.sha256 {
        let is_hex = pin.value.bytes().all(|byte| byte.is_ascii_hexdigit());
        if pin.value.len() != DIGEST_DIGITS || !is_hex {
            let what = "is no SHA-256: 64 hexadecimal digits, as sha256sum prints them, in quotes";
            return Err(refused(pin.referenced.line(), "sha256", what));
        }
    }
    let word = |field, given: &Option<Spanned<String>>, known: &[&str]| match given {
        Some(given) if !known.contains(&given.value.as_str()) => {
            let what = format!("{:?} is none of {}", given.value, known.join(", "));
            Err(refused(given.referenced.line(), field, &what))
        }
        Some(given) => Ok(given.value.clone()),
        None => Ok(String::new()),
    };
    let mode = word("mode", &item.mode, &Mode::ALL.map(Mode::as_str))?;
    let fallback = word(
        "fallback",
        &item.fallback,
        &Fallback::ALL.map(Fallback::as_str),
    )?;
    let mut grants = Vec::with_capacity(item.grants.len());
    for grant in item.grants {
        let grant = word("grants", &Some(grant), &floor::NAMES)?;
        grants.push(Grant(grant.into()));
    }
    grants.sort();
    grants.dedup();
    let limits = limited(at, &item.limits, *defaults)?;
    let config = match item.config {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(config) => config.to_string(),
    };
    Ok(Listed {
        name: name.into(),
        line,
        file: item.file.map(|file| file.value),
        sha256: item.sha256.map(|pin| pin.value.to_ascii_lowercase()),
        mode: Mode::from_word(&mode).unwrap_or_default(),
        terms: Terms {
            fallback: Fallback::from_word(&fallback).unwrap_or_default(),
            grants,
        },
        limits,
        config,
    })
}

fn refusal(line: u64, at: usize, field: &str, what: &str) -> Refusal {
    Refusal(format!("line {line}, policies[{at}].{field}: {what}"))
}

fn limited(
    at: usize,
    given: &BTreeMap<String, Spanned<Scalar>>,
    mut limits: Limits,
) -> Result<Limits, Refusal> {
    for (name, value) in given {
        let text = match &value.value {
            Scalar::Number(number) => number.to_string(),
            Scalar::Text(text) => text.clone(),
        };
        limits.set(name, &text).map_err(|error| {
            let (line, field) = (value.referenced.line(), format!("limits.{name}"));
            refusal(line, at, &field, &error.to_string())
        })?;
    }
    Ok(limits)
}

/// The characters of a name that a policy may give itself (`validate`).
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(plain)
}

fn file_name(file: &str) -> Result<(), String> {
    if file.contains('/') || file.starts_with('.') || file.is_empty() {
        Err(format!(
            "{file:?} is no file name: a file right in the policy directory, without a path, not hidden"
        ))
    } else if !file.ends_with(ENDING) {
        // No other is looked at for changes.
        Err(format!(
            "{file:?} does not end in {ENDING}: rename the file"
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
