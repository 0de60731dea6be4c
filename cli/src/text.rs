//! Text that came over the wire, made fit for a terminal.

use std::borrow::Cow;

/// Escapes control characters (terminal sequences among them) and those that reorder text.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The same for text that is JSON or YAML already, in which line breaks are part of the syntax and
/// any other such character stands in a quoted string, where `\uXXXX` means the same.
pub(crate) fn escape_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) && c != '\n' {
            // Every character that is unsafe has four digits.
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// A word of a command to type, as a shell takes it: quoted where it is not plain.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", escape(word).replace('\'', "'\\''"))
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        assert_eq!(escape(input), expected);
    }

    #[test]
    fn a_word_of_a_command_is_one_word_and_starts_nothing() {
        assert_eq!(shell_word("xid-policy_1.0"), "xid-policy_1.0");
        assert_eq!(shell_word("$(reboot); `x`"), "'$(reboot); `x`'");
        assert_eq!(shell_word("it's\n"), "'it'\\''s\\n'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("--yes"), "'--yes'");
    }

    #[test]
    fn nothing_from_the_wire_drives_the_terminal() {
        check("plain é 日本", "plain é 日本");
        check("a\x1b[2J\r\n\tb", "a\\u{1b}[2J\\r\\n\\tb");
        check("\u{9b}31m\u{7f}\u{202e}x", "\\u{9b}31m\\u{7f}\\u{202e}x");
        assert_eq!(
            escape_quoted("{\n\"a\": \"\u{9b}\u{202e}\"}"),
            "{\n\"a\": \"\\u009b\\u202e\"}"
        );
    }
}
