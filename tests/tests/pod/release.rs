//! A release of the chart on a node: its manifest, and the pod that runs from it.

use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Gpu, Health, Policy, PolicyPhase};
use device_api_tests::{Native, health_of};
use nvml_sim::control::Client;
use nvml_sim::profile::Profile;
use rustix::process::Signal;
use serde_json::Value;

use crate::container::Container;
use crate::helm::Chart;
use crate::machine::Machine;
use crate::manifest::list;
use crate::probe::until_started;

/// The simulated library takes commands where the daemon may write. Its GPUs count as real ones, and are looked at more
/// often than by default; all else is the chart's.
pub(crate) const VALUES: &str = "
extraEnv:
  - {name: NVML_SIM_SOCKET, value: /var/lib/device-api/sim.sock}
config:
  drills: enforce
  nvml-poll-interval: 200ms
  nvml-fault-interval: 200ms
  nvml-inventory-interval: 1s
";

pub(crate) struct Release {
    pub(crate) machine: Machine,
    pub(crate) pod: Value,
    /// Of `helm test`.
    pub(crate) test: Value,
}

impl Release {
    /// `None` where Helm or containers are not to be had, and that is said. `values` go over [`VALUES`].
    pub(crate) fn install(values: &str) -> Result<Option<Self>> {
        Self::install_with(values, &[])
    }

    /// The same, with flags of Helm besides: what [`VALUES`] says something of already.
    pub(crate) fn install_with(values: &str, flags: &[&str]) -> Result<Option<Self>> {
        let Some(chart) = Chart::find()? else {
            return Ok(None);
        };
        let Some(mut machine) = Machine::find()? else {
            return Ok(None);
        };
        let answer = chart.template(&format!("{VALUES}{values}"), flags)?;
        let rendered = answer.map_err(anyhow::Error::msg)?;
        for map in rendered
            .objects
            .iter()
            .filter(|object| object["kind"] == "ConfigMap")
        {
            let name = map["metadata"]["name"].as_str().context("no name")?;
            let files = map["data"].as_object().context("no data")?.iter();
            let files = files.map(|(file, text)| {
                let text = text.as_str().context("no text")?;
                Ok((file.as_str(), text.as_bytes()))
            });
            machine.config_map(name, &files.collect::<Result<Vec<_>>>()?)?;
        }
        let pod = rendered.pod()?.clone();
        let test = rendered.the("Pod")?["spec"].clone();
        Ok(Some(Self { machine, pod, test }))
    }

    /// The daemon's container in the manifest.
    pub(crate) fn container(&self) -> &Value {
        &self.pod["containers"][0]
    }

    /// Runs the init containers to their ends, then starts the daemon.
    pub(crate) fn start_pod(&mut self) -> Result<Container> {
        for init in list(&self.pod, "initContainers").to_vec() {
            let (status, said) = self.machine.start(&self.pod, &init)?.end()?;
            ensure!(status.success(), "{}: {status}\n{said}", init["name"]);
        }
        let container = self.container().clone();
        self.machine.start(&self.pod, &container)
    }

    /// What the kubelet does at the end of a pod: how it ended, and what it said.
    pub(crate) fn stop(&self, running: Container) -> Result<(ExitStatus, String)> {
        running.signal(Signal::TERM)?;
        let ended = running.end()?;
        let is_of_the_pod = |volume: &Value| volume["emptyDir"].is_object();
        if list(&self.pod, "volumes").iter().any(is_of_the_pod) {
            self.machine.forget_the_pod()?;
        }
        Ok(ended)
    }

    /// [`Self::start_pod`], until the kubelet would call it started.
    pub(crate) async fn started(&mut self) -> Result<Container> {
        let running = self.start_pod()?;
        until_started(&running, self.container()).await?;
        Ok(running)
    }

    /// A client on the node, over the directory that the pod has from it.
    pub(crate) async fn client(&self) -> Result<Native> {
        Native::connect(&self.machine.path("/var/run/device-api/device.sock")).await
    }

    /// One, once all eight GPUs are Healthy.
    pub(crate) async fn healthy(&self) -> Result<Native> {
        let mut client = self.client().await?;
        for gpu in 0..8 {
            let healthy = |gpu: &Gpu| health_of(gpu) == Health::Healthy;
            let mut watch = client.watch(0).await?;
            watch.until(&uuid(gpu)?, "Healthy", healthy).await?;
        }
        Ok(client)
    }

    /// Breaks GPUs.
    pub(crate) fn sim(&self) -> Result<Client> {
        let state = self.machine.volume(&self.pod, &"state".into())?;
        Ok(Client::connect(state.join("sim.sock"))?)
    }
}

/// How long a compile may take: an interpreter's takes ten seconds of an idle core, and minutes of a busy one.
const COMPILED_WITHIN: Duration = Duration::from_secs(900);

/// A policy, once no version of it is being compiled any more.
pub(crate) async fn compiled(client: &mut Native, name: &str) -> Result<Policy> {
    let began = SystemTime::now();
    loop {
        // Waits for what is being compiled, but not for ever.
        let report = client.reload().await?;
        ensure!(report.refused.is_empty(), "{report:?}");
        let policy = client.policy(name).await?;
        if policy.phase() != PolicyPhase::Compiling {
            return Ok(policy);
        }
        let waited = began.elapsed().unwrap_or(COMPILED_WITHIN);
        ensure!(waited < COMPILED_WITHIN, "still being compiled: {policy:?}");
    }
}

pub(crate) fn uuid(gpu: u32) -> Result<String> {
    Ok(Profile::standard().gpu(gpu).context("no such GPU")?.uuid)
}
