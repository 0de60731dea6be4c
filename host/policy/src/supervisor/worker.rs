//! The supervisor's thread: what it has, and its loop.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use device_api_core::clock::Clock;
use device_api_core::policy_status::{PolicyHostStatus, ReloadReport};
use device_api_core::ports::{PolicyCommand, Seats};
use device_api_wasm::{Turn, panic_message};

use super::answer::Promise;
use super::board::Board;
use super::claims::Unloadable;
use super::compiling::{CompileQueue, Compiled, Forget, Rank};
use super::deferred::Deferred;
use super::inbox::{Inbox, Next};
use super::returning::Returning;
use super::set::{Set, Wanted};
use super::slot::Slot;
use super::told::Told;
use super::{Begun, SupervisorConfig, host, set};
use crate::directory::Look;
use crate::error::PolicyHostError;
use crate::ledger::Books;
use crate::load::{Loader, PolicyHost};
use crate::marker::Markers;

/// How long a version runs without a crash until earlier ones are forgiven. A crash that is a policy's own
/// comes back with the signal that caused it, which is asked again within a minute.
const CRASHES_FORGIVEN_AFTER: Duration = Duration::from_mins(10);

/// When a policy that failed to load for want of something is tried again for the first time; each time
/// after that, twice as late.
const RETRY_FIRST: Duration = Duration::from_secs(10);

/// And at most: so long a site waits for a policy whose node has recovered.
const RETRY_MAX: Duration = Duration::from_mins(10);

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// With who waits for it.
    Reload(Vec<Promise>),
    Compiled(Box<Compiled>),
    Command(PolicyCommand, Promise),
    /// A policy in its seat took a turn; `why` is its last failure.
    Turned {
        serial: u64,
        turn: Turn,
        why: String,
    },
}

pub(crate) struct Worker {
    pub(crate) config: SupervisorConfig,
    /// With their defaults: what runs where nothing else can.
    pub(super) bundled: Vec<Wanted>,
    pub(crate) host: PolicyHost,
    pub(crate) seats: Arc<dyn Seats>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) board: Arc<Board>,
    pub(crate) inbox: Inbox,
    /// Who compiles; `None`: this thread.
    pub(super) queue: Option<CompileQueue>,
    pub(super) deferred: Option<Deferred>,
    told: Told,
    /// When what is refused for a while is tried again, and how long it is waited for that.
    retry: Option<(Instant, Duration)>,
    /// A set was read in this run.
    pub(crate) has_had_a_set: bool,
    /// The set that was read last, while some of it is being compiled.
    pub(super) unsettled: Option<Set>,
    pub(super) returning: Returning,
    pub(crate) books: Books,
    pub(crate) slots: BTreeMap<Arc<str>, Slot>,
    /// What components called themselves, by digest.
    pub(crate) names: HashMap<Arc<str>, Arc<str>>,
    /// What of the set could not be loaded.
    pub(crate) unloadable: Vec<Unloadable>,
    /// As the directory was when it was read last; `None`: read it anew.
    pub(crate) looked: Option<Look>,
    /// Why the set as a whole is refused.
    pub(crate) refused: Option<String>,
    /// How often that came up.
    pub(crate) sets_refused: u64,
    pub(crate) next_serial: u64,
}

impl Worker {
    pub(crate) fn new(
        config: SupervisorConfig,
        loader: Arc<dyn Loader>,
        queue: Option<CompileQueue>,
        seats: Arc<dyn Seats>,
        clock: Arc<dyn Clock>,
        board: Arc<Board>,
        inbox: Inbox,
    ) -> Result<Self, PolicyHostError> {
        let home = config
            .state_dir
            .as_ref()
            .map(|state| state.join("policies"));
        let mut books = Books::open(home, clock.wall())?;
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
        let returning = Returning::of(&books.ledger, &config.limits);
        let names = books.ledger.names().collect();
        if let Some(queue) = &queue {
            queue.remember(&books.ledger);
        }
        Ok(Self {
            host: host(loader, markers),
            bundled: set::bundled(&config),
            config,
            seats,
            clock,
            board,
            inbox,
            queue,
            deferred: None,
            told: Told::default(),
            retry: None,
            has_had_a_set: false,
            unsettled: None,
            returning,
            books,
            slots: BTreeMap::new(),
            names,
            unloadable: Vec::new(),
            looked: None,
            refused: None,
            sets_refused: 0,
            next_serial: 0,
        })
    }

    pub(crate) fn run(mut self, begun: &Begun) {
        self.guarded("loading the first set of policies", |worker| {
            worker.pass(true, Forget::Nothing);
        });
        let mut next_look = Instant::now() + self.config.poll_interval;
        let mut has_begun = false;
        loop {
            if !has_begun && self.has_begun() {
                has_begun = true;
                begun.tell();
            }
            match self.inbox.next(self.next_wake(next_look)) {
                Next::Stop => break,
                Next::Message(message) => {
                    self.guarded("a request", |worker| worker.handle(message));
                }
                Next::Nothing => {}
            }
            if Instant::now() >= next_look {
                self.guarded("looking at the policy directory", Self::look);
                next_look = Instant::now() + self.config.poll_interval;
            }
            self.try_again_if_due();
            self.answer_deferred();
            if let Some(queue) = &self.queue {
                queue.take_turns();
            }
        }
        self.end();
        begun.tell();
    }

    /// What was refused for want of something. The next time is as far off as it is planned, whatever ends
    /// this one: a bug of ours is not met again at once.
    fn try_again_if_due(&mut self) {
        if self.retry.is_none_or(|(at, _)| Instant::now() < at) {
            return;
        }
        self.guarded("trying again what was refused", |worker| {
            worker.pass(false, Forget::Transient);
        });
        self.retry = self.retry.map(|(_, waited)| {
            let wait = (waited * 2).min(RETRY_MAX);
            (Instant::now() + wait, wait)
        });
    }

    fn next_wake(&self, next_look: Instant) -> Instant {
        let retry = self.retry.map(|(at, _)| at);
        let deferred = self.deferred.as_ref().map(Deferred::until);
        let turn = self.queue.as_ref().and_then(CompileQueue::next_turn);
        [retry, deferred, turn]
            .into_iter()
            .flatten()
            .fold(next_look, Instant::min)
    }

    /// The bundled policies are compiled, and with them all that needed no compile.
    fn has_begun(&self) -> bool {
        let Some(queue) = &self.queue else {
            return true;
        };
        let bundled = self.bundled.iter();
        let digests: Vec<Arc<str>> = bundled
            .map(|wanted| Arc::clone(&wanted.key.digest))
            .collect();
        !queue.holds_any(&digests)
    }

    /// Goes over the set. What is not compiled yet is ordered, the bundled ones first, and the set is gone
    /// over again whenever some of it is.
    pub(crate) fn pass(&mut self, forced: bool, forget: Forget) -> ReloadReport {
        let queue = self.queue.as_ref();
        let _open = queue.map(|queue| queue.begin(forget, self.ranks()));
        if self.queue.is_some() {
            let in_use = self.in_use();
            let idle = |wanted: &&Wanted| !in_use.contains(&wanted.key.digest);
            for wanted in self.bundled.iter().filter(idle) {
                // What comes of it is found when it is loaded.
                let _ = self.host.order(&wanted.source);
            }
        }
        let report = self.reload(forced);
        if report.refused.is_none() {
            self.end_doubt();
        }
        if let Some(queue) = &self.queue {
            queue.end(&self.needed());
        }
        if let Some(deferred) = &mut self.deferred {
            deferred.take(&report);
        }
        self.plan_retry();
        self.told.log(&report, forced);
        report
    }

    /// In which order what is not compiled yet is.
    fn ranks(&self) -> BTreeMap<Arc<str>, Rank> {
        let mut ranks = BTreeMap::new();
        for entry in self.books.ledger.policies.values() {
            let kept = entry.seated.iter().chain(&entry.last_good);
            ranks.extend(kept.map(|kept| (kept.digest.as_str().into(), Rank::Judged)));
            if let Some(held) = &entry.held {
                ranks.insert(held.digest.as_str().into(), Rank::Held);
            }
        }
        let bundled = self.bundled.iter();
        ranks.extend(bundled.map(|wanted| (Arc::clone(&wanted.key.digest), Rank::Bundled)));
        ranks
    }

    /// What is in a seat, or looks on.
    fn in_use(&self) -> BTreeSet<Arc<str>> {
        let active = self.slots.values().filter_map(|slot| slot.active.as_ref());
        active
            .map(|active| Arc::clone(&active.key.digest))
            .collect()
    }

    /// That, and what the site wants: no code of it is compiled twice, with a cache or without one.
    fn needed(&self) -> BTreeSet<Arc<str>> {
        let mut needed = self.in_use();
        let wanted = self.slots.values().filter_map(|slot| slot.wanted.as_ref());
        needed.extend(wanted.map(|wanted| Arc::clone(&wanted.key.digest)));
        let bundled = self.bundled.iter();
        needed.extend(bundled.map(|wanted| Arc::clone(&wanted.key.digest)));
        needed
    }

    pub(crate) fn plan_retry(&mut self) {
        let is_passing = |slot: &Slot| {
            let refused = slot.refused.as_ref();
            let is_refused = refused.is_some_and(|refused| refused.key.is_none());
            // Without a set nobody is wanted, and the bundled one is to judge all the same.
            slot.wants_stand_in || slot.wanted.is_some() && is_refused
        };
        let is_needed = self.slots.values().any(is_passing);
        let first = || (Instant::now() + RETRY_FIRST, RETRY_FIRST);
        self.retry = is_needed.then(|| self.retry.unwrap_or_else(first));
    }

    /// Between two policies of a set: what must not wait for the rest. Says whether there is an end to it.
    pub(crate) fn serve_urgent(&mut self) -> bool {
        while let Some(message) = self.inbox.next_urgent() {
            self.guarded("a request", |worker| worker.handle(message));
        }
        self.inbox.is_stopped()
    }

    /// A bug of ours costs one step, not the thread that could mend what it left.
    fn guarded(&mut self, what: &str, step: impl FnOnce(&mut Self)) {
        let done = catch_unwind(AssertUnwindSafe(|| step(self)));
        if let Err(panic) = done {
            tracing::error!(panic = %panic_message(&*panic), "the policy host panicked over {what}");
            self.looked = None;
        }
        self.publish();
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Reload(promises) => {
                let report = self.pass(true, Forget::Failures);
                self.publish();
                self.defer(promises, Ok(report));
            }
            Message::Compiled(compiled) => {
                let now = self.clock.wall();
                if let Some(queue) = &self.queue {
                    queue.take_in(*compiled, &mut self.books.ledger, now);
                }
                self.books.save();
                self.pass(false, Forget::Nothing);
            }
            Message::Command(command, promise) => {
                let may_compile = matches!(command, PolicyCommand::Release { .. });
                let answer = self.command(command);
                // Whoever asked then finds the effect in the list.
                self.publish();
                if may_compile {
                    self.defer(vec![promise], answer);
                } else {
                    promise.keep(answer);
                }
            }
            Message::Turned { serial, turn, why } => self.turned(serial, turn, &why),
        }
    }

    fn look(&mut self) {
        self.take_proofs();
        if self.looked.as_ref() != Some(&self.seen()) {
            self.pass(false, Forget::Nothing);
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
        self.board.show(Vec::new(), PolicyHostStatus::default());
    }
}

#[cfg(test)]
mod tests;
