//! A small daemon: what it serves is given, what it was asked is kept.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use device_api_proto::Encoded;
use device_api_proto::native::server::gpu_service_server::{GpuService, GpuServiceServer};
use device_api_proto::native::server::incident_service_server::IncidentServiceServer;
use device_api_proto::native::server::policy_service_server::PolicyServiceServer;
use device_api_proto::native::server::provider_service_server::{
    ProviderService, ProviderServiceServer,
};
use device_api_proto::native::server::{
    CreateGpuResponse, GetGpuResponse, ListGpusResponse, RegisterGpuResponse, WatchGpusResponse,
};
use device_api_proto::native::{
    CreateGpuRequest, DeleteGpuRequest, DeleteGpuResponse, EventType, ForgetProviderRequest,
    ForgetProviderResponse, GetGpuRequest, Gpu, HeartbeatRequest, HeartbeatResponse,
    ListGpusRequest, ListProvidersRequest, ListProvidersResponse, Provider,
    ProviderUpdateGpuStatusRequest, RegisterGpuRequest, RegisterProviderRequest,
    RegisterProviderResponse, UnregisterGpuRequest, UnregisterGpuResponse,
    UpdateGpuConditionRequest, UpdateGpuRequest, UpdateGpuStatusRequest, WatchGpusRequest,
};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt, iter};
use tonic::{Request, Response, Status, async_trait};

use crate::incidents::Incidents;
use crate::policies::Policies;

type Events = tokio::sync::broadcast::Sender<Result<WatchGpusResponse, Status>>;
type Boxed = Pin<Box<dyn Stream<Item = Result<WatchGpusResponse, Status>> + Send>>;

/// Serves `gpus` as of `version`. A watch at 0 begins with them; one before `oldest` is out of range.
#[derive(Clone)]
struct Daemon {
    gpus: Vec<Gpu>,
    version: i64,
    oldest: i64,
    events: Events,
    asked: Arc<Mutex<Vec<String>>>,
    forgotten: Arc<Mutex<Vec<String>>>,
    /// Lists fail.
    is_broken: Arc<AtomicBool>,
}

impl Daemon {
    /// Keeps what was asked for, where it was anything in particular.
    fn note(&self, what: &str, labels: &str, fields: &str, more: &str) -> Result<(), Status> {
        if labels == "bad" {
            return Err(Status::invalid_argument("label_selector: bad"));
        }
        if !labels.is_empty() {
            let asked = format!("{what} {labels} {fields}{more}");
            self.asked.lock().unwrap().push(asked);
        }
        Ok(())
    }
}

pub(crate) fn event(kind: EventType, gpu: Gpu) -> WatchGpusResponse {
    WatchGpusResponse {
        r#type: kind.into(),
        resource_version: gpu.resource_version,
        gpu: Some(Encoded::of(&gpu)),
        initial_state_end: false,
    }
}

pub(crate) fn bookmark(version: i64) -> WatchGpusResponse {
    WatchGpusResponse {
        r#type: EventType::Bookmark.into(),
        resource_version: version,
        ..Default::default()
    }
}

fn unimplemented<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not asked for"))
}

#[async_trait]
impl GpuService for Daemon {
    type WatchGpusStream = Boxed;

    async fn list_gpus(
        &self,
        request: Request<ListGpusRequest>,
    ) -> Result<Response<ListGpusResponse>, Status> {
        let request = request.into_inner();
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(Status::internal("broken"));
        }
        self.note("list", &request.label_selector, &request.field_selector, "")?;
        Ok(Response::new(ListGpusResponse {
            gpus: self.gpus.iter().map(Encoded::of).collect(),
            resource_version: self.version,
        }))
    }

    async fn watch_gpus(
        &self,
        request: Request<WatchGpusRequest>,
    ) -> Result<Response<Boxed>, Status> {
        let request = request.into_inner();
        let exact = format!(" exact={}", request.exact);
        let (labels, fields) = (&request.label_selector, &request.field_selector);
        self.note("watch", labels, fields, &exact)?;
        let from = request.resource_version;
        if from != 0 && !(self.oldest..=self.version).contains(&from) {
            return Err(Status::out_of_range("list again"));
        }
        let now: Vec<_> = if from == 0 {
            self.gpus.clone()
        } else {
            Vec::new()
        };
        let now = now
            .into_iter()
            .map(|gpu| Ok(event(EventType::Added, gpu)))
            .collect::<Vec<_>>();
        let then = BroadcastStream::new(self.events.subscribe()).filter_map(Result::ok);
        Ok(Response::new(Box::pin(iter(now).chain(then))))
    }

    async fn get_gpu(&self, _: Request<GetGpuRequest>) -> Result<Response<GetGpuResponse>, Status> {
        unimplemented()
    }
    async fn create_gpu(
        &self,
        _: Request<CreateGpuRequest>,
    ) -> Result<Response<CreateGpuResponse>, Status> {
        unimplemented()
    }
    async fn update_gpu(&self, _: Request<UpdateGpuRequest>) -> Result<Response<Encoded>, Status> {
        unimplemented()
    }
    async fn update_gpu_status(
        &self,
        _: Request<UpdateGpuStatusRequest>,
    ) -> Result<Response<Encoded>, Status> {
        unimplemented()
    }
    async fn delete_gpu(
        &self,
        _: Request<DeleteGpuRequest>,
    ) -> Result<Response<DeleteGpuResponse>, Status> {
        unimplemented()
    }
}

fn providers() -> Vec<Provider> {
    let provider = |name: &str, identity: &str, lease: Option<i64>, types: &[&str]| Provider {
        name: name.to_owned(),
        identity: identity.to_owned(),
        lease_remaining: lease.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        condition_types: types.iter().map(ToString::to_string).collect(),
    };
    vec![
        provider("fans", "uid:7", Some(25), &["FanBroken", "FanSlow"]),
        provider("uid:8", "uid:8", None, &["NVMLReady"]),
    ]
}

#[async_trait]
impl ProviderService for Daemon {
    async fn list_providers(
        &self,
        _: Request<ListProvidersRequest>,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        let providers = providers();
        Ok(Response::new(ListProvidersResponse { providers }))
    }

    async fn forget_provider(
        &self,
        request: Request<ForgetProviderRequest>,
    ) -> Result<Response<ForgetProviderResponse>, Status> {
        let name = request.into_inner().name;
        let found = providers().into_iter().find(|one| one.name == name);
        self.forgotten.lock().unwrap().push(name);
        let released_types = found.map(|one| one.condition_types).unwrap_or_default();
        Ok(Response::new(ForgetProviderResponse { released_types }))
    }

    async fn register_provider(
        &self,
        _: Request<RegisterProviderRequest>,
    ) -> Result<Response<RegisterProviderResponse>, Status> {
        unimplemented()
    }
    async fn heartbeat(
        &self,
        _: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        unimplemented()
    }
    async fn register_gpu(
        &self,
        _: Request<RegisterGpuRequest>,
    ) -> Result<Response<RegisterGpuResponse>, Status> {
        unimplemented()
    }
    async fn unregister_gpu(
        &self,
        _: Request<UnregisterGpuRequest>,
    ) -> Result<Response<UnregisterGpuResponse>, Status> {
        unimplemented()
    }
    async fn update_gpu_status(
        &self,
        _: Request<ProviderUpdateGpuStatusRequest>,
    ) -> Result<Response<Encoded>, Status> {
        unimplemented()
    }
    async fn update_gpu_condition(
        &self,
        _: Request<UpdateGpuConditionRequest>,
    ) -> Result<Response<Encoded>, Status> {
        unimplemented()
    }
}

/// One run of the daemon. Dropping it ends it and all its connections.
pub(crate) struct Running {
    daemon: Daemon,
    policies: Policies,
    incidents: Incidents,
    _runtime: Runtime,
}

pub(crate) fn start(socket: &Path, gpus: &[Gpu], version: i64, oldest: i64) -> Running {
    let _ = std::fs::remove_file(socket);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (events, _) = tokio::sync::broadcast::channel(16);
    let daemon = Daemon {
        gpus: gpus.to_vec(),
        version,
        oldest,
        events,
        asked: Arc::default(),
        forgotten: Arc::default(),
        is_broken: Arc::default(),
    };
    let (policies, incidents) = (Policies::default(), Incidents::default());
    let listener = runtime
        .block_on(async { UnixListener::bind(socket) })
        .unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(GpuServiceServer::new(daemon.clone()))
        .add_service(ProviderServiceServer::new(daemon.clone()))
        .add_service(PolicyServiceServer::new(policies.clone()))
        .add_service(IncidentServiceServer::new(incidents.clone()));
    runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    Running {
        daemon,
        policies,
        incidents,
        _runtime: runtime,
    }
}

impl Running {
    /// Sends an event once the watcher is there.
    pub(crate) fn send(&self, event: WatchGpusResponse) {
        while self.daemon.events.send(Ok(event.clone())).is_err() {
            std::thread::yield_now();
        }
    }

    /// From now on no list of GPUs is answered.
    pub(crate) fn fail_lists(&self) {
        self.daemon.is_broken.store(true, Ordering::Relaxed);
    }

    /// Lists and watches with selectors, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.daemon.asked.lock().unwrap().clone()
    }

    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    pub(crate) fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// Providers that were forgotten, in order.
    pub(crate) fn forgotten(&self) -> Vec<String> {
        self.daemon.forgotten.lock().unwrap().clone()
    }
}
