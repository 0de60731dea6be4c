//! What stands. Several codes share one condition, and a later, lesser one must neither lower nor
//! hide an earlier: so the codes behind each standing condition are kept in the policy's state, and
//! every verdict is made of all of them.
//!
//! **Invariant:** what the host no longer lists in `device.standing` was cleared, and is forgotten
//! here before anything new is judged.
//!
//! **Invariant:** what a drill left behind never shapes a verdict on a real signal.

use device_policy_sdk::types::{Device, Severity, Signal, Verdict};
use device_policy_sdk::verdict::{self, quote, stands};
use device_policy_sdk::{Host, Level};

use crate::config::Config;
use crate::finding::{Action, Finding, MERGED, REPEATS, Reason, Until};
use crate::record;

/// Codes kept behind one condition. A dying GPU raises about half a dozen; past it the least of
/// them goes.
pub(crate) const CODES_MAX: usize = 12;

/// One code behind a condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub code: u64,
    pub drill: bool,
    /// When it was first seen, as [`Signal::at_ms`].
    pub since_ms: u64,
    /// Order of arrival within the condition: the greatest is the newest.
    pub order: u32,
    pub severity: Severity,
    pub action: Action,
    pub reason: Reason,
    pub until: Until,
    /// What the message says of it, the first evidence quoted.
    pub summary: String,
}

impl Standing {
    fn rank(&self) -> (Severity, Action) {
        (self.severity, self.action)
    }
}

/// The codes behind one condition of the GPU or of one instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shelf {
    pub condition: &'static str,
    pub instance: Option<String>,
    pub codes: Vec<Standing>,
    dirty: bool,
}

impl Shelf {
    fn key(&self) -> String {
        match &self.instance {
            Some(instance) => format!("standing/{}/{instance}", self.condition),
            None => format!("standing/{}", self.condition),
        }
    }
}

/// All shelves of a device, for the length of one call.
#[derive(Debug)]
pub(crate) struct Book<'a> {
    config: &'a Config,
    pub shelves: Vec<Shelf>,
}

impl<'a> Book<'a> {
    /// Reads the state, and forgets what the host has cleared.
    pub(crate) fn open(host: &mut dyn Host, device: &Device, config: &'a Config) -> Self {
        let mut shelves = Vec::new();
        for key in host.keys() {
            let Some((condition, instance)) = parse_key(&key) else {
                continue;
            };
            // A host that keeps conditions of the whole GPU only lists an instance's without it.
            if !stands(device, condition, instance) && !stands(device, condition, None) {
                host.delete(&key);
                continue;
            }
            let codes = host
                .get(&key)
                .as_deref()
                .and_then(record::decode)
                .unwrap_or_else(|| {
                    host.log(
                        Level::Warn,
                        &format!("state {key} is not readable and is begun anew"),
                    );
                    Vec::new()
                });
            shelves.push(Shelf {
                condition,
                instance: instance.map(str::to_owned),
                codes,
                dirty: false,
            });
        }
        Self { config, shelves }
    }

    /// Writes what changed.
    ///
    /// # Errors
    /// The host's quota.
    pub(crate) fn close(self, host: &mut dyn Host) -> Result<(), String> {
        for shelf in self.shelves.iter().filter(|shelf| shelf.dirty) {
            if shelf.codes.is_empty() {
                host.delete(&shelf.key());
            } else {
                host.put(&shelf.key(), &record::encode(&shelf.codes))?;
            }
        }
        Ok(())
    }

    /// Adds a finding to what stands for its condition, and says what the condition is now.
    /// `subject` names the code in the message.
    pub(crate) fn add(
        &mut self,
        condition: &'static str,
        subject: &str,
        finding: &Finding,
        signal: &Signal,
    ) -> Verdict {
        let code = signal.code.unwrap_or_default();
        let shelf = self.shelf(condition, signal.instance.as_deref());
        let order = shelf.next_order();
        let same =
            |standing: &&mut Standing| standing.code == code && standing.drill == signal.drill;
        match shelf.codes.iter_mut().find(same) {
            Some(standing) => {
                standing.order = order;
                if (finding.severity, finding.action) > standing.rank() {
                    let fresh = new_standing(code, subject, finding, signal);
                    *standing = Standing {
                        since_ms: standing.since_ms,
                        order,
                        ..fresh
                    };
                }
            }
            None => {
                shelf.codes.push(Standing {
                    order,
                    ..new_standing(code, subject, finding, signal)
                });
                if shelf.codes.len() > CODES_MAX {
                    evict(&mut shelf.codes);
                }
            }
        }
        shelf.dirty = true;
        self.verdict(condition, signal)
    }

    /// What the condition is now, in answer to `signal`. On an instance the whole GPU's codes count
    /// too: it inherits them.
    pub(crate) fn verdict(&self, condition: &'static str, signal: &Signal) -> Verdict {
        let inherits = |shelf: &&Shelf| {
            shelf.condition == condition
                && (shelf.instance.is_none() || shelf.instance == signal.instance)
        };
        let visible = |standing: &&Standing| signal.drill || !standing.drill;
        let codes: Vec<&Standing> = self
            .shelves
            .iter()
            .filter(inherits)
            .flat_map(|shelf| &shelf.codes)
            .filter(visible)
            .collect();
        let quiet_ms = self.quiet_ms(condition, &codes);
        merge(condition, &codes, signal, quiet_ms)
    }

    /// How long it must be quiet for the condition to go; 0: it does not go by itself.
    fn quiet_ms(&self, condition: &str, codes: &[&Standing]) -> u64 {
        if condition != REPEATS {
            return self.config.quiet_ms;
        }
        let quiet = |standing: &&Standing| {
            let window = self.config.windows.get(&standing.code);
            window.map_or(0, |window| window.quiet_ms)
        };
        // One that waits for a person keeps the others.
        match codes.iter().map(quiet).min() {
            None | Some(0) => 0,
            Some(_) => codes.iter().map(quiet).max().unwrap_or(0),
        }
    }

    /// Takes a code of real (or of drill) signals off a condition. `None`: it was not on it.
    pub(crate) fn remove(
        &mut self,
        condition: &'static str,
        instance: Option<&str>,
        code: u64,
        drill: bool,
    ) -> Option<Standing> {
        let same_shelf = |shelf: &&mut Shelf| {
            shelf.condition == condition && shelf.instance.as_deref() == instance
        };
        let shelf = self.shelves.iter_mut().find(same_shelf)?;
        let at = shelf
            .codes
            .iter()
            .position(|standing| standing.code == code && standing.drill == drill)?;
        shelf.dirty = true;
        Some(shelf.codes.remove(at))
    }

    /// A code of real (or of drill) signals behind a condition.
    pub(crate) fn find(
        &self,
        condition: &str,
        instance: Option<&str>,
        code: u64,
        drill: bool,
    ) -> Option<&Standing> {
        let same_shelf =
            |shelf: &&Shelf| shelf.condition == condition && shelf.instance.as_deref() == instance;
        let shelf = self.shelves.iter().find(same_shelf)?;
        let same = |standing: &&Standing| standing.code == code && standing.drill == drill;
        shelf.codes.iter().find(same)
    }

    /// Whether any of this code stands for the condition.
    pub(crate) fn has(&self, condition: &str, instance: Option<&str>, code: u64) -> bool {
        self.shelves.iter().any(|shelf| {
            shelf.condition == condition
                && shelf.instance.as_deref() == instance
                && shelf.codes.iter().any(|standing| standing.code == code)
        })
    }

    pub(crate) fn shelf(&mut self, condition: &'static str, instance: Option<&str>) -> &mut Shelf {
        let same =
            |shelf: &Shelf| shelf.condition == condition && shelf.instance.as_deref() == instance;
        let at = self.shelves.iter().position(same).unwrap_or_else(|| {
            let instance = instance.map(str::to_owned);
            self.shelves.push(Shelf {
                condition,
                instance,
                codes: Vec::new(),
                dirty: false,
            });
            self.shelves.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or just pushed")]
        &mut self.shelves[at]
    }
}

impl Shelf {
    /// Marks it as changed.
    pub(crate) fn touch(&mut self) {
        self.dirty = true;
    }

    /// Takes over a code from another condition, with what `finding` makes of it.
    pub(crate) fn keep(&mut self, finding: &Finding, standing: Standing) {
        let order = self.next_order();
        let Finding {
            severity,
            action,
            reason,
            until,
            ..
        } = *finding;
        self.codes.push(Standing {
            order,
            severity,
            action,
            reason,
            until,
            ..standing
        });
        if self.codes.len() > CODES_MAX {
            evict(&mut self.codes);
        }
        self.dirty = true;
    }

    fn next_order(&self) -> u32 {
        self.codes
            .iter()
            .map(|standing| standing.order)
            .max()
            .map_or(0, |newest| newest.saturating_add(1))
    }
}

/// The greatest severity and action of all that stands, the reason of the one that has them, and a
/// way out that clears them all. The message tells of what `signal` brought, then of the rest.
fn merge(condition: &'static str, codes: &[&Standing], signal: &Signal, quiet_ms: u64) -> Verdict {
    let lead = codes
        .iter()
        .max_by_key(|standing| (standing.rank(), standing.since_ms, standing.order));
    let told = codes
        .iter()
        .find(|standing| Some(standing.code) == signal.code && standing.drill == signal.drill);
    let (Some(lead), Some(told)) = (lead, told.or(lead)) else {
        return verdict::ok(condition, Reason::Superseded.word(), signal)
            .message("Nothing of this kind stands any more.")
            .instance(signal.instance.as_deref())
            .into();
    };
    let until = codes
        .iter()
        .map(|standing| standing.until)
        .max()
        .unwrap_or(lead.until);
    let mut message = told.summary.clone();
    let others = codes
        .iter()
        .filter(|standing| !std::ptr::eq(**standing, *told));
    let others: Vec<String> = others
        .map(|standing| format!("{} ({})", standing.code, standing.reason.word()))
        .collect();
    if !others.is_empty() {
        message += &format!(" Also standing: {}.", others.join(", "));
    }
    verdict::problem(condition, lead.severity, lead.reason.word(), signal)
        .action(lead.action.word())
        .message(message)
        .clears(&until.clears(quiet_ms))
        .instance(signal.instance.as_deref())
        .into()
}

fn new_standing(code: u64, subject: &str, finding: &Finding, signal: &Signal) -> Standing {
    let mut summary = format!("{subject}: {}.", finding.note);
    let evidence = quote(&signal.evidence);
    if !evidence.is_empty() {
        summary += &format!(" Evidence: \"{evidence}\"");
    }
    Standing {
        code,
        drill: signal.drill,
        since_ms: signal.at_ms,
        order: 0,
        severity: finding.severity,
        action: finding.action,
        reason: finding.reason,
        until: finding.until,
        summary,
    }
}

/// Drops the least: drills first, then by rank, then the oldest; never the newest.
fn evict(codes: &mut Vec<Standing>) {
    let newest = codes.iter().map(|standing| standing.order).max();
    let least = (0..codes.len())
        .filter_map(|at| codes.get(at).map(|standing| (at, standing)))
        .filter(|(_, standing)| Some(standing.order) != newest)
        .min_by_key(|(_, standing)| (!standing.drill, standing.rank(), standing.order));
    if let Some((at, _)) = least {
        codes.remove(at);
    }
}

fn parse_key(key: &str) -> Option<(&'static str, Option<&str>)> {
    let rest = key.strip_prefix("standing/")?;
    let (condition, instance) = match rest.split_once('/') {
        Some((condition, instance)) => (condition, Some(instance)),
        None => (rest, None),
    };
    MERGED
        .into_iter()
        .find(|known| *known == condition)
        .map(|known| (known, instance))
}
