//! A node, and hostile guests in its policy directory.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::policy_service_client::PolicyServiceClient;
use device_api_proto::native::{Gpu, Health, ReloadPoliciesRequest};
use device_api_tests::hostile::{Hostile, provide_wasi};
use device_api_tests::{Native, Node, condition_of, health_of};
use tokio::task::JoinHandle;

use crate::load::{self, Readers, Stimulus};

/// A node, with its policy directory.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) node: Node,
    policies: PathBuf,
    /// Resident memory once it was ready, in KiB.
    pub(crate) resident_kib: u64,
}

impl Rig {
    /// A node that has loaded these guests while it ran.
    pub(crate) async fn with(guests: &[Hostile]) -> Result<Self> {
        let rig = Self::idle().await?;
        for guest in guests {
            rig.load(*guest).await?;
        }
        Ok(rig)
    }

    /// Has a guest's file appear in the policy directory, and the daemon look at it.
    pub(crate) async fn load(&self, guest: Hostile) -> Result<()> {
        place(guest, &self.policies)?;
        reload(self.node.native().await?).await
    }

    /// Loads a component that is none of the kit's.
    pub(crate) async fn load_file(&self, name: &str, component: &[u8]) -> Result<()> {
        std::fs::write(self.policies.join(name), component)?;
        reload(self.node.native().await?).await
    }

    /// As [`Self::load`], for one that takes its time.
    pub(crate) async fn begin_to_load(&self, guest: Hostile) -> Result<JoinHandle<Result<()>>> {
        let client = self.node.native().await?;
        place(guest, &self.policies)?;
        Ok(tokio::spawn(reload(client)))
    }

    /// Processes that the daemon has started and that have not ended.
    pub(crate) fn children(&self) -> Result<usize> {
        let mut children = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.node.daemon.pid()))? {
            let listed = std::fs::read_to_string(thread?.path().join("children"));
            children += listed.unwrap_or_default().split_whitespace().count();
        }
        Ok(children)
    }

    /// Takes a guest's file away.
    pub(crate) async fn unload(&self, guest: Hostile) -> Result<()> {
        let path = self.policies.join(file(guest));
        if path.symlink_metadata()?.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
        reload(self.node.native().await?).await
    }

    /// Loads a guest while all is read, as often as it takes for reads to be as quick as before (see
    /// [`load::compare`]): the p99s before and meanwhile.
    pub(crate) async fn load_under(
        &self,
        readers: &mut Readers,
        guest: Hostile,
    ) -> Result<(Duration, Duration)> {
        let mut pairs = 0;
        loop {
            let quiet = readers.slice(&self.node, Stimulus::None).await?;
            let loading = readers.during(&self.node, self.load(guest)).await?;
            pairs += 1;
            if !load::is_too_slow(quiet, loading) || pairs == load::PAIRS_MAX {
                return Ok((quiet, loading));
            }
            self.unload(guest).await?;
        }
    }

    /// Starts a node with nobody in its policy directory, and waits until it has judged its GPUs.
    pub(crate) async fn idle() -> Result<Self> {
        // The longest deadline there is: what a guest does wrong comes before a busy machine's delays.
        let builder = Node::builder()?.flag("policy-deadline", "25ms");
        let policies = builder.dir().join("policies");
        std::fs::create_dir(&policies)?;
        // So that the directory of whom nothing is left is no volume that went.
        std::fs::write(policies.join("policies.yaml"), "policies: []\n")?;
        let node = builder
            .flag("policy-dir", policies.display().to_string())
            .start()?;
        let mut rig = Self {
            node,
            policies,
            resident_kib: 0,
        };
        rig.is_judged().await?;
        rig.resident_kib = rig.memory_kib("VmRSS:")?;
        Ok(rig)
    }

    /// Stops the daemon, has one guest take another's place, and starts it again.
    pub(crate) async fn replace(&mut self, old: Hostile, new: Hostile) -> Result<()> {
        self.node.stop(rustix::process::Signal::TERM)?;
        std::fs::remove_file(self.policies.join(file(old)))?;
        place(new, &self.policies)?;
        self.node.start_again()?;
        self.is_judged().await
    }

    /// Waits until each GPU has been judged by the bundled policies, whatever else is said of it.
    async fn is_judged(&self) -> Result<()> {
        for gpu in self.node.gpus() {
            let is_judged = |gpu: &Gpu| {
                health_of(gpu) != Health::Unknown && condition_of(gpu, "NvmlReachable").is_some()
            };
            self.node
                .native()
                .await?
                .watch(0)
                .await?
                .until(&gpu.uuid, "judged", is_judged)
                .await?;
        }
        Ok(())
    }

    /// A line of `/proc/PID/status`, in KiB. The daemon that was started is there, or it has none.
    pub(crate) fn memory_kib(&self, line: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.node.daemon.pid()))?;
        let found = status.lines().find_map(|found| found.strip_prefix(line));
        let kib = found.and_then(|found| found.split_whitespace().next());
        Ok(kib
            .with_context(|| format!("the daemon is gone: no {line} in its status"))?
            .parse()?)
    }
}

/// Has the daemon look at its policies; answered when what is there has been taken up or refused.
async fn reload(client: Native) -> Result<()> {
    let answer = PolicyServiceClient::new(client.channel)
        .reload_policies(ReloadPoliciesRequest {})
        .await?;
    let refused = answer.into_inner().refused;
    ensure!(
        refused.is_empty(),
        "the set as a whole was refused: {refused}"
    );
    Ok(())
}

/// Puts a guest into a policy directory; builds it, where it is of WASI.
fn place(guest: Hostile, policies: &Path) -> Result<()> {
    static BUILT: OnceLock<()> = OnceLock::new();
    if guest.is_wasi() && BUILT.get().is_none() {
        let workshop = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
        provide_wasi(guest_build::wasi::rust(&workshop, "hostile-guests")?);
        BUILT.get_or_init(|| ());
    }
    guest.place(&policies.join(file(guest)))
}

/// A guest's file in the policy directory.
pub(crate) fn file(guest: Hostile) -> String {
    format!("{}.wasm", guest.name())
}
