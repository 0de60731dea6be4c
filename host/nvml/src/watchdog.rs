//! The thread `nvml-watch`: makes no NVML call and looks at those of the others (design N1).
//!
//! A GPU on which a call hangs is Unknown at once: by the host's own condition (`SignalSink::probing`), which no
//! policy has to be asked for, and by the readings `nvml.state`, `nvml.hung-call` and `nvml.hung-ms`, of which a
//! policy makes its words. The others stay as they are for as long as a thread gets through to them.

use std::time::Duration;

use crate::counters::Counters;
use crate::readings::Standing;
use crate::session::Context;
use crate::watch::Role;

/// Threads of a role that may hang at one time. A driver whose locks are shared hangs one that polls for each
/// GPU, and a board has eight or sixteen; past it nobody reads on until one comes back. An event set is of all
/// GPUs: where the second hangs as well, a third would.
pub(crate) fn hung_max(role: Role) -> usize {
    match role {
        Role::Poll => 16,
        Role::Events => 2,
        Role::Life => 0,
    }
}

/// How often is looked: a fraction of the bound, so that it is kept about.
const LOOKS_PER_BOUND: u32 = 4;
const LOOK_MIN: Duration = Duration::from_millis(25);
const LOOK_MAX: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Watchdog {
    context: Context,
    /// No thread was left to read with, and it was said.
    exhausted: bool,
}

impl Watchdog {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            exhausted: false,
        }
    }

    /// Runs until the source is stopped.
    pub(crate) fn run(mut self) {
        let bound = self.context.config.hung_after;
        let interval = (bound / LOOKS_PER_BOUND).clamp(LOOK_MIN, LOOK_MAX);
        while self.context.control.pause_until_stop(interval) {
            self.look();
        }
    }

    fn look(&mut self) {
        let context = &self.context;
        for hung in context.watch.news() {
            Counters::add(&context.counters.hung_calls);
            tracing::error!("NVML: {hung}; other GPUs are read on");
            match (&hung.device, &hung.peer) {
                // Either may be the reason: whoever answers a call of its own is not.
                (Some(one), Some(other)) => context.unsure(&[one.clone(), other.clone()]),
                (Some(uuid), None) => {
                    context.unsure(std::slice::from_ref(uuid));
                    context.stand(uuid, Standing::Hangs(&hung));
                }
                (None, _) => {}
            }
        }
        self.replace();
    }

    /// Has another thread take the place of each that hangs.
    fn replace(&mut self) {
        let context = &self.context;
        let mut poll_may = true;
        for role in [Role::Poll, Role::Events] {
            let number = context.control.number(role);
            if context.watch.thread_hangs(role, number).is_none() {
                continue;
            }
            if context.watch.hung_threads(role) < hung_max(role) {
                context.control.ask_to_replace(role);
            } else if role == Role::Poll {
                poll_may = false;
            }
        }
        if !std::mem::replace(&mut self.exhausted, !poll_may) && !poll_may {
            let threads = hung_max(Role::Poll);
            tracing::error!(
                threads,
                "as many NVML calls hang as may: no GPU is read until one comes back"
            );
            context.unsure(&context.devices.uuids());
        }
    }
}
