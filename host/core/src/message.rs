//! The message of a condition: its bound, and what stands in it once the condition came to be doubted.

use crate::condition::Condition;
use crate::limits::MESSAGE_BYTES_MAX;

/// What stands before the reason and the message that a doubted condition had.
const LAST_SAID: &str = "Last said: ";

/// Cuts a message to its bound, at a character: bad news is not refused for its length.
pub fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    message
}

/// What a condition said before it came to be doubted, as a message.
pub fn last_said(old: &Condition) -> String {
    cut(format!("{LAST_SAID}{}: {}", old.reason, old.message))
}

/// Reason and message that [`last_said`] made a message of; `None`: it is none of these.
pub fn said_before(message: &str) -> Option<(&str, &str)> {
    message.strip_prefix(LAST_SAID)?.split_once(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::tests::condition;
    use crate::verdict::{Judgement, Severity};

    #[test]
    fn what_was_said_can_be_had_back_and_stays_within_the_bound() {
        let mut old = condition("Temperature", Judgement::Problem, Severity::Warning);
        old.reason = "TooHot".to_owned();
        old.message = "91: too much".to_owned();
        assert_eq!(
            said_before(&last_said(&old)),
            Some(("TooHot", "91: too much"))
        );
        assert_eq!(said_before("91: too much"), None);
        old.message = "é".repeat(MESSAGE_BYTES_MAX);
        let said = last_said(&old);
        assert!(said.len() <= MESSAGE_BYTES_MAX && said.ends_with('é'));
    }
}
