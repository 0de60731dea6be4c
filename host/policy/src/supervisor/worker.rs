//! The supervisor's thread: what it has, and its loop.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use device_api_core::clock::Clock;
use device_api_core::policy_status::{ReloadChange, ReloadReport};
use device_api_core::ports::{PolicyCommand, Seats};
use device_api_wasm::Turn;

use super::answer::Promise;
use super::board::Board;
use super::slot::Slot;
use super::{SupervisorConfig, host};
use crate::directory::{Look, look};
use crate::ledger::Books;
use crate::load::{Loader, PolicyHost};
use crate::marker::Markers;

/// How long a version runs without a crash until earlier ones are forgiven. A crash that is a policy's own
/// comes back with the signal that caused it, which is asked again within a minute.
const CRASHES_FORGIVEN_AFTER: Duration = Duration::from_mins(10);

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Message {
    Reload,
    Command(PolicyCommand, Promise),
    /// A policy in its seat took a turn; `why` is its last failure.
    Turned {
        serial: u64,
        turn: Turn,
        why: String,
    },
    Stop,
}

pub(crate) struct Worker {
    pub(crate) config: SupervisorConfig,
    pub(crate) host: PolicyHost,
    pub(crate) seats: Arc<dyn Seats>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) board: Arc<Board>,
    pub(crate) inbox: Sender<Message>,
    pub(crate) books: Books,
    pub(crate) slots: BTreeMap<Arc<str>, Slot>,
    /// What components called themselves, by digest.
    pub(crate) names: HashMap<Arc<str>, Arc<str>>,
    /// As the directory was when it was read last; `None`: read it anew.
    pub(crate) looked: Option<Look>,
    /// Why the set as a whole is refused.
    pub(crate) refused: Option<String>,
    pub(crate) next_serial: u64,
}

impl Worker {
    pub(crate) fn new(
        config: SupervisorConfig,
        loader: Arc<dyn Loader>,
        seats: Arc<dyn Seats>,
        clock: Arc<dyn Clock>,
        board: Arc<Board>,
        inbox: Sender<Message>,
    ) -> Self {
        let home = config
            .state_dir
            .as_ref()
            .map(|state| state.join("policies"));
        let mut books = Books::open(home, clock.wall());
        let markers = books.calls().and_then(|calls| match Markers::enter(&calls) {
            Ok((markers, marks)) => {
                books.ledger.judge_crashes(&marks, clock.wall());
                Some(Arc::new(markers))
            }
            Err(error) => {
                tracing::warn!(%error, path = %calls.display(), "no crash markers: a crash of the daemon in a policy will not be blamed on it");
                None
            }
        });
        books.save();
        Self {
            host: host(loader, markers),
            config,
            seats,
            clock,
            board,
            inbox,
            books,
            slots: BTreeMap::new(),
            names: HashMap::new(),
            looked: None,
            refused: None,
            next_serial: 0,
        }
    }

    /// The first set.
    pub(crate) fn begin(&mut self) {
        self.guarded("loading the first set of policies", |worker| {
            let report = worker.reload(true);
            log(&report);
        });
    }

    pub(crate) fn run(mut self, messages: &Receiver<Message>) {
        let mut next_look = Instant::now() + self.config.poll_interval;
        loop {
            let wait = next_look.saturating_duration_since(Instant::now());
            match messages.recv_timeout(wait) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.guarded("a request", |worker| worker.handle(message)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= next_look {
                self.guarded("looking at the policy directory", Self::look);
                next_look = Instant::now() + self.config.poll_interval;
            }
        }
        self.end();
    }

    /// A bug of ours costs one step, not the thread that could mend what it left.
    fn guarded(&mut self, what: &str, step: impl FnOnce(&mut Self)) {
        let done = catch_unwind(AssertUnwindSafe(|| step(self)));
        if let Err(panic) = done {
            tracing::error!(panic = %words(&*panic), "the policy host panicked over {what}");
            self.looked = None;
        }
        self.publish();
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Reload => {
                let report = self.reload(true);
                log(&report);
            }
            Message::Command(command, promise) => {
                let answer = self.command(command);
                // Whoever asked then finds the effect in the list.
                self.publish();
                promise.keep(answer);
            }
            Message::Turned { serial, turn, why } => self.turned(serial, turn, &why),
            Message::Stop => {}
        }
    }

    fn look(&mut self) {
        self.take_proofs();
        let now = look(
            self.config.directory.as_deref(),
            self.config.policies_file.as_deref(),
        );
        if self.looked.as_ref() != Some(&now) {
            let before = self.refused.clone();
            let mut report = self.reload(false);
            // Said once.
            report.refused = report.refused.filter(|why| before.as_ref() != Some(why));
            log(&report);
        }
    }

    /// Who has proved itself, and whose crashes are forgiven.
    fn take_proofs(&mut self) {
        let now = self.clock.boot();
        let proof = self.config.proof;
        for (name, slot) in &mut self.slots {
            let Some(active) = &mut slot.active else {
                continue;
            };
            let in_seat = now.since(active.since);
            if !active.is_forgiven && in_seat >= CRASHES_FORGIVEN_AFTER {
                active.is_forgiven = true;
                self.books.ledger.forgive_crashes(&active.key.digest);
            }
            let is_candidate = !active.is_proved && !active.is_stand_in && !active.is_shadow;
            if is_candidate && in_seat >= proof.time && active.is_proved_by(proof.calls) {
                active.is_proved = true;
                let remembered = self.books.ledger.of(name);
                if remembered.last_good != remembered.seated {
                    remembered.last_good.clone_from(&remembered.seated);
                    tracing::info!(policy = %active.version.id, "policy has proved itself: it is the one to go back to");
                }
            }
        }
        self.books.save();
    }

    /// The run ends as it should: nobody crashed in it.
    fn end(&mut self) {
        for active in self.slots.values().filter_map(|slot| slot.active.as_ref()) {
            self.books.ledger.forgive_crashes(&active.key.digest);
        }
        self.books.save();
        // Shadows end here; what is in a seat ends with the pipeline.
        self.slots.clear();
        self.board.show(Vec::new(), None);
    }
}

fn log(report: &ReloadReport) {
    if let Some(why) = &report.refused {
        tracing::error!("{why}");
    }
    let news = report.outcomes.iter();
    for outcome in news.filter(|outcome| outcome.change != ReloadChange::Unchanged) {
        tracing::info!(
            policy = %outcome.name,
            digest = %outcome.digest,
            detail = %outcome.detail,
            "policy {}", outcome.change.as_str()
        );
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
