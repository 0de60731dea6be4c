//! The audit log: one line, with the target `audit`, for each write that was refused and for each
//! that changes what there is (not for each status that a provider writes).
//!
//! Whoever is refused decides how often, so its lines are bounded for each identity; those left out
//! are counted, and the next line says how many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tonic::Code;

use crate::conn::ConnInfo;
use crate::limits::{AUDIT_IDENTITIES, AUDIT_LINES, AUDIT_WINDOW};
use crate::observe::{Method, RpcObserver};
use crate::peer::RefusalReason;
use crate::status::code_name;

/// Calls that change which GPUs and providers there are.
const ADMINISTRATIVE: [&str; 7] = [
    "CreateGpu",
    "UpdateGpu",
    "DeleteGpu",
    "RegisterGpu",
    "UnregisterGpu",
    "RegisterProvider",
    "ForgetProvider",
];

/// Length of an object's name in a line. Longer ones are refused, and a line is no place for them.
const OBJECT_BYTES_MAX: usize = 256;

/// Bounds the lines of each identity.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    windows: Mutex<HashMap<Arc<str>, Window>>,
}

/// What one identity has had of lines since.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

/// What an administrative call is about, taken before it is carried out.
#[derive(Debug)]
pub(crate) struct Entry {
    method: Method,
    object: String,
}

/// The object that a call is about.
pub(crate) fn entry(method: Method, object: &str) -> Entry {
    let end = object.floor_char_boundary(OBJECT_BYTES_MAX);
    Entry {
        method,
        object: object.get(..end).unwrap_or_default().to_owned(),
    }
}

impl Entry {
    /// Whether the call is logged where it is not refused.
    pub(crate) fn is_administrative(&self) -> bool {
        ADMINISTRATIVE.contains(&self.method.name)
    }
}

impl Audit {
    /// A call that was carried out, or failed for what it said.
    pub(crate) fn carried_out(caller: &ConnInfo, entry: &Entry, code: Code) {
        tracing::info!(
            target: "audit",
            identity = &*caller.identity,
            peer = %caller.peer,
            service = entry.method.service,
            method = entry.method.name,
            object = ?entry.object,
            outcome = code_name(code),
            "administrative write"
        );
    }

    /// A write that its caller may not make.
    pub(crate) fn refused(
        &self,
        observer: &dyn RpcObserver,
        caller: &ConnInfo,
        entry: &Entry,
        reason: RefusalReason,
        why: &str,
    ) {
        observer.refused(reason.as_str());
        let Some(suppressed) = self.admit(&caller.identity, Instant::now()) else {
            observer.audit_suppressed();
            return;
        };
        tracing::warn!(
            target: "audit",
            identity = &*caller.identity,
            peer = %caller.peer,
            service = entry.method.service,
            method = entry.method.name,
            object = ?entry.object,
            outcome = "refused",
            reason = reason.as_str(),
            suppressed,
            "write refused: {why}"
        );
    }

    /// Whether `identity` gets a line now; then how many it did not get since its last window.
    fn admit(&self, identity: &Arc<str>, now: Instant) -> Option<u64> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |window: &Window| now.duration_since(window.since) >= AUDIT_WINDOW;
        if !windows.contains_key(identity) && windows.len() >= AUDIT_IDENTITIES {
            windows.retain(|_, window| !over(window));
        }
        let key = if windows.contains_key(identity) || windows.len() < AUDIT_IDENTITIES {
            identity.clone()
        } else {
            // All the rest are one; the table has room for it besides.
            Arc::from("")
        };
        let window = windows.entry(key).or_insert(Window {
            since: now,
            lines: 0,
            suppressed: 0,
        });
        if over(window) {
            (window.since, window.lines) = (now, 0);
        }
        if window.lines < AUDIT_LINES {
            window.lines += 1;
            Some(std::mem::take(&mut window.suppressed))
        } else {
            window.suppressed += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(audit: &Audit, identity: &str, asked: u32, now: Instant) -> (u32, u64) {
        let identity = identity.into();
        let admitted = (0..asked).filter_map(|_| audit.admit(&identity, now));
        admitted.fold((0, 0), |(lines, suppressed), more| {
            (lines + 1, suppressed + more)
        })
    }

    #[test]
    fn each_identity_has_its_lines_and_what_was_left_out_is_told() {
        let (audit, now) = (Audit::default(), Instant::now());
        assert_eq!(
            lines(&audit, "uid:7", AUDIT_LINES + 5, now),
            (AUDIT_LINES, 0)
        );
        assert_eq!(
            lines(&audit, "uid:8", 1, now),
            (1, 0),
            "another is not affected"
        );
        let next = now + AUDIT_WINDOW;
        assert_eq!(lines(&audit, "uid:7", 2, next), (2, 5), "a new window");
    }

    #[test]
    fn the_table_is_bounded_and_what_is_too_much_is_one() {
        let (audit, now) = (Audit::default(), Instant::now());
        for n in 0..AUDIT_IDENTITIES {
            assert_eq!(lines(&audit, &format!("uid:{n}"), 1, now), (1, 0));
        }
        for n in 0..AUDIT_LINES {
            assert_eq!(lines(&audit, &format!("cn:{n}"), 1, now), (1, 0));
        }
        assert_eq!(lines(&audit, "cn:another", 1, now), (0, 0));
        assert_eq!(
            lines(&audit, "uid:7", 1, now),
            (1, 0),
            "a known one has its own"
        );
        let table = audit.windows.lock().expect("lock").len();
        assert_eq!(table, AUDIT_IDENTITIES + 1);
        let next = now + AUDIT_WINDOW;
        assert_eq!(
            lines(&audit, "cn:another", 1, next),
            (1, 0),
            "old ones make room"
        );
    }

    #[test]
    fn an_objects_name_is_cut_where_a_letter_ends() {
        let method = Method {
            service: "s",
            name: "DeleteGpu",
        };
        let entry = entry(method, &"é".repeat(OBJECT_BYTES_MAX));
        assert_eq!(entry.object.len(), OBJECT_BYTES_MAX);
        assert!(entry.is_administrative());
    }
}
