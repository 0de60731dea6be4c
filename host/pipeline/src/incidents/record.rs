//! What is kept of one incident.

mod kept;

use std::borrow::Cow;
use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::condition::{Condition, find_named, name_on};
use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::incident::{Account, Incident, IncidentState, IncidentVerdict, Wanted};
use device_api_core::limits;
use device_api_core::policy::PolicyId;
use device_api_core::signal::{Observation, Signal, SignalKind, Source, printable};
use device_api_core::verdict::{ClearOn, Judgement, Verdict};
use device_api_core::xid;

use super::{Ended, Told};
use crate::alike::is_incident;
use crate::journal::Moment;
use crate::wakes;
use kept::Unsaved;

/// What a write of a device has come to.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    /// What stands after it.
    pub(crate) conditions: &'a [Condition],
    /// Incidents that a floor, or what is assumed, stands for.
    pub(crate) floored: Vec<IncidentId>,
    pub(crate) said: Vec<Raised<'a>>,
    /// What it was about.
    pub(crate) signals: &'a [Signal],
    /// What ends faults besides.
    pub(crate) ended: Vec<Ended>,
    /// What ended that which stands no more.
    pub(crate) why: ClearOn,
    pub(crate) now: Moment,
}

/// A verdict that was written, and the signal that it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raised<'a> {
    pub(crate) policy: &'a PolicyId,
    pub(crate) verdict: &'a Verdict,
    pub(crate) cause: &'a Signal,
}

impl Raised<'_> {
    /// The name of the condition.
    pub(super) fn name(&self) -> Cow<'_, str> {
        name_on(&self.verdict.condition, self.instance())
    }

    /// UUID of the MIG instance that has it.
    pub(super) fn instance(&self) -> Option<&str> {
        let instance = self.verdict.instance.as_deref();
        instance.filter(|said| *said != self.cause.device.as_str())
    }

    pub(super) fn is_problem(&self) -> bool {
        self.verdict.state == Judgement::Problem
    }
}

#[derive(Debug)]
pub(super) struct Record {
    /// Shared with whoever lists it.
    incident: Arc<Incident>,
    last: Moment,
    /// Names of the conditions that it is behind, and that stand.
    raised: Vec<Arc<str>>,
    is_floored: bool,
    unsaved: Unsaved,
    /// The store has it, or is to.
    is_kept: bool,
}

impl Record {
    pub(super) fn begin(
        id: IncidentId,
        device: &DeviceUuid,
        first: &Observation,
        told: Told,
    ) -> Self {
        let mut record = Self {
            incident: Arc::new(Incident {
                id,
                device: device.clone(),
                kind: first.kind,
                code: first.code,
                root: None,
                instance: first.instance.clone(),
                first_seen: told.at.wall,
                last_seen: told.at.wall,
                count: 0,
                drill: true,
                accounts: Vec::new(),
                verdicts: Vec::new(),
                state: IncidentState::Open,
            }),
            last: told.at,
            raised: Vec::new(),
            is_floored: false,
            unsaved: Unsaved::Change,
            is_kept: false,
        };
        record.repeat(first, told);
        record
    }

    /// From a signal that was committed.
    pub(super) fn of(signal: &Signal, is_floored: bool) -> Self {
        let account = |source: &_| Account {
            source: Clone::clone(source),
            first_seen: signal.observed_at,
            last_seen: signal.observed_at,
            count: u64::from(signal.repeats),
            evidence: signal.evidence.clone(),
        };
        let accounts = signal.sources.iter().map(account);
        Self {
            incident: Arc::new(Incident {
                id: signal.incident,
                device: signal.device.clone(),
                kind: signal.kind,
                code: signal.code,
                root: signal.root,
                instance: signal.instance.clone(),
                first_seen: signal.observed_at,
                last_seen: signal.observed_at,
                count: u64::from(signal.repeats),
                drill: signal.drill,
                accounts: accounts.take(limits::ACCOUNTS_PER_INCIDENT_MAX).collect(),
                verdicts: Vec::new(),
                state: IncidentState::Open,
            }),
            last: Moment {
                seq: signal.seq,
                boot: signal.observed_boot,
                wall: signal.observed_at,
            },
            raised: Vec::new(),
            is_floored,
            unsaved: Unsaved::Change,
            is_kept: false,
        }
    }

    /// What a policy raised on what is no fault.
    pub(super) fn begin_on(id: IncidentId, on: Option<&str>, cause: &Signal) -> Self {
        let mut record = Self::of(cause, false);
        let waited = wakes::set_on(cause).filter(|kind| !is_incident(*kind));
        let incident = Arc::make_mut(&mut record.incident);
        incident.kind = waited.unwrap_or(cause.kind);
        incident.id = id;
        incident.instance = on.map(str::to_owned);
        record
    }

    /// A policy raises it again, on another signal that is no fault. That counts where nothing else tells of it.
    pub(super) fn join(&mut self, signal: &Signal) {
        if self.is_fault() || signal.seq <= self.last.seq {
            return;
        }
        let told = Told {
            at: Moment {
                seq: signal.seq,
                boot: signal.observed_boot,
                wall: signal.observed_at,
            },
            drill: signal.drill,
            repeats: signal.repeats,
        };
        if let Some(source) = signal.sources.first() {
            self.tell((source, &signal.evidence), told);
        }
    }

    /// What was an incident of its own was this one already.
    pub(super) fn take_over(&mut self, earlier: &Self) {
        let (incident, earlier) = (Arc::make_mut(&mut self.incident), &earlier.incident);
        incident.first_seen = incident.first_seen.min(earlier.first_seen);
        incident.count = incident.count.saturating_add(earlier.count);
        incident.drill &= earlier.drill;
        for told in &earlier.accounts {
            let mut accounts = incident.accounts.iter_mut();
            if let Some(account) = accounts.find(|account| account.source == told.source) {
                account.first_seen = account.first_seen.min(told.first_seen);
                account.count = account.count.saturating_add(told.count);
            } else if incident.accounts.len() < limits::ACCOUNTS_PER_INCIDENT_MAX {
                incident.accounts.push(told.clone());
            }
        }
        self.unsaved = Unsaved::Change;
    }

    /// Another signal tells of it. Allocates only for a source that had not told yet, and where somebody lists it now.
    pub(super) fn repeat(&mut self, observation: &Observation, told: Told) {
        // An XID says what happened; that the GPU is lost, or is to be recovered, what came of it.
        if observation.kind == SignalKind::Xid && self.incident.kind != SignalKind::Xid {
            let incident = Arc::make_mut(&mut self.incident);
            (incident.kind, incident.code) = (SignalKind::Xid, observation.code);
            self.unsaved = Unsaved::Change;
        }
        self.tell((&observation.source, &observation.evidence), told);
    }

    fn tell(&mut self, (source, evidence): (&Source, &str), told: Told) {
        let (count, wall) = (u64::from(told.repeats), told.at.wall);
        self.last = told.at;
        self.unsaved = self.unsaved.max(Unsaved::Repeats);
        let incident = Arc::make_mut(&mut self.incident);
        incident.last_seen = wall;
        incident.count = incident.count.saturating_add(count);
        if incident.drill && !told.drill {
            incident.drill = false;
            self.unsaved = Unsaved::Change;
        }
        let mut accounts = incident.accounts.iter_mut();
        if let Some(account) = accounts.find(|known| known.source == *source) {
            account.last_seen = wall;
            account.count = account.count.saturating_add(count);
        } else if incident.accounts.len() < limits::ACCOUNTS_PER_INCIDENT_MAX {
            self.unsaved = Unsaved::Change;
            incident.accounts.push(Account {
                source: source.clone(),
                first_seen: wall,
                last_seen: wall,
                count,
                evidence: printable(evidence, limits::EVIDENCE_BYTES_MAX),
            });
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.incident.state == IncidentState::Open
    }

    fn keep_raised(&mut self, conditions: &[Condition]) {
        let is_problem =
            |type_: &Arc<str>| find_named(conditions, type_).is_some_and(Condition::is_problem);
        let before = self.raised.len();
        self.raised.retain(is_problem);
        if self.raised.len() < before {
            self.unsaved = Unsaved::Change;
        }
    }

    pub(super) fn id(&self) -> IncidentId {
        self.incident.id
    }

    pub(super) fn kind(&self) -> SignalKind {
        self.incident.kind
    }

    pub(super) fn code(&self) -> Option<u64> {
        self.incident.code
    }

    /// UUID of the MIG instance that has it.
    pub(super) fn instance(&self) -> Option<&str> {
        self.incident.instance.as_deref()
    }

    pub(super) fn device(&self) -> &DeviceUuid {
        &self.incident.device
    }

    pub(super) fn last(&self) -> Moment {
        self.last
    }

    pub(super) fn root(&self) -> Option<IncidentId> {
        self.incident.root
    }

    pub(super) fn is_fault(&self) -> bool {
        is_incident(self.incident.kind)
    }

    /// Nothing but drills told of it.
    pub(super) fn is_drill(&self) -> bool {
        self.incident.drill
    }

    pub(super) fn is_wanted(&self, wanted: &Wanted) -> bool {
        wanted.takes(&self.incident)
    }

    pub(super) fn share(&self) -> Arc<Incident> {
        self.incident.clone()
    }

    pub(super) fn follow(&mut self, root: IncidentId) {
        if self.incident.root.is_none() {
            Arc::make_mut(&mut self.incident).root = Some(root);
            self.unsaved = Unsaved::Change;
        }
    }

    /// Whether something of it stands.
    pub(super) fn stands(&self) -> bool {
        self.is_floored || !self.raised.is_empty()
    }

    pub(super) fn is_behind(&self, name: &str) -> bool {
        self.raised.iter().any(|known| **known == *name)
    }

    /// A condition of that name stands on its account.
    pub(super) fn raise(&mut self, name: &str) {
        if !self.is_behind(name) && self.raised.len() < limits::VERDICTS_PER_INCIDENT_MAX {
            self.raised.push(name.into());
            self.unsaved = Unsaved::Change;
        }
    }

    /// Whether something of it stands after a write.
    pub(super) fn still_stands(&mut self, outcome: &Outcome<'_>) -> bool {
        self.keep_raised(outcome.conditions);
        self.is_floored = outcome.floored.contains(&self.incident.id);
        self.stands()
    }

    /// Keeps the latest word of a policy on a condition.
    pub(super) fn note(&mut self, raised: &Raised<'_>) {
        let verdict = IncidentVerdict {
            policy: raised.policy.clone(),
            condition: raised.verdict.condition.clone(),
            state: raised.verdict.state,
            severity: raised.verdict.severity,
            reason: raised.verdict.reason.clone(),
        };
        if self.incident.verdicts.contains(&verdict) {
            return;
        }
        let verdicts = &mut Arc::make_mut(&mut self.incident).verdicts;
        let known = verdicts.iter_mut().find(|known| {
            known.policy.name == verdict.policy.name && known.condition == verdict.condition
        });
        if let Some(known) = known {
            *known = verdict;
        } else if verdicts.len() < limits::VERDICTS_PER_INCIDENT_MAX {
            verdicts.push(verdict);
        } else {
            return;
        }
        self.unsaved = Unsaved::Change;
    }

    /// `left_out`: lines about such incidents that are missing before this one; `None`: so is this.
    pub(super) fn close(&mut self, at: Option<Moment>, why: &str, left_out: Option<u64>) {
        let quiet = limits::INCIDENT_QUIET.as_nanos();
        let quiet = u64::try_from(quiet).unwrap_or(u64::MAX);
        let over = WallTime {
            unix_ns: self.incident.last_seen.unix_ns.saturating_add(quiet),
        };
        self.raised.clear();
        self.is_floored = false;
        self.unsaved = Unsaved::Change;
        Arc::make_mut(&mut self.incident).state = IncidentState::Closed {
            at: at.map_or(over, |at| at.wall),
            why: why.to_owned(),
        };
        let Incident {
            device,
            id,
            count,
            drill,
            ..
        } = &*self.incident;
        if let Some(suppressed) = left_out {
            tracing::info!(gpu = %device, incident = id.0, fault = %self.name(), count, why, suppressed, drill, "incident closed");
        }
    }

    /// `left_out`: as in [`Record::close`].
    pub(super) fn open(&mut self, left_out: Option<u64>) {
        self.unsaved = Unsaved::Change;
        Arc::make_mut(&mut self.incident).state = IncidentState::Open;
        let Incident {
            device,
            id,
            drill,
            root,
            accounts,
            ..
        } = &*self.incident;
        if let Some(suppressed) = left_out {
            let evidence = accounts
                .first()
                .map_or("", |account| account.evidence.as_str());
            let root = root.map(|root| root.0);
            tracing::info!(gpu = %device, incident = id.0, fault = %self.name(), root, evidence, suppressed, drill, "incident opened");
        }
    }

    /// A code that the catalogue does not have: a newer driver's, or made up, and of those there is no end.
    pub(super) fn is_uncatalogued(&self) -> bool {
        let code = self.incident.code;
        self.incident.kind == SignalKind::Xid && code.is_none_or(|code| xid::lookup(code).is_none())
    }

    fn name(&self) -> String {
        let Incident { kind, code, .. } = &*self.incident;
        code.map_or_else(|| kind.to_string(), |code| format!("{kind} {code}"))
    }
}
