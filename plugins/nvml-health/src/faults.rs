//! What stands by a reading is taken back by that reading alone. While it can't be had nobody knows, and whatever
//! else is told of the same condition ends nothing, and hides nothing worse.
//!
//! What was wrong when it was last told is in the state, in the words in which it was told.

use device_policy_sdk::HostExt as _;
use device_policy_sdk::types::Severity;

use crate::news::News;

/// What the readings behind a fault say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// One that it takes can't be had.
    Absent,
    Fine,
    Wrong(String),
}

impl Told {
    /// `None`: not told. `words` where it is so.
    pub(crate) fn when(is_so: Option<bool>, words: impl FnOnce() -> String) -> Self {
        match is_so {
            None => Self::Absent,
            Some(false) => Self::Fine,
            Some(true) => Self::Wrong(words()),
        }
    }
}

/// One way in which a condition may not hold.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Its place in the state: of two with one reason, each has its own.
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) severity: Severity,
    pub(crate) action: &'static str,
    pub(crate) told: Told,
}

impl Fault {
    pub(crate) fn new(
        reason: &'static str,
        (severity, action): (Severity, &'static str),
        told: Told,
    ) -> Self {
        Self {
            name: reason,
            reason,
            severity,
            action,
            told,
        }
    }

    pub(crate) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

/// What is wrong, in words.
#[derive(Clone, Debug)]
pub(crate) struct Wrong {
    pub(crate) reason: &'static str,
    pub(crate) severity: Severity,
    pub(crate) action: &'static str,
    pub(crate) words: String,
}

/// What may be said of a condition now.
#[derive(Clone, Debug)]
pub(crate) enum Judged {
    /// One at least; the worst first.
    Wrong(Vec<Wrong>),
    Fine,
    /// Nothing: it stays as it is.
    Unknown,
}

/// `begun`: something of it was told, and waits to be said. `faults`: the worst first.
///
/// # Errors
/// The host's state quota.
pub(crate) fn judge(
    news: &mut News<'_>,
    condition: &str,
    begun: bool,
    faults: &[Fault],
) -> Result<Judged, String> {
    let stands = news.stands(condition);
    let mut wrong = Vec::new();
    for fault in faults {
        let place = place(news, condition, fault.name);
        let known: Option<String> = news.host.get_parsed(&place);
        let words = match &fault.told {
            Told::Wrong(words) => Some(words.clone()),
            Told::Fine => None,
            Told::Absent => known.clone().filter(|_| stands || begun),
        };
        match &words {
            Some(words) if known.as_ref() != Some(words) => news.host.put_display(&place, words)?,
            None if known.is_some() => news.host.delete(&place),
            Some(_) | None => {}
        }
        if words.is_none() && wrong.is_empty() && is_shown_alone(news, condition, faults, fault) {
            // Said when nothing was remembered of it: nothing takes its place.
            return Ok(Judged::Unknown);
        }
        wrong.extend(words.map(|words| Wrong {
            reason: fault.reason,
            severity: fault.severity,
            action: fault.action,
            words,
        }));
    }
    let is_told = |fault: &Fault| fault.told != Told::Absent;
    let is_wrong = |fault: &Fault| matches!(fault.told, Told::Wrong(_));
    Ok(if !faults.iter().any(is_told) {
        Judged::Unknown
    } else if wrong.is_empty() {
        Judged::Fine
    } else if stands || faults.iter().any(is_wrong) {
        Judged::Wrong(wrong)
    } else {
        // It may have ended while it waited to be said.
        Judged::Unknown
    })
}

/// Whether that fault stood when it was last told.
pub(crate) fn stood(
    news: &News<'_>,
    condition: &str,
    (name, reason): (&'static str, &str),
) -> bool {
    let place = place(news, condition, name);
    news.stands(condition)
        && (news.standing_reason(condition) == Some(reason) || news.host.get(&place).is_some())
}

/// Whether it is what the condition shows, and nothing told says that it is not so any more.
fn is_shown_alone(news: &News<'_>, condition: &str, faults: &[Fault], fault: &Fault) -> bool {
    let mut alike = faults.iter().filter(|other| other.reason == fault.reason);
    news.standing_reason(condition) == Some(fault.reason)
        && alike.all(|other| other.told == Told::Absent)
}

fn place(news: &News<'_>, condition: &str, name: &str) -> String {
    news.key(&format!("wrong/{condition}/{name}"))
}
