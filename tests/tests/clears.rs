//! What clears what, as the real daemon meets it (design N7, H12): GPUs with what may stand, and each event in its own
//! form, a kill, another boot id, a reset that NVML shows, one that is reported, a driver that is bound anew, another
//! board. The whole table of docs/clears.md, cell by cell, is walked in-process, where no time has to pass
//! (`host/pipeline/tests/judging/table.rs`); quiet times, floors' double-bit errors and flapping are there alone.

use std::fmt;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::incident_service_client::IncidentServiceClient;
use device_api_proto::native::{
    ClearConditionRequest, Condition, ConditionStatus, Gpu, Polarity, RegisterProviderRequest,
    ReportResetRequest, Severity, UpdateGpuConditionRequest,
};
use device_api_tests::{Builder, Native, Node, PATIENCE, condition_of};
use nvml_sim::control::Request;
use rustix::process::Signal;

/// What may stand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stands {
    /// XID 119 with its policy: a reset, a reboot, another board, or an operator.
    Reset,
    /// XID 79 with its policy: a reboot, another board, or an operator.
    Reboot,
    /// A recovery action with its policy: none again, or what a reset is.
    Asked,
    /// XID 95 without policies: the host's floor.
    FloorOfReset,
    /// XID 79 without policies.
    FloorOfReboot,
    /// XID 119 without policies: what is assumed.
    Assumed,
    /// A provider's: for it alone to clear.
    Providers,
}

use Stands::{Asked, Assumed, FloorOfReboot, FloorOfReset, Providers, Reboot, Reset};

impl Stands {
    fn condition(self) -> &'static str {
        match self {
            Reset | Reboot => "XidCriticalError",
            Asked => "RecoveryActionRequired",
            FloorOfReset | FloorOfReboot => "FaultFloor",
            Assumed => "PolicyFallback",
            Providers => "CoolantLeak",
        }
    }

    fn is_problem(self, gpu: &Gpu) -> bool {
        let condition = condition_of(gpu, self.condition());
        condition.is_some_and(|it| it.status() == ConditionStatus::True)
    }
}

/// What happens to one GPU, or to all.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Operator,
    ResetNoticed,
    ResetReported,
    RecoveryNone,
    Rebind,
    Restart,
    Kill,
    NewBoot,
    Replaced,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What stands, and which of the events end it; the others leave it.
const WITH_POLICIES: &[(Stands, &[Event])] = &[
    (
        Reset,
        &[
            Event::Operator,
            Event::ResetNoticed,
            Event::ResetReported,
            Event::NewBoot,
        ],
    ),
    (Reboot, &[Event::Operator, Event::NewBoot]),
    (
        // An operator's word, or another's on a reset, does not last: what is asked for still is read again.
        Asked,
        &[Event::ResetNoticed, Event::RecoveryNone],
    ),
    (Providers, &[]),
];

const WITHOUT: &[(Stands, &[Event])] = &[
    (
        FloorOfReset,
        &[
            Event::Operator,
            Event::ResetNoticed,
            Event::ResetReported,
            Event::NewBoot,
        ],
    ),
    (FloorOfReboot, &[Event::Operator, Event::NewBoot]),
    (
        Assumed,
        &[
            Event::Operator,
            Event::ResetNoticed,
            Event::ResetReported,
            Event::NewBoot,
        ],
    ),
    (Providers, &[]),
];

/// Each of which happens to another GPU.
const TO_ONE: [Event; 5] = [
    Event::Operator,
    Event::ResetNoticed,
    Event::ResetReported,
    Event::RecoveryNone,
    Event::Replaced,
];

/// What happens to all of them, in this order; the reboot is the last.
const TO_ALL: [Event; 4] = [Event::Rebind, Event::Restart, Event::Kill, Event::NewBoot];

/// A GPU on which one thing stands.
#[derive(Debug)]
struct Case {
    gpu: u32,
    name: String,
    stands: Stands,
    ends: &'static [Event],
    /// What happens to it alone.
    event: Option<Event>,
}

/// Drain of peer-to-peer work: going back from it to none shows no reset.
const DRAIN_P2P: u32 = 3;

struct Walk {
    node: Node,
    client: Native,
    cases: Vec<Case>,
}

impl Walk {
    /// A node with a GPU for each thing that may stand and each event.
    fn begin(table: &'static [(Stands, &'static [Event])], safe_mode: bool) -> Result<Builder> {
        let count = u32::try_from(table.len() * (TO_ONE.len() + 1))?;
        let builder = Node::builder()?.gpus(count).in_its_own_boot()?;
        Ok(builder.flag("safe-mode", safe_mode.to_string()))
    }

    async fn start(table: &'static [(Stands, &'static [Event])], safe_mode: bool) -> Result<Self> {
        let node = Self::begin(table, safe_mode)?.start()?;
        node.daemon.wait_for(&["NVML is in use"])?;
        let client = node.native().await?;
        let events = TO_ONE.map(Some).into_iter().chain([None]);
        let pairs = table
            .iter()
            .flat_map(|row| events.clone().map(move |event| (row, event)));
        let cases = (0..).zip(pairs).map(|(gpu, (&(stands, ends), event))| {
            anyhow::Ok(Case {
                gpu,
                name: node.uuid(gpu)?,
                stands,
                ends,
                event,
            })
        });
        let cases = cases.collect::<Result<_>>()?;
        let mut walk = Self {
            node,
            client,
            cases,
        };
        walk.read_twice()?;
        for at in 0..walk.cases.len() {
            walk.raise(at).await?;
        }
        // Each is looked at again, so that it is from before what happens now.
        walk.read_twice()?;
        Ok(walk)
    }

    /// Waits until each GPU was read wholly since.
    fn read_twice(&self) -> Result<()> {
        let polls = || -> Result<u64> {
            let metrics = self.node.metrics()?;
            let polls = metrics
                .lines()
                .find_map(|line| line.strip_prefix("device_api_server_nvml_polls_total "));
            Ok(polls.context("no polls")?.parse()?)
        };
        let enough = polls()? + 3;
        let start = Instant::now();
        while polls()? < enough {
            ensure!(start.elapsed() < PATIENCE, "nothing is read");
        }
        Ok(())
    }

    async fn raise(&mut self, at: usize) -> Result<()> {
        let case = self.cases.get(at).context("no such case")?;
        let (gpu, stands) = (case.gpu, case.stands);
        let mut sim = self.node.sim()?;
        match case.event {
            Some(Event::ResetNoticed) => drop(sim.set(gpu, &[("row-remap.pending", 1)])?),
            Some(Event::RecoveryNone) => drop(sim.recovery_action(gpu, DRAIN_P2P)?),
            Some(_) | None => {}
        }
        match stands {
            Reset | Assumed => drop(sim.xid(gpu, &[119])?),
            Reboot | FloorOfReboot => drop(sim.xid(gpu, &[79])?),
            FloorOfReset => drop(sim.xid(gpu, &[95])?),
            Asked => drop(sim.recovery_action(gpu, DRAIN_P2P)?),
            Providers => provider_says(&mut self.client, &case.name).await?,
        }
        let what = format!("{stands:?}");
        let mut watch = self.client.watch(0).await?;
        let is_problem = |gpu: &Gpu| stands.is_problem(gpu);
        watch.until(&case.name, &what, is_problem).await?;
        Ok(())
    }

    /// It happens to this GPU alone.
    async fn happens(&self, case: &Case, event: Event) -> Result<()> {
        let mut service = IncidentServiceClient::new(self.client.channel.clone());
        let (gpu, name) = (case.gpu, case.name.clone());
        let reason = "it was seen to".to_owned();
        match event {
            Event::Operator => {
                let request = ClearConditionRequest {
                    name,
                    condition_type: case.stands.condition().to_owned(),
                    reason,
                    ..Default::default()
                };
                let cleared = service.clear_condition(request).await;
                ensure!(cleared.is_ok() == (case.stands != Providers), "{cleared:?}");
            }
            Event::ResetReported => {
                let request = ReportResetRequest {
                    name,
                    reason,
                    ..Default::default()
                };
                service.report_reset(request).await?;
            }
            Event::ResetNoticed => drop(self.node.sim()?.gpu_reset(gpu)?),
            Event::RecoveryNone => drop(self.node.sim()?.recovery_action(gpu, 0)?),
            Event::Replaced => drop(self.node.sim()?.request(&Request::Replace { gpu })?),
            Event::Rebind | Event::Restart | Event::Kill | Event::NewBoot => {
                anyhow::bail!("{event} happens to all")
            }
        }
        Ok(())
    }

    /// Each is over, or stands, as is written.
    async fn check(&mut self, of: impl Fn(&Case) -> Option<Event>) -> Result<()> {
        for case in &self.cases {
            let Some(event) = of(case).filter(|event| case.ends.contains(event)) else {
                continue;
            };
            let over = |gpu: &Gpu| !case.stands.is_problem(gpu);
            let what = format!("over: {:?} after {event}", case.stands);
            let mut watch = self.client.watch(0).await?;
            watch.until(&case.name, &what, over).await?;
        }
        // What would have ended by now has.
        self.read_twice()?;
        for case in &self.cases {
            let Some(event) = of(case) else { continue };
            let gpu = self.client.get(&case.name).await?;
            let stands = case.stands.is_problem(&gpu);
            let ended = case.ends.contains(&event);
            ensure!(stands != ended, "{:?} after {event}: {gpu:#?}", case.stands);
        }
        Ok(())
    }

    /// It happens to the whole node.
    async fn happens_to_all(&mut self, event: Event) -> Result<()> {
        if event == Event::Rebind {
            self.node.sim()?.unload()?;
            self.node
                .daemon
                .wait_for(&["no NVML, looking for it again"])?;
            self.node.sim()?.load()?;
            self.node.daemon.wait_for_nth(&["NVML is in use"], 2)?;
            return Ok(());
        }
        let signal = if event == Event::Kill {
            Signal::KILL
        } else {
            Signal::TERM
        };
        // Once this is answered, all that was decided is durable.
        let first = self.cases.first().context("no GPU")?.name.clone();
        provider_says(&mut self.client, &first).await?;
        self.node.stop(signal)?;
        if event == Event::NewBoot {
            self.node.next_boot()?;
        }
        self.node.start_again()?;
        self.node.daemon.wait_for(&["NVML is in use"])?;
        self.client = self.node.native().await?;
        Ok(())
    }
}

async fn provider_says(client: &mut Native, name: &str) -> Result<()> {
    let request = RegisterProviderRequest {
        name: "coolant-agent".to_owned(),
        ..Default::default()
    };
    let lease = client.providers.register_provider(request).await?;
    let condition = Condition {
        r#type: Providers.condition().to_owned(),
        status: ConditionStatus::True.into(),
        polarity: Polarity::TrueIsProblem.into(),
        severity: Severity::Warning.into(),
        reason: "Leak".to_owned(),
        ..Default::default()
    };
    let request = UpdateGpuConditionRequest {
        lease_id: lease.into_inner().lease_id,
        name: name.to_owned(),
        condition: Some(condition),
        ..Default::default()
    };
    client.providers.update_gpu_condition(request).await?;
    Ok(())
}

async fn walk(table: &'static [(Stands, &'static [Event])], safe_mode: bool) -> Result<()> {
    let mut walk = Walk::start(table, safe_mode).await?;
    for case in &walk.cases {
        if let Some(event) = case.event {
            walk.happens(case, event).await?;
        }
    }
    walk.check(|case| case.event).await?;
    // The others go on. The simulated machine is a new one with each daemon: it asks for nothing.
    walk.cases.retain(|case| case.event.is_none());
    for event in TO_ALL {
        if event == Event::Restart {
            walk.cases.retain(|case| case.stands != Asked);
        }
        walk.happens_to_all(event).await?;
        walk.check(|_| Some(event)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn n7_what_policies_and_providers_say_ends_as_the_table_has_it() -> Result<()> {
    walk(WITH_POLICIES, false).await
}

#[tokio::test]
async fn n7_floors_and_what_is_assumed_end_as_the_table_has_it() -> Result<()> {
    walk(WITHOUT, true).await
}
