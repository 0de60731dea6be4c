//! The measure: the least that a tonic server of this service can do. It decodes the request as ours
//! does and answers bytes that are ready; a write sends ready bytes to every watcher through a tokio
//! channel. No store, no checks, no metrics. It runs in a process of its own.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::marker::PhantomData;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use device_api_proto::{native, upstream};
use futures_util::StreamExt as _;
use http::uri::PathAndQuery;
use prost::Message;
use prost::bytes::Bytes;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::raw::{Client, Raw};

/// What it says when it can be connected to.
pub(crate) const LISTENING: &str = "listening";

/// Events that a watcher may be behind. The next write follows when all have the last.
const EVENTS_MAX: usize = 64;

/// What to answer with, per method.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answers {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) get: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) list: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) update: Bytes,
    /// What a write sends to the watchers.
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) event: Bytes,
}

impl Answers {
    /// Has a bare server answer so from now on.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) async fn set(&self, socket: &Path) -> Result<()> {
        let path = PathAndQuery::from_static("/bench.Control/Set");
        let mut client = Client::connect(socket).await?;
        client.unary(&path, self.encode_to_vec().into()).await?;
        Ok(())
    }
}

/// Serves both dialects until killed.
///
/// # Errors
/// The socket can't be bound, or serving breaks off.
pub(crate) async fn serve(socket: &Path) -> Result<()> {
    let listener =
        UnixListener::bind(socket).with_context(|| format!("cannot bind {}", socket.display()))?;
    eprintln!("{LISTENING}");
    let state = Arc::new(State {
        answers: Mutex::new(Arc::new(Answers::default())),
        events: broadcast::Sender::new(EVENTS_MAX),
    });
    Server::builder()
        .add_service(NativeService(state.clone()))
        .add_service(UpstreamService(state.clone()))
        .add_service(ControlService(state))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .context("serving broke off")
}

#[derive(Debug)]
struct State {
    answers: Mutex<Arc<Answers>>,
    events: broadcast::Sender<Bytes>,
}

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl State {
    fn answers(&self) -> Arc<Answers> {
        let answers = self.answers.lock();
        answers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Decodes an `M`, answers with bytes.
    async fn unary<M: Message + Default + 'static>(
        self: Arc<Self>,
        request: http::Request<Body>,
        pick: impl Fn(&Self, M) -> Bytes + Clone + Send + Sync + 'static,
    ) -> http::Response<Body> {
        let handler = tower::service_fn(move |request: Request<M>| {
            ready(Ok::<_, Status>(Response::new(pick(
                &self,
                request.into_inner(),
            ))))
        });
        Grpc::new(Ready::<M>::default())
            .unary(handler, request)
            .await
    }

    async fn watch<M: Message + Default + 'static>(
        self: Arc<Self>,
        request: http::Request<Body>,
    ) -> http::Response<Body> {
        let handler = tower::service_fn(move |_: Request<M>| {
            let events = BroadcastStream::new(self.events.subscribe())
                .map(|event| event.map_err(|lagged| Status::out_of_range(lagged.to_string())));
            ready(Ok::<_, Status>(Response::new(events)))
        });
        Grpc::new(Ready::<M>::default())
            .server_streaming(handler, request)
            .await
    }

    fn publish(&self) -> Bytes {
        let answers = self.answers();
        let _nobody_watches = self.events.send(answers.event.clone());
        answers.update.clone()
    }
}

macro_rules! gpu_service {
    ($service:ident, $dialect:ident, $name:literal) => {
        #[derive(Clone, Debug)]
        struct $service(Arc<State>);

        impl NamedService for $service {
            const NAME: &'static str = $name;
        }

        impl tower::Service<http::Request<Body>> for $service {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = Answering;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Answering {
                use $dialect as wire;
                let state = self.0.clone();
                Box::pin(async move {
                    Ok(match request.uri().path() {
                        concat!("/", $name, "/GetGpu") => {
                            let get =
                                |state: &State, _: wire::GetGpuRequest| state.answers().get.clone();
                            state.unary(request, get).await
                        }
                        concat!("/", $name, "/ListGpus") => {
                            let list = |state: &State, _: wire::ListGpusRequest| {
                                state.answers().list.clone()
                            };
                            state.unary(request, list).await
                        }
                        concat!("/", $name, "/UpdateGpuStatus") => {
                            let update =
                                |state: &State, _: wire::UpdateGpuStatusRequest| state.publish();
                            state.unary(request, update).await
                        }
                        concat!("/", $name, "/WatchGpus") => {
                            state.watch::<wire::WatchGpusRequest>(request).await
                        }
                        _ => Status::unimplemented("not measured").into_http(),
                    })
                })
            }
        }
    };
}

gpu_service!(NativeService, native, "nvidia.device.v1alpha1.GpuService");
gpu_service!(
    UpstreamService,
    upstream,
    "nvidia.nvsentinel.v1alpha1.GpuService"
);

#[derive(Clone, Debug)]
struct ControlService(Arc<State>);

impl NamedService for ControlService {
    const NAME: &'static str = "bench.Control";
}

impl tower::Service<http::Request<Body>> for ControlService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        let state = self.0.clone();
        Box::pin(async move {
            let set = |state: &State, answers: Answers| {
                *state.answers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(answers);
                Bytes::new()
            };
            Ok(state.unary(request, set).await)
        })
    }
}

/// Decodes an `M`; encodes bytes that are ready.
#[derive(Debug)]
struct Ready<M>(PhantomData<fn() -> M>);

impl<M> Default for Ready<M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<M: Message + Default + 'static> Codec for Ready<M> {
    type Encode = Bytes;
    type Decode = M;
    type Encoder = Raw;
    type Decoder = Self;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<M: Message + Default> Decoder for Ready<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        M::decode(buffer)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
