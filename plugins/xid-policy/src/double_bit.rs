//! XID 48, the double-bit ECC error: alone it asks for a reset; with a 63 or a 94 it was contained,
//! and running work may finish first (`WORKFLOW_XID_48`). The two come in any order, milliseconds
//! apart. So 48 alone is Degraded and waits; the wake that ends the wait makes it fatal.
//!
//! ```text
//!            63/94 within the window before           63/94 before the wake
//!   48 ──┬───────────────────────────────▶ contained ◀──────────────┐
//!        └── else ──▶ awaiting ─────────────────────────────────────┤
//!                                              wake ──▶ uncontained (fatal)
//! ```
//! The host's floor waits by itself, and shorter (100 ms).

use device_policy_sdk::types::{Severity, Signal, Verdict, Wake};
use device_policy_sdk::{Host, HostExt as _};

use crate::book::{Book, Standing};
use crate::finding::{Action, CRITICAL, DEGRADED, Finding, Reason, Until};
use crate::wake;

pub(crate) const CODE: u64 = 48;
const CONTAINED: [u64; 2] = [63, 94];
pub(crate) const WAKE: &str = "containment";
/// How far apart a 48 and its 63 or 94 may be; the shortest wake that the contract has.
pub(crate) const WINDOW_MS: u64 = 1000;
const SUBJECT: &str = "XID 48 (Double Bit ECC Error)";

/// When a 63 or 94 was last seen; drills apart, as everywhere.
fn key(drill: bool) -> &'static str {
    if drill {
        "contained-at-ms/drill"
    } else {
        "contained-at-ms"
    }
}

/// A 48. Sets the wake where it must wait.
pub(crate) fn on_error(host: &dyn Host, book: &mut Book<'_>, signal: &Signal) -> Vec<Verdict> {
    let instance = signal.instance.as_deref();
    if book.has(CRITICAL, instance, CODE) {
        return vec![book.add(CRITICAL, SUBJECT, &uncontained(), signal)];
    }
    let seen: Option<u64> = host.get_parsed(key(signal.drill));
    let contained = seen.is_some_and(|at_ms| signal.at_ms.abs_diff(at_ms) <= WINDOW_MS);
    let finding = if contained {
        contained_finding()
    } else {
        awaiting()
    };
    vec![book.add(DEGRADED, SUBJECT, &finding, signal)]
}

/// Any XID: a 63 or 94 tells that a 48 which waits was contained.
///
/// # Errors
/// The host's state quota.
pub(crate) fn on_other(
    host: &mut dyn Host,
    book: &mut Book<'_>,
    signal: &Signal,
) -> Result<Vec<Verdict>, String> {
    if !signal.code.is_some_and(|code| CONTAINED.contains(&code)) {
        return Ok(Vec::new());
    }
    host.put_display(key(signal.drill), signal.at_ms)?;
    let mut verdicts = Vec::new();
    for (instance, drill) in waiting(book)
        .into_iter()
        .filter(|(_, drill)| *drill == signal.drill)
    {
        let answer = answer(signal, instance, drill);
        let shelf = book.shelf(DEGRADED, answer.instance.as_deref());
        let Some(standing) = shelf
            .codes
            .iter_mut()
            .find(|standing| waits(standing) && standing.drill == drill)
        else {
            continue;
        };
        standing.reason = Reason::DrainAndReset;
        standing.summary =
            standing
                .summary
                .replacen(&*awaiting().note, &contained_finding().note, 1);
        shelf.touch();
        verdicts.push(book.verdict(DEGRADED, &answer));
    }
    Ok(verdicts)
}

/// The wake: what still waits was not contained.
pub(crate) fn on_wake(book: &mut Book<'_>, signal: &Signal) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (instance, drill) in waiting(book) {
        let Some(standing) = book.remove(DEGRADED, instance.as_deref(), CODE, drill) else {
            continue;
        };
        let summary = standing
            .summary
            .replacen(&*awaiting().note, &uncontained().note, 1);
        let answer = answer(signal, instance, drill);
        let shelf = book.shelf(CRITICAL, answer.instance.as_deref());
        shelf.keep(
            &uncontained(),
            Standing {
                summary,
                ..standing
            },
        );
        verdicts.push(book.verdict(CRITICAL, &answer));
        verdicts.push(book.verdict(DEGRADED, &answer));
    }
    verdicts
}

/// A verdict on 48 that another signal brings about: told of as 48, caused by that signal.
fn answer(signal: &Signal, instance: Option<String>, drill: bool) -> Signal {
    Signal {
        code: Some(CODE),
        drill,
        instance,
        ..signal.clone()
    }
}

/// For what waits after this decision, where something did `before` it or not.
pub(crate) fn wake(before: bool, book: &Book<'_>) -> Option<Wake> {
    wake::while_waiting(WAKE, WINDOW_MS, before, is_waiting(book))
}

pub(crate) fn is_waiting(book: &Book<'_>) -> bool {
    !waiting(book).is_empty()
}

fn waiting(book: &Book<'_>) -> Vec<(Option<String>, bool)> {
    let degraded = book
        .shelves
        .iter()
        .filter(|shelf| shelf.condition == DEGRADED);
    degraded
        .flat_map(|shelf| shelf.codes.iter().map(move |standing| (shelf, standing)))
        .filter(|(_, standing)| waits(standing))
        .map(|(shelf, standing)| (shelf.instance.clone(), standing.drill))
        .collect()
}

fn waits(standing: &Standing) -> bool {
    standing.code == CODE && standing.reason == Reason::AwaitingContainment
}

fn degraded(reason: Reason, note: &'static str) -> Finding {
    let (severity, action) = (Severity::Warning, Action::ComponentReset);
    Finding {
        severity,
        action,
        reason,
        until: Until::Reset,
        note: note.into(),
    }
}

fn awaiting() -> Finding {
    let note =
        "an uncorrectable memory error; waiting for XID 63 or 94 to tell whether it was contained";
    degraded(Reason::AwaitingContainment, note)
}

fn contained_finding() -> Finding {
    let note = "an uncorrectable memory error that was contained: let what runs finish, place nothing new, \
                then reset the GPU";
    degraded(Reason::DrainAndReset, note)
}

fn uncontained() -> Finding {
    let note = "an uncorrectable memory error, and neither XID 63 nor 94 says that it was contained: the GPU \
                must be reset";
    Finding::reset_gpu(note)
}
