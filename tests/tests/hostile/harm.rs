//! What no guest may do to a node, and how it is found out.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{Condition, Gpu, Health, owner};
use device_api_tests::hostile::Hostile;
use device_api_tests::{health_of, http};

use crate::cases::{Outcome, outcome};
use crate::load::{self, Readers, Stimulus, Watchers};
use crate::rig::Rig;

/// By how much the daemon's memory may grow while a guest is at work, at its peak: an instance of 16 MiB
/// and the next beside it, the compiler's for a small component, and what readers and watchers take. What
/// a guest tries to get is 100 MB or more.
const GROWTH_MIB_MAX: u64 = 96;

/// Lines of log that a guest may cause in one examination, which takes seconds: 50 at once and 20 a second
/// of its own, one for each signal that it fails on, and those of the daemon's start.
const LOG_LINES_MAX: usize = 1_000;

/// Slices after which a guest that fails now and then should have: each brings some dozen signals.
const SLICES_UNTIL_IT_FAILS: u32 = 40;

/// What came of an examination; a row of the report.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) guest: Hostile,
    pub(crate) came: String,
    /// p99 of reads before it was loaded, and meanwhile.
    pub(crate) loading: (Duration, Duration),
    /// p99 of reads while it was idle, and at work.
    pub(crate) working: (Duration, Duration),
    pub(crate) growth_mib: u64,
    pub(crate) events: u64,
    pub(crate) took: Duration,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:26} {:44} p99 loading {:>5} -> {:>5}, working {:>5} -> {:>5} µs, +{:>2} MiB, {:>4} events, {:>4} ms",
            self.guest.name(),
            self.came,
            self.loading.0.as_micros(),
            self.loading.1.as_micros(),
            self.working.0.as_micros(),
            self.working.1.as_micros(),
            self.growth_mib,
            self.events,
            self.took.as_millis(),
        )
    }
}

/// How a guest is examined.
#[derive(Clone, Debug)]
pub(crate) struct Examined {
    pub(crate) guest: Hostile,
    /// The policy's name, where it is not the folder's.
    pub(crate) policy: String,
    /// What must be seen of an XID 79 by all watchers, whatever the guest does.
    pub(crate) witness: &'static str,
}

impl Examined {
    pub(crate) fn of(guest: Hostile) -> Self {
        Self {
            guest,
            policy: guest.name().to_owned(),
            witness: "XidCriticalError",
        }
    }

    /// The one condition type that it declares.
    fn condition(&self) -> String {
        let capitalised = |word: &str| {
            let mut chars = word.chars();
            let first = chars.next().map(|first| first.to_ascii_uppercase());
            first.into_iter().chain(chars).collect::<String>()
        };
        self.guest.name().split('-').map(capitalised).collect()
    }
}

impl Rig {
    /// Loads a guest and has it work under load, and holds the daemon to what no guest may change: bundled policies
    /// judge, reads are as quick as they were, no watcher is dropped, the daemon is ready and its memory
    /// and log are bounded, and nobody's conditions are the guest's but its own.
    pub(crate) async fn examine(
        &self,
        examined: &Examined,
        came: impl AsyncFn(&Self) -> Result<String>,
    ) -> Result<Row> {
        let began = Instant::now();
        let guest = examined.guest;
        let watchers = Watchers::of(&self.node).await?;
        let mut readers = Readers::of(&self.node).await?;
        let loading = self.load_under(&mut readers, guest).await?;
        let (quiet, meanwhile) = loading;
        ensure!(
            !load::is_too_slow(quiet, meanwhile),
            "reads' p99 went from {quiet:?} to {meanwhile:?} while it was loaded"
        );
        if matches!(outcome(guest), Outcome::Fitful(_)) || guest == Hostile::InfoChanges {
            self.until_it_fails(&examined.policy).await?;
        }
        let working = load::compare(&self.node, &mut readers, Stimulus::FAULTS).await?;
        let (quiet, hostile) = working;
        ensure!(
            !load::is_too_slow(quiet, hostile),
            "reads' p99 went from {quiet:?} to {hostile:?}"
        );
        let came = came(self).await?;
        let events = self
            .is_judged_by_the_bundled(watchers, examined.witness)
            .await?;
        self.are_conditions_its_own(examined).await?;
        Ok(Row {
            guest,
            came,
            loading,
            working,
            growth_mib: self.is_unharmed()?,
            events,
            took: began.elapsed(),
        })
    }

    /// Has a guest that fails now and then work until it has.
    pub(crate) async fn until_it_fails(&self, policy: &str) -> Result<()> {
        let mut readers = Readers::of(&self.node).await?;
        for _ in 0..SLICES_UNTIL_IT_FAILS {
            if self.calls(policy, "trap")? + self.calls(policy, "deadline")? > 0 {
                return Ok(());
            }
            readers.slice(&self.node, Stimulus::FAULTS).await?;
        }
        bail!(
            "no call failed, and {} were answered",
            self.answered(policy)?
        )
    }

    /// A fault on the last GPU, where nothing was before, reaches all watchers.
    pub(crate) async fn is_judged_by_the_bundled(
        &self,
        watchers: Watchers,
        witness: &str,
    ) -> Result<u64> {
        let last = u32::try_from(self.node.gpus().len())? - 1;
        self.node.sim()?.xid(last, &[79])?;
        let uuid = self.node.uuid(last)?;
        let events = watchers.until(&uuid, witness).await?;
        let gpu = self.node.native().await?.get(&uuid).await?;
        ensure!(
            health_of(&gpu) == Health::Unhealthy,
            "a GPU off the bus is {:?}",
            health_of(&gpu)
        );
        Ok(events)
    }

    /// Who owns what on every GPU.
    async fn are_conditions_its_own(&self, examined: &Examined) -> Result<()> {
        let gpus = self.node.native().await?.list().await?.gpus;
        ensure!(
            gpus.len() == self.node.gpus().len(),
            "there are {} GPUs",
            gpus.len()
        );
        let own = examined.condition();
        for condition in gpus.iter().flat_map(conditions) {
            let type_ = &condition.r#type;
            let owner = condition.owner.clone().context("no owner")?;
            match owner.kind() {
                owner::Kind::Host => {}
                owner::Kind::Policy if ["xid-policy", "nvml-health"].contains(&&*owner.name) => {}
                owner::Kind::Policy if owner.name == examined.policy => {
                    ensure!(*type_ == own, "it wrote {type_}, and owns {own}");
                }
                other
                @ (owner::Kind::Policy | owner::Kind::Provider | owner::Kind::Unspecified) => {
                    bail!("{type_} is of {other:?} {:?}", owner.name)
                }
            }
            ensure!(
                condition.message.len() <= 4096,
                "{type_} has a message of {} bytes",
                condition.message.len()
            );
            let is_plain = |text: &str| !text.chars().any(is_unprintable);
            ensure!(
                is_plain(&condition.message) && is_plain(&condition.reason),
                "{type_}: {:?}",
                condition.message
            );
        }
        Ok(())
    }

    /// The daemon that was started is ready; by how many MiB its memory has grown at its peak.
    pub(crate) fn is_unharmed(&self) -> Result<u64> {
        let (code, body) = http(&self.node.address("/readyz")?, "/readyz")?;
        ensure!(code == 200, "/readyz answers {code}: {body}");
        ensure!(
            !body
                .chars()
                .any(|char| is_unprintable(char) && char != '\n'),
            "/readyz: {body:?}"
        );
        let log = self.node.daemon.log();
        ensure!(
            log.len() <= LOG_LINES_MAX,
            "the log has {} lines",
            log.len()
        );
        if let Some(line) = log.iter().find(|line| line.chars().any(is_unprintable)) {
            bail!("a line of the log writes on the screen: {line:?}");
        }
        let growth = self.memory_kib("VmHWM:")?.saturating_sub(self.resident_kib) / 1024;
        ensure!(growth <= GROWTH_MIB_MAX, "the daemon grew by {growth} MiB");
        Ok(growth)
    }

    /// A policy's conditions say this, each of them, and there are some.
    pub(crate) async fn has_said(&self, policy: &str, words: &str) -> Result<()> {
        let gpus = self.node.native().await?.list().await?.gpus;
        let is_its = |condition: &&Condition| {
            condition
                .owner
                .as_ref()
                .is_some_and(|owner| owner.name == policy)
        };
        let said: Vec<&str> = gpus
            .iter()
            .flat_map(conditions)
            .filter(is_its)
            .map(|own| &*own.message)
            .collect();
        ensure!(
            !said.is_empty() && said.iter().all(|said| *said == words),
            "it says {said:?}, not {words:?}"
        );
        Ok(())
    }

    /// Waits for the line with which a policy's failure is told.
    pub(crate) fn has_failed(&self, policy: &str, kind: &str, words: &str) -> Result<()> {
        let (policy, failure) = (format!("policy={policy} "), format!("failure={kind}: "));
        self.says(&["gave no decision", &policy, &failure, words])
    }

    /// Waits for a line of the log; where none comes, shows the last that speak of policies.
    pub(crate) fn says(&self, words: &[&str]) -> Result<()> {
        if self.node.daemon.wait_for(words).is_ok() {
            return Ok(());
        }
        let log = self.node.daemon.log();
        let spoke: Vec<_> = log
            .iter()
            .filter(|line| line.contains("policy") && !line.contains("bundled"))
            .collect();
        let shown = spoke
            .iter()
            .rev()
            .take(5)
            .rev()
            .map(|line| line.as_str())
            .collect::<Vec<_>>();
        bail!(
            "the daemon never logged {words:?}, but:\n{}",
            shown.join("\n")
        )
    }

    /// How many calls of a policy were answered.
    pub(crate) fn answered(&self, policy: &str) -> Result<u64> {
        Ok(self.calls(policy, "decided")? + self.calls(policy, "ok")?)
    }

    /// How many calls of a policy ended in this way, as the metrics have it.
    pub(crate) fn calls(&self, policy: &str, outcome: &str) -> Result<u64> {
        let labels = [
            format!("policy=\"{policy}\""),
            format!("outcome=\"{outcome}\""),
        ];
        let metrics = self.node.metrics()?;
        let line = metrics.lines().find(|line| {
            line.starts_with("device_api_server_policy_evaluations_total{")
                && labels.iter().all(|label| line.contains(label))
        });
        let count = line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0");
        Ok(count.parse()?)
    }
}

/// What changes how a screen shows other text: control characters, and what turns the direction of writing.
fn is_unprintable(char: char) -> bool {
    char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn conditions(gpu: &Gpu) -> impl Iterator<Item = &Condition> {
    gpu.status.iter().flat_map(|status| &status.conditions)
}
