//! The audit log: one line, with the target `audit`, for each write that was refused and for each
//! that changes what there is (not for each status that a provider writes), also where its caller did
//! not wait for the answer. Whoever is refused decides how often, so those lines are bounded
//! ([`Lines`]).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::limits::POLICY_REASON_BYTES_MAX;
use tonic::{Code, Status};

use crate::conn::ConnInfo;
use crate::lines::{Key, Lines};
use crate::observe::{Method, RpcObserver};
use crate::outcome::Answered;
use crate::peer::RefusalReason;
use crate::status::code_name;
use crate::subject::Subject;

/// Calls that change which GPUs and providers there are, which policies judge, what stands against a GPU on an
/// operator's word, and whether the driver is held.
const ADMINISTRATIVE: [&str; 17] = [
    "CreateGpu",
    "UpdateGpu",
    "DeleteGpu",
    "RegisterGpu",
    "UnregisterGpu",
    "RegisterProvider",
    "ForgetProvider",
    "ReloadPolicies",
    "QuarantinePolicy",
    "ReleasePolicy",
    "AcceptPolicy",
    "PausePolicy",
    "ResumePolicy",
    "ClearCondition",
    "ReportReset",
    "ReleaseNvml",
    "AttachNvml",
];

/// Length of an object's name in a line. Longer ones are refused, and a line is no place for them.
const OBJECT_BYTES_MAX: usize = 256;
/// Length of what else a line quotes of a request: the longest that is not refused.
const QUOTED_BYTES_MAX: usize = POLICY_REASON_BYTES_MAX;

/// What an administrative call is about, taken before it is carried out.
#[derive(Debug)]
pub(crate) struct Entry {
    method: Method,
    object: String,
    /// Why, in its caller's words.
    because: Option<String>,
    digest: Option<String>,
    /// Type of the condition that it is about.
    condition: Option<String>,
    /// For how long.
    ttl: Option<Duration>,
}

/// A call of which nothing was read.
pub(crate) fn unread(method: Method) -> Entry {
    Entry {
        method,
        object: String::new(),
        because: None,
        digest: None,
        condition: None,
        ttl: None,
    }
}

/// What a call is about.
pub(crate) fn entry(method: Method, request: &impl Subject) -> Entry {
    let quoted = |text| cut(text, QUOTED_BYTES_MAX);
    Entry {
        method,
        object: cut(request.subject(), OBJECT_BYTES_MAX),
        because: request.because().map(quoted),
        digest: request.digest().map(quoted),
        condition: request.condition().map(quoted),
        ttl: request.ttl(),
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    let end = text.floor_char_boundary(bytes_max);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Bounds the lines of each identity.
#[derive(Debug)]
pub(crate) struct Audit {
    lines: Arc<Lines>,
}

/// An administrative call that is being carried out. Dropped without a word of what came of it, its
/// caller has left, its time was over or the daemon ends; it may have been applied all the same.
#[derive(Debug)]
pub(crate) struct Pending<'a> {
    caller: &'a ConnInfo,
    /// `None`: there is nothing (more) to tell.
    entry: Option<&'a Entry>,
}

impl Entry {
    /// Whether the call is logged where it is not refused.
    pub(crate) fn is_administrative(&self) -> bool {
        ADMINISTRATIVE.contains(&self.method.name)
    }
}

impl<'a> Pending<'a> {
    /// To be called before it is carried out. Of a call that is not administrative nothing is told.
    pub(crate) fn begin(caller: &'a ConnInfo, entry: &'a Entry) -> Self {
        let entry = Some(entry).filter(|entry| entry.is_administrative());
        Self { caller, entry }
    }

    /// It was carried out, or not, for what its answer says. Who may not make it at all has a line of its own.
    pub(crate) fn end<T: Answered>(mut self, answer: Result<&T, &Status>) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        let quoted = |why: &str| cut(why, QUOTED_BYTES_MAX);
        let (outcome, why) = match answer.map(Answered::outcome) {
            Ok(outcome) => (outcome.as_str(), outcome.why().map(quoted)),
            // That it failed may mean that it was done in part.
            Err(status) => (code_name(status.code()), Some(quoted(status.message()))),
        };
        let is_told = answer.is_err_and(|status| status.code() == Code::PermissionDenied);
        if !is_told {
            tracing::info!(
                target: "audit",
                identity = &*self.caller.identity,
                peer = %self.caller.peer,
                service = entry.method.service,
                method = entry.method.name,
                object = ?entry.object,
                because = entry.because.as_ref().map(tracing::field::debug),
                digest = entry.digest.as_ref().map(tracing::field::debug),
                condition = entry.condition.as_ref().map(tracing::field::debug),
                ttl = entry.ttl.map(tracing::field::debug),
                outcome,
                why = why.as_ref().map(tracing::field::debug),
                "administrative write"
            );
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        tracing::warn!(
            target: "audit",
            identity = &*self.caller.identity,
            peer = %self.caller.peer,
            service = entry.method.service,
            method = entry.method.name,
            object = ?entry.object,
            because = entry.because.as_ref().map(tracing::field::debug),
            digest = entry.digest.as_ref().map(tracing::field::debug),
            condition = entry.condition.as_ref().map(tracing::field::debug),
            ttl = entry.ttl.map(tracing::field::debug),
            outcome = "unknown",
            "administrative write cut off before it was answered; it may have been carried out"
        );
    }
}

impl Default for Audit {
    fn default() -> Self {
        let lines = Lines::new("refused writes");
        Self { lines }
    }
}

impl Audit {
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
        let key = Key::of(&caller.peer, &caller.identity);
        let Some(suppressed) = self.lines.admit(&key) else {
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
            because = entry.because.as_ref().map(tracing::field::debug),
            digest = entry.digest.as_ref().map(tracing::field::debug),
            condition = entry.condition.as_ref().map(tracing::field::debug),
            ttl = entry.ttl.map(tracing::field::debug),
            outcome = "refused",
            reason = reason.as_str(),
            suppressed,
            "write refused: {why}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_name_is_cut_where_a_letter_ends() {
        let method = Method {
            service: "s",
            name: "DeleteGpu",
        };
        let request = device_api_proto::native::DeleteGpuRequest {
            name: "é".repeat(OBJECT_BYTES_MAX),
            ..Default::default()
        };
        let entry = entry(method, &request);
        assert_eq!(entry.object.len(), OBJECT_BYTES_MAX);
        assert!(entry.is_administrative());
    }
}
