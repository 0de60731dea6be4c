//! The story: each step does something to the node and checks what a consumer sees of it.

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Condition, ConditionStatus, Gpu, Health};
use device_api_tests::{Native, Node, Watch, condition_of, health_of};

use crate::{kernel_log, narrator};

/// Tells the story. With `once` it ends there; else the node stays up until Ctrl-C.
///
/// # Errors
/// The first outcome that is not what it should be, by its step's name.
pub(crate) async fn tell(once: bool) -> Result<()> {
    let mut scene = Scene::open().await.context("step \"start the daemon\"")?;
    scene.healthy_node().await.context("step \"eight GPUs\"")?;
    scene.application_fault().await.context("step \"XID 31\"")?;
    scene.off_the_bus().await.context("step \"XID 79\"")?;
    scene
        .contained_error()
        .await
        .context("step \"contained ECC error\"")?;
    scene
        .lost_and_found()
        .await
        .context("step \"GPU lost, GPU back\"")?;
    kernel_log::tell(&mut scene)
        .await
        .context("step \"kernel log\"")?;
    narrator::say("");
    narrator::say("Every outcome was as it should be.");
    if !once {
        scene.stay().await?;
    }
    let status = scene.node.daemon.stop().context("step \"stop\"")?;
    ensure!(
        status.success(),
        "step \"stop\": the daemon ended with {status}"
    );
    Ok(())
}

pub(crate) struct Scene {
    pub(crate) node: Node,
    pub(crate) client: Native,
}

impl Scene {
    async fn open() -> Result<Self> {
        narrator::say(
            "device-api-server tells the scheduler, the device plugin and the DRA driver of this node",
        );
        narrator::say(
            "which GPUs are healthy. What counts as a fault is decided by policies: Wasm components,",
        );
        narrator::say("sandboxed, that can be swapped without a release.");
        narrator::step(
            "Start the daemon",
            "Over a simulated NVML with eight H100s: the same code path as the real library.",
        );
        let node = Node::start()?;
        narrator::saw(&format!("listening on {}", node.socket().display()));
        for line in node
            .daemon
            .log()
            .iter()
            .filter(|line| line.contains("policy loaded"))
        {
            narrator::quote(line);
        }
        let mut client = node.native().await?;
        let mut watch = client.watch(0).await?;
        tokio::spawn(async move {
            while let Ok(event) = watch.next_within(std::time::Duration::MAX).await {
                if event.r#type() != device_api_proto::native::EventType::Added {
                    narrator::watched(&event);
                }
            }
        });
        Ok(Self { node, client })
    }

    async fn healthy_node(&mut self) -> Result<()> {
        narrator::step(
            "Eight GPUs",
            "What ListGpus answers: a consistent list, derived health, one recommended action.",
        );
        for gpu in self.node.gpus() {
            self.becomes(&gpu.uuid, Health::Healthy).await?;
        }
        let list = self.client.list().await?;
        narrator::table(&list.gpus);
        ensure!(list.gpus.len() == 8, "{} GPUs, not 8", list.gpus.len());
        Ok(())
    }

    async fn application_fault(&mut self) -> Result<()> {
        narrator::step(
            "An application's fault: XID 31 on GPU 2",
            "A memory page fault in somebody's kernel. The vendor says: restart the application. The GPU is fine.",
        );
        let name = self.xid(2, &[31])?;
        let gpu = self.becomes_problem(&name, "XidApplicationError").await?;
        self.expect(&gpu, Health::Healthy, "NONE", "XidApplicationError")
    }

    async fn off_the_bus(&mut self) -> Result<()> {
        narrator::step(
            "The real thing: XID 79 on GPU 5",
            "The GPU has fallen off the bus. Reads that begin now wait until that is decided: nobody reads Healthy.",
        );
        let name = self.xid(5, &[79])?;
        self.becomes(&name, Health::Unhealthy).await?;
        let gpu = self.client.get(&name).await?;
        ensure!(
            health_of(&gpu) == Health::Unhealthy,
            "a read after the fault answered {:?}",
            health_of(&gpu)
        );
        self.expect(&gpu, Health::Unhealthy, "RESTART_BM", "XidCriticalError")?;
        let evidence = condition_of(&gpu, "XidCriticalError")
            .map(|c| c.evidence.clone())
            .unwrap_or_default();
        ensure!(!evidence.is_empty(), "XidCriticalError has no evidence");
        for piece in evidence {
            narrator::quote(&format!("evidence from {}: {}", piece.source, piece.text));
        }
        Ok(())
    }

    async fn contained_error(&mut self) -> Result<()> {
        narrator::step(
            "A contained ECC error: XID 94 on GPU 1",
            "An uncorrectable memory error that hit one application only. It is restarted; the GPU goes on.",
        );
        let name = self.xid(1, &[94])?;
        let gpu = self.becomes_problem(&name, "XidApplicationError").await?;
        self.expect(&gpu, Health::Healthy, "NONE", "XidApplicationError")
    }

    async fn lost_and_found(&mut self) -> Result<()> {
        narrator::step(
            "GPU 3 is lost, and returns",
            "NVML says that a GPU was lost, not which. All are asked; the one that does not answer is Unhealthy.",
        );
        let name = self.node.uuid(3)?;
        let answer = self.node.sim()?.lost(3)?;
        narrator::did(&answer.done);
        let gpu = self.becomes(&name, Health::Unhealthy).await?;
        self.expect(&gpu, Health::Unhealthy, "RESTART_BM", "GpuLost")?;
        for other in self
            .node
            .gpus()
            .iter()
            .filter(|other| other.index != 3 && other.index != 5)
        {
            let gpu = self.becomes(&other.uuid, Health::Healthy).await?;
            ensure!(
                condition_of(&gpu, "GpuLost").is_none_or(|c| !is_problem(c)),
                "GPU {} was lost too",
                other.index
            );
        }
        narrator::saw("the other GPUs answered, and nothing is held against them");
        let answer = self.node.sim()?.found(3)?;
        narrator::did(&answer.done);
        let gpu = self.becomes(&name, Health::Healthy).await?;
        narrator::saw(&format!("GPU 3 is {} again", narrator::word(&gpu)));
        Ok(())
    }

    async fn stay(&self) -> Result<()> {
        let (socket, sim) = (self.node.socket().display(), self.node.sim_socket());
        narrator::say("");
        narrator::say("The node stays up until Ctrl-C. Look around, in another terminal:");
        narrator::say(&format!(
            "   export DEVICE_API_SOCKET={socket} NVML_SIM_SOCKET={}",
            sim.display()
        ));
        let folder = device_api_tests::binary("devicectl")?;
        let folder = folder
            .parent()
            .map(|folder| folder.display().to_string())
            .unwrap_or_default();
        narrator::say(&format!("   {folder}/devicectl get gpus"));
        narrator::say(&format!("   {folder}/devicectl describe gpu 5"));
        narrator::say(&format!("   {folder}/devicectl watch"));
        narrator::say(&format!("   {folder}/nvml-sim xid --gpu 6 119"));
        tokio::signal::ctrl_c().await?;
        narrator::say("");
        Ok(())
    }

    /// Injects XIDs; says the GPU's name.
    fn xid(&self, gpu: u32, codes: &[u64]) -> Result<String> {
        let answer = self.node.sim()?.xid(gpu, codes)?;
        ensure!(
            answer.delivered == Some(true),
            "NVML's event was not taken by the daemon: {answer:?}"
        );
        narrator::did(&answer.done);
        self.node.uuid(gpu)
    }

    pub(crate) async fn watch(&mut self) -> Result<Watch> {
        self.client.watch(0).await
    }

    async fn becomes(&mut self, name: &str, health: Health) -> Result<Gpu> {
        self.watch()
            .await?
            .until(name, health.as_str_name(), |gpu| health_of(gpu) == health)
            .await
    }

    async fn becomes_problem(&mut self, name: &str, type_: &str) -> Result<Gpu> {
        let problem = |gpu: &Gpu| condition_of(gpu, type_).is_some_and(is_problem);
        self.watch()
            .await?
            .until(name, &format!("{type_}=True"), problem)
            .await
    }

    /// Checks a GPU's health, action and the condition that tells of it, and shows them.
    fn expect(&self, gpu: &Gpu, health: Health, action: &str, type_: &str) -> Result<()> {
        let condition = condition_of(gpu, type_).filter(|condition| is_problem(condition));
        let condition = condition
            .with_context(|| format!("no condition {type_} that is a problem on {}", gpu.name))?;
        ensure!(
            health_of(gpu) == health,
            "GPU is {:?}, not {health:?}",
            health_of(gpu)
        );
        ensure!(
            narrator::action(gpu) == action,
            "action is {}, not {action}",
            narrator::action(gpu)
        );
        narrator::saw(&format!(
            "GPU {} is {}, action {action}",
            narrator::index(gpu),
            narrator::word(gpu)
        ));
        narrator::quote(&format!(
            "{type_}: {} (by {})",
            condition.reason,
            owner(condition)
        ));
        narrator::quote(&condition.message);
        Ok(())
    }
}

/// Whether a condition of a type whose True is a problem stands.
pub(crate) fn is_problem(condition: &Condition) -> bool {
    condition.status() == ConditionStatus::True
}

fn owner(condition: &Condition) -> String {
    condition.owner.as_ref().map_or_else(String::new, |owner| {
        format!("{} {}", owner.name, owner.version)
    })
}
