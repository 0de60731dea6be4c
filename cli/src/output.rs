//! Where the output goes, and in which form.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::Color;
use crate::failure::Failure;
use crate::text::escape_quoted;

/// Standard output, written through a buffer that is flushed at the end of each answer.
#[derive(Debug)]
pub(crate) struct Output<W: Write> {
    pub(crate) to: W,
    /// Whether to use colour.
    pub(crate) colour: bool,
}

impl Output<io::BufWriter<io::Stdout>> {
    /// In colour when that is asked for; else on a terminal, unless `NO_COLOR` is set (to anything) or the
    /// terminal is dumb.
    pub(crate) fn stdout(color: Color) -> Self {
        let stdout = io::stdout();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => stdout.is_terminal() && !refused,
        };
        Self {
            to: io::BufWriter::new(stdout),
            colour,
        }
    }
}

impl<W: Write> Output<W> {
    /// Runs `write` and flushes.
    pub(crate) fn print(
        &mut self,
        write: impl FnOnce(&mut W, bool) -> io::Result<()>,
    ) -> Result<(), Failure> {
        write(&mut self.to, self.colour)
            .and_then(|()| self.to.flush())
            .map_err(Failure::Output)
    }

    /// JSON over several lines.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| encode("JSON", &error))?;
        self.print(|to, _| writeln!(to, "{}", escape_quoted(&text)))
    }

    /// JSON on one line.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| encode("JSON", &error))?;
        self.print(|to, _| writeln!(to, "{}", escape_quoted(&text)))
    }

    /// A YAML document; `marked`: begun with `---`, as one of several.
    pub(crate) fn yaml(&mut self, value: &impl Serialize, marked: bool) -> Result<(), Failure> {
        let text = serde_saphyr::to_string(value).map_err(|error| encode("YAML", &error))?;
        let mark = if marked { "---\n" } else { "" };
        self.print(|to, _| writeln!(to, "{mark}{}", escape_quoted(text.trim_end_matches('\n'))))
    }
}

fn encode(format: &'static str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Encode {
        format,
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{gpu, problem};
    use crate::view::GpuView;

    /// Everything that an attacker could want to send to a terminal.
    const NASTY: &str = "a\x1b[2J\u{9b}31m\u{7f}\u{202e}\n\tb\u{85}\u{2028}: '\"\\ #";

    fn printed(
        print: impl FnOnce(&mut Output<Vec<u8>>, &GpuView) -> Result<(), Failure>,
    ) -> String {
        let mut gpu = gpu(NASTY);
        gpu.status.as_mut().unwrap().conditions = vec![problem("A", NASTY)];
        let mut out = Output {
            to: Vec::new(),
            colour: true,
        };
        print(&mut out, &GpuView::from(&gpu)).unwrap();
        let text = String::from_utf8(out.to).unwrap();
        assert!(
            !text
                .chars()
                .any(|c| c != '\n' && c.is_control() || c == '\u{202e}'),
            "{text:?}"
        );
        text
    }

    #[test]
    fn json_is_safe_on_a_terminal_and_means_the_same() {
        for text in [
            printed(|out, view| out.json(view)),
            printed(|out, view| out.json_line(view)),
        ] {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["name"], NASTY);
            assert_eq!(value["status"]["conditions"][0]["reason"], NASTY);
            assert_eq!(value["status"]["conditions"][0]["judgement"], "problem");
            assert_eq!(value["resourceVersion"], "7");
            assert_eq!(value["spec"]["memoryBytes"], 85_520_809_984_u64);
            assert!(
                value["spec"].get("serial").is_none(),
                "what is not known is left out"
            );
        }
        assert_eq!(printed(|out, view| out.json_line(view)).lines().count(), 1);
    }

    #[test]
    fn yaml_is_safe_on_a_terminal_and_means_the_same() {
        let text = printed(|out, view| out.yaml(view, true));
        assert!(text.starts_with("---\n"));
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(value["name"], NASTY);
        assert_eq!(value["resourceVersion"], "7", "a version stays a string");
        assert_eq!(value["status"]["conditions"][0]["reason"], NASTY);
    }
}
