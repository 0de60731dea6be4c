//! The driver let go of (`devicectl nvml release`), and who asked for it.
//!
//! Between the asking and the letting go some time may pass: a library that is slow to open, threads that leave. Whoever
//! gives up in that time is not there to take the driver up again, so nothing is let go of on that one's word.

use std::time::Instant;

use device_api_core::clock::WallTime;
use device_api_core::error::ApiError;
use device_api_core::recovery::{DriverHold, ReleaseFor};

use crate::answer::Answer;

/// Where the answer to a release goes.
pub(crate) type ReleaseAnswer = Answer<Result<DriverHold, ApiError>>;

/// The driver is let go of, or about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) purpose: ReleaseFor,
    pub(crate) until: WallTime,
    /// The same moment, which no change of the clock moves.
    pub(crate) deadline: Instant,
}

/// Number of an asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    hold: Hold,
    answer: ReleaseAnswer,
}

#[derive(Debug, Default)]
pub(crate) struct Holding {
    /// As somebody waits to hear, or was told.
    wanted: Option<Hold>,
    /// As it was last told, or is about to be: nobody can call it off but by an attach.
    in_force: Option<Hold>,
    /// Who asked, until they are told.
    waiting: Vec<Waiting>,
    asked: u64,
}

impl Holding {
    pub(crate) fn wanted(&self) -> Option<Hold> {
        self.wanted
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn ask(&mut self, hold: Hold, answer: ReleaseAnswer) -> Ticket {
        self.asked += 1;
        let ticket = Ticket(self.asked);
        self.wanted = Some(hold);
        self.waiting.push(Waiting {
            ticket,
            hold,
            answer,
        });
        ticket
    }

    /// Whoever has that ticket gave up. `None`: too late, or it was answered.
    pub(crate) fn withdraw(&mut self, ticket: Ticket) -> Option<ReleaseAnswer> {
        let at = self.waiting.iter().position(|it| it.ticket == ticket)?;
        let given_up = self.waiting.remove(at);
        if self.wanted == Some(given_up.hold) {
            let other = self.waiting.last().map(|it| it.hold);
            self.wanted = other.or(self.in_force);
        }
        Some(given_up.answer)
    }

    /// It is let go of now: whom to tell that, and until when. `None`: nobody wants it any more.
    pub(crate) fn begin(&mut self) -> Option<(Hold, Vec<ReleaseAnswer>)> {
        self.in_force = self.wanted;
        Some((self.wanted?, self.take_waiting()))
    }

    /// Nobody needs the driver any more, or it could not be let go of.
    pub(crate) fn end(&mut self) -> Vec<ReleaseAnswer> {
        (self.wanted, self.in_force) = (None, None);
        self.take_waiting()
    }

    pub(crate) fn take_waiting(&mut self) -> Vec<ReleaseAnswer> {
        let told = std::mem::take(&mut self.waiting).into_iter();
        told.map(|it| it.answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::answer;

    fn hold(minutes: u64) -> Hold {
        Hold {
            purpose: ReleaseFor::Reset,
            until: WallTime {
                unix_ns: minutes * 60_000_000_000,
            },
            deadline: Instant::now() + Duration::from_mins(minutes),
        }
    }

    #[test]
    fn n2_who_gave_up_before_it_began_has_nothing_let_go_of() {
        let (first, second) = (hold(1), hold(2));
        let mut holding = Holding::default();
        let ask = |holding: &mut Holding, hold| holding.ask(hold, answer::channel().0);
        let given_up = ask(&mut holding, first);
        assert!(holding.withdraw(given_up).is_some());
        assert_eq!(holding.wanted(), None);
        assert!(holding.begin().is_none());
        // Of two the other still wants it, and as that one asked for it.
        let stays = ask(&mut holding, first);
        let given_up = ask(&mut holding, second);
        assert!(holding.withdraw(given_up).is_some());
        let (began, told) = holding.begin().unwrap();
        assert_eq!((began, told.len()), (first, 1));
        // Too late.
        assert!(holding.withdraw(stays).is_none());
        assert_eq!(holding.wanted(), Some(first));
        // One who would have changed it leaves it as it is.
        let given_up = ask(&mut holding, second);
        assert_eq!(holding.wanted(), Some(second));
        assert!(holding.withdraw(given_up).is_some());
        assert_eq!(holding.wanted(), Some(first));
        assert!(holding.end().is_empty());
        assert_eq!(holding.wanted(), None);
    }
}
