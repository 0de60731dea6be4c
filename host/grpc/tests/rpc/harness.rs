//! A server on a socket of its own, and clients to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_api_core::limits::Bounds;
use device_api_grpc::{GrpcConfig, Operated, RpcObserver, ServeError, bind, serve};
use device_api_proto::native::gpu_service_client::GpuServiceClient as NativeClient;
use device_api_proto::native::provider_service_client::ProviderServiceClient;
use device_api_proto::upstream::gpu_service_client::GpuServiceClient as UpstreamClient;
use device_api_proto::{native, upstream};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::daemon_host::Daemon;
use crate::operated::{FaultLog, Nvml};
use crate::policy_host::{File, PolicyHost};
use crate::store::Store;

/// Longer than anything here takes; a test that hits it has found a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Native = NativeClient<Channel>;
pub(crate) type Upstream = UpstreamClient<Channel>;
pub(crate) type Provider = ProviderServiceClient<Channel>;

/// The policies of each server: one, and one of the name that requests of [`crate::attack`] often have.
const POLICIES: [File; 2] = [
    File {
        name: "gpu-0",
        version: "0.1.0",
        digit: 'f',
        is_held: false,
    },
    File {
        name: "xid-policy",
        version: "1.0.0",
        digit: 'a',
        is_held: false,
    },
];

#[derive(Debug)]
pub(crate) struct Server {
    _dir: TempDir,
    pub(crate) socket: PathBuf,
    pub(crate) tcp: SocketAddr,
    pub(crate) store: Arc<Store>,
    pub(crate) policies: Arc<PolicyHost>,
    pub(crate) incidents: Arc<FaultLog>,
    pub(crate) nvml: Arc<Nvml>,
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) observer: Arc<Recorder>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) served: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// With the limits changed.
    pub(crate) async fn bounded(change: impl FnOnce(&mut Bounds)) -> Self {
        Self::start_with(|config| change(Arc::make_mut(&mut config.bounds))).await
    }

    /// With the configuration changed; at least the socket and loopback are listened on.
    pub(crate) async fn start_with(change: impl FnOnce(&mut GrpcConfig)) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let socket = dir.path().join("run/device.sock");
        let mut config = GrpcConfig {
            unix_sockets: vec![socket.clone()],
            tcp: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            ..GrpcConfig::default()
        };
        change(&mut config);
        let bound = bind(&config).await.expect("binds");
        let tcp = bound.tcp_addr().expect("asked for");
        assert_ne!(tcp.port(), 0, "the actual port is told");
        assert_eq!(bound.unix_sockets().collect::<Vec<_>>(), [&*socket]);
        let (store, observer) = (Arc::new(Store::new()), Arc::new(Recorder::default()));
        let (stop, stopped) = watch::channel(false);
        let policies = Arc::new(PolicyHost::with(&POLICIES));
        let (incidents, nvml) = (Arc::new(FaultLog::default()), Arc::new(Nvml::default()));
        let daemon = Arc::new(Daemon::default());
        let operated = Operated {
            policies: policies.clone(),
            incidents: incidents.clone(),
            nvml: nvml.clone(),
            daemon: daemon.clone(),
        };
        let served = serve(bound, store.clone(), operated, observer.clone(), stopped);
        let served = tokio::spawn(served);
        Self {
            _dir: dir,
            socket,
            tcp,
            store,
            policies,
            incidents,
            nvml,
            daemon,
            observer,
            stop,
            served,
        }
    }

    /// A new connection over the Unix socket.
    pub(crate) async fn unix(&self) -> Channel {
        let uri = format!("unix:{}", self.socket.display());
        Endpoint::from_shared(uri)
            .expect("uri")
            .connect()
            .await
            .expect("connects")
    }

    /// A new connection over TCP.
    pub(crate) async fn tcp(&self) -> Channel {
        let uri = format!("http://{}", self.tcp);
        Endpoint::from_shared(uri)
            .expect("uri")
            .connect()
            .await
            .expect("connects")
    }

    pub(crate) async fn native(&self) -> Native {
        Native::new(self.unix().await)
    }

    pub(crate) async fn upstream(&self) -> Upstream {
        Upstream::new(self.unix().await)
    }

    pub(crate) async fn providers(&self) -> Provider {
        Provider::new(self.unix().await)
    }
}

/// Waits, and calls a hang a hang.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("hangs")
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, says: &str) {
    let status = answer.expect_err("refused");
    assert_eq!(status.code(), code, "{}", status.message());
    assert!(status.message().contains(says), "{}", status.message());
}

pub(crate) fn native_gpu(name: &str) -> native::Gpu {
    let spec = native::GpuSpec {
        uuid: format!("GPU-{name}"),
        ..Default::default()
    };
    native::Gpu {
        name: name.to_owned(),
        spec: Some(spec),
        ..Default::default()
    }
}

pub(crate) fn upstream_gpu(namespace: &str, name: &str) -> upstream::Gpu {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    upstream::Gpu {
        spec: Some(upstream::GpuSpec {
            uuid: format!("GPU-{name}"),
        }),
        metadata: Some(upstream::ObjectMeta {
            namespace,
            name,
            ..Default::default()
        }),
        status: None,
    }
}

/// Creates a GPU and gives its version.
pub(crate) async fn created(client: &mut Native, name: &str) -> i64 {
    let request = native::CreateGpuRequest {
        gpu: Some(native_gpu(name)),
    };
    let answer = client
        .create_gpu(request)
        .await
        .expect("created")
        .into_inner();
    answer.gpu.expect("gpu").resource_version
}

/// Keeps what the server says of its calls.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// Methods that there are.
    pub(crate) known: Mutex<std::collections::BTreeSet<String>>,
    pub(crate) handled: Mutex<Vec<(String, &'static str)>>,
    pub(crate) events: Mutex<Vec<&'static str>>,
    pub(crate) refusals: Mutex<Vec<&'static str>>,
    /// Refusals without a line in the audit log.
    pub(crate) suppressed: watch::Sender<usize>,
    pub(crate) connections: watch::Sender<i64>,
    pub(crate) turned_away: watch::Sender<Vec<&'static str>>,
    pub(crate) reloads: watch::Sender<Vec<bool>>,
    /// Why TLS handshakes failed.
    pub(crate) handshakes: watch::Sender<Vec<&'static str>>,
    /// Started less handled; a test can wait for it.
    pub(crate) open: watch::Sender<i64>,
    pub(crate) watches: watch::Sender<i64>,
}

impl Recorder {
    pub(crate) fn handled(&self) -> Vec<(String, &'static str)> {
        self.handled.lock().expect("lock").clone()
    }
}

impl RpcObserver for Recorder {
    fn known(&self, service: &'static str, method: &'static str) {
        let mut known = self.known.lock().expect("lock");
        known.insert(format!("{service}/{method}"));
    }

    fn started(&self, _service: &'static str, _method: &'static str) {
        self.open.send_modify(|open| *open += 1);
    }

    fn handled(
        &self,
        service: &'static str,
        method: &'static str,
        code: &'static str,
        _elapsed: Duration,
    ) {
        self.handled
            .lock()
            .expect("lock")
            .push((format!("{service}/{method}"), code));
        self.open.send_modify(|open| *open -= 1);
    }

    fn watch_event(&self, type_: &'static str) {
        self.events.lock().expect("lock").push(type_);
    }

    fn watch_active(&self, delta: i64) {
        self.watches.send_modify(|watches| *watches += delta);
    }

    fn refused(&self, reason: &'static str) {
        self.refusals.lock().expect("lock").push(reason);
    }

    fn audit_suppressed(&self) {
        self.suppressed.send_modify(|suppressed| *suppressed += 1);
    }

    fn connections(&self, delta: i64) {
        self.connections
            .send_modify(|connections| *connections += delta);
    }

    fn turned_away(&self, why: &'static str) {
        self.turned_away.send_modify(|turned| turned.push(why));
    }

    fn handshake_failed(&self, why: &'static str) {
        self.handshakes.send_modify(|failed| failed.push(why));
    }

    fn tls_reloaded(&self, used: bool) {
        self.reloads.send_modify(|reloads| reloads.push(used));
    }
}
