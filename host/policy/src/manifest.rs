//! `policies.yaml`: on what terms a site runs each policy (design H7; docs/policies.md has the
//! reference). Strict: what is not understood refuses the file as a whole.

mod tree;
mod words;

use std::sync::Arc;

use device_api_core::floor;
use device_api_core::limits::{
    NAME_BYTES_MAX, POLICIES_FILE_BYTES_MAX as FILE_BYTES_MAX, POLICIES_MAX,
};
use device_api_core::policy_status::Mode;
use device_api_core::seating::{Fallback, Grant, Terms};
use device_api_wasm::Limits;

use crate::directory::ENDING;
use tree::Field;

/// The file's name in the policy directory.
pub const POLICIES_FILE: &str = "policies.yaml";

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

impl Refusal {
    fn and(self, more: &str) -> Self {
        Self(self.0 + more)
    }
}

/// The keys of an entry.
const KEYS: [&str; 8] = [
    "name", "file", "sha256", "mode", "fallback", "grants", "limits", "config",
];

/// Reads the file; `defaults` are the limits of an entry that names none.
///
/// # Errors
/// Where it is wrong, in one line. A file that lists nothing has to say so: one that was cut short or emptied
/// would else have shadows judge and the paused asked.
pub(crate) fn parse(text: &str, defaults: &Limits) -> Result<Vec<Listed>, Refusal> {
    if text.len() > FILE_BYTES_MAX {
        return Err(too_large());
    }
    let root = tree::read(text)?;
    let root = Field::whole(text, &root);
    let keys = if root.is_empty() {
        Vec::new()
    } else {
        root.entries(&["policies"])?
    };
    let policies = keys.into_iter().map(|(_, field)| field).next();
    let Some(policies) = policies.filter(|field| !field.is_empty()) else {
        return Err(Refusal(
            "it has no list of policies: give `policies:` its entries, write `policies: []` to list none, or remove the file"
                .to_owned(),
        ));
    };
    let items = policies.items("policies, each with a name")?;
    if items.len() > POLICIES_MAX {
        return Err(policies.refused(&format!(
            "it has {} entries, and at most {POLICIES_MAX} are allowed",
            items.len()
        )));
    }
    let mut listed: Vec<(Listed, Field<'_>)> = Vec::with_capacity(items.len());
    for item in items {
        let (next, name) = entry(&item, defaults)?;
        if let Some((first, _)) = listed.iter().find(|(other, _)| other.name == next.name) {
            return Err(name.refused(&format!(
                "{:?} is listed twice, on line {} too: remove one, or give a shadow a name of its own",
                next.name, first.line
            )));
        }
        listed.push((next, name));
    }
    Ok(listed.into_iter().map(|(listed, _)| listed).collect())
}

pub(crate) fn too_large() -> Refusal {
    Refusal(format!(
        "it has more than {FILE_BYTES_MAX} bytes: is it the right file?"
    ))
}

/// With its name's place.
fn entry<'a>(item: &Field<'a>, defaults: &Limits) -> Result<(Listed, Field<'a>), Refusal> {
    let mut name = None;
    let mut listed = Listed {
        name: "".into(),
        line: item.line(),
        file: None,
        sha256: None,
        mode: Mode::default(),
        terms: Terms::default(),
        limits: *defaults,
        config: String::new(),
    };
    for (key, field) in item.entries(&KEYS)? {
        match key {
            "name" => {
                listed.name = policy_name(&field)?.into();
                listed.line = field.line();
                name = Some(field);
            }
            "file" => listed.file = Some(file_name(&field)?.to_owned()),
            "sha256" => listed.sha256 = Some(digest(&field)?),
            "mode" => {
                let word = field.word(&Mode::ALL.map(Mode::as_str))?;
                listed.mode = Mode::from_word(word).unwrap_or_default();
            }
            "fallback" => {
                let word = field.word(&Fallback::ALL.map(Fallback::as_str))?;
                listed.terms.fallback = Fallback::from_word(word).unwrap_or_default();
            }
            "grants" => listed.terms.grants = grants(&field)?,
            "limits" => listed.limits = limited(&field, *defaults)?,
            // All that there are.
            _ => listed.config = config(&field)?,
        }
    }
    match name {
        Some(name) => Ok((listed, name)),
        None => {
            Err(item.refused("its name is missing: give it a `name`, as the policy names itself"))
        }
    }
}

fn policy_name<'a>(field: &Field<'a>) -> Result<&'a str, Refusal> {
    let name = field.text("a name")?;
    if is_plain(name) {
        return Ok(name);
    }
    let shown = field.shown();
    Err(field.refused(&format!(
        "{shown} is no name: 1 to {NAME_BYTES_MAX} letters, digits and -_./+, as the policy names itself"
    )))
}

fn digest(field: &Field<'_>) -> Result<String, Refusal> {
    let pin = field.text("a SHA-256")?;
    if pin.len() == DIGEST_DIGITS && pin.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(pin.to_ascii_lowercase());
    }
    let shown = field.shown();
    Err(field.refused(&format!(
        "{shown} is no SHA-256: {DIGEST_DIGITS} hexadecimal digits, as sha256sum prints them, in quotes"
    )))
}

fn grants(field: &Field<'_>) -> Result<Vec<Grant>, Refusal> {
    let items = field.items("names of floors")?.into_iter();
    let mut grants = items
        .map(|item| Ok(Grant(item.word(&floor::NAMES)?.into())))
        .collect::<Result<Vec<_>, Refusal>>()?;
    grants.sort();
    grants.dedup();
    Ok(grants)
}

fn limited(field: &Field<'_>, mut limits: Limits) -> Result<Limits, Refusal> {
    for (name, value) in field.entries(&Limits::NAMES)? {
        let text = value.scalar("a number, or one with its unit, as in 16MiB or 5ms,")?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 1 && text.starts_with('0') {
            let what =
                format!("{text} begins with 0, which may be read as octal: write it without");
            return Err(value.refused(&what));
        }
        limits
            .set(name, &text)
            .map_err(|error| value.refused(&error.to_string()))?;
    }
    Ok(limits)
}

fn config(field: &Field<'_>) -> Result<String, Refusal> {
    let config = field.json()?;
    Ok(if config.is_null() {
        String::new()
    } else {
        config.to_string()
    })
}

/// The characters of a name that a policy may give itself (`validate`).
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(plain)
}

fn file_name<'a>(field: &Field<'a>) -> Result<&'a str, Refusal> {
    let file = field.text("the name of a file")?;
    let what = if file.contains('/') || file.starts_with('.') || file.is_empty() {
        "is no file name: a file right in the policy directory, without a path, not hidden"
            .to_owned()
    } else if !file.ends_with(ENDING) {
        // No other is looked at for changes.
        format!("does not end in {ENDING}: rename the file")
    } else {
        return Ok(file);
    };
    Err(field.refused(&format!("{} {what}", field.shown())))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod documents_tests;

#[cfg(test)]
mod schema_tests;

#[cfg(test)]
mod words_tests;
