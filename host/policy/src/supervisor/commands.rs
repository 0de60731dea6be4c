//! What operators ask for, what policies' threads tell, and what is shown after either.

use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::error::ApiError;
use device_api_core::limits::{
    POLICY_DIGEST_DIGITS_MIN, POLICY_REASON_BYTES_MAX, POLICY_RECORDS_MAX,
};
use device_api_core::policy::PolicyId;
use device_api_core::policy_status::{Mode, Phase, ReloadChange, ReloadReport, SetAside, Version};
use device_api_core::ports::PolicyCommand;
use device_api_core::signal::printable;
use device_api_wasm::Turn;

use super::answer::Answer;
use super::board::{Card, joined};
use super::compiling::Forget;
use super::reload::outcome;
use super::slot::Slot;
use super::worker::Worker;
use crate::ledger::{Kept, Paused, Quarantined};
use crate::source::Bytes;

impl Worker {
    pub(crate) fn command(&mut self, command: PolicyCommand) -> Answer {
        match command {
            PolicyCommand::Reload => Ok(self.pass(true, Forget::All)),
            PolicyCommand::Quarantine {
                name,
                digest,
                reason,
            } => self.quarantine_by_hand(&name, &digest, &reason),
            PolicyCommand::Release { name, digest } => self.release(&name, &digest),
            PolicyCommand::Accept { name, digest } => self.accept_by_hand(&name, &digest),
            PolicyCommand::Pause { name, reason } => self.pause(&name, Some(&reason)),
            PolicyCommand::Resume { name } => self.pause(&name, None),
        }
    }

    fn known(&self, name: &str) -> Result<Arc<str>, ApiError> {
        let known = self
            .slots
            .get_key_value(name)
            .map(|(name, _)| Arc::clone(name));
        known.ok_or_else(|| ApiError::NoPolicy {
            name: name.to_owned(),
        })
    }

    fn quarantine_by_hand(&mut self, name: &str, meant: &str, reason: &str) -> Answer {
        let name = self.known(name)?;
        let active = self.slots.get(&name).and_then(|slot| slot.active.as_ref());
        let active = active.filter(|active| !active.is_out).ok_or_else(|| {
            precondition(format!(
                "no version of {name} judges that could be quarantined"
            ))
        })?;
        let digest = Arc::clone(&active.key.digest);
        if !meant.is_empty() && !is_prefix(meant) {
            return Err(digits());
        }
        if !digest.starts_with(&meant.to_ascii_lowercase()) {
            let what = format!("another version of {name} is in use: {digest}; look at it first");
            return Err(precondition(what));
        }
        let reason = printable(reason, POLICY_REASON_BYTES_MAX);
        self.quarantine(&name, &format!("by an operator: {reason}"));
        let stands_in = self.slots.get(&name).and_then(|slot| slot.active.as_ref());
        let detail = match stands_in.filter(|active| !active.is_out) {
            Some(active) => format!("{} judges instead", active.version.id),
            None => "no version of it is asked".to_owned(),
        };
        Ok(one(&name, ReloadChange::Removed, &digest, detail))
    }

    fn release(&mut self, name: &str, digest: &str) -> Answer {
        let digest = &digest.to_ascii_lowercase();
        let ledger = &mut self.books.ledger;
        let is_known = self.slots.contains_key(name)
            || ledger.quarantined.iter().any(|entry| entry.name == name);
        if !is_known {
            return Err(ApiError::NoPolicy {
                name: name.to_owned(),
            });
        }
        if !digest.is_empty() && !is_prefix(digest) {
            return Err(digits());
        }
        // A digest says it all: the same file may have failed under another name, or before it could say one.
        let released = ledger.release(|entry| {
            if digest.is_empty() {
                entry.name == name
            } else {
                entry.digest.starts_with(digest.as_str())
            }
        });
        if released == 0 {
            let what = if digest.is_empty() {
                format!("no version of {name} is quarantined")
            } else {
                format!("no quarantined version of {name} has that digest")
            };
            return Err(precondition(what));
        }
        self.books.save();
        tracing::info!(
            policy = name,
            digest,
            released,
            "policy released from quarantine"
        );
        Ok(self.pass(true, Forget::All))
    }

    fn accept_by_hand(&mut self, name: &str, digest: &str) -> Answer {
        let name = self.known(name)?;
        if !is_prefix(digest) {
            return Err(digits());
        }
        let digest = &digest.to_ascii_lowercase();
        let slot = self.slots.entry(Arc::clone(&name)).or_default();
        let is_it = |held: &mut super::slot::Held| held.aside.digest.starts_with(digest.as_str());
        let Some(held) = slot.held.take_if(is_it) else {
            let what = match &slot.held {
                Some(held) => format!("another version is held: {}", held.aside.digest),
                None => format!("no version of {name} is held"),
            };
            return Err(precondition(what));
        };
        let digest = Arc::clone(&held.aside.digest);
        self.books
            .ledger
            .accept(&name, &digest, &held.wanted.key.setting());
        self.books.save();
        tracing::info!(policy = %name, digest = %digest, "held policy accepted by an operator");
        let origin = held.wanted.source.origin.clone();
        let wanted = held.wanted.clone();
        match self.accept(&name, held) {
            Ok(()) => Ok(one(&name, ReloadChange::Swapped, &digest, String::new())),
            Err(error) => {
                let outcome = self.refuse(&name, Some(wanted), &origin, &error, None);
                Ok(ReloadReport {
                    outcomes: vec![outcome],
                    refused: None,
                })
            }
        }
    }

    /// `None`: it is asked again.
    fn pause(&mut self, name: &str, reason: Option<&str>) -> Answer {
        let name = self.known(name)?;
        let remembered = self.books.ledger.of(&name);
        match reason {
            Some(reason) => {
                remembered.paused = Some(Paused {
                    since_ms: self.clock.wall().unix_ms(),
                    reason: printable(reason, POLICY_REASON_BYTES_MAX),
                });
            }
            None if remembered.paused.is_none() => {
                let what = format!("{name} was not paused by an operator");
                return Err(precondition(what));
            }
            None => remembered.paused = None,
        }
        self.books.save();
        self.pause_or_resume(&name);
        let paused = self.paused(&name);
        tracing::info!(policy = %name, paused, "policy paused or resumed by an operator");
        let slot = self.slots.get(&name).and_then(|slot| slot.active.as_ref());
        let digest = slot.map_or_else(|| "".into(), |active| Arc::clone(&active.key.digest));
        Ok(one(
            &name,
            ReloadChange::Unchanged,
            &digest,
            paused.unwrap_or_default(),
        ))
    }

    /// Why it is paused, if it is.
    pub(crate) fn paused(&self, name: &str) -> Option<String> {
        let by_hand = self
            .books
            .ledger
            .policies
            .get(name)
            .and_then(|entry| entry.paused.as_ref());
        let by_site = self
            .slots
            .get(name)
            .is_some_and(|slot| slot.mode == Mode::Paused);
        match by_hand {
            Some(paused) => Some(format!("paused by an operator: {}", paused.reason)),
            None => by_site.then(|| "paused by policies.yaml".to_owned()),
        }
    }

    /// Why the one in the seat is not asked, paused or not admitted yet.
    fn closed(&self, name: &str) -> Option<String> {
        let unexamined = || self.slots.get(name)?.unexamined().map(str::to_owned);
        self.paused(name).or_else(unexamined)
    }

    /// Has the one in the seat asked, or not, and the pipeline say so.
    pub(crate) fn pause_or_resume(&mut self, name: &Arc<str>) {
        let paused = self.closed(name);
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let Some(active) = slot.active.as_ref().filter(|active| !active.is_out) else {
            return;
        };
        match &paused {
            Some(why) => active.policy.close(why),
            None => active.policy.reopen(),
        }
        let is_seated = !active.is_shadow;
        if is_seated && (paused.is_some() || slot.is_reported) {
            slot.is_reported = paused.is_some();
            self.seats.report(name, paused);
        }
    }

    /// A policy in its seat took a turn.
    pub(crate) fn turned(&mut self, serial: u64, turn: Turn, why: &str) {
        let of_serial = |slot: &Slot| {
            slot.active
                .as_ref()
                .is_some_and(|active| active.serial == serial)
        };
        let name = self.slots.iter().find(|(_, slot)| of_serial(slot));
        // One that was replaced meanwhile is nobody's any more.
        let Some(name) = name.map(|(name, _)| Arc::clone(name)) else {
            return;
        };
        match turn {
            Turn::Quarantined => {
                self.quarantine(&name, &format!("it failed repeatedly, at last: {why}"))
            }
            // Looked up where it is shown.
            Turn::BackedOff { .. } | Turn::Recovered => {}
        }
    }

    /// Takes the active version out of use, durably; the next best takes over, or nobody.
    fn quarantine(&mut self, name: &Arc<str>, why: &str) {
        let now = self.clock.wall();
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let Some(active) = &mut slot.active else {
            return;
        };
        let why = printable(why, 2 * POLICY_REASON_BYTES_MAX);
        tracing::error!(policy = %active.version.id, why, "policy quarantined");
        slot.past.quarantines += 1;
        self.books.ledger.quarantine(Quarantined {
            digest: active.key.digest.to_string(),
            setting: active.key.setting(),
            name: name.to_string(),
            version: active.version.id.version.to_string(),
            origin: active.version.origin.to_string(),
            since_ms: now.unix_ms(),
            why: why.clone(),
        });
        self.books.save();
        active.policy.close(&format!("it is quarantined: {why}"));
        if let Some(shadow) = &active.shadow {
            shadow.stop();
        }
        active.is_out = true;
        if active.is_shadow || self.stand_in(name, None) {
            return;
        }
        if let Some(slot) = self.slots.get_mut(name) {
            slot.is_reported = true;
        }
        let told = format!("{name} is quarantined, and there is no other version: {why}");
        self.seats.report(name, Some(told));
    }

    /// Bytes are needed while a version is loaded, and kept by the books.
    pub(crate) fn let_go_of_bytes(&mut self) {
        for wanted in self
            .slots
            .values_mut()
            .filter_map(|slot| slot.wanted.as_mut())
        {
            wanted.source.bytes = Bytes::Embedded(&[]);
        }
    }

    /// Shows what there is.
    pub(crate) fn publish(&self) {
        let cards = self.slots.iter().map(|(name, slot)| self.card(name, slot));
        self.board.show(cards.collect(), self.refused.clone());
    }

    fn card(&self, name: &Arc<str>, slot: &Slot) -> Card {
        let remembered = self.books.ledger.policies.get(&**name);
        let last_good = remembered.and_then(|entry| entry.last_good.as_ref());
        let quarantined = self.books.ledger.quarantined.iter().rev();
        let quarantined = quarantined.filter(|entry| entry.name == **name);
        let (phase, detail) = self.phase(name, slot);
        let active = slot.active.as_ref();
        let wanted = slot.wanted.as_ref();
        Card {
            name: Arc::clone(name),
            mode: slot.mode,
            phase,
            detail,
            active: active.map(|active| (active.version.clone(), Arc::clone(&active.policy))),
            shadow: active.and_then(|active| active.shadow.clone()),
            last_good: last_good.map(|kept| version_of(name, kept)),
            held: slot.held.as_ref().map(|held| held.aside.clone()),
            quarantined: quarantined
                .take(POLICY_RECORDS_MAX)
                .map(set_aside_of)
                .collect(),
            refused: slot.refused.as_ref().map(|refused| refused.aside.clone()),
            past: slot.past.clone(),
            past_failures: slot.past_failures.clone(),
            diff: slot.diff.clone(),
            terms: wanted
                .map(|wanted| wanted.key.terms.clone())
                .unwrap_or_default(),
        }
    }

    fn phase(&self, name: &str, slot: &Slot) -> (Phase, String) {
        let held = slot
            .held
            .as_ref()
            .map(|held| format!("a version is held: {}", held.aside.why));
        let refused = slot
            .refused
            .as_ref()
            .map(|refused| refused.aside.why.clone());
        let why = held.or(refused).unwrap_or_default();
        let wanted = slot.wanted.as_ref();
        let quarantine = wanted.and_then(|wanted| {
            let key = &wanted.key;
            self.books.ledger.quarantine_of(&key.digest, &key.setting())
        });
        let quarantine = quarantine.map(|entry| format!("quarantined: {}", entry.why));
        match &slot.active {
            None if quarantine.is_some() => (Phase::Quarantined, quarantine.unwrap_or_default()),
            None => (Phase::Refused, why),
            Some(active) if active.is_out => {
                let entry = self
                    .books
                    .ledger
                    .quarantine_of(&active.key.digest, &active.key.setting());
                let quarantined = entry.map(|entry| format!("quarantined: {}", entry.why));
                (
                    Phase::Quarantined,
                    joined(&quarantined.unwrap_or_default(), &why),
                )
            }
            Some(active) => {
                let stands_in = || {
                    let set = self.refused.clone().unwrap_or_default();
                    joined(&joined(&quarantine.clone().unwrap_or_default(), &why), &set)
                };
                match self.closed(name) {
                    Some(paused) => (Phase::Paused, joined(&paused, &why)),
                    None if active.is_stand_in => (Phase::LastGood, stands_in()),
                    None => (Phase::Running, why),
                }
            }
        }
    }
}

fn one(name: &Arc<str>, change: ReloadChange, digest: &Arc<str>, detail: String) -> ReloadReport {
    ReloadReport {
        outcomes: vec![outcome(name, change, Some(digest), detail)],
        refused: None,
    }
}

fn precondition(why: String) -> ApiError {
    ApiError::Precondition { why }
}

fn digits() -> ApiError {
    let field = "digest";
    let why = format!("give the digest, or at least its first {POLICY_DIGEST_DIGITS_MIN} digits");
    ApiError::Invalid { field, why }
}

fn is_prefix(digest: &str) -> bool {
    digest.len() >= POLICY_DIGEST_DIGITS_MIN && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn version_of(name: &Arc<str>, kept: &Kept) -> Version {
    Version {
        id: PolicyId {
            name: Arc::clone(name),
            version: kept.version.as_str().into(),
            digest: kept.digest.as_str().into(),
        },
        origin: kept.origin.as_str().into(),
        since: WallTime::from_ms(kept.since_ms),
    }
}

fn set_aside_of(entry: &Quarantined) -> SetAside {
    let id = (!entry.name.is_empty()).then(|| PolicyId {
        name: entry.name.as_str().into(),
        version: entry.version.as_str().into(),
        digest: entry.digest.as_str().into(),
    });
    SetAside {
        id,
        digest: entry.digest.as_str().into(),
        origin: entry.origin.as_str().into(),
        since: WallTime::from_ms(entry.since_ms),
        why: entry.why.clone(),
    }
}
