//! Clients of both dialects, over the daemon's Unix socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::{native, upstream};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::PATIENCE;

/// Connects to a Unix socket.
async fn channel(socket: &Path) -> Result<Channel> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The address is for HTTP/2's sake; the connector ignores it.
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("connecting to {}", socket.display()))
}

/// The native dialect.
#[derive(Clone, Debug)]
pub struct Native {
    pub gpus: native::gpu_service_client::GpuServiceClient<Channel>,
    pub providers: native::provider_service_client::ProviderServiceClient<Channel>,
    pub policies: native::policy_service_client::PolicyServiceClient<Channel>,
    pub channel: Channel,
}

impl Native {
    /// # Errors
    /// The socket can't be connected to.
    pub async fn connect(socket: &Path) -> Result<Self> {
        Ok(Self::over(channel(socket).await?))
    }

    pub fn over(channel: Channel) -> Self {
        Self {
            gpus: native::gpu_service_client::GpuServiceClient::new(channel.clone()),
            providers: native::provider_service_client::ProviderServiceClient::new(channel.clone()),
            policies: native::policy_service_client::PolicyServiceClient::new(channel.clone()),
            channel,
        }
    }

    /// # Errors
    /// The call's status.
    pub async fn get(&mut self, name: &str) -> Result<native::Gpu> {
        let request = native::GetGpuRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        self.gpus
            .get_gpu(request)
            .await?
            .into_inner()
            .gpu
            .context("an answer without a GPU")
    }

    /// # Errors
    /// The call's status.
    pub async fn list(&mut self) -> Result<native::ListGpusResponse> {
        Ok(self
            .gpus
            .list_gpus(native::ListGpusRequest::default())
            .await?
            .into_inner())
    }

    /// Has the daemon look at its policy directory: what came of it.
    ///
    /// # Errors
    /// The call's status.
    pub async fn reload(&mut self) -> Result<native::ReloadPoliciesResponse> {
        let request = native::ReloadPoliciesRequest {};
        Ok(self.policies.reload_policies(request).await?.into_inner())
    }

    /// One policy, as `PolicyService` has it.
    ///
    /// # Errors
    /// The call's status.
    pub async fn policy(&mut self, name: &str) -> Result<native::Policy> {
        let request = native::GetPolicyRequest {
            name: name.to_owned(),
        };
        let answer = self.policies.get_policy(request).await?.into_inner();
        answer.policy.context("an answer without a policy")
    }

    /// All incidents that are kept, the oldest first.
    ///
    /// # Errors
    /// The call's status; or there are more than one answer holds.
    pub async fn incidents(&mut self) -> Result<Vec<native::Incident>> {
        let mut service =
            native::incident_service_client::IncidentServiceClient::new(self.channel.clone());
        let request = native::ListIncidentsRequest::default();
        let answer = service.list_incidents(request).await?.into_inner();
        ensure!(answer.left_out == 0, "{} more incidents", answer.left_out);
        Ok(answer.incidents.into_iter().rev().collect())
    }

    /// Watches from the current state on (0), or after a version.
    ///
    /// # Errors
    /// The call's status.
    pub async fn watch(&mut self, resource_version: i64) -> Result<Watch> {
        let request = native::WatchGpusRequest {
            resource_version,
            ..Default::default()
        };
        Ok(Watch {
            stream: self.gpus.watch_gpus(request).await?.into_inner(),
        })
    }
}

/// A watch stream that is waited on for a state, not for a number of events.
#[derive(Debug)]
pub struct Watch {
    stream: Streaming<native::WatchGpusResponse>,
}

impl Watch {
    /// The next event.
    ///
    /// # Errors
    /// The stream's status, its end, or [`PATIENCE`] is over.
    pub async fn next(&mut self) -> Result<native::WatchGpusResponse> {
        self.next_within(PATIENCE).await
    }

    /// # Errors
    /// As [`Watch::next`], with another patience.
    pub async fn next_within(&mut self, patience: Duration) -> Result<native::WatchGpusResponse> {
        match tokio::time::timeout(patience, self.stream.message()).await {
            Ok(event) => event?.context("the watch ended"),
            Err(_) => bail!("no event within {patience:?}"),
        }
    }

    /// Waits until an event shows this GPU in the wanted state.
    ///
    /// # Errors
    /// As [`Watch::next`]; names what was waited for.
    pub async fn until(
        &mut self,
        name: &str,
        what: &str,
        mut wanted: impl FnMut(&native::Gpu) -> bool,
    ) -> Result<native::Gpu> {
        let mut last = "not there".to_owned();
        loop {
            let event = self.next().await;
            let event =
                event.with_context(|| format!("waiting for {name} to be {what}; it is {last}"))?;
            let Some(gpu) = event.gpu.filter(|gpu| gpu.name == name) else {
                continue;
            };
            if wanted(&gpu) {
                return Ok(gpu);
            }
            last = in_words(&gpu);
        }
    }
}

/// The upstream dialect.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub gpus: upstream::gpu_service_client::GpuServiceClient<Channel>,
}

impl Upstream {
    /// # Errors
    /// The socket can't be connected to.
    pub async fn connect(socket: &Path) -> Result<Self> {
        Ok(Self {
            gpus: upstream::gpu_service_client::GpuServiceClient::new(channel(socket).await?),
        })
    }
}

/// The derived health of a GPU.
pub fn health_of(gpu: &native::Gpu) -> native::Health {
    gpu.status
        .as_ref()
        .map_or(native::Health::Unspecified, native::GpuStatus::health)
}

/// How a GPU is, for who reads of a failed test.
fn in_words(gpu: &native::Gpu) -> String {
    let status = gpu.status.clone().unwrap_or_default();
    let conditions = status.conditions.iter().map(|condition| {
        let (type_, reason) = (&condition.r#type, &condition.reason);
        format!(
            "\n  {type_} {:?} {reason} {}",
            condition.status(),
            condition.message
        )
    });
    let conditions: String = conditions.collect();
    format!(
        "{:?}, {}:{conditions}",
        status.health(),
        status.recommended_action
    )
}

/// One condition of a GPU.
pub fn condition_of<'a>(gpu: &'a native::Gpu, type_: &str) -> Option<&'a native::Condition> {
    gpu.status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.r#type == type_)
}
