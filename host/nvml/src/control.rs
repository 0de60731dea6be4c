//! How the source's threads start, pause and end together. Every wait here can be interrupted.
//!
//! A session has a number. A thread that hung in a call of an earlier session finds, when the call
//! returns after all, that its session is over, and leaves without a word.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::attempts::{AttachAnswer, Attaching};
use crate::holding::{Hold, Holding, ReleaseAnswer, Ticket};
use crate::watch::Role;

/// Number of a session; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionId(u64);

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The driver went away under it.
    DriverGone(String),
    /// Anything else, or no reason at all.
    Over(String),
}

impl Trouble {
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::DriverGone(why) | Self::Over(why) => why,
        }
    }
}

/// What the owner of the library has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Stop,
    End(Trouble),
    /// The driver is wanted by somebody else.
    Release,
    /// A thread hangs, and another is to take its place.
    Replace(Role),
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    /// The thread that owns the library has ended.
    ended: bool,
    session: SessionId,
    /// Why the session has to end.
    trouble: Option<Trouble>,
    /// Threads of the session that run, those that hang included.
    workers: usize,
    /// Threads of earlier sessions that hang in a call.
    left_behind: usize,
    /// Number of the thread that polls, and of the one that waits for events; others were replaced.
    poll: u64,
    events: u64,
    replace: BTreeSet<Role>,
    holding: Holding,
    /// Who asked for NVML to be taken up.
    attaching: Attaching,
}

impl State {
    fn goes_on(&self, session: SessionId) -> bool {
        !self.stopping && self.session == session && self.trouble.is_none()
    }

    fn number(&self, role: Role) -> u64 {
        match role {
            Role::Poll => self.poll,
            Role::Events => self.events,
            Role::Life => 0,
        }
    }

    /// Whether the thread is the one that has that role now.
    fn is_current(&self, session: SessionId, role: Role, number: u64) -> bool {
        self.goes_on(session) && self.number(role) == number
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

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let answer = change(&mut self.lock());
        self.changed.notify_all();
        answer
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
        let unanswered = self.change(|state| {
            state.stopping = true;
            let attaching = state.attaching.take_all();
            (state.holding.take_waiting(), attaching)
        });
        // Outside the lock: whoever is woken may come right back.
        drop(unanswered);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// `false`: it was stopped meanwhile.
    pub(crate) fn pause_until_stop(&self, timeout: Duration) -> bool {
        !self.wait_while(timeout, |state| !state.stopping)
    }

    /// Pauses between attempts; ended early by a stop, a release and an attach.
    pub(crate) fn pause_attempts(&self, timeout: Duration) {
        self.wait_while(timeout, |state| {
            !state.stopping && state.holding.wanted().is_none() && !state.attaching.wants_another()
        });
    }

    /// The library is looked for; whether somebody asked for that.
    pub(crate) fn begin_attempt(&self) -> bool {
        self.lock().attaching.begin()
    }

    /// The attempt has failed: whom to tell.
    pub(crate) fn attempted(&self) -> Vec<AttachAnswer> {
        self.lock().attaching.take_failed()
    }

    /// Who waits for NVML to be taken up, since whenever.
    pub(crate) fn all_attaching(&self) -> Vec<AttachAnswer> {
        self.lock().attaching.take_all()
    }

    pub(crate) fn begin_session(&self) -> SessionId {
        let mut state = self.lock();
        state.session.0 += 1;
        state.trouble = None;
        state.replace.clear();
        state.poll += 1;
        state.events += 1;
        state.left_behind += std::mem::take(&mut state.workers);
        state.session
    }

    /// From here on the session's threads leave at the next chance.
    pub(crate) fn end_session(&self, session: SessionId, why: Trouble) {
        self.change(|state| {
            if state.session == session && state.trouble.is_none() {
                state.trouble = Some(why);
            }
        });
    }

    pub(crate) fn is_current(&self, session: SessionId, role: Role, number: u64) -> bool {
        self.lock().is_current(session, role, number)
    }

    pub(crate) fn number(&self, role: Role) -> u64 {
        self.lock().number(role)
    }

    /// Whether the thread has its role still after the pause.
    pub(crate) fn pause(
        &self,
        session: SessionId,
        (role, number): (Role, u64),
        timeout: Duration,
    ) -> bool {
        !self.wait_while(timeout, |state| state.is_current(session, role, number))
    }

    /// Waits until there is something to do for the owner of the library.
    pub(crate) fn wait_for_work(&self, session: SessionId) -> Wake {
        let result = self.changed.wait_while(self.lock(), |state| {
            state.goes_on(session) && state.holding.wanted().is_none() && state.replace.is_empty()
        });
        let mut state = result.unwrap_or_else(PoisonError::into_inner);
        if state.stopping {
            return Wake::Stop;
        }
        if let Some(trouble) = &state.trouble {
            return Wake::End(trouble.clone());
        }
        if state.holding.wanted().is_some() {
            return Wake::Release;
        }
        match state.replace.pop_first() {
            Some(role) => Wake::Replace(role),
            None => Wake::End(Trouble::Over("another session began".to_owned())),
        }
    }

    /// Asks the owner of the library to put another thread in a hung one's place.
    pub(crate) fn ask_to_replace(&self, role: Role) {
        self.change(|state| state.replace.insert(role));
    }

    /// The number of the thread that has the role from now on.
    pub(crate) fn supersede(&self, role: Role) -> u64 {
        self.change(|state| {
            let number = match role {
                Role::Poll => &mut state.poll,
                Role::Events => &mut state.events,
                Role::Life => return 0,
            };
            *number += 1;
            *number
        })
    }

    /// Asks for the driver to be let go of; `answer` is told when it is. `None`: nobody will.
    pub(crate) fn ask_to_release(&self, hold: Hold, answer: ReleaseAnswer) -> Option<Ticket> {
        // Where it is stopping, nobody would: the answer is dropped, outside the lock.
        let (ticket, _unanswered) = self.change(|state| {
            if state.stopping {
                return (None, Some(answer));
            }
            (Some(state.holding.ask(hold, answer)), None)
        });
        ticket
    }

    /// Whoever asked for a release gave up; whether it had not begun, and does not.
    pub(crate) fn withdraw(&self, ticket: Ticket) -> bool {
        self.change(|state| state.holding.withdraw(ticket))
            .is_some()
    }

    /// The driver is let go of now, or goes on being so: until when, and whom to tell. `None`: nobody wants it.
    pub(crate) fn begin_hold(&self) -> Option<(Hold, Vec<ReleaseAnswer>)> {
        self.lock().holding.begin()
    }

    pub(crate) fn hold(&self) -> Option<Hold> {
        self.lock().holding.wanted()
    }

    /// Nobody needs the driver any more, or it could not be let go of.
    pub(crate) fn end_hold(&self) -> Vec<ReleaseAnswer> {
        self.change(|state| state.holding.end())
    }

    /// Has NVML taken up; `answer` is told what came of it. Whose release that overtakes is to be told, too.
    pub(crate) fn attach(&self, answer: AttachAnswer) -> Vec<ReleaseAnswer> {
        let (overtaken, _unanswered) = self.change(|state| {
            let overtaken = state.holding.end();
            if state.stopping {
                return (overtaken, Some(answer));
            }
            state.attaching.push(answer);
            (overtaken, None)
        });
        overtaken
    }

    /// Waits until the hold is another than `hold`, or for `timeout`.
    pub(crate) fn wait_held(&self, hold: Hold, timeout: Duration) {
        self.wait_while(timeout, |state| {
            !state.stopping && state.holding.wanted() == Some(hold) && !state.holding.has_waiting()
        });
    }

    /// Counts a thread of the session in until the answer is dropped; a thread that ends though
    /// the session goes on and nobody took its place (it panicked) ends the session.
    pub(crate) fn worker(
        self: &Arc<Self>,
        session: SessionId,
        name: &'static str,
        (role, number): (Role, u64),
    ) -> Worker {
        self.change(|state| state.workers += 1);
        Worker {
            control: Arc::clone(self),
            session,
            name,
            role,
            number,
        }
    }

    /// Waits until all threads have left but for those that hang; `false`: more do.
    pub(crate) fn wait_for_workers(&self, timeout: Duration, hung: impl Fn() -> usize) -> bool {
        self.wait_while(timeout, |state| {
            state.workers > hung().saturating_sub(state.left_behind)
        }) && self.lock().workers == 0
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
    role: Role,
    number: u64,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.control.change(|state| {
            if state.is_current(self.session, self.role, self.number) {
                let why = format!("the thread {} ended unexpectedly", self.name);
                state.trouble = Some(Trouble::Over(why));
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// No pause of these tests is waited out: it is ended by what is tested.
    const LONG: Duration = Duration::from_secs(600);

    fn over(why: &str) -> Trouble {
        Trouble::Over(why.to_owned())
    }

    #[test]
    fn stop_interrupts_every_pause() {
        let control = Arc::new(Control::default());
        let session = control.begin_session();
        let poll = (Role::Poll, control.number(Role::Poll));
        thread::scope(|scope| {
            let pauses = [
                scope.spawn(|| control.pause(session, poll, LONG)),
                scope.spawn(|| control.pause_until_stop(LONG)),
                scope.spawn(|| control.wait_for_work(session) != Wake::Stop),
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
        assert!(control.lock().goes_on(session));
        control.end_session(session, over("first"));
        control.end_session(session, over("second"));
        assert_eq!(control.wait_for_work(session), Wake::End(over("first")));
        assert!(!control.pause(session, (Role::Poll, control.number(Role::Poll)), LONG));
    }

    #[test]
    fn a_thread_of_an_earlier_session_has_no_say_in_the_next() {
        let control = Arc::new(Control::default());
        let worker =
            |session, name| control.worker(session, name, (Role::Poll, control.number(Role::Poll)));
        let old = control.begin_session();
        let hung = worker(old, "old");
        let new = control.begin_session();
        let worker = worker(new, "new");
        control.end_session(old, over("late"));
        assert!(!control.lock().goes_on(old) && control.lock().goes_on(new));
        control.end_session(new, over("over"));
        drop(worker);
        assert!(
            control.wait_for_workers(Duration::ZERO, || 1),
            "the old session's is not waited for"
        );
        assert!(control.has_workers(), "but known");
        drop(hung);
        assert!(!control.has_workers());
    }

    #[test]
    fn a_thread_that_ends_on_its_own_ends_the_session_and_one_that_was_replaced_does_not() {
        let control = Arc::new(Control::default());
        let session = control.begin_session();
        let poll = (Role::Poll, control.number(Role::Poll));
        let replaced = control.worker(session, "nvml-poll", poll);
        control.ask_to_replace(Role::Poll);
        assert_eq!(control.wait_for_work(session), Wake::Replace(Role::Poll));
        let number = control.supersede(Role::Poll);
        assert!(!control.is_current(session, Role::Poll, poll.1));
        drop(replaced);
        assert!(control.lock().goes_on(session));
        drop(control.worker(session, "nvml-poll", (Role::Poll, number)));
        let Wake::End(trouble) = control.wait_for_work(session) else {
            panic!("goes on");
        };
        assert!(trouble.why().contains("nvml-poll"), "{trouble:?}");
    }
}
