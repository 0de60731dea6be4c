//! The connection to the daemon.

mod daemon;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use device_api_proto::native::daemon_service_client::DaemonServiceClient;
use device_api_proto::native::gpu_service_client::GpuServiceClient;
use device_api_proto::native::incident_service_client::IncidentServiceClient;
use device_api_proto::native::nvml_service_client::NvmlServiceClient;
use device_api_proto::native::policy_service_client::PolicyServiceClient;
use device_api_proto::native::provider_service_client::ProviderServiceClient;
use device_api_proto::native::{
    AcceptPolicyRequest, AttachNvmlRequest, AttachNvmlResponse, ClearConditionRequest,
    DeleteGpuRequest, ForgetProviderRequest, GetNvmlStatusRequest, GetNvmlStatusResponse,
    GetPolicyRequest, GetPolicyResponse, Gpu, Incident, ListGpusRequest, ListGpusResponse,
    ListIncidentsRequest, ListPoliciesRequest, ListPoliciesResponse, ListProvidersRequest,
    PausePolicyRequest, Policy, PolicyOutcome, Provider, QuarantinePolicyRequest,
    ReleaseNvmlRequest, ReleaseNvmlResponse, ReleasePolicyRequest, ReloadPoliciesRequest,
    ReportResetRequest, ResumePolicyRequest, WatchGpusRequest, WatchGpusResponse,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};
use tower::service_fn;

use crate::args::Selectors;
use crate::failure::Failure;

/// How long an answer may take. The daemon's own bound for a read is 50 ms.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long the daemon may take to carry out a command on policies, which may have to compile some first. It
/// has a bound of its own (3 minutes, or the site's `request-time` where that is more, which is 10 minutes at
/// most), past which it answers DEADLINE_EXCEEDED and goes on; this is for one that hangs.
const COMMAND_WAIT_MAX: Duration = Duration::from_mins(10);

/// How long the driver may take to be let go of (calls under way end first), or taken up again. The daemon has a
/// bound of its own (`request-time`, 30 s unless the site set another); this is for one that hangs.
const HOLD_WAIT_MAX: Duration = Duration::from_mins(2);

/// Largest message taken: what the daemon sends at most.
const RECEIVE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A connection to one daemon.
#[derive(Debug)]
pub(crate) struct Client {
    service: GpuServiceClient<Channel>,
    policies: PolicyServiceClient<Channel>,
    providers: ProviderServiceClient<Channel>,
    incidents: IncidentServiceClient<Channel>,
    nvml: NvmlServiceClient<Channel>,
    daemon: DaemonServiceClient<Channel>,
    socket: PathBuf,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) outcomes: Vec<PolicyOutcome>,
    /// Why the set as a whole was refused; empty: it was not.
    pub(crate) refused: String,
    /// The policy that it was about, as it is now; `None`: it was about all, or it is gone.
    pub(crate) policy: Option<Policy>,
}

macro_rules! report {
    ($answer:expr) => {{
        let answer = $answer.into_inner();
        Report {
            outcomes: answer.outcomes,
            refused: answer.refused,
            policy: answer.policy,
        }
    }};
}

/// A command on one policy.
#[derive(Debug)]
pub(crate) enum OnPolicy {
    Quarantine(QuarantinePolicyRequest),
    Release(ReleasePolicyRequest),
    Accept(AcceptPolicyRequest),
    Pause(PausePolicyRequest),
    Resume(ResumePolicyRequest),
}

impl Client {
    pub(crate) async fn connect(socket: &Path) -> Result<Self, Failure> {
        let path = socket.to_owned();
        // Only the socket's path says where to go; HTTP/2 wants a name all the same.
        let endpoint = Endpoint::from_static("http://device-api");
        let connecting = endpoint.connect_with_connector(service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }));
        let channel = in_time(async { Ok(connecting.await) })
            .await?
            .map_err(|error| connect_failure(socket.to_owned(), &error))?;
        let providers = ProviderServiceClient::new(channel.clone());
        let policies =
            PolicyServiceClient::new(channel.clone()).max_decoding_message_size(RECEIVE_BYTES_MAX);
        let incidents = IncidentServiceClient::new(channel.clone())
            .max_decoding_message_size(RECEIVE_BYTES_MAX);
        let nvml = NvmlServiceClient::new(channel.clone());
        let daemon = DaemonServiceClient::new(channel.clone());
        let service = GpuServiceClient::new(channel).max_decoding_message_size(RECEIVE_BYTES_MAX);
        Ok(Self {
            service,
            policies,
            providers,
            incidents,
            nvml,
            daemon,
            socket: socket.to_owned(),
        })
    }

    /// The selected GPUs of all namespaces, as they existed together.
    pub(crate) async fn list(
        &mut self,
        selectors: &Selectors,
    ) -> Result<ListGpusResponse, Failure> {
        let request = ListGpusRequest {
            label_selector: selectors.labels.clone(),
            field_selector: selectors.fields.clone(),
            ..ListGpusRequest::default()
        };
        let answer = in_time(self.service.list_gpus(request)).await;
        answer
            .map(Response::into_inner)
            .map_err(|failure| self.explain(failure))
    }

    /// Changes after `version`; 0: the current state first. Bookmarks come with them, so that a
    /// reconnect resumes as late as can be.
    pub(crate) async fn watch(
        &mut self,
        version: i64,
        selectors: &Selectors,
        exact: bool,
    ) -> Result<Streaming<WatchGpusResponse>, Failure> {
        let request = WatchGpusRequest {
            namespace: String::new(),
            resource_version: version,
            label_selector: selectors.labels.clone(),
            field_selector: selectors.fields.clone(),
            exact,
            allow_bookmarks: true,
        };
        let answer = in_time(self.service.watch_gpus(request)).await;
        answer
            .map(Response::into_inner)
            .map_err(|failure| self.explain(failure))
    }

    /// Who owns a condition type or holds a lease.
    pub(crate) async fn providers(&mut self) -> Result<Vec<Provider>, Failure> {
        let answer = in_time(self.providers.list_providers(ListProvidersRequest {})).await;
        answer
            .map(|answer| answer.into_inner().providers)
            .map_err(|failure| self.explain(failure))
    }

    /// Releases a provider's condition types, and tells which.
    pub(crate) async fn forget_provider(&mut self, name: &str) -> Result<Vec<String>, Failure> {
        let request = ForgetProviderRequest {
            name: name.to_owned(),
        };
        let answer = in_time(self.providers.forget_provider(request)).await;
        answer
            .map(|answer| answer.into_inner().released_types)
            .map_err(|failure| self.explain(failure))
    }

    /// What judges faults.
    pub(crate) async fn policies(&mut self) -> Result<Vec<Policy>, Failure> {
        Ok(self.policy_list().await?.policies)
    }

    /// The same, with what is no single policy's affair.
    pub(crate) async fn policy_list(&mut self) -> Result<ListPoliciesResponse, Failure> {
        let answer = in_time(self.policies.list_policies(ListPoliciesRequest {})).await;
        answer
            .map(Response::into_inner)
            .map_err(|failure| self.explain(failure))
    }

    pub(crate) async fn policy(&mut self, name: &str) -> Result<GetPolicyResponse, Failure> {
        let request = GetPolicyRequest {
            name: name.to_owned(),
        };
        let answer = in_time(self.policies.get_policy(request)).await;
        answer
            .map(Response::into_inner)
            .map_err(|failure| self.explain(failure))
    }

    pub(crate) async fn reload_policies(&mut self) -> Result<Report, Failure> {
        self.is_there().await?;
        let call = self.policies.reload_policies(ReloadPoliciesRequest {});
        let answer = within(COMMAND_WAIT_MAX, call).await;
        let answer = answer.map(Response::into_inner).map(|answer| Report {
            outcomes: answer.outcomes,
            refused: answer.refused,
            policy: None,
        });
        answer.map_err(|failure| self.explain(under_way(failure)))
    }

    /// Carries out a command on one policy.
    pub(crate) async fn command(&mut self, command: OnPolicy) -> Result<Report, Failure> {
        self.is_there().await?;
        let policies = &mut self.policies;
        let answer = within(COMMAND_WAIT_MAX, async {
            Ok(match command {
                OnPolicy::Quarantine(it) => report!(policies.quarantine_policy(it).await?),
                OnPolicy::Release(it) => report!(policies.release_policy(it).await?),
                OnPolicy::Accept(it) => report!(policies.accept_policy(it).await?),
                OnPolicy::Pause(it) => report!(policies.pause_policy(it).await?),
                OnPolicy::Resume(it) => report!(policies.resume_policy(it).await?),
            })
        });
        answer
            .await
            .map_err(|failure| self.explain(under_way(failure)))
    }

    /// All incidents that `wanted` says, however many answers that takes.
    pub(crate) async fn incidents(
        &mut self,
        mut wanted: ListIncidentsRequest,
    ) -> Result<Vec<Incident>, Failure> {
        let mut all = Vec::new();
        loop {
            let answer = in_time(self.incidents.list_incidents(wanted.clone())).await;
            let answer = answer.map_err(|failure| self.explain(failure))?;
            let answer = answer.into_inner();
            all.extend(answer.incidents);
            let last = all.last().map_or(0, |incident| incident.id);
            // Numbers only fall, or this is no daemon of ours.
            let goes_on = wanted.before == 0 || last < wanted.before;
            if answer.left_out == 0 || last == 0 || !goes_on {
                return Ok(all);
            }
            wanted.before = last;
        }
    }

    /// Deletes a GPU, unless it has changed since it was listed.
    pub(crate) async fn delete(&mut self, gpu: &Gpu) -> Result<(), Failure> {
        let request = DeleteGpuRequest {
            name: gpu.name.clone(),
            namespace: gpu.namespace.clone(),
            resource_version: gpu.resource_version,
        };
        let answer = in_time(self.service.delete_gpu(request)).await;
        answer.map(drop).map_err(|failure| self.explain(failure))
    }

    /// Clears a problem by hand; gives the GPU as it is then, where it is still there.
    pub(crate) async fn clear(
        &mut self,
        request: ClearConditionRequest,
    ) -> Result<Option<Gpu>, Failure> {
        let answer = in_time(self.incidents.clear_condition(request)).await;
        answer
            .map(|answer| answer.into_inner().gpu)
            .map_err(|failure| self.explain(failure))
    }

    /// Reports that a GPU was reset; gives it as it is then, where it is still there.
    pub(crate) async fn report_reset(
        &mut self,
        request: ReportResetRequest,
    ) -> Result<Option<Gpu>, Failure> {
        let answer = in_time(self.incidents.report_reset(request)).await;
        answer
            .map(|answer| answer.into_inner().gpu)
            .map_err(|failure| self.explain(failure))
    }

    pub(crate) async fn nvml_status(&mut self) -> Result<GetNvmlStatusResponse, Failure> {
        let answer = in_time(self.nvml.get_nvml_status(GetNvmlStatusRequest {})).await;
        answer
            .map(Response::into_inner)
            .map_err(|failure| self.explain(failure))
    }

    pub(crate) async fn release_nvml(
        &mut self,
        request: ReleaseNvmlRequest,
    ) -> Result<ReleaseNvmlResponse, Failure> {
        self.is_there().await?;
        let answer = within(HOLD_WAIT_MAX, self.nvml.release_nvml(request)).await;
        answer
            .map(Response::into_inner)
            .map_err(|failure| self.explain(failure))
    }

    pub(crate) async fn attach_nvml(
        &mut self,
        no_wait: bool,
    ) -> Result<AttachNvmlResponse, Failure> {
        self.is_there().await?;
        let request = AttachNvmlRequest { no_wait };
        let answer = within(HOLD_WAIT_MAX, self.nvml.attach_nvml(request)).await;
        answer
            .map(Response::into_inner)
            .map_err(|failure| self.explain(failure))
    }

    /// Whoever listens on the socket may be no gRPC server, which shows with the first call only.
    fn explain(&self, failure: Failure) -> Failure {
        let why = match &failure {
            Failure::Refused(status) => find_h2_reason(status),
            Failure::Connect { .. }
            | Failure::NotGrpc { .. }
            | Failure::NoAnswer { .. }
            | Failure::NotFound { .. }
            | Failure::NoProvider { .. }
            | Failure::NoPolicy { .. }
            | Failure::NotTaken { .. }
            | Failure::UnderWay
            | Failure::NvmlBusy { .. }
            | Failure::NotAttached { .. }
            | Failure::Overtaken
            | Failure::Unconfirmed { .. }
            | Failure::Ambiguous { .. }
            | Failure::Own { .. }
            | Failure::Unwell { .. }
            | Failure::Output(_)
            | Failure::Encode { .. }
            | Failure::Runtime(_) => None,
        };
        why.map_or(failure, |why| Failure::NotGrpc {
            socket: self.socket.clone(),
            why,
        })
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Failure> {
    within(ANSWER_WAIT_MAX, call).await
}

async fn within<T>(
    after: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Failure> {
    let answer = tokio::time::timeout(after, call).await;
    Ok(answer.map_err(|_| Failure::NoAnswer { after })??)
}

/// A command that was not done in time is carried out all the same.
fn under_way(failure: Failure) -> Failure {
    if let Failure::Refused(status) = &failure
        && status.code() == Code::DeadlineExceeded
    {
        Failure::UnderWay
    } else {
        failure
    }
}

fn connect_failure(socket: PathBuf, error: &tonic::transport::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            let source = match io.raw_os_error() {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None => io::Error::new(io.kind(), io.to_string()),
            };
            return Failure::Connect { socket, source };
        }
        cause = error.source();
    }
    Failure::NotGrpc {
        socket,
        why: error.to_string(),
    }
}

/// What HTTP/2 found wrong with the peer's bytes, where that is why the call failed.
fn find_h2_reason(status: &Status) -> Option<String> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        if text.contains("frame with invalid size") || text.contains("PROTOCOL_ERROR") {
            return Some(text);
        }
        cause = error.source();
    }
    None
}

/// A GPU's name with its namespace, where that is not the default one.
pub(crate) fn qualified(gpu: &Gpu) -> String {
    if matches!(gpu.namespace.as_str(), "" | "default") {
        gpu.name.clone()
    } else {
        format!("{}/{}", gpu.namespace, gpu.name)
    }
}
