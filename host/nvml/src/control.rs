//! How the source's threads start, pause and end together. Every wait here can be interrupted.
//!
//! A session has a number. A thread that hung in a call of an earlier session finds, when the call
//! returns after all, that its session is over, and leaves without a word.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Number of a session; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionId(u64);

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    /// The thread that owns the library has ended.
    ended: bool,
    session: SessionId,
    /// Why the session has to end.
    trouble: Option<String>,
    /// Threads of the session that run.
    workers: usize,
    /// Threads of earlier sessions that hang in a call.
    left_behind: usize,
}

impl State {
    fn goes_on(&self, session: SessionId) -> bool {
        !self.stopping && self.session == session && self.trouble.is_none()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits while `condition` holds, at most for `timeout`.
    fn wait_while(&self, timeout: Duration, mut condition: impl FnMut(&State) -> bool) -> bool {
        let result = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| condition(state));
        let (state, _) = result.unwrap_or_else(PoisonError::into_inner);
        !condition(&state)
    }

    pub(crate) fn stop(&self) {
        self.change(|state| state.stopping = true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// `false`: it was stopped meanwhile.
    pub(crate) fn pause_until_stop(&self, timeout: Duration) -> bool {
        !self.wait_while(timeout, |state| !state.stopping)
    }

    pub(crate) fn begin_session(&self) -> SessionId {
        let mut state = self.lock();
        state.session.0 += 1;
        state.trouble = None;
        state.left_behind += std::mem::take(&mut state.workers);
        state.session
    }

    /// From here on the session's threads leave at the next chance.
    pub(crate) fn end_session(&self, session: SessionId, why: &str) {
        self.change(|state| {
            if state.session == session && state.trouble.is_none() {
                state.trouble = Some(why.to_owned());
            }
        });
    }

    pub(crate) fn goes_on(&self, session: SessionId) -> bool {
        self.lock().goes_on(session)
    }

    /// Whether the session goes on after the pause.
    pub(crate) fn pause(&self, session: SessionId, timeout: Duration) -> bool {
        !self.wait_while(timeout, |state| state.goes_on(session))
    }

    /// Waits until the session has to end. `None`: the source is stopped.
    pub(crate) fn wait_for_trouble(&self, session: SessionId) -> Option<String> {
        let result = self
            .changed
            .wait_while(self.lock(), |state| state.goes_on(session));
        let state = result.unwrap_or_else(PoisonError::into_inner);
        if state.stopping {
            None
        } else {
            state.trouble.clone()
        }
    }

    /// Counts a thread of the session in until the answer is dropped; a thread that ends though
    /// the session goes on (it panicked) ends the session.
    pub(crate) fn worker(self: &Arc<Self>, session: SessionId, name: &'static str) -> Worker {
        self.change(|state| state.workers += 1);
        Worker {
            control: Arc::clone(self),
            session,
            name,
        }
    }

    /// `false`: one hangs.
    pub(crate) fn wait_for_workers(&self, timeout: Duration) -> bool {
        self.wait_while(timeout, |state| state.workers > 0)
    }

    /// Whether a thread of any session still runs.
    pub(crate) fn has_workers(&self) -> bool {
        let state = self.lock();
        state.workers + state.left_behind > 0
    }

    pub(crate) fn ended(&self) {
        self.change(|state| state.ended = true);
    }

    /// `false`: it hangs.
    pub(crate) fn wait_for_end(&self, timeout: Duration) -> bool {
        self.wait_while(timeout, |state| !state.ended)
    }
}

/// Says that a thread runs for as long as it lives.
#[derive(Debug)]
pub(crate) struct Worker {
    control: Arc<Control>,
    session: SessionId,
    name: &'static str,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.control.change(|state| {
            if state.goes_on(self.session) {
                state.trouble = Some(format!("the thread {} ended unexpectedly", self.name));
            }
            let counted = if state.session == self.session {
                &mut state.workers
            } else {
                &mut state.left_behind
            };
            *counted = counted.saturating_sub(1);
        });
    }
}

/// Times between attempts: each is twice the last, from `min` up to `max`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            next: min,
        }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let now = self.next;
        self.next = now.saturating_mul(2).min(self.max);
        now
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// No pause of these tests is waited out: it is ended by what is tested.
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        let seconds: Vec<u64> = (0..8).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next().as_secs(), 1);
    }

    #[test]
    fn stop_interrupts_every_pause() {
        let control = Arc::new(Control::default());
        let session = control.begin_session();
        thread::scope(|scope| {
            let pauses = [
                scope.spawn(|| control.pause(session, LONG)),
                scope.spawn(|| control.pause_until_stop(LONG)),
                scope.spawn(|| control.wait_for_trouble(session).is_some()),
            ];
            control.stop();
            for pause in pauses {
                assert!(!pause.join().unwrap());
            }
        });
    }

    #[test]
    fn the_first_trouble_ends_the_session_and_is_told() {
        let control = Control::default();
        let session = control.begin_session();
        assert!(control.goes_on(session));
        control.end_session(session, "first");
        control.end_session(session, "second");
        assert_eq!(control.wait_for_trouble(session).as_deref(), Some("first"));
        assert!(!control.pause(session, LONG));
    }

    #[test]
    fn a_thread_of_an_earlier_session_has_no_say_in_the_next() {
        let control = Arc::new(Control::default());
        let old = control.begin_session();
        let hung = control.worker(old, "old");
        let new = control.begin_session();
        let worker = control.worker(new, "new");
        control.end_session(old, "late");
        assert!(!control.goes_on(old) && control.goes_on(new));
        control.end_session(new, "over");
        drop(worker);
        assert!(
            control.wait_for_workers(Duration::ZERO),
            "the old session's is not waited for"
        );
        assert!(control.has_workers(), "but known");
        drop(hung);
        assert!(!control.has_workers());
    }

    #[test]
    fn a_thread_that_ends_on_its_own_ends_the_session() {
        let control = Arc::new(Control::default());
        let session = control.begin_session();
        drop(control.worker(session, "nvml-poll"));
        let why = control.wait_for_trouble(session).unwrap();
        assert!(why.contains("nvml-poll"), "{why}");
    }
}
