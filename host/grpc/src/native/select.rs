//! What a list or a watch selects.

use device_api_core::selector::{self, BadSelector, Selection};

use crate::fields::{FieldError, scope};

/// Characters of a refusal, which quotes the term: it travels in a header.
const WHY_CHARS_MAX: usize = 512;

pub(super) fn selection(
    namespace: &str,
    labels: &str,
    fields: &str,
) -> Result<Selection, FieldError> {
    let at = |path: &'static str| move |bad: BadSelector| FieldError::new(path, cut(&bad));
    Ok(Selection {
        scope: scope("namespace", namespace)?,
        labels: selector::labels(labels).map_err(at("label_selector"))?,
        fields: selector::fields(fields).map_err(at("field_selector"))?,
        whole_gpus: false,
    })
}

fn cut(bad: &BadSelector) -> String {
    bad.to_string().chars().take(WHY_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_field_and_fits_a_header() {
        let term = format!("zone={}", "\u{1b}".repeat(1_000));
        let said = |labels: &str, fields: &str| {
            selection("", labels, fields)
                .expect_err("refused")
                .to_string()
        };
        assert!(said(&term, "").starts_with("label_selector: "));
        assert!(said("", &term).starts_with("field_selector: "));
        assert!(said(&term, "").len() < 600);
        assert!(selection(&"n".repeat(254), "", "").is_err());
    }
}
