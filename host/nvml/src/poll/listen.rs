//! Has a thread wait for NVML's events: tried until there is one.

use std::time::{Duration, Instant};

use super::Poll;
use crate::call::Meaning;
use crate::events::Events;
use crate::lifecycle::spawn;
use crate::session::Listening;
use crate::watch::Role;

/// Pauses between attempts to have events waited for: an event set that can't be made now may be in a moment, and until
/// then XIDs that the kernel log does not bring are missed.
const LISTEN_MIN: Duration = Duration::from_secs(1);
const LISTEN_MAX: Duration = Duration::from_mins(1);

impl Poll {
    /// Has events waited for, where nobody does yet: after an error, once its pause is over.
    pub(super) fn listen(&self) {
        let mine = Listening::Opening(self.number);
        let pause = {
            let mut progress = self.session.progress();
            let pause = match progress.listening {
                Listening::Done => return,
                // It hangs there, in a round of readings: it goes on when its call comes back.
                Listening::Opening(_) if progress.is_ready() => return,
                Listening::Again { at, .. } if Instant::now() < at => return,
                Listening::Again { pause, .. } => pause.saturating_mul(2).min(LISTEN_MAX),
                Listening::No | Listening::Opening(_) => LISTEN_MIN,
            };
            if !self.is_current() {
                return;
            }
            progress.listening = mine;
            pause
        };
        let number = self.session.context.control.number(Role::Events);
        let opened = Events::open(self.session.clone(), number);
        {
            let mut progress = self.session.progress();
            if progress.listening != mine {
                // It hung: whoever took over made another.
                return;
            }
            progress.listening = Listening::Done;
        }
        let failed = match opened {
            Ok(events) => {
                let role = (Role::Events, number);
                match spawn(&self.session, role, move || events.run()) {
                    Ok(()) => {
                        if self.session.context.hearing.somebody() {
                            tracing::info!("NVML events are waited for");
                        }
                        return;
                    }
                    Err(why) => why,
                }
            }
            Err(failed) if failed.meaning == Meaning::Unsupported => {
                self.deaf(&failed.to_string());
                return;
            }
            Err(failed) => failed.to_string(),
        };
        self.session.progress().listening = Listening::Again {
            at: Instant::now() + pause,
            pause,
        };
        self.deaf(&failed);
    }

    /// Nobody waits for events.
    fn deaf(&self, why: &str) {
        if self.session.context.hearing.nobody(why) {
            tracing::warn!("no NVML events, the kernel log is the only source of XIDs: {why}");
        }
    }
}
