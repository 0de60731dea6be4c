//! The one way from a service to the store: says who may, tells the observer, holds the limits.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use device_api_core::error::ApiError;
use device_api_core::limits::Bounds;
use device_api_core::ports::Devices;
use device_api_core::provider::Caller;
use device_api_core::watch::WatchRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status};

use crate::audit::{self, Audit};
use crate::conn::ConnInfo;
use crate::observe::{ActiveWatch, Method, RpcObserver};
use crate::peer::{Access, RefusalReason};
use crate::status::Refusal;
use crate::subject::Subject;
use crate::watch::{Tell, Watching};

/// What the services of both dialects share.
pub(crate) struct Context<D> {
    devices: Arc<D>,
    observer: Arc<dyn RpcObserver>,
    audit: Audit,
    bounds: Arc<Bounds>,
    shutdown: watch::Receiver<bool>,
    /// A permit for each watch that may still start, on whatever connection.
    watches: Arc<Semaphore>,
}

impl<D> fmt::Debug for Context<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl<D: Devices> Context<D> {
    pub(crate) fn new(
        devices: Arc<D>,
        observer: Arc<dyn RpcObserver>,
        bounds: Arc<Bounds>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self {
            devices,
            observer,
            audit: Audit::default(),
            shutdown,
            watches: Arc::new(Semaphore::new(bounds.watches)),
            bounds,
        }
    }

    /// A call that changes nothing: anyone who can connect may make it.
    pub(crate) async fn read<'a, Q, A, F>(
        &'a self,
        _method: Method,
        request: Request<Q>,
        run: impl FnOnce(&'a D, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Refusal>> + Send,
    {
        let connection = request.extensions().get::<Arc<ConnInfo>>().cloned();
        let _under_way = connection.as_ref().map(|info| info.begin_call());
        let answer = run(&self.devices, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    /// A call that changes something. **Every** write method of every service goes through here, so
    /// that none forgets to ask who is calling.
    pub(crate) async fn write<'a, Q: Subject, A, F>(
        &'a self,
        method: Method,
        request: Request<Q>,
        run: impl FnOnce(&'a D, Caller, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Refusal>> + Send,
    {
        let Some(connection) = request.extensions().get::<Arc<ConnInfo>>().cloned() else {
            let why = "the connection is not known, so only reading is allowed".to_owned();
            return Err(Refusal::from(ApiError::Forbidden { why }).into());
        };
        let _under_way = connection.begin_call();
        let request = request.into_inner();
        let entry = audit::entry(method, request.subject());
        let refused = |reason, why: &str| {
            self.audit
                .refused(&*self.observer, &connection, &entry, reason, why);
        };
        if let Access::Read { reason, why } = &connection.access {
            refused(*reason, why);
            let why = why.clone();
            return Err(Refusal::from(ApiError::Forbidden { why }).into());
        }
        let caller = Caller {
            provider: connection.identity.clone(),
            identity: connection.identity.clone(),
            connection: connection.number,
            lease: None,
        };
        let answer = run(&self.devices, caller, request).await;
        if let Err(Refusal::Api(ApiError::Forbidden { why })) = &answer {
            refused(RefusalReason::NotIts, why);
        }
        let answer = answer.map_err(Status::from);
        if entry.is_administrative() {
            let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
            if code != Code::PermissionDenied {
                Audit::carried_out(&connection, &entry, code);
            }
        }
        answer.map(Response::new)
    }

    /// A call that is answered by a stream of changes until the client goes or the daemon stops.
    pub(crate) async fn watch<Q, A: Send + 'static>(
        &self,
        _method: Method,
        request: Request<Q>,
        parse: impl FnOnce(Q) -> Result<WatchRequest, Refusal> + Send,
        encode: fn(Tell) -> Option<A>,
    ) -> Result<Response<BoxStream<A>>, Status> {
        let connection = request
            .extensions()
            .get::<Arc<ConnInfo>>()
            .map(|info| info.watches.clone());
        let asked = parse(request.into_inner())?;
        let permits =
            watch_permits(connection, &self.watches, &self.bounds).map_err(Refusal::from)?;
        let stream = self.devices.watch(asked).await.map_err(Refusal::from)?;
        let active = ActiveWatch::begin(self.observer.clone());
        let watching = Watching::new(stream, encode, self.shutdown.clone(), (active, permits));
        Ok(Response::new(watching.into_stream()))
    }

    /// The bounds that a site may set.
    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }
}

/// A permit of the connection, then one of all: a greedy client is told of its own limit.
fn watch_permits(
    connection: Option<Arc<Semaphore>>,
    all: &Arc<Semaphore>,
    bounds: &Bounds,
) -> Result<Vec<OwnedSemaphorePermit>, ApiError> {
    let connection = connection.map(|permits| {
        (
            permits,
            "watches-per-connection",
            bounds.watches_per_connection,
        )
    });
    connection
        .into_iter()
        .chain([(all.clone(), "watches", bounds.watches)])
        .map(|(permits, limit, max)| {
            permits
                .try_acquire_owned()
                .map_err(|_| ApiError::Exhausted { limit, max })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w4_watches_are_limited_per_connection_and_in_all() {
        #[track_caller]
        fn check(connection: usize, all: usize, expected: Option<&str>) {
            let [connection, all] =
                [connection, all].map(|permits| Arc::new(Semaphore::new(permits)));
            let refused = match watch_permits(Some(connection.clone()), &all, &Bounds::default()) {
                Err(ApiError::Exhausted { limit, .. }) => Some(limit),
                Err(error) => panic!("{error}"),
                Ok(permits) => {
                    assert_eq!(permits.len(), 2);
                    None
                }
            };
            assert_eq!(refused, expected);
        }
        check(1, 1, None);
        check(0, 1, Some("watches-per-connection"));
        check(1, 0, Some("watches"));
        check(0, 0, Some("watches-per-connection"));
    }

    #[test]
    fn w4_a_refused_watch_keeps_no_permit() {
        let [connection, all] = [1, 0].map(|permits| Arc::new(Semaphore::new(permits)));
        watch_permits(Some(connection.clone()), &all, &Bounds::default())
            .expect_err("all are used up");
        assert_eq!(connection.available_permits(), 1);
    }
}
