//! Writes the health that a site's own agent sees: one condition of one GPU, kept alive by heartbeats.
//!
//! Needs to be allowed to write (root, or `--allow-write-uid` and `--allow-write-gid` of the daemon), and the
//! Unix socket: TCP is read-only.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use device_api_examples::{Backoff, TARGET, connect, say, within};
use device_api_proto::native::provider_service_client::ProviderServiceClient;
use device_api_proto::native::{
    Condition, ConditionStatus, HeartbeatRequest, Polarity, RegisterProviderRequest, Severity,
    UpdateGpuConditionRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Tells of one GPU whether its leak sensor is wet
#[derive(Debug, Parser)]
struct Args {
    /// Where the daemon listens
    #[arg(long, env = "NVIDIA_DEVICE_API_TARGET", default_value = TARGET)]
    target: String,
    /// Name, the same over restarts
    #[arg(long, default_value = "rack-agent")]
    name: String,
    /// Name of the GPU
    #[arg(long)]
    gpu: String,
    /// Lease in seconds
    #[arg(long, default_value_t = 30)]
    lease: u32,
    /// End after so many heartbeats
    #[arg(long)]
    beats: Option<u64>,
    /// The sensor is wet
    #[arg(long)]
    leaking: bool,
}

/// Codes after which the same call may go through later. UNAVAILABLE leaves the outcome unknown; writing a
/// condition again is harmless.
const PASSING: [Code; 3] = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];

struct Provider {
    client: ProviderServiceClient<Channel>,
    args: Args,
    /// The lease, and whether anything was done under it.
    lease: Option<Lease>,
}

struct Lease {
    id: String,
    /// A lease that nothing was done under is not to blame for a refusal.
    is_proven: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let client = ProviderServiceClient::new(connect(&args.target)?);
    let mut provider = Provider {
        client,
        args,
        lease: None,
    };
    tokio::select! {
        ended = provider.run() => ended,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

impl Provider {
    /// Whatever ends a lease, the way back is the same: register, and say again what is so.
    async fn run(&mut self) -> Result<()> {
        let mut backoff = Backoff::default();
        let mut beats = 0;
        loop {
            let before = beats;
            let Err(error) = self.serve(&mut beats).await else {
                return Ok(());
            };
            let status = error.downcast::<Status>()?;
            eprintln!("{:?}: {}", status.code(), status.message());
            let was_proven = self.lease.as_ref().is_some_and(|lease| lease.is_proven);
            if status.code() == Code::PermissionDenied && was_proven {
                // The lease has run out, or the daemon has forgotten it.
                self.lease = None;
            } else if !PASSING.contains(&status.code()) {
                return Err(status.into());
            }
            if beats != before {
                backoff = Backoff::default();
            }
            backoff.pause().await;
        }
    }

    /// Registers where there is no lease, writes, and beats three times as often as the lease needs.
    async fn serve(&mut self, beats: &mut u64) -> Result<()> {
        if self.lease.is_none() {
            self.register().await?;
        }
        self.write().await?;
        while self.args.beats.is_none_or(|max| *beats < max) {
            tokio::time::sleep(Duration::from_secs(self.args.lease.into()) / 3).await;
            let request = within(HeartbeatRequest {
                lease_id: self.lease_id()?,
            });
            let answer = self.client.heartbeat(request).await?.into_inner();
            *beats += 1;
            say("HEARTBEAT")?;
            if answer.rewrite_conditions {
                self.write().await?;
            }
        }
        Ok(())
    }

    async fn register(&mut self) -> Result<()> {
        let request = RegisterProviderRequest {
            name: self.args.name.clone(),
            lease_duration: Some(prost_types::Duration {
                seconds: self.args.lease.into(),
                nanos: 0,
            }),
        };
        let answer = self.client.register_provider(within(request)).await?;
        self.lease = Some(Lease {
            id: answer.into_inner().lease_id,
            is_proven: false,
        });
        say(format!(
            "REGISTERED {} lease={}s",
            self.args.name, self.args.lease
        ))?;
        Ok(())
    }

    async fn write(&mut self) -> Result<()> {
        let request = UpdateGpuConditionRequest {
            lease_id: self.lease_id()?,
            name: self.args.gpu.clone(),
            namespace: String::new(),
            condition: Some(condition(self.args.leaking)),
        };
        let gpu = self.client.update_gpu_condition(within(request)).await?;
        if let Some(lease) = &mut self.lease {
            lease.is_proven = true;
        }
        let gpu = gpu.into_inner();
        let health = gpu.status.unwrap_or_default().health();
        say(format!(
            "WROTE CoolantLeak of {} version={} health={}",
            gpu.name,
            gpu.resource_version,
            health.as_str_name().trim_start_matches("HEALTH_")
        ))?;
        Ok(())
    }

    fn lease_id(&self) -> Result<String> {
        let lease = self.lease.as_ref().context("not registered")?;
        Ok(lease.id.clone())
    }
}

fn condition(is_leaking: bool) -> Condition {
    let (status, reason, message, action) = if is_leaking {
        let message = "The leak sensor under the cold plate is wet.";
        (
            ConditionStatus::True,
            "SensorWet",
            message,
            "CONTACT_SUPPORT",
        )
    } else {
        (ConditionStatus::False, "SensorDry", "", "NONE")
    };
    Condition {
        r#type: "CoolantLeak".to_owned(),
        status: status.into(),
        // Declared, never guessed: True is the bad news here.
        polarity: Polarity::TrueIsProblem.into(),
        severity: Severity::Warning.into(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        recommended_action: action.to_owned(),
        ..Condition::default()
    }
}
