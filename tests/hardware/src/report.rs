//! What was found, and how it is written down.

use std::fmt::Write as _;

/// How a comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Wrong,
    /// One of the two does not tell: nothing to compare.
    Skipped,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Wrong => "WRONG",
            Self::Skipped => "skipped",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) ours: String,
    /// What it was held against: nvidia-smi's word, or the range that is plausible.
    pub(crate) held_against: String,
    pub(crate) outcome: Outcome,
}

impl Line {
    /// `ours` and `theirs` are to be the same; where one of the two is absent, there is nothing to compare.
    pub(crate) fn same(
        what: impl Into<String>,
        ours: Option<String>,
        theirs: Option<String>,
    ) -> Self {
        let outcome = match (&ours, &theirs) {
            (Some(ours), Some(theirs)) if ours == theirs => Outcome::Ok,
            (Some(_), Some(_)) => Outcome::Wrong,
            (None, None) => Outcome::Ok,
            // It is served, and we don't have it.
            (None, Some(_)) => Outcome::Wrong,
            (Some(_), None) => Outcome::Skipped,
        };
        let absent = || "absent".to_owned();
        Self {
            what: what.into(),
            ours: ours.unwrap_or_else(absent),
            held_against: theirs.unwrap_or_else(absent),
            outcome,
        }
    }

    pub(crate) fn of(
        what: impl Into<String>,
        ours: impl Into<String>,
        held_against: impl Into<String>,
        is_ok: bool,
    ) -> Self {
        Self {
            what: what.into(),
            ours: ours.into(),
            held_against: held_against.into(),
            outcome: if is_ok { Outcome::Ok } else { Outcome::Wrong },
        }
    }

    pub(crate) fn skipped(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ours: String::new(),
            held_against: why.into(),
            outcome: Outcome::Skipped,
        }
    }
}

/// A table of the report.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Report {
    /// Name and value of what was checked: board, driver, library, when.
    pub(crate) subject: Vec<(String, String)>,
    pub(crate) sections: Vec<Section>,
}

impl Report {
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        let lines = self.sections.iter().flat_map(|section| &section.lines);
        lines.filter(|line| line.outcome == outcome).count()
    }

    pub(crate) fn wrong(&self) -> impl Iterator<Item = &Line> {
        let lines = self.sections.iter().flat_map(|section| &section.lines);
        lines.filter(|line| line.outcome == Outcome::Wrong)
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text =
            "# Hardware check\n\nWritten by `cargo xtask hardware-check`.\n\n".to_owned();
        for (name, value) in &self.subject {
            let _ = writeln!(text, "- {name}: {value}");
        }
        let _ = writeln!(
            text,
            "- outcome: {} ok, {} wrong, {} not comparable",
            self.count(Outcome::Ok),
            self.count(Outcome::Wrong),
            self.count(Outcome::Skipped)
        );
        for section in &self.sections {
            let _ = write!(
                text,
                "\n## {}\n\n| what | ours | held against | |\n| --- | --- | --- | --- |\n",
                section.title
            );
            for line in &section.lines {
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} |",
                    cell(&line.what),
                    cell(&line.ours),
                    cell(&line.held_against),
                    line.outcome.word()
                );
            }
        }
        text
    }
}

/// What others wrote must not end a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nvidia_smi_tells_and_we_do_not_is_wrong() {
        let text = |text: &str| Some(text.to_owned());
        let outcome = |ours, theirs| Line::same("x", ours, theirs).outcome;
        assert_eq!(outcome(text("a"), text("a")), Outcome::Ok);
        assert_eq!(outcome(text("a"), text("b")), Outcome::Wrong);
        assert_eq!(outcome(None, text("b")), Outcome::Wrong);
        assert_eq!(outcome(text("a"), None), Outcome::Skipped);
        assert_eq!(outcome(None, None), Outcome::Ok);
    }

    #[test]
    fn a_report_names_what_is_wrong_and_counts_it() {
        let report = Report {
            subject: vec![("driver".to_owned(), "580.82.07".to_owned())],
            sections: vec![Section {
                title: "Inventory".to_owned(),
                lines: vec![
                    Line::of("a|b", "1", "2", false),
                    Line::of("c", "1", "1", true),
                ],
            }],
        };
        let text = report.markdown();
        assert!(
            text.contains("- outcome: 1 ok, 1 wrong, 0 not comparable"),
            "{text}"
        );
        assert!(text.contains("| a\\|b | 1 | 2 | WRONG |"), "{text}");
        assert_eq!(report.wrong().count(), 1);
    }
}
