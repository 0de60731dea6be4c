//! Bytes to lines, with a bound on each.

/// Longest line taken whole; a longer one is cut to it and counted. The kernel's own bound for one
/// record with its header is 8 KiB, an XID line is a quarter of one.
pub const LINE_BYTES_MAX: usize = 8 * 1024;

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    /// The line at hand is over its bound: the rest of it is dropped.
    over: bool,
}

/// One line without its end, and whether it was cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) cut: bool,
}

impl Lines {
    /// Takes bytes and hands out the lines they complete.
    pub(crate) fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(Line)) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (content, complete) = match piece.split_last() {
                Some((b'\n', content)) => (content, true),
                Some(_) | None => (piece, false),
            };
            let room = LINE_BYTES_MAX.saturating_sub(self.partial.len());
            self.over |= content.len() > room;
            self.partial.extend(content.iter().take(room));
            if complete {
                each(self.line());
            }
        }
    }

    /// Takes what is there for a line: its writer is gone, or has paused.
    pub(crate) fn flush(&mut self, each: &mut dyn FnMut(Line)) {
        if self.is_partial() {
            each(self.line());
        }
    }

    pub(crate) fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Forgets a line that will not be completed: the file was truncated.
    pub(crate) fn clear(&mut self) {
        self.partial.clear();
        self.over = false;
    }

    fn line(&mut self) -> Line {
        let text = String::from_utf8_lossy(&self.partial);
        // A file truncated under its writer's offset begins with NULs.
        let text = text.trim_matches(['\0', '\r']).to_owned();
        let cut = self.over;
        self.clear();
        Line { text, cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(lines: &mut Lines, bytes: &[u8]) -> Vec<(String, bool)> {
        let mut out = Vec::new();
        lines.push(bytes, &mut |line| out.push((line.text, line.cut)));
        out
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut lines = Lines::default();
        assert_eq!(push(&mut lines, b"one\ntw"), [("one".to_owned(), false)]);
        assert_eq!(push(&mut lines, b""), []);
        assert_eq!(
            push(&mut lines, b"o\r\n\nth"),
            [("two".to_owned(), false), (String::new(), false)]
        );
        assert!(lines.is_partial());
        let mut rest = Vec::new();
        lines.flush(&mut |line| rest.push(line.text));
        assert_eq!(rest, ["th"]);
        lines.flush(&mut |line| panic!("{line:?}"));
        assert_eq!(
            push(&mut lines, b"\0\0\xff!\n"),
            [("\u{fffd}!".to_owned(), false)]
        );
    }

    #[test]
    fn a_line_over_its_bound_is_cut_and_the_next_is_whole() {
        let mut lines = Lines::default();
        let at_bound = vec![b'a'; LINE_BYTES_MAX];
        assert_eq!(push(&mut lines, &at_bound), []);
        assert_eq!(
            push(&mut lines, b"\n"),
            [("a".repeat(LINE_BYTES_MAX), false)]
        );
        push(&mut lines, &at_bound);
        push(&mut lines, &at_bound);
        assert_eq!(lines.partial.len(), LINE_BYTES_MAX);
        assert_eq!(
            push(&mut lines, b"b\nnext\n"),
            [
                ("a".repeat(LINE_BYTES_MAX), true),
                ("next".to_owned(), false)
            ]
        );
    }
}
