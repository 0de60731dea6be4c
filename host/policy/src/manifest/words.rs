//! What the YAML reader says, in our words: its own are about programs.

use device_api_core::limits::{
    POLICIES_FILE_DEPTH_MAX as DEPTH_MAX, POLICIES_FILE_VALUES_MAX as VALUES_MAX,
};
use device_api_core::signal::printable;
use serde_saphyr::Error;

/// Of a line in a message.
const LINE_BYTES_MAX: usize = 80;

/// One line: where, what, and what to do.
pub(super) fn in_our_words(error: &Error, text: &str) -> String {
    let error = error.without_snippet();
    let what = what(error);
    let line = error.location().map(|location| location.line());
    match line.filter(|line| *line > 0) {
        Some(line) => {
            let at = usize::try_from(line - 1).unwrap_or(usize::MAX);
            let shown = text.lines().nth(at).map(str::trim).unwrap_or_default();
            match printable(shown, LINE_BYTES_MAX) {
                shown if shown.is_empty() => format!("line {line}: {what}"),
                shown => format!("line {line}, {shown:?}: {what}"),
            }
        }
        None => what,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most are about programs that read YAML, and more may come"
)]
fn what(error: &Error) -> String {
    match error {
        Error::AliasError { error, .. } => what(error),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            let key = printable(key, LINE_BYTES_MAX);
            format!("the key {key:?} is there twice: keep one")
        }
        Error::DuplicateMappingKey { key: None, .. } => {
            "a key is there twice: keep one".to_owned()
        }
        Error::MultipleDocuments { .. } => {
            "after a line --- a second document begins: keep one of them".to_owned()
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => format!(
            "more than {VALUES_MAX} values or {DEPTH_MAX} levels, with what anchors repeat: is it the right file?"
        ),
        Error::UnknownAnchor { .. } | Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "the anchor that is meant is not there, or holds itself: write out what it stands for"
                .to_owned()
        }
        Error::MergeValueNotMapOrSeqOfMaps { .. } | Error::MergeKeyNotAllowed { .. } => {
            "<< is followed by no map: write out its keys".to_owned()
        }
        Error::UnsupportedTag { .. }
        | Error::TaggedScalarCannotDeserializeIntoString { .. }
        | Error::InvalidBinaryBase64 { .. }
        | Error::BinaryNotUtf8 { .. }
        | Error::InvalidScalar { .. }
        | Error::InvalidBooleanStrict { .. }
        | Error::UnsupportedIncludeForm { .. }
        | Error::ResolverError { .. } => {
            "the value is not what its tag (!…) says, or nobody knows that tag: remove the tag"
                .to_owned()
        }
        Error::Eof { .. } => "the file ends in the middle of something".to_owned(),
        _ => "it is no YAML: look for indentation, a missing colon, and brackets and quotes that are not closed"
            .to_owned(),
    }
}
