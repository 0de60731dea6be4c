//! What waits for the supervisor's thread: bounded, and what can't wait goes first.
//!
//! ```text
//!  1  what policies tell, what was compiled     no compile, no admission
//!  2  quarantine, pause, resume                 in the order they came
//!  3  release, accept                           in the order they came
//!  4  reload                                    all that wait are one
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use device_api_core::error::ApiError;
use device_api_core::ports::PolicyCommand;

use super::answer::Promise;
use super::worker::Message;
use crate::loaded::lock;

/// Commands that wait at once, reloads included: more operators than a node ever had.
pub(crate) const COMMANDS_WAITING_MAX: usize = 64;

/// A handle: clones share one inbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    is_stopped: bool,
    /// One for each quarantine and each compile; both are bounded where they come from.
    told: VecDeque<Message>,
    urgent: VecDeque<(PolicyCommand, Promise)>,
    commands: VecDeque<(PolicyCommand, Promise)>,
    is_reload_due: bool,
    reloads: Vec<Promise>,
}

/// What the thread is to do.
#[derive(Debug)]
pub(crate) enum Next {
    Message(Message),
    Nothing,
    Stop,
}

/// The supervisor ends, and nothing is taken any more.
#[derive(Debug)]
pub(crate) struct Stopped;

impl Inbox {
    /// A command that finds no room is answered at once.
    ///
    /// # Errors
    /// Nobody will look at it.
    pub(crate) fn send(&self, message: Message) -> Result<(), Stopped> {
        let mut waiting = lock(&self.0.waiting);
        if waiting.is_stopped {
            // What is dropped with the message has an answer of its own.
            drop(waiting);
            return Err(Stopped);
        }
        let left_over = waiting.put(message);
        drop(waiting);
        self.0.changed.notify_all();
        if let Some(promise) = left_over {
            promise.keep(Err(ApiError::Exhausted {
                limit: "policy commands that wait",
                max: COMMANDS_WAITING_MAX,
            }));
        }
        Ok(())
    }

    /// Waits for what is next, at most until then.
    pub(crate) fn next(&self, until: Instant) -> Next {
        let mut waiting = lock(&self.0.waiting);
        loop {
            if waiting.is_stopped {
                return Next::Stop;
            }
            if let Some(message) = waiting.urgent().or_else(|| waiting.ordinary()) {
                return Next::Message(message);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Nothing;
            }
            let waited = self.0.changed.wait_timeout(waiting, left);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What must not wait for a compile or an admission, if something is there.
    pub(crate) fn next_urgent(&self) -> Option<Message> {
        let mut waiting = lock(&self.0.waiting);
        if waiting.is_stopped {
            return None;
        }
        let compiled = |message: &Message| matches!(message, Message::Compiled(_));
        // What was compiled is for the next pass.
        if waiting.told.iter().all(compiled) {
            return waiting.urgent.pop_front().map(command);
        }
        let at = waiting.told.iter().position(|message| !compiled(message))?;
        waiting.told.remove(at)
    }

    /// Ends the thread at its next look; what waits is answered `Unavailable`.
    pub(crate) fn stop(&self) {
        let mut waiting = lock(&self.0.waiting);
        let left = std::mem::take(&mut *waiting);
        waiting.is_stopped = true;
        drop(waiting);
        self.0.changed.notify_all();
        drop(left);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.0.waiting).is_stopped
    }
}

impl Waiting {
    /// Gives back the promise of a command for which there is no room.
    fn put(&mut self, message: Message) -> Option<Promise> {
        let is_full =
            self.urgent.len() + self.commands.len() + self.reloads.len() >= COMMANDS_WAITING_MAX;
        match message {
            Message::Command(_, promise) if is_full => return Some(promise),
            Message::Command(PolicyCommand::Reload, promise) => {
                self.is_reload_due = true;
                self.reloads.push(promise);
            }
            Message::Command(command, promise) => {
                let lane = if is_urgent(&command) {
                    &mut self.urgent
                } else {
                    &mut self.commands
                };
                lane.push_back((command, promise));
            }
            Message::Reload(promises) => {
                self.is_reload_due = true;
                self.reloads.extend(promises);
            }
            Message::Turned { .. } | Message::Compiled(_) => self.told.push_back(message),
        }
        None
    }

    fn urgent(&mut self) -> Option<Message> {
        self.told
            .pop_front()
            .or_else(|| self.urgent.pop_front().map(command))
    }

    fn ordinary(&mut self) -> Option<Message> {
        if let Some(next) = self.commands.pop_front() {
            return Some(command(next));
        }
        std::mem::take(&mut self.is_reload_due)
            .then(|| Message::Reload(std::mem::take(&mut self.reloads)))
    }
}

fn command((command, promise): (PolicyCommand, Promise)) -> Message {
    Message::Command(command, promise)
}

/// What takes a version out of use, or back, without loading one.
fn is_urgent(command: &PolicyCommand) -> bool {
    match command {
        PolicyCommand::Quarantine { .. }
        | PolicyCommand::Pause { .. }
        | PolicyCommand::Resume { .. } => true,
        PolicyCommand::Reload | PolicyCommand::Release { .. } | PolicyCommand::Accept { .. } => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::promise;
    use super::*;

    fn pause() -> PolicyCommand {
        PolicyCommand::Pause {
            name: "p".to_owned(),
            reason: String::new(),
        }
    }

    fn next(inbox: &Inbox) -> Next {
        inbox.next(Instant::now())
    }

    #[test]
    fn h6_reloads_coalesce_and_what_cannot_wait_goes_first() {
        let inbox = Inbox::default();
        for _ in 0..3 {
            inbox
                .send(Message::Command(PolicyCommand::Reload, promise().0))
                .unwrap();
        }
        inbox.send(Message::Reload(Vec::new())).unwrap();
        inbox.send(Message::Command(pause(), promise().0)).unwrap();
        assert!(matches!(
            next(&inbox),
            Next::Message(Message::Command(PolicyCommand::Pause { .. }, _))
        ));
        assert!(
            matches!(next(&inbox), Next::Message(Message::Reload(promises)) if promises.len() == 3)
        );
        assert!(matches!(next(&inbox), Next::Nothing));
    }

    #[test]
    fn the_inbox_is_bounded_and_says_so() {
        let inbox = Inbox::default();
        for _ in 0..COMMANDS_WAITING_MAX {
            inbox.send(Message::Command(pause(), promise().0)).unwrap();
        }
        let (given, mut awaited) = promise();
        inbox.send(Message::Command(pause(), given)).unwrap();
        let answer = awaited.take_now().expect("answered at once");
        assert!(matches!(answer, Err(ApiError::Exhausted { max: 64, .. })));
    }

    #[test]
    fn stopped_it_takes_nothing_and_answers_what_waits() {
        let inbox = Inbox::default();
        let (given, mut awaited) = promise();
        inbox.send(Message::Command(pause(), given)).unwrap();
        inbox.stop();
        assert!(matches!(next(&inbox), Next::Stop));
        assert!(matches!(
            awaited.take_now(),
            Some(Err(ApiError::Unavailable { .. }))
        ));
        assert!(inbox.send(Message::Reload(Vec::new())).is_err());
    }
}
