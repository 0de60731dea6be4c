//! What those who append and the thread that writes share.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use device_api_core::clock::{BootTime, Clock};
use device_api_core::durable::{Batch, NotDurable};
use device_api_core::ports::Synced;

use crate::format::Slot;
use crate::pending::Pending;
use crate::status::Status;

/// Callbacks that wait for the disk at once: four writes in flight on each of 4,096 connections. Past
/// it the answer is that nothing is known of the write, which is what a client would hear anyway once
/// its deadline has passed.
pub const SYNCED_WAITING_MAX: usize = 16 * 1024;

/// A commit that takes longer than this is a disk that hangs: nobody new waits for it. A busy disk of
/// the slow kind syncs within a second.
pub const HUNG_AFTER: Duration = Duration::from_secs(5);

/// What is told while it stops.
const GOING_DOWN: &str = "the daemon is going down";

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Told when there is something to do for the thread.
    work: Condvar,
    /// Told when the thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    pending: Pending,
    /// Wait for `pending`.
    waiting: Vec<Synced>,
    /// When the commit began that is under way.
    committing_since: Option<BootTime>,
    /// Wait for the commit that is under way.
    waiting_in_commit: Vec<Synced>,
    /// What the file holds, or may hold.
    stored: HashSet<Slot>,
    /// How writing goes: never [`Status::Incomplete`].
    status: Status,
    /// What of the last run is not in this one's state.
    missing: Option<String>,
    /// What of this run's state is not in the file.
    left_out: Option<String>,
    /// What the last commit was to those who waited for it: some of them may come late.
    last: Option<NotDurable>,
    stopping: bool,
    has_ended: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("status", &self.status)
            .field("pending", &self.pending.changes.len())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl State {
    /// Why whoever asks now is not to wait.
    fn refusal(&self, now: BootTime) -> Option<String> {
        if self.stopping {
            return Some(GOING_DOWN.to_owned());
        }
        self.trouble(now)
    }

    fn trouble(&self, now: BootTime) -> Option<String> {
        if let Some(why) = self.status.why() {
            return Some(why.to_owned());
        }
        if self.has_ended {
            return Some("the store's thread has ended; restart the daemon".to_owned());
        }
        let waited = now.since(self.committing_since?);
        (waited >= HUNG_AFTER).then(|| {
            format!(
                "the disk has not answered for {} s; look for a hung device or mount",
                waited.as_secs()
            )
        })
    }
}

/// What the thread is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// One more attempt, then end.
    pub(crate) stopping: bool,
}

impl Shared {
    /// `missing` says what of the last run could not be read.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        stored: HashSet<Slot>,
        missing: Option<String>,
    ) -> Self {
        Self {
            clock,
            state: Mutex::new(State {
                stored,
                missing,
                ..State::default()
            }),
            work: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    /// A panic elsewhere leaves the state whole: it is changed in steps that can't panic between.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn append(&self, batch: Batch) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.pending.fold(batch, &state.stored);
        drop(guard);
        self.work.notify_one();
    }

    pub(crate) fn synced(&self, done: Synced) {
        let now = self.clock.boot();
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(why) = state.refusal(now) {
            drop(guard);
            return done(Err(NotDurable(why)));
        }
        if state.waiting.len() + state.waiting_in_commit.len() >= SYNCED_WAITING_MAX {
            drop(guard);
            return done(Err(NotDurable(format!(
                "{SYNCED_WAITING_MAX} writes wait for the disk already; try again later"
            ))));
        }
        if !state.pending.is_empty() {
            state.waiting.push(done);
        } else if state.committing_since.is_some() {
            state.waiting_in_commit.push(done);
        } else {
            let last = state.last.clone();
            drop(guard);
            done(last.map_or(Ok(()), Err));
        }
    }

    pub(crate) fn writable(&self) -> Result<(), NotDurable> {
        let now = self.clock.boot();
        match self.state().refusal(now) {
            Some(why) => Err(NotDurable(why)),
            None => Ok(()),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let now = self.clock.boot();
        let state = self.state();
        if state.status != Status::Ok {
            return state.status.clone();
        }
        if let Some(why) = state.trouble(now) {
            return Status::Failing { why };
        }
        let lacking = state.left_out.iter().chain(&state.missing);
        match lacking.cloned().collect::<Vec<_>>() {
            lacking if lacking.is_empty() => Status::Ok,
            lacking => Status::Incomplete {
                why: lacking.join("; "),
            },
        }
    }

    /// Waits until there is something to write, or, where `retry` says so, until that has passed: what
    /// is appended meanwhile does not cut it short.
    pub(crate) fn next(&self, retry: Option<Duration>) -> Next {
        let state = self.state();
        let state = match retry {
            None => self
                .work
                .wait_while(state, |state| state.pending.is_empty() && !state.stopping)
                .unwrap_or_else(PoisonError::into_inner),
            Some(retry) => {
                self.work
                    .wait_timeout_while(state, retry, |state| !state.stopping)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        Next {
            stopping: state.stopping,
        }
    }

    /// The file was opened: what is in it is known.
    pub(crate) fn opened(&self, stored: HashSet<Slot>) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.stored = stored;
        state.pending.prune(&state.stored);
    }

    /// Waits for the end, where nothing else is left to do.
    pub(crate) fn until_stopping(&self) {
        let state = self.state();
        drop(
            self.work
                .wait_while(state, |state| !state.stopping)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Takes all that is pending into a commit.
    pub(crate) fn take(&self) -> Pending {
        let now = self.clock.boot();
        let mut guard = self.state();
        let state = &mut *guard;
        let taken = std::mem::take(&mut state.pending);
        let put = taken.changes.iter().filter(|(_, change)| change.is_some());
        state.stored.extend(put.map(|(slot, _)| slot.clone()));
        state.committing_since = Some(now);
        state.waiting_in_commit.append(&mut state.waiting);
        taken
    }

    /// The commit is durable, but for what was `left_out` of the file until now; who waited for it is
    /// told so, or that it is `short`. Says whether it is the first after failures.
    pub(crate) fn committed(
        &self,
        taken: &Pending,
        left_out: Option<String>,
        short: Option<NotDurable>,
    ) -> bool {
        let mut state = self.state();
        for (slot, change) in &taken.changes {
            if change.is_none() {
                state.stored.remove(slot);
            }
        }
        state.committing_since = None;
        state.left_out = left_out;
        state.last.clone_from(&short);
        let recovered = std::mem::take(&mut state.status) != Status::Ok;
        let waiting = std::mem::take(&mut state.waiting_in_commit);
        drop(state);
        answer(waiting, &short.map_or(Ok(()), Err));
        recovered
    }

    /// Nothing becomes durable. What was taken is pending again, and whoever waits is told. Says whether
    /// this is news.
    pub(crate) fn failed(&self, taken: Option<Pending>, status: Status) -> bool {
        let why = NotDurable(status.why().unwrap_or_default().to_owned());
        let mut state = self.state();
        if let Some(taken) = taken {
            state.pending.put_back(taken);
        }
        state.committing_since = None;
        let ends = |status: &Status| matches!(status, Status::ReadOnly { .. });
        let news = state.status == Status::Ok || (ends(&status) && !ends(&state.status));
        state.status = status;
        let mut waiting = std::mem::take(&mut state.waiting_in_commit);
        waiting.append(&mut state.waiting);
        drop(state);
        answer(waiting, &Err(why));
        news
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.state().pending.is_empty()
    }

    /// The thread ends; nobody waits for it any more.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.has_ended = true;
        let mut waiting = std::mem::take(&mut state.waiting_in_commit);
        waiting.append(&mut state.waiting);
        drop(state);
        self.ended.notify_all();
        answer(waiting, &Err(NotDurable(GOING_DOWN.to_owned())));
    }

    /// Asks the thread to end and waits for it; false where it did not within `patience`.
    pub(crate) fn stop(&self, patience: Duration) -> bool {
        let mut state = self.state();
        state.stopping = true;
        self.work.notify_all();
        let (state, _) = self
            .ended
            .wait_timeout_while(state, patience, |state| !state.has_ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.has_ended
    }
}

/// Calls those who wait, without the lock. One that panics must not take the thread with it.
fn answer(waiting: Vec<Synced>, result: &Result<(), NotDurable>) {
    for done in waiting {
        let result = result.clone();
        if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            tracing::error!("whoever waited for a write to be durable panicked when told");
        }
    }
}
