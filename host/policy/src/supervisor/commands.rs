//! What operators ask for.

use std::sync::Arc;

use device_api_core::error::ApiError;
use device_api_core::limits::{POLICY_DIGEST_DIGITS_MIN, POLICY_REASON_BYTES_MAX};
use device_api_core::policy_status::{Mode, ReloadChange, ReloadReport};
use device_api_core::ports::PolicyCommand;
use device_api_core::signal::printable;

use super::answer::Answer;
use super::compiling::Forget;
use super::reload::outcome;
use super::seat::left_as_judged;
use super::worker::Worker;
use crate::ledger::{Ledger, Paused};

/// What `resume` does not end.
const BY_SITE: &str = "paused by policies.yaml, not by an operator: change its mode there";

impl Worker {
    pub(crate) fn command(&mut self, command: PolicyCommand) -> Answer {
        match command {
            PolicyCommand::Reload => Ok(self.pass(true, Forget::Failures)),
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

    pub(super) fn known(&self, name: &str) -> Result<Arc<str>, ApiError> {
        let known = self
            .slots
            .get_key_value(name)
            .map(|(name, _)| Arc::clone(name));
        known.ok_or_else(|| ApiError::NoPolicy {
            name: name.to_owned(),
        })
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
        let setting = held.wanted.key.setting();
        let before = self.books.ledger.clone();
        self.books.ledger.accept(&name, &digest, &setting);
        let is_same = |saved: &Ledger, ledger: &Ledger| {
            let of = |ledger: &Ledger| ledger.is_accepted(&name, &digest, &setting);
            of(saved) == of(ledger)
        };
        if let Err(why) = self.books.settle(is_same) {
            self.books.ledger = before;
            self.slots.entry(Arc::clone(&name)).or_default().held = Some(held);
            let what = format!("this version of {name} stays held");
            return Err(not_done(&what, &why));
        }
        tracing::info!(policy = %name, digest = %digest, "held policy accepted by an operator");
        let origin = held.wanted.source.origin.clone();
        let wanted = held.wanted.clone();
        match self.accept(&name, held) {
            Ok(left) => {
                self.end_doubt();
                let detail = left_as_judged(&left);
                Ok(one(&name, ReloadChange::Swapped, &digest, detail))
            }
            Err(error) => {
                tracing::error!("{}", error.chain());
                let outcome = self.refuse(&name, Some(wanted), &origin, &error, None);
                // What has to go first may go now that it is accepted.
                self.looked = None;
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
        let before = self.books.ledger.clone();
        let by_site = self.is_paused_by_site(&name);
        let remembered = self.books.ledger.of(&name);
        match reason {
            Some(reason) => {
                remembered.paused = Some(Paused {
                    since_ms: self.clock.wall().unix_ms(),
                    reason: printable(reason, POLICY_REASON_BYTES_MAX),
                });
            }
            None if remembered.paused.is_none() => {
                let what = if by_site {
                    format!("{name} is {BY_SITE}")
                } else {
                    format!("{name} was not paused by an operator")
                };
                return Err(precondition(what));
            }
            None => remembered.paused = None,
        }
        let is_same = |saved: &Ledger, ledger: &Ledger| {
            let of = |ledger: &Ledger| ledger.policies.get(&*name)?.paused.clone();
            of(saved) == of(ledger)
        };
        let settled = self.books.settle(is_same);
        if let (None, Err(why)) = (reason, &settled) {
            self.books.ledger = before;
            return Err(not_done(&format!("{name} stays paused"), why));
        }
        if let Some(slot) = self.slots.get_mut(&name) {
            slot.is_paused_by_hand = reason.is_some();
        }
        self.pause_or_resume(&name);
        let paused = self.paused(&name);
        tracing::info!(policy = %name, paused, "policy paused or resumed by an operator");
        settled.map_err(|why| for_this_run(&format!("{name} is paused"), &why))?;
        let slot = self.slots.get(&name);
        if slot.is_some_and(|slot| slot.unexamined().is_some())
            && let Some(outcome) = self.admit_again(&name)
        {
            return Ok(ReloadReport {
                outcomes: vec![outcome],
                refused: None,
            });
        }
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
        let who = self.who_paused(name)?;
        Some(format!("paused {who}"))
    }

    fn is_paused_by_site(&self, name: &str) -> bool {
        let slot = self.slots.get(name);
        slot.is_some_and(|slot| slot.mode == Mode::Paused)
    }

    /// By whom it is paused, why, and what to do where that is not to resume it.
    pub(super) fn who_paused(&self, name: &str) -> Option<String> {
        let by_hand = self
            .books
            .ledger
            .policies
            .get(name)
            .and_then(|entry| entry.paused.as_ref());
        let by_site = self.is_paused_by_site(name);
        match by_hand {
            Some(paused) if by_site => Some(format!(
                "by an operator, and by policies.yaml (change its mode there, then `devicectl policy resume`): {}",
                paused.reason
            )),
            Some(paused) => Some(format!("by an operator: {}", paused.reason)),
            None => by_site.then(|| "by policies.yaml: change its mode there".to_owned()),
        }
    }

    /// Why the one in the seat is not asked, paused or not admitted yet.
    pub(super) fn closed(&self, name: &str) -> Option<String> {
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
}

pub(super) fn one(
    name: &Arc<str>,
    change: ReloadChange,
    digest: &Arc<str>,
    detail: String,
) -> ReloadReport {
    ReloadReport {
        outcomes: vec![outcome(name, change, Some(digest), detail)],
        refused: None,
    }
}

/// A command that was not carried out, as nobody would know of it after a restart.
pub(super) fn not_done(what: &str, why: &str) -> ApiError {
    precondition(format!("{what}: it could not be saved ({why})"))
}

/// A command that was carried out, since it protects, though nobody knows of it after a restart.
pub(super) fn for_this_run(what: &str, why: &str) -> ApiError {
    ApiError::Unavailable {
        why: format!(
            "{what} for this run only: it could not be saved, and a restart forgets it ({why})"
        ),
    }
}

pub(super) fn precondition(why: String) -> ApiError {
    ApiError::Precondition { why }
}

pub(super) fn digits() -> ApiError {
    let field = "digest";
    let why = format!("give the digest, or at least its first {POLICY_DIGEST_DIGITS_MIN} digits");
    ApiError::Invalid { field, why }
}

pub(super) fn is_prefix(digest: &str) -> bool {
    digest.len() >= POLICY_DIGEST_DIGITS_MIN && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
}
