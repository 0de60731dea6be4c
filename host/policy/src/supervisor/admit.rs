//! Admission: what a version would say is found out before it says it (design H9).
//!
//! It is asked about every code of the vendor's catalogue, each on a device of which nothing is known,
//! and about the recent journal of this node; on its own thread, bounded in time. What it says otherwise
//! than the version before is the verdict diff. Where it would turn too many GPUs Unhealthy, it is held.

mod judged;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use device_api_core::clock::Clock;
use device_api_core::condition::{Condition, Owner, Polarity, find_on, upsert};
use device_api_core::device::DeviceInfo;
use device_api_core::health::{Health, derive};
use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::limits::VERDICT_DIFF_LINES_MAX;
use device_api_core::policy::PolicyInfo;
use device_api_core::ports::Policy;
use device_api_core::seating::{DeviceJournal, Rejudgement};
use device_api_core::signal::{Signal, SignalKind, Source};
use device_api_core::verdict::{ClearOn, Decision, Judgement, Verdict};
use device_api_core::xid;

use self::judged::Judged;
use crate::error::PolicyError;
use crate::judge::{Unanswered, View, batches, signal_words, summary, summary_of};
use crate::loaded::LoadedPolicy;

/// Time for all of it: the catalogue takes a Rust guest 2 ms and an interpreter 200, a full journal of
/// eight GPUs some ten times as long. Nobody waits for it but the new version.
const ADMISSION_TIME_MAX: Duration = Duration::from_secs(20);

/// The device that the catalogue's codes are asked of.
const CATALOGUE_DEVICE: &str = "GPU-00000000-0000-0000-0000-000000000000";

/// What a version says of each code that it was asked about, or does not want to be, by condition: kept
/// to compare the next one with.
pub(crate) type Catalogue = BTreeMap<u64, BTreeMap<String, String>>;

/// Things of a kind that one line of the diff names; more are counted.
const NAMED_MAX: usize = 8;

/// What came of asking.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    pub(crate) catalogue: Catalogue,
    pub(crate) rejudged: Vec<Arc<Rejudgement>>,
    /// By device, for a shadow to go on from.
    pub(crate) views: Vec<(DeviceUuid, View)>,
    /// GPUs that would become Unhealthy.
    pub(crate) newly_unhealthy: Vec<DeviceUuid>,
    journal_lines: Vec<String>,
    /// What of the catalogue was left out.
    left_out: Vec<String>,
    /// Devices whose journals there was no time for.
    pub(crate) unjudged: Vec<DeviceUuid>,
    /// Devices of whose journal something was dropped.
    cut: Vec<DeviceUuid>,
}

/// Asks; the journals may be none.
pub(crate) struct Examiner<'a> {
    pub(crate) policy: &'a LoadedPolicy,
    pub(crate) clock: &'a dyn Clock,
    /// Whether a drill's problems count for health (design N8).
    pub(crate) drills_count: bool,
}

impl Examiner<'_> {
    /// All of it.
    ///
    /// # Errors
    /// [`PolicyError::Trial`]: it failed on something by its own fault; [`PolicyError::Untried`]: it had no
    /// means to say what it thinks of this node.
    pub(crate) fn examine(&self, journals: &[DeviceJournal]) -> Result<Trial, PolicyError> {
        let ends = Instant::now() + ADMISSION_TIME_MAX;
        let mut trial = Trial::default();
        self.catalogue(&mut trial, ends)?;
        self.journals(&mut trial, journals, ends)?;
        Ok(trial)
    }

    fn catalogue(&self, trial: &mut Trial, ends: Instant) -> Result<(), PolicyError> {
        let device = Arc::new(DeviceInfo::bare(DeviceUuid::new(CATALOGUE_DEVICE)));
        for entry in xid::catalog() {
            let signal = self.synthetic(entry.code, &device);
            if !self.policy.info().wants(&signal) {
                trial.catalogue.insert(entry.code, BTreeMap::new());
                continue;
            }
            if Instant::now() >= ends {
                let left = format!("the catalogue from XID {} on: no time left", entry.code);
                trial.left_out.push(left);
                break;
            }
            let mut view = View::default();
            match view.ask(self.policy, &device, Arc::from([signal.clone()])) {
                Ok(_) => {
                    let said = view.said.iter();
                    let said =
                        said.map(|(condition, verdict)| (condition.clone(), summary_of(verdict)));
                    trial.catalogue.insert(entry.code, said.collect());
                }
                Err(Unanswered::Starved) => {
                    let left = format!("XID {}: the node had no processor time for it", entry.code);
                    trial.left_out.push(left);
                }
                Err(Unanswered::Failed(failure)) => {
                    return Err(self.failed(&signal, &failure.to_string(), "the catalogue's"));
                }
            }
        }
        Ok(())
    }

    fn synthetic(&self, code: u64, device: &DeviceInfo) -> Signal {
        Signal {
            seq: SignalSeq(1),
            device: device.uuid.clone(),
            kind: SignalKind::Xid,
            code: Some(code),
            observed_at: self.clock.wall(),
            observed_boot: self.clock.boot(),
            repeats: 1,
            incident: IncidentId(1),
            root: None,
            drill: false,
            instance: None,
            sources: vec![Source::Kmsg],
            evidence: String::new(),
            attrs: Vec::new(),
            samples: None,
        }
    }

    fn failed(&self, signal: &Signal, why: &str, whose: &str) -> PolicyError {
        PolicyError::Trial {
            origin: self.policy.origin().to_owned(),
            asked: format!("{whose} {}", signal_words(signal)),
            why: why.to_owned(),
        }
    }

    /// The journals alone, as for those that have moved on.
    pub(crate) fn rejudge(&self, journals: &[DeviceJournal]) -> Result<Trial, PolicyError> {
        let mut trial = Trial::default();
        self.journals(&mut trial, journals, Instant::now() + ADMISSION_TIME_MAX)?;
        Ok(trial)
    }

    fn journals(
        &self,
        trial: &mut Trial,
        journals: &[DeviceJournal],
        ends: Instant,
    ) -> Result<(), PolicyError> {
        for journal in journals {
            let uuid = &journal.device.uuid;
            let Some(judged) = self.journal(journal, ends)? else {
                trial.unjudged.push(uuid.clone());
                continue;
            };
            if journal.is_cut {
                trial.cut.push(uuid.clone());
            }
            self.weigh(trial, journal, &judged.decision);
            trial.rejudged.push(Arc::new(Rejudgement {
                device: uuid.clone(),
                through: journal.through(),
                revision: journal.revision,
                decision: judged.decision,
                drill_wakes: judged.drill_wakes,
                state: Arc::new(judged.view.state.clone()),
            }));
            trial.views.push((uuid.clone(), judged.view));
        }
        Ok(())
    }

    /// What it says of one device; `None`: there was no time for it.
    fn journal(
        &self,
        journal: &DeviceJournal,
        ends: Instant,
    ) -> Result<Option<Judged>, PolicyError> {
        let mut judged = Judged::default();
        let is_real = |seq: SignalSeq| {
            let cause = journal.signal(seq);
            self.drills_count || cause.is_none_or(|(cause, _)| !cause.drill)
        };
        let asked = journal.signals.iter().map(Arc::as_ref);
        let asked = asked.filter(|signal| self.policy.info().wants(signal));
        for batch in batches(asked) {
            if Instant::now() >= ends {
                return Ok(None);
            }
            let said = judged
                .view
                .ask(self.policy, &journal.device, Arc::clone(&batch));
            match said {
                Ok(decision) => {
                    let is_drill = batch.iter().all(|signal| signal.drill);
                    judged.absorb(decision, is_drill, is_real);
                }
                Err(Unanswered::Starved) => {
                    return Err(PolicyError::Untried {
                        origin: self.policy.origin().to_owned(),
                        asked: format!("the journal of {}", journal.device.uuid),
                    });
                }
                Err(Unanswered::Failed(failure)) => {
                    let newest = journal.signals.last().map(Arc::as_ref);
                    let signal = batch.last().or(newest);
                    return Err(signal.map_or_else(
                        || self.failed_at_large(&failure.to_string()),
                        |signal| self.failed(signal, &failure.to_string(), "this node's"),
                    ));
                }
            }
        }
        Ok(Some(judged))
    }

    fn failed_at_large(&self, why: &str) -> PolicyError {
        PolicyError::Trial {
            origin: self.policy.origin().to_owned(),
            asked: "this node's journal".to_owned(),
            why: why.to_owned(),
        }
    }

    /// What would change for one device.
    fn weigh(&self, trial: &mut Trial, journal: &DeviceJournal, decision: &Decision) {
        let mut conditions = journal.conditions.to_vec();
        let uuid = &journal.device.uuid;
        let mut said: Vec<&Verdict> = decision.verdicts.iter().collect();
        said.retain(|verdict| !self.is_quiet(verdict, journal));
        said.sort_by(|a, b| a.condition.cmp(&b.condition));
        for verdict in said {
            let stands = find_on(&conditions, &verdict.condition, verdict.instance.as_deref());
            let before = stands.map_or_else(nothing, |c| summary(c.state, c.severity, c.action));
            let Some(new) = self.condition(verdict, journal) else {
                continue;
            };
            let after = summary(new.state, new.severity, new.action);
            let is_same_in_effect = stands.is_none() && new.state == Judgement::Ok;
            if before != after && !is_same_in_effect {
                let line = format!("{uuid}, {}: {before} → {after}", verdict.condition);
                trial.journal_lines.push(line);
            }
            upsert(&mut conditions, new);
        }
        let before = derive(&journal.conditions).health;
        if before != Health::Unhealthy && derive(&conditions).health == Health::Unhealthy {
            trial.newly_unhealthy.push(uuid.clone());
        }
    }

    /// Whether it is over by now: its quiet time runs from when the cause was last seen. Not written, then.
    fn is_quiet(&self, verdict: &Verdict, journal: &DeviceJournal) -> bool {
        let mut clears = verdict.clears.iter();
        let quiet = clears.find(|clear| clear.on == ClearOn::Quiet);
        let quiet = quiet.filter(|_| verdict.state == Judgement::Problem);
        let cause = journal.signal(verdict.cause);
        quiet
            .zip(cause)
            .is_some_and(|(quiet, (_, seen))| seen.after(quiet.after) <= self.clock.boot())
    }

    /// The condition that a verdict would become, as far as health depends on it.
    fn condition(&self, verdict: &Verdict, journal: &DeviceJournal) -> Option<Condition> {
        let info: &PolicyInfo = self.policy.info();
        let owned = info.owned(&verdict.condition)?;
        let mut signals = journal.signals.iter();
        let drill = signals.any(|signal| signal.seq == verdict.cause && signal.drill);
        let is_problem = verdict.state == Judgement::Problem;
        let now = self.clock.wall();
        Some(Condition {
            type_: verdict.condition.as_str().into(),
            instance: verdict.instance.as_deref().map(DeviceUuid::new),
            state: verdict.state,
            polarity: if owned.true_is_problem {
                Polarity::TrueIsProblem
            } else {
                Polarity::TrueIsHealthy
            },
            severity: verdict.severity,
            reason: verdict.reason.clone(),
            message: verdict.message.clone(),
            action: verdict.action,
            clears: verdict.clears.clone(),
            owner: Owner::Policy(info.id.clone()),
            transition: now,
            heartbeat: now,
            incident: None,
            cause: Some(verdict.cause),
            drill,
            counted: !is_problem || !drill || self.drills_count,
            evidence: Vec::new(),
        })
    }
}

impl Trial {
    /// What differs from the version before, one line each, bounded; what was left out comes last.
    pub(crate) fn diff(&self, before: Option<&Catalogue>) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(before) = before {
            for (code, after) in &self.catalogue {
                let Some(before) = before.get(code) else {
                    continue;
                };
                lines.extend(differences(*code, before, after));
            }
        }
        lines.extend(self.journal_lines.iter().cloned());
        let excess = lines.len().saturating_sub(VERDICT_DIFF_LINES_MAX - 1);
        if excess > 0 {
            lines.truncate(VERDICT_DIFF_LINES_MAX - 1);
        }
        let mut left_out = Vec::new();
        if !self.cut.is_empty() {
            left_out.push(format!(
                "what the journals had no room for, or forgot by age, of {}",
                some_of(&self.cut)
            ));
        }
        if !self.left_out.is_empty() {
            left_out.push(some_of(&self.left_out));
        }
        if !self.unjudged.is_empty() {
            left_out.push(format!(
                "for want of time the journals of {}",
                some_of(&self.unjudged)
            ));
        }
        if excess > 0 {
            left_out.push(format!("{excess} more differences"));
        }
        if !left_out.is_empty() {
            lines.push(format!("left out: {}", left_out.join("; ")));
        }
        lines
    }
}

fn differences(
    code: u64,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut conditions: Vec<&String> = before.keys().chain(after.keys()).collect();
    conditions.sort_unstable();
    conditions.dedup();
    let of = |said: &BTreeMap<String, String>, condition: &String| {
        said.get(condition).cloned().unwrap_or_else(nothing)
    };
    conditions
        .into_iter()
        .map(|condition| (condition, of(before, condition), of(after, condition)))
        .filter(|(_, before, after)| before != after)
        .map(|(condition, before, after)| format!("XID {code}, {condition}: {before} → {after}"))
        .collect()
}

fn nothing() -> String {
    "nothing".to_owned()
}

/// The first of them, in words.
pub(super) fn some_of(things: &[impl ToString]) -> String {
    let named: Vec<String> = things
        .iter()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    match things.len().saturating_sub(NAMED_MAX) {
        0 => named.join("; "),
        more => format!("{}; and {more} more", named.join("; ")),
    }
}

#[cfg(test)]
mod tests;
