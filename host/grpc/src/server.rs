//! Serving: both dialects, health and reflection on all listeners, until told to stop.

use std::sync::Arc;
use std::time::Duration;

use device_api_core::limits::{
    GRPC_RECEIVE_BYTES_MAX, GRPC_SEND_BYTES_MAX, STREAMS_PER_CONNECTION_MAX,
};
use device_api_core::ports::Devices;
use device_api_proto::native::gpu_service_server as native_gpu;
use device_api_proto::native::provider_service_server as native_provider;
use device_api_proto::upstream::gpu_service_server as upstream_gpu;
use tokio::sync::watch;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use crate::context::Context;
use crate::incoming::incoming;
use crate::listen::Bound;
use crate::observe::RpcObserver;
use crate::{native, upstream};

/// Names in the gRPC health protocol; the empty one is the server as a whole.
const HEALTH_NAMES: [&str; 4] = [
    "",
    native_gpu::SERVICE_NAME,
    native_provider::SERVICE_NAME,
    upstream_gpu::SERVICE_NAME,
];

/// How long a connection may say nothing before it is asked whether it still lives, and how long
/// it may take to answer: a frozen TCP client is let go within two minutes. Clients' own pings
/// (every 50 s and more) are answered whenever they come; none is too often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(100);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why serving did not start or broke off.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptors that this binary was built with can't be read: a broken build.
    #[error("the descriptor set for gRPC reflection is broken; rebuild the daemon")]
    Reflection(#[source] tonic_reflection::server::Error),
    #[error("the gRPC server stopped; restart the daemon")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves until `shutdown` turns true (or its sender is gone) and all is drained: no connection is
/// accepted any more, watches end with `Unavailable`, unary calls under way finish. A client that
/// neither reads nor hangs up can hold that off for ever; the caller sets the limit by dropping
/// the future.
///
/// # Errors
/// [`ServeError`].
pub async fn serve<D: Devices>(
    bound: Bound,
    devices: Arc<D>,
    observer: Arc<dyn RpcObserver>,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let (listeners, writers) = bound.into_parts();
    let context = Arc::new(Context::new(devices, observer, writers, shutdown.clone()));
    let health = HealthReporter::new();
    for name in HEALTH_NAMES {
        health
            .set_service_status(name, ServingStatus::Serving)
            .await;
    }
    let routes = routes(&context, health.clone()).map_err(ServeError::Reflection)?;
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .serve_with_incoming_shutdown(
            routes.prepare(),
            incoming(listeners),
            stopped(shutdown.clone()),
        );
    let (served, ()) = tokio::join!(server, stop_health(health, shutdown));
    served.map_err(ServeError::Transport)
}

fn routes<D: Devices>(
    context: &Arc<Context<D>>,
    health: HealthReporter,
) -> Result<Routes, tonic_reflection::server::Error> {
    let native_gpus = native_gpu::GpuServiceServer::new(native::Gpus::new(context.clone()))
        .max_decoding_message_size(GRPC_RECEIVE_BYTES_MAX)
        .max_encoding_message_size(GRPC_SEND_BYTES_MAX);
    let providers =
        native_provider::ProviderServiceServer::new(native::Providers::new(context.clone()))
            .max_decoding_message_size(GRPC_RECEIVE_BYTES_MAX)
            .max_encoding_message_size(GRPC_SEND_BYTES_MAX);
    let upstream_gpus = upstream_gpu::GpuServiceServer::new(upstream::Gpus::new(context.clone()))
        .max_decoding_message_size(GRPC_RECEIVE_BYTES_MAX)
        .max_encoding_message_size(GRPC_SEND_BYTES_MAX);
    let health = tonic_health::pb::health_server::HealthServer::new(
        HealthService::from_health_reporter(health),
    );

    let mut routes = RoutesBuilder::default();
    routes
        .add_service(native_gpus)
        .add_service(providers)
        .add_service(upstream_gpus)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
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
