//! What is known of each policy, for the API: written by the supervisor's thread after each step, read by
//! anyone at any time. Nobody who reads waits for a compile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use device_api_core::clock::Clock;
use device_api_core::error::ApiError;
use device_api_core::limits::{POLICIES_LISTED_MAX, POLICY_RECORDS_MAX};
use device_api_core::policy::PolicyInfo;
use device_api_core::policy_status::{
    FailureRecord, Mode, Phase, PolicyCounters, PolicyDetail, PolicyHostStatus, PolicyStatus,
    SetAside, Version,
};
use device_api_core::ports::{Pending, Policies, PolicyCommand};
use device_api_core::seating::Terms;
use device_api_wasm::{LimitRow, Limits, Turn};

use super::admit::some_of;
use super::answer::{Answer, promise};
use super::inbox::Inbox;
use super::worker::Message;
use crate::loaded::{Desk, Outside, lock};
use crate::shadow::Record;
use crate::source::{PolicySource, bundled_name};
use crate::telemetry::add;

/// Why nothing runs in safe mode.
const SAFE_MODE: &str = "safe mode: no policy is run; start without --safe-mode";

#[derive(Debug)]
pub(crate) struct Board {
    shown: Mutex<Shown>,
    inbox: Mutex<Option<Inbox>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct Shown {
    is_safe_mode: bool,
    host: PolicyHostStatus,
    /// As many as a directory has entries, each of which may be a file that is refused; a list shows fewer.
    cards: BTreeMap<Arc<str>, Arc<Card>>,
}

/// One policy, as it was after the last step; what moves by itself is looked up.
#[derive(Debug)]
pub(crate) struct Card {
    pub(crate) name: Arc<str>,
    pub(crate) mode: Mode,
    /// But for a back-off, which begins and ends by itself.
    pub(crate) phase: Phase,
    pub(crate) detail: String,
    /// That is asked, or looks on, or is paused.
    pub(crate) active: Option<Version>,
    /// What is looked up of who has the seat, asked or not: a reader must not be the last to hold a policy,
    /// since that ends its thread.
    pub(crate) seated: Option<Outside>,
    pub(crate) shadow: Option<Arc<Record>>,
    pub(crate) last_good: Option<Version>,
    pub(crate) held: Option<SetAside>,
    pub(crate) quarantined: Vec<SetAside>,
    pub(crate) refused: Option<SetAside>,
    pub(crate) past: PolicyCounters,
    pub(crate) past_failures: Vec<FailureRecord>,
    pub(crate) diff: Vec<String>,
    pub(crate) terms: Terms,
}

impl Board {
    pub(crate) fn new(inbox: Inbox, clock: Arc<dyn Clock>) -> Self {
        Self {
            shown: Mutex::default(),
            inbox: Mutex::new(Some(inbox)),
            clock,
        }
    }

    pub(crate) fn show(&self, cards: Vec<Card>, host: PolicyHostStatus) {
        let cards = cards
            .into_iter()
            .map(|card| (Arc::clone(&card.name), Arc::new(card)))
            .collect();
        let mut shown = lock(&self.shown);
        // What is let go of may end threads: not under the lock.
        let old = std::mem::replace(&mut shown.cards, cards);
        shown.host = host;
        drop(shown);
        drop(old);
    }

    /// Nothing runs, and nothing will.
    pub(crate) fn safe_mode(&self, bundled: &[PolicySource]) {
        let cards = bundled.iter().map(|source| {
            let name = bundled_name(&source.origin);
            Card {
                name: name.unwrap_or(&source.origin).into(),
                mode: Mode::Paused,
                phase: Phase::Paused,
                detail: SAFE_MODE.to_owned(),
                active: None,
                seated: None,
                shadow: None,
                last_good: None,
                held: None,
                quarantined: Vec::new(),
                refused: None,
                past: PolicyCounters::default(),
                past_failures: Vec::new(),
                diff: Vec::new(),
                terms: Terms::default(),
            }
        });
        self.show(cards.collect(), PolicyHostStatus::default());
        lock(&self.shown).is_safe_mode = true;
        self.close();
    }

    /// Commands are refused from now on.
    pub(crate) fn close(&self) {
        drop(lock(&self.inbox).take());
    }

    pub(crate) fn report(&self) -> (bool, String) {
        let cards = self.cards();
        let (is_safe_mode, host) = {
            let shown = lock(&self.shown);
            (shown.is_safe_mode, shown.host.clone())
        };
        if is_safe_mode {
            return (false, SAFE_MODE.to_owned());
        }
        let mut statuses: Vec<PolicyStatus> = cards.iter().map(|card| self.status(card)).collect();
        statuses.sort_by_key(PolicyStatus::rank);
        let troubles = statuses
            .iter()
            .filter(|status| !is_well(status))
            .map(|status| format!("{} is {}: {}", status.name, status.phase, status.detail));
        let unsaved = host.unsaved.map(|why| {
            format!("what is decided of policies can't be saved, and a restart forgets it: {why}")
        });
        let of_the_host = [unsaved, host.damage, host.refused].into_iter().flatten();
        let troubles: Vec<String> = of_the_host.chain(troubles).collect();
        let judging = judging(&statuses);
        if troubles.is_empty() {
            (true, judging)
        } else {
            (false, format!("{judging}; {}", some_of(&troubles)))
        }
    }

    fn cards(&self) -> Vec<Arc<Card>> {
        lock(&self.shown).cards.values().cloned().collect()
    }

    fn status(&self, card: &Card) -> PolicyStatus {
        let mut counters = card.past.clone();
        let (mut phase, mut detail) = (card.phase, card.detail.clone());
        if let Some(seated) = &card.seated {
            add(&mut counters, &seated.desk.telemetry.snapshot());
            let asked = matches!(phase, Phase::Running | Phase::LastGood | Phase::StandIn);
            if asked && let Some(pause) = self.back_off(&seated.desk) {
                phase = Phase::BackOff;
                detail = joined(&detail, &pause);
            }
        }
        if let Some(shadow) = &card.shadow {
            shadow.count_into(&mut counters);
        }
        PolicyStatus {
            name: Arc::clone(&card.name),
            mode: card.mode,
            phase,
            detail,
            active: card.active.clone(),
            last_good: card.last_good.clone(),
            held: card.held.clone(),
            quarantined: card.quarantined.clone(),
            refused: card.refused.clone(),
            counters,
        }
    }

    fn back_off(&self, desk: &Desk) -> Option<String> {
        let (Turn::BackedOff { nth, pause }, at) = desk.last_turn()? else {
            return None;
        };
        let over = self.clock.boot().since(at);
        let last = desk.telemetry.failures().into_iter().next();
        let last = last.map_or_else(String::new, |last| format!(": {}", last.detail));
        (over < pause).then(|| {
            format!(
                "it failed repeatedly and is not asked for {pause:?}, back-off {nth} in a row{last}"
            )
        })
    }
}

/// Every limit with its value, as `policies.yaml` would write it.
pub(crate) fn limit_words(limits: &Limits) -> impl Iterator<Item = (String, String)> + '_ {
    let words = |row: &LimitRow| (row.name().to_owned(), row.value(limits));
    Limits::rows().iter().map(words)
}

/// How many judge, who they are, and who else is there.
fn judging(statuses: &[PolicyStatus]) -> String {
    let active = |is_meant: fn(&PolicyStatus) -> bool| -> Vec<String> {
        let meant = statuses.iter().filter(|status| is_meant(status));
        let versions = meant.filter_map(|status| status.active.as_ref());
        versions.map(|version| version.id.to_string()).collect()
    };
    let judge = active(PolicyStatus::judges);
    let others = active(|status| !status.judges());
    let mut told = match judge.as_slice() {
        [] => "no policy judges".to_owned(),
        [one] => format!("1 policy judges: {one}"),
        all => format!("{} policies judge: {}", all.len(), all.join(", ")),
    };
    if !others.is_empty() {
        told += &format!("; loaded, and not judging: {}", others.join(", "));
    }
    told
}

/// As the site wants it.
fn is_well(status: &PolicyStatus) -> bool {
    let as_wanted = match status.phase {
        // What it is to give way to may still be being compiled.
        Phase::Running => status.detail.is_empty(),
        Phase::Paused => status.mode == Mode::Paused,
        Phase::BackOff
        | Phase::LastGood
        | Phase::StandIn
        | Phase::Quarantined
        | Phase::Refused
        | Phase::Compiling => false,
    };
    as_wanted && status.held.is_none() && status.refused.is_none()
}

pub(crate) fn joined(a: &str, b: &str) -> String {
    let separator = if a.is_empty() || b.is_empty() {
        ""
    } else {
        "; "
    };
    format!("{a}{separator}{b}")
}

impl Policies for Board {
    fn list(&self) -> Vec<PolicyStatus> {
        let cards = self.cards();
        let mut listed: Vec<PolicyStatus> = cards.iter().map(|card| self.status(card)).collect();
        if listed.len() > POLICIES_LISTED_MAX {
            // A directory full of what is none must not hide those that judge.
            listed.sort_by_key(PolicyStatus::rank);
            listed.truncate(POLICIES_LISTED_MAX);
            listed.sort_by(|a, b| a.name.cmp(&b.name));
        }
        listed
    }

    fn host(&self) -> PolicyHostStatus {
        lock(&self.shown).host.clone()
    }

    fn describe(&self, name: &str) -> Result<PolicyDetail, ApiError> {
        let card = lock(&self.shown).cards.get(name).cloned();
        let card = card.ok_or_else(|| ApiError::NoPolicy {
            name: name.to_owned(),
        })?;
        let seated = card.seated.as_ref();
        let info = seated.map(|seated| PolicyInfo::clone(&seated.info));
        let failures = seated.map(|seated| seated.desk.telemetry.failures());
        let mut failures = failures.unwrap_or_default();
        failures.extend(card.past_failures.iter().cloned());
        failures.truncate(POLICY_RECORDS_MAX);
        let shadow = card.shadow.as_ref();
        let (owns, subscriptions, readings, state_schema) = info.map_or_else(
            || (Vec::new(), Vec::new(), Vec::new(), 0),
            |info| {
                (
                    info.owns,
                    info.subscriptions,
                    info.readings,
                    info.state_schema,
                )
            },
        );
        Ok(PolicyDetail {
            status: self.status(&card),
            terms: card.terms.clone(),
            owns,
            subscriptions,
            readings,
            state_schema,
            limits: seated.map_or_else(Vec::new, |seated| limit_words(&seated.limits).collect()),
            verdict_diff: card.diff.clone(),
            failures,
            disagreements: shadow.map_or_else(Vec::new, |shadow| shadow.disagreements()),
        })
    }

    fn command(&self, command: PolicyCommand) -> Pending<Answer> {
        if lock(&self.shown).is_safe_mode {
            let refused = ApiError::Precondition {
                why: SAFE_MODE.to_owned(),
            };
            return Box::pin(std::future::ready(Err(refused)));
        }
        let (promise, awaited) = promise();
        if let Some(inbox) = &*lock(&self.inbox) {
            // Where it can't be sent, the promise is dropped, which is an answer.
            let _ = inbox.send(Message::Command(command, promise));
        }
        Box::pin(awaited)
    }
}
