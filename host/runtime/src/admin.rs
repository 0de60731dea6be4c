//! What operators' machines ask over HTTP: `/healthz` and `/readyz` on one port, `/metrics` on
//! another. Bound before the daemon is ready, and served until it has drained.
//!
//! - `/healthz`: 200 while the daemon's runtime runs tasks. A restart is the cure for anything else.
//! - `/readyz`: 200 when ready, 503 while starting or draining; the body tells of each component, as
//!   text, or as JSON with `?format=json` or `Accept: application/json`.
//! - `/metrics`: the Prometheus text format.
//!
//! One request a connection, each with a deadline, a bounded number at a time: these ports are open
//! to the network, and a client that trickles must not shut out the kubelet.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use device_api_core::repeats::Repeats;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::Service as _;

use crate::config::AdminConfig;
use crate::metrics::Metrics;
use crate::readiness::{Readiness, Report};

/// What clients of one port may take up.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    connections_max: usize,
    /// One request with its answer.
    connection_max: Duration,
}

/// A kubelet, a few Prometheus replicas, people with curl. A scrape takes milliseconds, and a
/// kubelet gives up after 1 s.
const BOUNDS: Bounds = Bounds {
    connections_max: 64,
    connection_max: Duration::from_secs(10),
};

/// Pause after accepting failed (no file descriptors left): what is out will be freed by others.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Content type of the Prometheus text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why a port can't be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error(
        "{flag}: {address} is in use; stop whoever uses it, or give another port (0 takes a free one)"
    )]
    InUse {
        flag: &'static str,
        address: SocketAddr,
    },
    #[error(
        "{flag}: can't listen on {address}; give another port, or an --admin-address of this machine"
    )]
    Bind {
        flag: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
}

/// Both ports, bound and not yet served.
#[derive(Debug)]
pub(crate) struct Admin {
    health: TcpListener,
    metrics: TcpListener,
    pub(crate) health_address: SocketAddr,
    pub(crate) metrics_address: SocketAddr,
}

/// Both servers. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    _servers: JoinSet<()>,
}

impl Admin {
    /// # Errors
    /// [`BindError`], naming the flag.
    pub(crate) async fn bind(config: &AdminConfig) -> Result<Self, BindError> {
        let address = |port| SocketAddr::new(config.address, port);
        let (health, health_address) = bind("--health-port", address(config.health_port)).await?;
        let (metrics, metrics_address) =
            bind("--metrics-port", address(config.metrics_port)).await?;
        Ok(Self {
            health,
            metrics,
            health_address,
            metrics_address,
        })
    }

    pub(crate) fn serve(self, readiness: Readiness, metrics: Arc<Metrics>) -> Serving {
        let mut servers = JoinSet::new();
        servers.spawn(accept(self.health, health_routes(readiness), BOUNDS));
        servers.spawn(accept(self.metrics, metrics_routes(metrics), BOUNDS));
        Serving { _servers: servers }
    }
}

async fn bind(
    flag: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::AddrInUse {
            BindError::InUse { flag, address }
        } else {
            BindError::Bind {
                flag,
                address,
                source,
            }
        }
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Serves until the task is dropped, and all its connections with it.
async fn accept(listener: TcpListener, routes: Router, bounds: Bounds) {
    let slots = Arc::new(Semaphore::new(bounds.connections_max));
    let mut connections = JoinSet::new();
    let failed = Repeats::new();
    loop {
        while connections.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                failed.went_well();
                let routes = routes.clone();
                connections.spawn(async move {
                    if tokio::time::timeout(bounds.connection_max, answer(stream, routes))
                        .await
                        .is_err()
                    {
                        tracing::debug!("a client of an admin port took too long");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                if let Some(times) = failed.due() {
                    tracing::warn!(%error, times, "can't accept a connection on an admin port; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, routes: Router) {
    let service = service_fn(move |request| {
        let mut routes = routes.clone();
        async move { Ok::<_, Infallible>(infallible(routes.call(request).await)) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a client of an admin port broke off");
    }
}

fn infallible(response: Result<Response, Infallible>) -> Response {
    let Ok(response) = response;
    response
}

fn health_routes(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(readiness)
}

fn metrics_routes(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(render_metrics))
        .with_state(metrics)
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(readiness): State<Readiness>, uri: Uri, headers: HeaderMap) -> Response {
    let report = readiness.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if wants_json(&uri, &headers) {
        let body = as_json(&report).to_string() + "\n";
        (status, [(CONTENT_TYPE, "application/json")], body).into_response()
    } else {
        (status, as_text(&report)).into_response()
    }
}

fn wants_json(uri: &Uri, headers: &HeaderMap) -> bool {
    let asked = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .any(|pair| pair == "format=json");
    let accept = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    asked || accept.contains("application/json")
}

fn summary(report: &Report) -> &'static str {
    match (report.ready, report.draining) {
        (_, true) => "draining",
        (true, false) => "ready",
        (false, false) => "starting",
    }
}

fn as_text(report: &Report) -> String {
    let mut text = format!("{}\n", summary(report));
    for what in &report.waiting {
        text += &format!("waiting for {what}\n");
    }
    for component in &report.components {
        text += &format!(
            "{}: {}: {}\n",
            component.name,
            component.state.as_str(),
            component.detail
        );
    }
    text
}

fn as_json(report: &Report) -> serde_json::Value {
    let component = |component: &crate::readiness::Part| {
        serde_json::json!({
            "name": component.name,
            "state": component.state.as_str(),
            "detail": component.detail,
        })
    };
    serde_json::json!({
        "status": summary(report),
        "ready": report.ready,
        "waiting": report.waiting,
        "components": report.components.iter().map(component).collect::<Vec<_>>(),
    })
}

async fn render_metrics(State(metrics): State<Arc<Metrics>>) -> Response {
    // It reads `/proc` and waits for another scrape, which no worker of the runtime is to do.
    let rendered = tokio::task::spawn_blocking(move || metrics.render()).await;
    let error = match rendered {
        Ok(Ok(text)) => return ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    tracing::error!(error, "metrics can't be rendered");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
