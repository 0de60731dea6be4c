//! XIDs of which the number says little and the words of the kernel's line all: 74, and 144 to 150. NVML tells the
//! bare number, the kernel's log the line, of the same error, milliseconds apart and in any order. So a bare code
//! alone is Degraded and waits; its line, which is judged in any case, says what it was, and the wake that ends
//! the wait says that nobody knows.
//!
//! ```text
//!             a line within the window before                       a line before the wake
//!   bare ──┬──────────────────────────────────▶ told by the line ◀──┬──────────────────┐
//!          └── else ──▶ awaiting ───────────────────────────────────┘                  │
//!                          └─ wake ──▶ undecoded ── a line that comes late ────────────┘
//! ```
//! A line speaks for the bare codes around it, and takes away their word alone: what another line has said stands.
//!
//! **Invariant:** drills are kept apart, and so are MIG instances.

use device_policy_sdk::types::{Attr, Severity, Signal, Verdict, Wake};
use device_policy_sdk::{Host, Level, attr};

use crate::book::{Book, Standing};
use crate::catalog::{self, Remedy};
use crate::config::Config;
use crate::finding::{Action, DEGRADED, Finding, Reason, Until};
use crate::judge;
use crate::ledger::{Entry, Ledger, Told};
use crate::{nvlink, nvlink5, wake};

pub(crate) const WAKE: &str = "kernel-line";
/// How far apart a bare code and its line may be; the shortest wake that the contract has.
pub(crate) const WINDOW_MS: u64 = 1000;
/// Attribute of a decision (docs/clears.md): the reason of the verdicts in it that are provisional.
const PROVISIONAL: &str = "provisional";
/// As a signal names the kernel's log.
const KERNEL_LOG: &str = "kmsg";

/// Whether a code is judged by the words of the kernel's line.
pub(crate) fn concerns(code: u64) -> bool {
    catalog::lookup(code)
        .is_some_and(|entry| matches!(entry.remedy, Remedy::NvLink | Remedy::NvLink5))
}

/// One call's view of what was told bare.
#[derive(Debug)]
pub(crate) struct Bare<'a> {
    config: &'a Config,
    driver: &'a str,
    ledger: Ledger,
}

impl<'a> Bare<'a> {
    pub(crate) fn open(host: &dyn Host, config: &'a Config, driver: &'a str) -> Self {
        let ledger = Ledger::read(host).unwrap_or_else(|| {
            let what = "the state on bare codes is not readable and is begun anew";
            host.log(Level::Warn, what);
            Ledger::default()
        });
        Self {
            config,
            driver,
            ledger,
        }
    }

    /// Writes what changed.
    ///
    /// # Errors
    /// The host's quota.
    pub(crate) fn close(self, host: &mut dyn Host) -> Result<(), String> {
        self.ledger.write(host)
    }

    /// An XID that [`concerns`] is true of. Sets the wake where it must wait.
    pub(crate) fn on_error(
        &mut self,
        book: &mut Book<'_>,
        code: u64,
        signal: &Signal,
    ) -> Vec<Verdict> {
        let Some(finding) = judge::judge(self.config, self.driver, code, signal) else {
            return Vec::new();
        };
        if is_line(code, signal) {
            self.on_line(book, code, &finding, signal)
        } else {
            let verdict = self.on_bare(book, code, &finding, signal);
            verdict.into_iter().collect()
        }
    }

    fn on_bare(
        &mut self,
        book: &mut Book<'_>,
        code: u64,
        finding: &Finding,
        signal: &Signal,
    ) -> Option<Verdict> {
        let condition = finding.xid_condition();
        let standing = standing(book, condition, code, signal);
        let entry = self.ledger.entry(code, signal);
        settle(entry, standing, signal.at_ms);
        if entry.is_told(signal.at_ms) {
            return None;
        }
        let subject = judge::subject(code);
        if judge::severity_is_open(self.config, code) {
            entry.waits_from(signal.at_ms);
            return Some(book.add(condition, &subject, &awaiting(), signal));
        }
        // Whatever a line says, it is no less: there is nothing to wait for.
        if standing.is_none() || entry.is_undecoded() {
            entry.undecoded_from(signal.at_ms);
        }
        Some(book.add(condition, &subject, finding, signal))
    }

    fn on_line(
        &mut self,
        book: &mut Book<'_>,
        code: u64,
        finding: &Finding,
        signal: &Signal,
    ) -> Vec<Verdict> {
        let condition = finding.xid_condition();
        let bare = self.of_bare(code, signal);
        let bare = bare.map(|bare| bare.xid_condition());
        let standing = bare.and_then(|bare| standing(book, bare, code, signal));
        let entry = self.ledger.entry(code, signal);
        settle(entry, standing, signal.at_ms);
        let is_taken_back = match entry.line(signal.at_ms) {
            Told::Waiting => standing.is_some_and(waits),
            Told::Undecoded => true,
            Told::Nothing => false,
        };
        let instance = signal.instance.as_deref();
        let taken = bare.filter(|bare| {
            is_taken_back && book.remove(bare, instance, code, signal.drill).is_some()
        });
        let line = book.add(condition, &judge::subject(code), finding, signal);
        if bare == Some(condition) {
            // What stands is a line's word from now on.
            entry.forget_bare();
        }
        let taken = taken.filter(|bare| *bare != condition);
        let taken = taken.map(|bare| book.verdict(bare, signal));
        std::iter::once(line).chain(taken).collect()
    }

    /// The wake: no line came for what has waited long enough.
    pub(crate) fn on_wake(&mut self, book: &mut Book<'_>, signal: &Signal) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for (code, instance, drill, since_ms) in waiting(book) {
            // One wake is for all that wait: what came long after the first waits for the next.
            if signal.at_ms.abs_diff(since_ms) < WINDOW_MS / 2 {
                continue;
            }
            let answer = Signal {
                code: Some(code),
                drill,
                instance,
                ..signal.clone()
            };
            let instance = answer.instance.as_deref();
            let Some(standing) = book.remove(DEGRADED, instance, code, drill) else {
                continue;
            };
            self.ledger.entry(code, &answer).ends_waiting(since_ms);
            if let Some(finding) = self.of_bare(code, &answer) {
                let condition = finding.xid_condition();
                let summary = standing
                    .summary
                    .replacen(&*awaiting().note, &finding.note, 1);
                let standing = Standing {
                    summary,
                    ..standing
                };
                book.shelf(condition, instance).keep(&finding, standing);
                verdicts.push(book.verdict(condition, &answer));
            }
            verdicts.push(book.verdict(DEGRADED, &answer));
        }
        verdicts
    }

    /// What the number alone comes to; `None`: the operator wants nothing said of it.
    fn of_bare(&self, code: u64, signal: &Signal) -> Option<Finding> {
        let bare = Signal {
            evidence: String::new(),
            attrs: Vec::new(),
            ..signal.clone()
        };
        judge::judge(self.config, self.driver, code, &bare)
    }
}

/// Whether a signal is the kernel's line, or carries its words. A line that was cut tells too: that nobody knows.
fn is_line(code: u64, signal: &Signal) -> bool {
    let has_words = match catalog::lookup(code).map(|entry| entry.remedy) {
        Some(Remedy::NvLink) => nvlink::is_told(signal),
        _ => nvlink5::is_told(signal),
    };
    has_words || signal.sources.iter().any(|source| source == KERNEL_LOG)
}

fn standing<'b>(
    book: &'b Book<'_>,
    condition: &str,
    code: u64,
    signal: &Signal,
) -> Option<&'b Standing> {
    book.find(condition, signal.instance.as_deref(), code, signal.drill)
}

/// Forgets what the host has cleared since, and what has waited beside a word that stood already.
fn settle(entry: &mut Entry, standing: Option<&Standing>, at_ms: u64) {
    match standing {
        None => entry.forget_bare(),
        Some(standing) if waits(standing) => {}
        Some(_) => entry.end_wait_beside(at_ms),
    }
}

/// As long as something waits there is a wake. A code that comes while another waits does not put it off.
pub(crate) fn wake(before: bool, signals: &[Signal], book: &Book<'_>) -> Option<Wake> {
    let is_woken = signals
        .iter()
        .any(|signal| device_policy_sdk::verdict::timer_name(signal) == Some(WAKE));
    wake::while_waiting(WAKE, WINDOW_MS, before && !is_woken, is_waiting(book))
}

/// Says of a verdict that only waits that it does, lest it be taken for a flapping condition's.
pub(crate) fn provisional(verdicts: &[Verdict]) -> Option<Attr> {
    let reason = Reason::AwaitingKernelLine.word();
    let mut reasons = verdicts.iter().map(|verdict| verdict.reason.as_str());
    reasons
        .any(|said| said == reason)
        .then(|| attr::of_text(PROVISIONAL, reason))
}

pub(crate) fn is_waiting(book: &Book<'_>) -> bool {
    !waiting(book).is_empty()
}

/// Code, instance, whether it is a drill's, and since when.
fn waiting(book: &Book<'_>) -> Vec<(u64, Option<String>, bool, u64)> {
    let degraded = book
        .shelves
        .iter()
        .filter(|shelf| shelf.condition == DEGRADED);
    degraded
        .flat_map(|shelf| shelf.codes.iter().map(move |standing| (shelf, standing)))
        .filter(|(_, standing)| waits(standing))
        .map(|(shelf, standing)| {
            let Standing {
                code,
                drill,
                since_ms,
                ..
            } = *standing;
            (code, shelf.instance.clone(), drill, since_ms)
        })
        .collect()
}

fn waits(standing: &Standing) -> bool {
    standing.reason == Reason::AwaitingKernelLine
}

fn awaiting() -> Finding {
    Finding {
        severity: Severity::Warning,
        action: Action::None,
        reason: Reason::AwaitingKernelLine,
        until: Until::Reset,
        note: "an NVLink error; waiting for the kernel's line, which tells what it was".into(),
    }
}

#[cfg(test)]
mod tests;
