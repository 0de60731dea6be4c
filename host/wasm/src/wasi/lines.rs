//! Bytes to lines, in bounded memory.

/// Longest line that is kept; of a longer one the beginning, as `host.log` has it.
const LINE_BYTES_MAX: usize = 1024;

/// The line that is being written.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Lines that `bytes` completes, in their order; empty ones are left out.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            self.extend(part);
            complete.extend(self.take());
        }
        self.extend(last);
        complete
    }

    /// What was begun, without waiting for its end. What is no UTF-8 is shown as such.
    pub(super) fn take(&mut self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.begun).trim_end().to_owned();
        self.begun.clear();
        (!text.is_empty()).then_some(text)
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.begun.len());
        self.begun
            .extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_when_they_are_whole() {
        let mut lines = Lines::default();
        assert!(lines.push(b"one ").is_empty());
        assert_eq!(lines.push(b"line\r\n\n  two\nthr"), ["one line", "  two"]);
        assert_eq!(lines.take().as_deref(), Some("thr"));
        assert_eq!(lines.take(), None);
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_whole() {
        let mut lines = Lines::default();
        for _ in 0..1000 {
            assert!(lines.push(&[b'x'; 4096]).is_empty());
            assert!(lines.begun.len() <= LINE_BYTES_MAX);
        }
        let complete = lines.push(b"\nnext\n");
        assert_eq!(complete[0].len(), LINE_BYTES_MAX);
        assert_eq!(complete[1], "next");
    }

    #[test]
    fn what_is_no_text_is_shown() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\xffb\n"), ["a\u{fffd}b"]);
    }
}
