//! The one way from a service to the store: says who may, tells the observer, holds the limits.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use device_api_core::error::ApiError;
use device_api_core::limits::Bounds;
use device_api_core::ports::{Devices, Incidents, NvmlControl, Policies};
use device_api_core::provider::Caller;
use device_api_core::watch::WatchRequest;
use tokio::sync::watch;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::audit::{self, Audit, Pending};
use crate::budget::{Kind, Level, watches_of_user};
use crate::conn::ConnInfo;
use crate::observe::{ActiveWatch, Method, RpcObserver};
use crate::outcome::Answered;
use crate::peer::{Access, RefusalReason};
use crate::status::Refusal;
use crate::subject::Subject;
use crate::watch::{Tell, Watching};

/// What operators handle over the API, the GPUs themselves apart.
#[derive(Clone, Debug)]
pub struct Operated {
    pub policies: Arc<dyn Policies>,
    pub incidents: Arc<dyn Incidents>,
    pub nvml: Arc<dyn NvmlControl>,
}

/// What the services of both dialects share.
pub(crate) struct Context<D> {
    devices: Arc<D>,
    operated: Operated,
    observer: Arc<dyn RpcObserver>,
    audit: Arc<Audit>,
    bounds: Arc<Bounds>,
    shutdown: watch::Receiver<bool>,
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
        operated: Operated,
        observer: Arc<dyn RpcObserver>,
        audit: Arc<Audit>,
        bounds: Arc<Bounds>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self {
            devices,
            operated,
            observer,
            audit,
            shutdown,
            bounds,
        }
    }

    /// A call that changes nothing: anyone who can connect may make it.
    pub(crate) async fn read<'a, Q, A, F>(
        &'a self,
        request: Request<Q>,
        run: impl FnOnce(&'a D, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Refusal>> + Send,
    {
        let connection = connection(&request)?;
        let _under_way = connection.begin_call();
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
        A: Answered,
        F: Future<Output = Result<A, Refusal>> + Send,
    {
        let connection = connection(&request)?;
        let _under_way = connection.begin_call();
        let request = request.into_inner();
        let entry = audit::entry(method, &request);
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
        let pending = Pending::begin(&connection, &entry);
        let answer = run(&self.devices, caller, request).await;
        if let Err(Refusal::Api(ApiError::Forbidden { why })) = &answer {
            refused(RefusalReason::NotIts, why);
        }
        let answer = answer.map_err(Status::from);
        pending.end(answer.as_ref());
        answer.map(Response::new)
    }

    /// A call that is answered by a stream of changes until the client goes or the daemon stops.
    pub(crate) async fn watch<Q, A: Send + 'static>(
        &self,
        request: Request<Q>,
        parse: impl FnOnce(Q) -> Result<WatchRequest, Refusal> + Send,
        encode: fn(Tell) -> Option<A>,
    ) -> Result<Response<BoxStream<A>>, Status> {
        let connection = connection(&request)?;
        let asked = parse(request.into_inner())?;
        let permit = connection.account.hold(Kind::Watches, 1);
        let permit = permit.map_err(|level| Refusal::from(self.too_many_watches(level)))?;
        let stream = self.devices.watch(asked).await.map_err(Refusal::from)?;
        let active = ActiveWatch::begin(self.observer.clone());
        let watching = Watching::new(stream, encode, self.shutdown.clone(), (active, permit));
        Ok(Response::new(watching.into_stream()))
    }

    fn too_many_watches(&self, level: Level) -> ApiError {
        let (limit, max) = match level {
            Level::Connection => ("watches-per-connection", self.bounds.watches_per_connection),
            Level::User => ("watches of one user", watches_of_user(&self.bounds)),
            Level::All => ("watches", self.bounds.watches),
        };
        ApiError::Exhausted { limit, max }
    }

    /// The policy host: for what runs within [`Self::read`] and [`Self::write`].
    pub(crate) fn policies(&self) -> &dyn Policies {
        &*self.operated.policies
    }

    /// The faults of the node: as above.
    pub(crate) fn incidents(&self) -> &Arc<dyn Incidents> {
        &self.operated.incidents
    }

    /// The driver's library: as above.
    pub(crate) fn nvml(&self) -> &dyn NvmlControl {
        &*self.operated.nvml
    }

    /// The bounds that a site may set.
    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }
}

/// What is known of who calls. There is no way in that does not say it.
fn connection<Q>(request: &Request<Q>) -> Result<Arc<ConnInfo>, Status> {
    let known = request.extensions().get::<Arc<ConnInfo>>().cloned();
    known.ok_or_else(|| {
        let why = "the connection is not known".to_owned();
        Refusal::from(ApiError::Forbidden { why }).into()
    })
}
