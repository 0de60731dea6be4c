//! Others' words, a guest's or a compiler's, as part of one line of a log.

/// At most so many bytes, without characters that move a terminal's cursor or reorder what it shows.
pub(crate) fn one_line(text: &str, bytes_max: usize) -> String {
    let text = text.trim();
    let end = text.floor_char_boundary(bytes_max);
    let kept = text.get(..end).unwrap_or_default();
    let moves = |char: char| char.is_control() || is_bidi_control(char);
    kept.chars()
        .map(|char| if moves(char) { ' ' } else { char })
        .collect()
}

fn is_bidi_control(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h5_others_words_are_one_line_that_moves_nothing() {
        assert_eq!(one_line(" a\x1b[31m\nb\u{202e}c\n", 64), "a [31m b c");
        assert_eq!(one_line("ééé", 5), "éé");
    }
}
