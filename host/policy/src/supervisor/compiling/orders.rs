//! What is to be compiled, in which order, and what came of it.
//!
//! One after the other, so what takes long must not keep the rest waiting: the small go before the large, and
//! who has had a turn of [`TURN`] gives way to who has not. What used up all the time or memory that the
//! compiler has is not compiled again, unless an operator asks for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use device_api_core::limits::POLICIES_MAX;
use device_api_wasm::{Limits, LoadError, Loaded};

use crate::ledger::TOO_MUCH_MAX;
use crate::source::Bytes;

/// Components that wait at once: each policy with two to go back to. One more is ordered when the set is
/// gone over again.
const WAITING_MAX: usize = 3 * POLICIES_MAX;

/// Results remembered, so that a set is not compiled again for one file of it; the oldest go first.
const RESULTS_MAX: usize = 4 * POLICIES_MAX;

/// How long a component is compiled while others wait who may be quicker: a Rust guest takes a tenth of it, an
/// interpreter's twice.
pub(super) const TURN: Duration = Duration::from_secs(5);

/// How often it gives way; then it is compiled to its end.
const PUT_OFF_MAX: u32 = 3;

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// What runs where nothing else can.
    Bundled,
    /// What judged in the run before, or is there to go back to.
    Judged,
    New,
    /// It waits for an operator in any case.
    Held,
    /// It was too much for the compiler before.
    TooMuch,
}

/// One component, and what it may use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    pub(super) digest: Arc<str>,
    pub(super) limits: Limits,
}

/// What came of an order.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(super) order: Order,
    pub(super) result: Result<Loaded, Arc<LoadError>>,
}

/// Which results are forgotten, since the order may fare better now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forget {
    /// A pass that follows a compile, or a change of the directory.
    Nothing,
    /// What failed for want of something.
    Transient,
    /// What failed: an operator wants to see. What was too much for the compiler, once in a run.
    Failures,
}

#[derive(Default)]
pub(super) struct Orders {
    pub(super) is_stopped: bool,
    /// The set is being gone over: more is to come.
    is_open: bool,
    waiting: Vec<(Order, Bytes)>,
    /// Being compiled, or compiled and not taken in yet.
    under_way: Vec<Order>,
    current: Option<Current>,
    results: VecDeque<Compiled>,
    ranks: BTreeMap<Arc<str>, Rank>,
    /// How often, by digest.
    put_off: BTreeMap<Arc<str>, u32>,
    /// By digest.
    too_much: BTreeMap<Arc<str>, TooMuch>,
}

/// What is compiled now.
struct Current {
    digest: Arc<str>,
    since: Instant,
    gives_way: bool,
}

struct TooMuch {
    error: Arc<LoadError>,
    /// By an operator, in this run.
    was_asked_for: bool,
    /// Until it was tried.
    may_be_tried: bool,
}

impl Orders {
    pub(super) fn begin(&mut self, forget: Forget, ranks: BTreeMap<Arc<str>, Rank>) {
        self.waiting.clear();
        self.is_open = true;
        self.ranks = ranks;
        self.results.retain(|compiled| match forget {
            Forget::Nothing => true,
            Forget::Transient => !compiled
                .result
                .as_ref()
                .is_err_and(|error| error.is_transient()),
            Forget::Failures => compiled.result.is_ok(),
        });
        if forget == Forget::Failures {
            for too_much in self.too_much.values_mut() {
                too_much.may_be_tried |= !too_much.was_asked_for;
                too_much.was_asked_for = true;
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    pub(super) fn end(&mut self, needed: &BTreeSet<Arc<str>>) {
        self.close();
        if self.is_idle() {
            self.results.retain(|compiled| {
                compiled.result.is_err() || needed.contains(&compiled.order.digest)
            });
            self.put_off.clear();
        }
    }

    pub(super) fn known(&self, order: &Order) -> Option<Result<Loaded, LoadError>> {
        let known = self.results.iter().find(|known| known.order == *order)?;
        Some(match &known.result {
            Ok(loaded) => Ok(loaded.clone()),
            Err(error) => Err(LoadError::Before(Arc::clone(error))),
        })
    }

    /// Has it compiled, unless that is to be done already.
    pub(super) fn place(&mut self, order: Order, bytes: &Bytes) -> LoadError {
        if self.is_stopped {
            return LoadError::Stopped;
        }
        let too_much = self.too_much.get(&order.digest);
        if let Some(too_much) = too_much.filter(|it| !it.may_be_tried) {
            return LoadError::Before(Arc::clone(&too_much.error));
        }
        let is_waiting = self.waiting.iter().any(|(other, _)| *other == order);
        let is_ordered = is_waiting || self.under_way.contains(&order);
        if !is_ordered && self.waiting.len() < WAITING_MAX {
            self.waiting.push((order, bytes.clone()));
        }
        LoadError::Compiling
    }

    /// While the set is gone over, only who is to go first in any case.
    pub(super) fn next(&mut self) -> Option<(Order, Bytes)> {
        let turns = self.waiting.iter().enumerate();
        let turns = turns
            .filter(|(_, (order, _))| !self.is_open || self.turn(&order.digest).0 <= Rank::Judged);
        let turn = |(_, (order, bytes)): &(usize, &(Order, Bytes))| {
            (self.turn(&order.digest), bytes.len())
        };
        let at = turns.min_by_key(turn).map(|(at, _)| at)?;
        let (order, bytes) = self.waiting.remove(at);
        self.under_way.push(order.clone());
        self.current = Some(Current {
            digest: Arc::clone(&order.digest),
            since: Instant::now(),
            gives_way: false,
        });
        Some((order, bytes))
    }

    /// It is compiled, or was put off, which this says.
    pub(super) fn over(
        &mut self,
        order: &Order,
        bytes: &Bytes,
        result: &Result<Loaded, LoadError>,
    ) -> bool {
        self.current = None;
        let is_put_off = matches!(result, Err(LoadError::PutOff)) && !self.is_stopped;
        if is_put_off {
            *self.put_off.entry(Arc::clone(&order.digest)).or_default() += 1;
            self.under_way.retain(|other| other != order);
            if !self.waiting.iter().any(|(other, _)| other == order) {
                self.waiting.push((order.clone(), bytes.clone()));
            }
        }
        is_put_off
    }

    pub(super) fn take_in(&mut self, compiled: Compiled) {
        let order = &compiled.order;
        self.under_way.retain(|other| other != order);
        self.results.retain(|other| other.order != *order);
        match &compiled.result {
            Err(error) if error.is_too_much_to_compile() => {
                let before = self.too_much.get(&order.digest);
                let was_asked_for = before.is_some_and(|before| before.was_asked_for);
                self.was_too_much(Arc::clone(&order.digest), Arc::clone(error), was_asked_for);
                return;
            }
            Ok(_) => drop(self.too_much.remove(&order.digest)),
            Err(_) => {}
        }
        self.results.push_back(compiled);
        if self.results.len() > RESULTS_MAX {
            self.results.pop_front();
        }
    }

    pub(super) fn was_too_much(
        &mut self,
        digest: Arc<str>,
        error: Arc<LoadError>,
        was_asked_for: bool,
    ) {
        if self.too_much.len() >= TOO_MUCH_MAX && !self.too_much.contains_key(&digest) {
            self.too_much.pop_first();
        }
        let too_much = TooMuch {
            error,
            was_asked_for,
            may_be_tried: false,
        };
        self.too_much.insert(digest, too_much);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    pub(super) fn holds_any(&self, digests: &[Arc<str>]) -> bool {
        let waiting = self.waiting.iter().map(|(order, _)| order);
        waiting
            .chain(&self.under_way)
            .any(|order| digests.contains(&order.digest))
    }

    /// When what is compiled now gives way to somebody who waits; `None`: to nobody.
    pub(super) fn gives_way_at(&self) -> Option<Instant> {
        let current = self.current.as_ref().filter(|current| !current.gives_way)?;
        let (rank, times) = self.turn(&current.digest);
        let mut waiting = self.waiting.iter();
        let is_earlier = waiting.any(|(order, _)| self.turn(&order.digest) <= (rank, times));
        let may = rank != Rank::Bundled && times < PUT_OFF_MAX && is_earlier;
        may.then(|| current.since + TURN)
    }

    /// Says whether it is to be told to.
    pub(super) fn give_way(&mut self, now: Instant) -> bool {
        let is_due = self.gives_way_at().is_some_and(|at| now >= at);
        if let Some(current) = self.current.as_mut().filter(|_| is_due) {
            current.gives_way = true;
        }
        is_due
    }

    /// The smaller first.
    fn turn(&self, digest: &Arc<str>) -> (Rank, u32) {
        let rank = if self.too_much.contains_key(digest) {
            Rank::TooMuch
        } else {
            self.ranks.get(digest).copied().unwrap_or(Rank::New)
        };
        (rank, self.put_off.get(digest).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
