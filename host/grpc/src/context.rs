//! The one way from a service to the store: says who may, tells the observer, holds the limits.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use device_api_core::error::ApiError;
use device_api_core::limits::{WATCHES_MAX, WATCHES_PER_CONNECTION_MAX};
use device_api_core::ports::Devices;
use device_api_core::provider::Caller;
use device_api_core::watch::{Event, Scope, WatchFrom};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status};

use crate::conn::ConnInfo;
use crate::observe::{ActiveWatch, Call, Method, RpcObserver};
use crate::peer::{Access, Writers};
use crate::status::Refusal;
use crate::watch::Watching;

/// What the services of both dialects share.
pub(crate) struct Context<D> {
    devices: Arc<D>,
    observer: Arc<dyn RpcObserver>,
    writers: Writers,
    shutdown: watch::Receiver<bool>,
    /// A permit for each watch that may still start, on whatever connection.
    watches: Arc<Semaphore>,
}

impl<D> fmt::Debug for Context<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("writers", &self.writers)
            .finish_non_exhaustive()
    }
}

impl<D: Devices> Context<D> {
    pub(crate) fn new(
        devices: Arc<D>,
        observer: Arc<dyn RpcObserver>,
        writers: Writers,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self {
            devices,
            observer,
            writers,
            shutdown,
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
        }
    }

    /// A call that changes nothing: anyone who can connect may make it.
    pub(crate) async fn read<'a, Q, A, F>(
        &'a self,
        method: Method,
        request: Request<Q>,
        run: impl FnOnce(&'a D, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Refusal>> + Send,
    {
        let call = self.begin(method);
        let answer = run(&self.devices, request.into_inner()).await;
        end(call, answer).map(Response::new)
    }

    /// A call that changes something. **Every** write method of every service goes through here, so
    /// that none forgets to ask who is calling.
    pub(crate) async fn write<'a, Q, A, F>(
        &'a self,
        method: Method,
        request: Request<Q>,
        run: impl FnOnce(&'a D, Caller, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Refusal>> + Send,
    {
        let call = self.begin(method);
        let answer = match self.caller(&request) {
            Ok(caller) => run(&self.devices, caller, request.into_inner()).await,
            Err(refused) => Err(refused.into()),
        };
        end(call, answer).map(Response::new)
    }

    /// A call that is answered by a stream of changes until the client goes or the daemon stops.
    pub(crate) async fn watch<Q, A: Send + 'static>(
        &self,
        method: Method,
        request: Request<Q>,
        parse: impl FnOnce(Q) -> Result<(Scope, WatchFrom), Refusal> + Send,
        encode: fn(&Event) -> A,
    ) -> Result<Response<BoxStream<A>>, Status> {
        let call = self.begin(method);
        let connection = request
            .extensions()
            .get::<ConnInfo>()
            .map(|info| info.watches.clone());
        let start = async {
            let (scope, from) = parse(request.into_inner())?;
            let permits = watch_permits(connection, &self.watches)?;
            Ok((self.devices.watch(scope, from).await?, permits))
        };
        match start.await {
            Ok((stream, permits)) => {
                let active = ActiveWatch::begin(self.observer.clone());
                let watching = Watching::new(
                    stream,
                    encode,
                    self.shutdown.clone(),
                    call,
                    (active, permits),
                );
                Ok(Response::new(watching.into_stream()))
            }
            Err(refusal) => end(call, Err(refusal)),
        }
    }

    fn begin(&self, method: Method) -> Call {
        Call::begin(self.observer.clone(), method)
    }

    fn caller<Q>(&self, request: &Request<Q>) -> Result<Caller, ApiError> {
        let Some(info) = request.extensions().get::<ConnInfo>() else {
            return Err(ApiError::Forbidden {
                why: "the connection is not known, so only reading is allowed".to_owned(),
            });
        };
        match self.writers.access(info.peer) {
            Access::Write { identity } => Ok(Caller { provider: identity }),
            Access::Read { why } => {
                // The observer counts them; a log line for each would be the caller's to flood.
                tracing::debug!(peer = %info.peer, "write refused");
                Err(ApiError::Forbidden { why })
            }
        }
    }
}

/// A permit of the connection, then one of all: a greedy client is told of its own limit.
fn watch_permits(
    connection: Option<Arc<Semaphore>>,
    all: &Arc<Semaphore>,
) -> Result<Vec<OwnedSemaphorePermit>, ApiError> {
    let connection = connection.map(|permits| {
        (
            permits,
            "WATCHES_PER_CONNECTION_MAX",
            WATCHES_PER_CONNECTION_MAX,
        )
    });
    connection
        .into_iter()
        .chain([(all.clone(), "WATCHES_MAX", WATCHES_MAX)])
        .map(|(permits, limit, max)| {
            permits
                .try_acquire_owned()
                .map_err(|_| ApiError::Exhausted { limit, max })
        })
        .collect()
}

fn end<A>(call: Call, answer: Result<A, Refusal>) -> Result<A, Status> {
    match answer {
        Ok(answer) => {
            call.end(Code::Ok);
            Ok(answer)
        }
        Err(refusal) => {
            let status = Status::from(refusal);
            call.end(status.code());
            Err(status)
        }
    }
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
            let refused = match watch_permits(Some(connection.clone()), &all) {
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
        check(0, 1, Some("WATCHES_PER_CONNECTION_MAX"));
        check(1, 0, Some("WATCHES_MAX"));
        check(0, 0, Some("WATCHES_PER_CONNECTION_MAX"));
    }

    #[test]
    fn w4_a_refused_watch_keeps_no_permit() {
        let [connection, all] = [1, 0].map(|permits| Arc::new(Semaphore::new(permits)));
        watch_permits(Some(connection.clone()), &all).expect_err("all are used up");
        assert_eq!(connection.available_permits(), 1);
    }
}
