//! What came of going over the set, in the log: news once, and all of it to whoever asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use device_api_core::policy_status::{ReloadChange, ReloadOutcome, ReloadReport};

/// What was logged last.
#[derive(Debug, Default)]
pub(crate) struct Told {
    refused: Option<String>,
    /// Of policies of the set that are not as the site wants them.
    outcomes: BTreeMap<Arc<str>, ReloadOutcome>,
}

impl Told {
    pub(super) fn log(&mut self, report: &ReloadReport, forced: bool) {
        if let Some(why) = &report.refused
            && (forced || self.refused.as_ref() != Some(why))
        {
            tracing::error!("{why}");
        }
        for outcome in self.news(report, forced) {
            let ReloadOutcome {
                name,
                change,
                digest,
                detail,
            } = outcome;
            // The one line on it.
            if *change == ReloadChange::Refused {
                tracing::error!(policy = %name, %digest, "policy refused: {detail}");
            } else {
                tracing::info!(policy = %name, %digest, %detail, "policy {}", change.as_str());
            }
        }
    }

    /// What was not logged before, and is to be; which it then was.
    fn news<'a>(&mut self, report: &'a ReloadReport, forced: bool) -> Vec<&'a ReloadOutcome> {
        self.refused.clone_from(&report.refused);
        let mut before = std::mem::take(&mut self.outcomes);
        let mut news = Vec::new();
        for outcome in &report.outcomes {
            let is_same = before.remove(&outcome.name).as_ref() == Some(outcome);
            let is_open = match outcome.change {
                ReloadChange::Unchanged => continue,
                ReloadChange::Swapped | ReloadChange::Removed => false,
                ReloadChange::Held | ReloadChange::Refused | ReloadChange::Compiling => true,
            };
            if is_open {
                self.outcomes
                    .insert(Arc::clone(&outcome.name), outcome.clone());
            }
            // That it is being compiled nobody has to be told twice, whoever asks.
            let again = forced && outcome.change != ReloadChange::Compiling;
            if !is_open || !is_same || again {
                news.push(outcome);
            }
        }
        if report.refused.is_some() {
            // Then it speaks of those alone that something became of.
            self.outcomes.append(&mut before);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: &[(&str, ReloadChange, &str)]) -> ReloadReport {
        let outcome = |(name, change, detail): &(&str, ReloadChange, &str)| ReloadOutcome {
            name: (*name).into(),
            change: *change,
            digest: "".into(),
            detail: (*detail).to_owned(),
        };
        ReloadReport {
            outcomes: outcomes.iter().map(outcome).collect(),
            refused: None,
        }
    }

    #[test]
    fn h6_what_is_compiled_is_logged_when_it_is_ordered_and_when_it_came_and_at_no_pass_between() {
        use ReloadChange::{Compiling, Held, Refused, Swapped, Unchanged};
        let mut told = Told::default();
        let mut news = |outcomes: &[(&str, ReloadChange, &str)], forced| {
            let report = report(outcomes);
            let news = told.news(&report, forced);
            news.iter().map(|it| it.change).collect::<Vec<_>>()
        };
        let compiling = [("a", Compiling, "soon"), ("b", Unchanged, "")];
        assert_eq!(news(&compiling, true), [Compiling]);
        assert_eq!(news(&compiling, false), []);
        assert_eq!(news(&compiling, true), []);
        assert_eq!(news(&[("a", Swapped, "")], false), [Swapped]);
        assert_eq!(news(&[("a", Swapped, "")], false), [Swapped]);
        // What is wrong is said once, and to whoever asks.
        for change in [Held, Refused] {
            let bad = [("a", change, "why")];
            assert_eq!(news(&bad, false), [change]);
            assert_eq!(news(&bad, false), []);
            assert_eq!(news(&bad, true), [change]);
            assert_eq!(news(&[("a", change, "another")], false), [change]);
            assert_eq!(news(&[("a", Unchanged, "")], false), []);
        }
    }
    #[test]
    fn h6_what_comes_of_the_set_before_is_logged_though_the_one_there_is_now_is_refused() {
        use ReloadChange::{Compiling, Held, Swapped};
        let mut told = Told::default();
        let mut news = |outcomes: &[(&str, ReloadChange, &str)], is_refused: bool| {
            let report = ReloadReport {
                refused: is_refused.then(|| "no list".to_owned()),
                ..report(outcomes)
            };
            let news = told.news(&report, false);
            news.iter().map(|it| it.change).collect::<Vec<_>>()
        };
        let compiling = |name| (name, Compiling, "soon");
        assert_eq!(news(&["a", "b", "c"].map(compiling), false), [Compiling; 3]);
        assert_eq!(news(&[], true), []);
        let came = [("a", Swapped, ""), ("b", Held, "why")];
        assert_eq!(news(&came, true), [Swapped, Held]);
        assert_eq!(news(&[], true), []);
        // Of the others all is as it was told.
        let all = [("a", Compiling, "soon"), came[1], compiling("c")];
        assert_eq!(news(&all, false), [Compiling]);
    }
}
