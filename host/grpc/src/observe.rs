//! The port through which metrics hear of calls and connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use crate::status::code_name;

/// Hears of each call. Called on the path of every request: it must be quick and never block.
/// All names are from closed sets, fit for labels.
pub trait RpcObserver: Send + Sync {
    /// There is such a method; told of each, and of `unknown`, before the first call.
    fn known(&self, service: &'static str, method: &'static str);

    /// A call of `service` (full name, with its package) and `method` began; both are `unknown`
    /// where there is no such method.
    fn started(&self, service: &'static str, method: &'static str);

    /// It ended. `code` is gRPC's name, `OK` for success; a call or stream that the client left is
    /// `Canceled`. Of a stream, `elapsed` is its whole life.
    fn handled(
        &self,
        service: &'static str,
        method: &'static str,
        code: &'static str,
        elapsed: Duration,
    );

    /// An event was handed to a watch: `ADDED`, `MODIFIED` or `DELETED`.
    fn watch_event(&self, type_: &'static str);

    /// A watch began (+1) or ended (-1).
    fn watch_active(&self, delta: i64);

    /// A write was refused to its caller ([`RefusalReason`](crate::RefusalReason)).
    fn refused(&self, reason: &'static str);

    /// A refusal got no line in the audit log, as its identity has had too many.
    fn audit_suppressed(&self);

    /// A connection was accepted (+1) or has ended (-1).
    fn connections(&self, delta: i64);

    /// A connection was turned away ([`Turned`](crate::Turned)).
    fn turned_away(&self, why: &'static str);

    /// A TLS handshake failed ([`HandshakeFailure`](crate::HandshakeFailure)).
    fn handshake_failed(&self, why: &'static str);

    /// The files of TLS have changed, and are in use; or can't be.
    fn tls_reloaded(&self, used: bool);
}

/// A method, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
}

/// A call in progress. Dropped without an end, it was cancelled.
pub(crate) struct Call {
    observer: Arc<dyn RpcObserver>,
    method: Method,
    began: Instant,
    code: Code,
}

impl Call {
    pub(crate) fn begin(observer: Arc<dyn RpcObserver>, method: Method) -> Self {
        observer.started(method.service, method.name);
        Self {
            observer,
            method,
            began: Instant::now(),
            code: Code::Cancelled,
        }
    }

    pub(crate) fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let elapsed = self.began.elapsed();
        let code = code_name(self.code);
        self.observer
            .handled(self.method.service, self.method.name, code, elapsed);
        tracing::debug!(
            service = self.method.service,
            method = self.method.name,
            code,
            ?elapsed,
            "handled"
        );
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

/// Counts +1 while it lives.
pub(crate) struct Counted {
    observer: Arc<dyn RpcObserver>,
    count: fn(&dyn RpcObserver, i64),
}

impl Counted {
    pub(crate) fn begin(observer: Arc<dyn RpcObserver>, count: fn(&dyn RpcObserver, i64)) -> Self {
        count(&*observer, 1);
        Self { observer, count }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.count)(&*self.observer, -1);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

/// A watch that counts as active until it is dropped.
#[derive(Debug)]
pub(crate) struct ActiveWatch(Counted);

impl ActiveWatch {
    pub(crate) fn begin(observer: Arc<dyn RpcObserver>) -> Self {
        Self(Counted::begin(observer, |observer, delta| {
            observer.watch_active(delta);
        }))
    }

    pub(crate) fn event(&self, type_: &'static str) {
        self.0.observer.watch_event(type_);
    }
}
