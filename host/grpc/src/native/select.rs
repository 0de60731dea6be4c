//! What a list or a watch selects.

use device_api_core::selector::{self, BadSelector, Selection};

use crate::fields::{FieldError, scope};

pub(super) fn selection(
    namespace: &str,
    labels: &str,
    fields: &str,
) -> Result<Selection, FieldError> {
    let at = |path: &'static str| move |bad: BadSelector| FieldError::new(path, bad.to_string());
    Ok(Selection {
        scope: scope("namespace", namespace)?,
        labels: selector::labels(labels).map_err(at("label_selector"))?,
        fields: selector::fields(fields).map_err(at("field_selector"))?,
    })
}
