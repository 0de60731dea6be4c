//! Serving: both dialects, health and reflection on all listeners, until told to stop.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use device_api_core::limits::Bounds;
use device_api_core::ports::Devices;
use device_api_proto::native::server::daemon_service_server as native_daemon;
use device_api_proto::native::server::gpu_service_server as native_gpu;
use device_api_proto::native::server::incident_service_server as native_incident;
use device_api_proto::native::server::nvml_service_server as native_nvml;
use device_api_proto::native::server::policy_service_server as native_policy;
use device_api_proto::native::server::provider_service_server as native_provider;
use device_api_proto::upstream::server::gpu_service_server as upstream_gpu;
use futures_util::StreamExt as _;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use crate::audit::Audit;
use crate::calls::Calls;
use crate::conn::{Conn, ConnInfo, Socket};
use crate::context::{Context, Operated};
use crate::incoming::incoming;
use crate::limits::{
    ERROR_STREAMS, HANDSHAKES, HEADER_BYTES, HELLO_TIME, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    LINGER, READ_BYTES, RESET_STREAMS, SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES, WINDOW_BYTES,
};
use crate::lines::Key;
use crate::listen::Bound;
use crate::methods::Methods;
use crate::observe::{Counted, RpcObserver};
use crate::peer::{Access, Peer, Writers};
use crate::slots::{Slot, Slots, Standing, Turned};
use crate::{native, upstream};

/// Names in the gRPC health protocol; the empty one is the server as a whole.
const HEALTH_NAMES: [&str; 8] = [
    "",
    native_gpu::SERVICE_NAME,
    native_provider::SERVICE_NAME,
    native_policy::SERVICE_NAME,
    native_incident::SERVICE_NAME,
    native_nvml::SERVICE_NAME,
    native_daemon::SERVICE_NAME,
    upstream_gpu::SERVICE_NAME,
];

/// Why serving did not start: a broken build.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the descriptor set for gRPC reflection is broken; rebuild the daemon")]
    Reflection(#[source] tonic_reflection::server::Error),
    #[error("the descriptor set of the API is broken; rebuild the daemon")]
    Methods(#[source] prost::DecodeError),
}

/// What every connection needs.
struct Serving<D> {
    devices: Arc<D>,
    observer: Arc<dyn RpcObserver>,
    writers: Arc<Writers>,
    bounds: Arc<Bounds>,
    calls: Arc<Calls>,
    handshakes: Semaphore,
    shutdown: watch::Receiver<bool>,
}

/// Someone who may write is connected, until this is dropped.
#[derive(Debug)]
struct Present<D: Devices> {
    devices: Arc<D>,
    identity: Arc<str>,
}

impl<D: Devices> Present<D> {
    fn begin(devices: Arc<D>, identity: Arc<str>) -> Self {
        devices.connected(&identity);
        Self { devices, identity }
    }
}

impl<D: Devices> Drop for Present<D> {
    fn drop(&mut self) {
        self.devices.disconnected(&self.identity);
    }
}

/// Serves until `shutdown` turns true (or its sender is gone) and all is drained: no connection is
/// accepted any more, streams end with `Unavailable`, unary calls under way finish, within
/// `request-time` at most; a command on policies as soon as the policy host says that it stops. A connection without such a call is closed within a second, whatever its
/// client does. When the future is dropped, all connections are.
///
/// # Errors
/// [`ServeError`].
pub async fn serve<D: Devices>(
    bound: Bound,
    devices: Arc<D>,
    operated: Operated,
    observer: Arc<dyn RpcObserver>,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let parts = bound.into_parts();
    let methods = Methods::get().map_err(ServeError::Methods)?;
    for method in methods.all() {
        observer.known(method.service, method.name);
    }
    let audit = Arc::new(Audit::default());
    let context = Arc::new(Context::new(
        devices.clone(),
        operated,
        observer.clone(),
        audit.clone(),
        parts.bounds.clone(),
        shutdown.clone(),
    ));
    let health = HealthReporter::new();
    for name in HEALTH_NAMES {
        health
            .set_service_status(name, ServingStatus::Serving)
            .await;
    }
    let routes = routes(&context, &parts.bounds, health.clone()).map_err(ServeError::Reflection)?;
    let calls = Calls::new(
        routes.prepare(),
        methods,
        observer.clone(),
        audit,
        parts.bounds.clone(),
        shutdown.clone(),
    );
    // Ends with this future.
    let mut background = JoinSet::new();
    if let Some(watcher) = parts.tls {
        background.spawn(watcher.run(observer.clone()));
    }
    background.spawn(stop_health(health, shutdown.clone()));
    let slots = Slots::new(parts.bounds.clone());
    let serving = Arc::new(Serving {
        devices,
        observer,
        writers: Arc::new(parts.writers),
        bounds: parts.bounds,
        calls: Arc::new(calls),
        handshakes: Semaphore::new(HANDSHAKES),
        shutdown: shutdown.clone(),
    });

    let mut connections = JoinSet::new();
    {
        let mut incoming = pin!(incoming(parts.listeners));
        let mut stop = pin!(stopped(shutdown));
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_ended) = connections.join_next() => {}
                Some(socket) = incoming.next() => {
                    if let Some(slot) = serving.admit(&slots, &socket) {
                        connections.spawn(connection(serving.clone(), socket, slot));
                    }
                }
            }
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

impl<D: Devices> Serving<D> {
    fn admit(&self, slots: &Arc<Slots>, socket: &Socket) -> Option<Slot> {
        let peer = socket.peer();
        let (identity, access) = self.writers.access(&peer);
        let standing = match (&peer, access) {
            (_, Access::Write) => Standing::Writes,
            (Peer::Tls { .. }, Access::Read { .. }) => Standing::Unproven,
            (_, Access::Read { .. }) => Standing::Reads,
        };
        match slots.take(Key::of(&peer, &identity), standing) {
            Ok(slot) => Some(slot),
            Err(why) => {
                let of = match why {
                    Turned::ShareFull => format!("{} for one user", slots.share_max()),
                    Turned::Full | Turned::NoHello => slots.max().to_string(),
                };
                self.turned_away(why);
                tracing::debug!(%peer, why = why.as_str(), "connection turned away");
                socket.turn_away(&format!(
                    "limit connections reached: at most {of}; see --limit"
                ));
                None
            }
        }
    }

    fn turned_away(&self, why: Turned) {
        self.observer.turned_away(why.as_str());
    }
}

/// One connection, from its first byte to its end.
async fn connection<D: Devices>(serving: Arc<Serving<D>>, socket: Socket, slot: Slot) {
    let hello = tokio::select! {
        () = stopped(serving.shutdown.clone()) => return,
        hello = tokio::time::timeout(HELLO_TIME, socket.hello(&serving.handshakes)) => hello,
    };
    let (conn, peer) = match hello {
        Ok(Ok(ready)) => ready,
        // Who connects to see whether someone listens is no news.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return,
        Ok(Err(error)) => {
            serving.turned_away(Turned::NoHello);
            tracing::debug!(%error, "a connection did not begin as it should");
            return;
        }
        Err(_elapsed) => {
            serving.turned_away(Turned::NoHello);
            tracing::debug!("a connection did not begin in time");
            return;
        }
    };
    let known = serving.writers.access(&peer);
    let may_write = matches!(known.1, Access::Write);
    let slot = match &peer {
        Peer::Tls { .. } => match slot.prove(Key::of(&peer, &known.0), may_write) {
            Ok(slot) => slot,
            Err(why) => {
                serving.turned_away(why);
                tracing::debug!(%peer, why = why.as_str(), "connection turned away");
                return;
            }
        },
        Peer::Unix { .. } | Peer::Unidentified | Peer::Tcp { .. } => slot,
    };
    let info = Arc::new(ConnInfo::new(peer, known, slot.account(may_write)));
    let _counted = Counted::begin(serving.observer.clone(), |observer, delta| {
        observer.connections(delta);
    });
    let _present =
        may_write.then(|| Present::begin(serving.devices.clone(), info.identity.clone()));
    if let Err(error) = serve_http2(&serving, conn, &info).await {
        tracing::debug!(peer = %info.peer, %error, "connection broke off");
    }
    drop(slot);
}

async fn serve_http2<D: Devices>(
    serving: &Serving<D>,
    conn: Conn,
    info: &Arc<ConnInfo>,
) -> hyper::Result<()> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(serving.bounds.streams_per_connection)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_header_list_size(HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(ERROR_STREAMS);
    let service = service_fn(|request| serving.calls.clone().call(info.clone(), request));
    let mut conn = pin!(http2.serve_connection(TokioIo::new(conn), service));
    tokio::select! {
        ended = conn.as_mut() => return ended,
        () = info.unsent.overdue(serving.bounds.request_time) => {
            tracing::debug!(peer = %info.peer, "connection closed: its client does not read what it asked for");
            return Ok(());
        }
        () = stopped(serving.shutdown.clone()) => {}
    }
    conn.as_mut().graceful_shutdown();
    tokio::select! {
        ended = conn => ended,
        () = lingered(info) => {
            tracing::debug!(peer = %info.peer, "connection cut off: the daemon stops, and no call is under way");
            Ok(())
        }
    }
}

/// Returns when no call has been under way for a moment, in which the answers should be out.
async fn lingered(info: &ConnInfo) {
    loop {
        info.idle().await;
        tokio::time::sleep(LINGER).await;
        if info.is_idle() {
            return;
        }
    }
}

fn routes<D: Devices>(
    context: &Arc<Context<D>>,
    bounds: &Bounds,
    health: HealthReporter,
) -> Result<Routes, tonic_reflection::server::Error> {
    let native_gpus = native_gpu::GpuServiceServer::new(native::Gpus::new(context.clone()))
        .max_decoding_message_size(bounds.receive_bytes)
        .max_encoding_message_size(bounds.send_bytes);
    let providers =
        native_provider::ProviderServiceServer::new(native::Providers::new(context.clone()))
            .max_decoding_message_size(bounds.receive_bytes)
            .max_encoding_message_size(bounds.send_bytes);
    let policies = native_policy::PolicyServiceServer::new(native::Policies::new(context.clone()))
        .max_decoding_message_size(bounds.receive_bytes)
        .max_encoding_message_size(bounds.send_bytes);
    let incidents =
        native_incident::IncidentServiceServer::new(native::Incidents::new(context.clone()))
            .max_decoding_message_size(bounds.receive_bytes)
            .max_encoding_message_size(bounds.send_bytes);
    let nvml = native_nvml::NvmlServiceServer::new(native::Nvml::new(context.clone()))
        .max_decoding_message_size(bounds.receive_bytes)
        .max_encoding_message_size(bounds.send_bytes);
    let daemon = native_daemon::DaemonServiceServer::new(native::Daemon::new(context.clone()))
        .max_decoding_message_size(bounds.receive_bytes)
        .max_encoding_message_size(bounds.send_bytes);
    let upstream_gpus = upstream_gpu::GpuServiceServer::new(upstream::Gpus::new(context.clone()))
        .max_decoding_message_size(bounds.receive_bytes)
        .max_encoding_message_size(bounds.send_bytes);
    let health = tonic_health::pb::health_server::HealthServer::new(
        HealthService::from_health_reporter(health),
    )
    .max_decoding_message_size(READ_BYTES);
    let v1 = reflection().build_v1()?;
    let v1alpha = reflection().build_v1alpha()?;

    let mut routes = RoutesBuilder::default();
    routes
        .add_service(native_gpus)
        .add_service(providers)
        .add_service(policies)
        .add_service(incidents)
        .add_service(nvml)
        .add_service(daemon)
        .add_service(upstream_gpus)
        .add_service(health)
        .add_service(v1.max_decoding_message_size(READ_BYTES))
        .add_service(v1alpha.max_decoding_message_size(READ_BYTES));
    Ok(routes.routes())
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(device_api_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Returns when the daemon is to stop. A sender that is gone can't tell us later, so that is now.
async fn stopped(mut shutdown: watch::Receiver<bool>) {
    let _gone = shutdown.wait_for(|down| *down).await;
}

/// Tells those who watch the health that it is over, and ends their streams, so that they don't
/// hold up the drain.
async fn stop_health(mut health: HealthReporter, shutdown: watch::Receiver<bool>) {
    stopped(shutdown).await;
    for name in HEALTH_NAMES {
        health
            .set_service_status(name, ServingStatus::NotServing)
            .await;
        health.clear_service_status(name).await;
    }
}
