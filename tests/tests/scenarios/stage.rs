//! A node on which a scenario is played, and what is seen of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{ConditionStatus, Gpu, Health, Incident, Polarity};
use device_api_tests::{Native, Node, PATIENCE, health_of};
use nvml_sim::control::{Client, ScenarioStatus};
use nvml_sim::profile::Profile;
use nvml_sim::scenario;

/// Links settle at once; all else as shipped.
const POLICIES: &str = "
policies:
  - {name: xid-policy}
  - name: nvml-health
    config: {pcie_settle_s: 1, nvlink_settle_s: 1, fabric_settle_s: 1}
";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scenarios")
}

/// Health, recommended action, and each condition that is a problem with its reason; `One|Other` where it depends on
/// which source was quicker.
pub(crate) type State<'a> = (Health, &'a str, &'a [(&'a str, &'a str)]);

/// Nothing is wrong.
pub(crate) const WELL: State<'static> = (Health::Healthy, "NONE", &[]);

/// A scenario that is being played.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) node: Node,
    pub(crate) client: Native,
    sim: Client,
    steps: usize,
}

impl Stage {
    /// A node as the scenario wants it, all of it Healthy; of the scenario the first step is done.
    pub(crate) async fn set(name: &str) -> Result<Self> {
        Self::set_on(name, None).await
    }

    /// As [`Self::set`], with that version of the driver.
    pub(crate) async fn set_on(name: &str, driver: Option<&str>) -> Result<Self> {
        let scenario = scenario::read(&folder().join(format!("{name}.yaml")))?;
        let profile = Profile::named(&scenario.profile).context("no such profile")?;
        let mut builder = Node::builder()?;
        if let Some(driver) = driver {
            builder = builder.env("NVML_SIM_DRIVER", driver);
        }
        let policies = builder.dir().join("policies.yaml");
        std::fs::write(&policies, POLICIES)?;
        let node = builder
            .profile(profile)
            .gpus(scenario.gpus)
            .with_the_drivers_lines()
            .flag("policies-file", policies.to_string_lossy())
            .start()?;
        let client = node.healthy().await?;
        let mut sim = node.sim()?;
        let steps = scenario.steps.len();
        sim.play(scenario, 0.0, false)?;
        let mut stage = Self {
            node,
            client,
            sim,
            steps,
        };
        stage.done(1)?;
        Ok(stage)
    }

    fn progress(&mut self) -> Result<ScenarioStatus> {
        let told = self.sim.status()?.scenario.context("nothing is played")?;
        ensure!(!told.state.starts_with("failed"), "{told:?}");
        Ok(told)
    }

    /// Waits until that step is done: it may wait for something of the daemon's.
    pub(crate) fn done(&mut self, step: usize) -> Result<()> {
        let start = Instant::now();
        while self.progress()?.done < step {
            ensure!(start.elapsed() < PATIENCE, "{:?}", self.progress());
        }
        Ok(())
    }

    /// Moves the clock on by what is written before that step, which is the next.
    pub(crate) fn step(&mut self, by: Duration, step: usize) -> Result<()> {
        let before = self.progress()?;
        ensure!(before.done + 1 == step, "{before:?}");
        self.sim.advance(by)?;
        let after = self.progress()?;
        ensure!(after.done == step, "{by:?} is not its time: {after:?}");
        Ok(())
    }

    /// It was played to its end.
    pub(crate) fn is_over(&mut self) -> Result<()> {
        self.done(self.steps)?;
        let told = self.progress()?;
        ensure!(told.state == "played", "{told:?}");
        Ok(())
    }

    /// Waits until a device is in just that state.
    pub(crate) async fn until(&mut self, name: &str, state: State<'_>) -> Result<Gpu> {
        self.until_it(name, &format!("{state:?}"), |gpu| is(gpu, state))
            .await
    }

    /// Waits until a device is as wanted.
    pub(crate) async fn until_it(
        &mut self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Gpu) -> bool,
    ) -> Result<Gpu> {
        self.client.watch(0).await?.until(name, what, wanted).await
    }

    /// As [`Self::until`], by the GPU's index.
    pub(crate) async fn gpu_until(&mut self, gpu: u32, state: State<'_>) -> Result<Gpu> {
        let name = self.node.uuid(gpu)?;
        self.until(&name, state).await
    }

    /// All GPUs but these are well, or are once it is known which one it is that does not answer.
    pub(crate) async fn others_are_well(&mut self, but: &[u32]) -> Result<()> {
        for gpu in self.node.gpus() {
            if !but.contains(&gpu.index) {
                self.until(&gpu.uuid, WELL).await?;
            }
        }
        Ok(())
    }

    /// What is told of one: `3: xid 79 by kmsg+nvml`; `3: xid 154 of 79 by …` where 79 is its root.
    fn in_words(&self, all: &[Incident], of: &Incident) -> String {
        let gpu = |uuid: &str| {
            let mut gpus = self.node.gpus().into_iter();
            let found = gpus.find(|gpu| gpu.uuid == uuid);
            found.map_or_else(|| uuid.to_owned(), |gpu| gpu.index.to_string())
        };
        let what = |incident: &Incident| {
            let code = incident.code.map(|code| format!(" {code}"));
            format!("{}{}", incident.kind, code.unwrap_or_default())
        };
        let root = match of.root {
            0 => String::new(),
            id => {
                let root = all.iter().find(|one| one.id == id);
                let root = root.map_or_else(|| "no longer kept".to_owned(), what);
                format!(" of {root}")
            }
        };
        let mut sources: Vec<_> = of.accounts.iter().map(|it| &*it.source).collect();
        sources.sort_unstable();
        let end = match &*of.closed_by {
            "" => String::new(),
            by => format!(", closed by {by}"),
        };
        format!(
            "{}: {}{root} by {}{end}",
            gpu(&of.device),
            what(of),
            sources.join("+")
        )
    }

    /// Waits until there are just these incidents, in any order: what a source adds to one is no news to a watch.
    pub(crate) async fn incidents<Line: AsRef<str> + std::fmt::Debug>(
        &mut self,
        wanted: &[Line],
    ) -> Result<Vec<Incident>> {
        let start = Instant::now();
        loop {
            let all = self.client.incidents().await?;
            let told: Vec<_> = all.iter().map(|one| self.in_words(&all, one)).collect();
            let mut left = told.clone();
            let all_told = wanted.iter().all(|line| {
                let at = left.iter().position(|told| line.as_ref() == told);
                at.map(|at| left.remove(at)).is_some()
            });
            if all_told && left.is_empty() {
                return Ok(all);
            }
            if start.elapsed() > PATIENCE {
                bail!("wanted {wanted:#?}, told {told:#?}: {all:#?}");
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Each condition that is a problem, with its reason.
pub(crate) fn problems(gpu: &Gpu) -> BTreeMap<&str, &str> {
    let all = gpu.status.iter().flat_map(|status| &status.conditions);
    // `Ready` sums them up.
    let all = all.filter(|one| one.r#type != "Ready");
    let problems = all.filter(|one| match one.polarity() {
        Polarity::TrueIsHealthy => one.status() == ConditionStatus::False,
        Polarity::TrueIsProblem | Polarity::Unspecified => one.status() == ConditionStatus::True,
    });
    problems.map(|one| (&*one.r#type, &*one.reason)).collect()
}

fn shown(gpu: &Gpu) -> (Health, &str, BTreeMap<&str, &str>) {
    let action = gpu.status.as_ref().map(|it| &*it.recommended_action);
    (health_of(gpu), action.unwrap_or_default(), problems(gpu))
}

fn is(gpu: &Gpu, (health, action, wanted): State<'_>) -> bool {
    let (is_health, is_action, problems) = shown(gpu);
    let named = |(type_, reason): &(&str, &str)| {
        let mut reasons = reason.split('|');
        reasons.any(|reason| problems.get(type_) == Some(&reason))
    };
    (is_health, is_action, problems.len()) == (health, action, wanted.len())
        && wanted.iter().all(named)
}
