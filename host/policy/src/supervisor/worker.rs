//! The supervisor's thread: what it has, and its loop.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use device_api_core::clock::Clock;
use device_api_core::policy_status::{ReloadChange, ReloadOutcome, ReloadReport};
use device_api_core::ports::{PolicyCommand, Seats};
use device_api_wasm::{Turn, panic_message};

use super::answer::{Answer, Promise};
use super::board::Board;
use super::claims::Unloadable;
use super::compiling::{CompileQueue, Compiled, Forget};
use super::inbox::{Inbox, Next};
use super::slot::Slot;
use super::{Begun, SupervisorConfig, host, set};
use crate::directory::{Look, look};
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

/// How long a command waits for what is being compiled; then it is answered with what there is. Less than
/// the API gives a call (30 s), so that who asked hears what goes on.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

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

/// Who waits until what they asked for is compiled, and what came of it so far.
#[derive(Debug)]
pub(crate) struct Deferred {
    promises: Vec<Promise>,
    outcomes: BTreeMap<Arc<str>, ReloadOutcome>,
    until: Instant,
}

pub(crate) struct Worker {
    pub(crate) config: SupervisorConfig,
    pub(crate) host: PolicyHost,
    pub(crate) seats: Arc<dyn Seats>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) board: Arc<Board>,
    pub(crate) inbox: Inbox,
    /// Who compiles; `None`: this thread.
    queue: Option<CompileQueue>,
    deferred: Option<Deferred>,
    /// When what is refused for a while is tried again, and how long it is waited for that.
    retry: Option<(Instant, Duration)>,
    /// A set was read in this run.
    pub(crate) has_had_a_set: bool,
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
            queue,
            deferred: None,
            retry: None,
            has_had_a_set: false,
            books,
            slots: BTreeMap::new(),
            names: HashMap::new(),
            unloadable: Vec::new(),
            looked: None,
            refused: None,
            next_serial: 0,
        }
    }

    pub(crate) fn run(mut self, begun: &Begun) {
        self.guarded("loading the first set of policies", |worker| {
            worker.pass(true, Forget::Nothing);
        });
        let mut next_look = Instant::now() + self.config.poll_interval;
        loop {
            if self.has_begun() {
                begun.tell();
            }
            match self.inbox.next(self.next_wake(next_look)) {
                Next::Stop => break,
                Next::Message(message) => {
                    self.guarded("a request", |worker| worker.handle(message));
                }
                Next::Nothing => {}
            }
            let now = Instant::now();
            if now >= next_look {
                self.guarded("looking at the policy directory", Self::look);
                next_look = Instant::now() + self.config.poll_interval;
            }
            if self.retry.is_some_and(|(at, _)| now >= at) {
                self.guarded("trying again what was refused", |worker| {
                    worker.pass(false, Forget::Transient);
                });
            }
            self.answer_deferred();
        }
        self.end();
        begun.tell();
    }

    fn next_wake(&self, next_look: Instant) -> Instant {
        let retry = self.retry.map(|(at, _)| at);
        let deferred = self.deferred.as_ref().map(|deferred| deferred.until);
        [retry, deferred]
            .into_iter()
            .flatten()
            .fold(next_look, Instant::min)
    }

    /// The bundled policies are compiled, and with them all that needed no compile.
    fn has_begun(&self) -> bool {
        let Some(queue) = &self.queue else {
            return true;
        };
        let bundled = set::bundled(&self.config).into_iter();
        let digests: Vec<Arc<str>> = bundled.map(|wanted| wanted.key.digest).collect();
        !queue.holds_any(&digests)
    }

    /// Goes over the set. What is not compiled yet is ordered, the bundled ones first, and the set is gone
    /// over again whenever some of it is.
    pub(crate) fn pass(&mut self, forced: bool, forget: Forget) -> ReloadReport {
        if let Some(queue) = &self.queue {
            queue.begin(forget);
            for source in &self.config.bundled {
                // What comes of it is found when it is loaded.
                let _ = self.host.order(source);
            }
        }
        let before = self.refused.clone();
        let mut report = self.reload(forced);
        if let Some(queue) = &self.queue {
            queue.end();
        }
        if let Some(deferred) = &mut self.deferred {
            deferred.take(&report);
        }
        self.plan_retry();
        let whole = report.clone();
        // Said once.
        if !forced {
            report.refused = report.refused.filter(|why| before.as_ref() != Some(why));
        }
        log(&report);
        whole
    }

    fn plan_retry(&mut self) {
        let is_passing = |slot: &Slot| {
            let refused = slot.refused.as_ref();
            slot.wanted.is_some() && refused.is_some_and(|refused| refused.key.is_none())
        };
        if !self.slots.values().any(is_passing) {
            self.retry = None;
            return;
        }
        let now = Instant::now();
        self.retry = Some(match self.retry {
            None => (now + RETRY_FIRST, RETRY_FIRST),
            Some((at, waited)) if now >= at => {
                let wait = (waited * 2).min(RETRY_MAX);
                (now + wait, wait)
            }
            Some(planned) => planned,
        });
    }

    /// Answers now, or once what is being compiled is.
    fn defer(&mut self, promises: Vec<Promise>, answer: Answer) {
        if promises.is_empty() {
            return;
        }
        let is_idle = self.queue.as_ref().is_none_or(CompileQueue::is_idle);
        match answer {
            Ok(report) if !is_idle && report.refused.is_none() => {
                let deferred = self.deferred.get_or_insert_with(|| Deferred {
                    promises: Vec::new(),
                    outcomes: BTreeMap::new(),
                    until: Instant::now() + ANSWER_WAIT,
                });
                deferred.promises.extend(promises);
                deferred.take(&report);
            }
            answer => {
                for promise in promises {
                    promise.keep(answer.clone());
                }
            }
        }
    }

    fn answer_deferred(&mut self) {
        let is_idle = self.queue.as_ref().is_none_or(CompileQueue::is_idle);
        let is_due = |deferred: &mut Deferred| is_idle || Instant::now() >= deferred.until;
        let Some(deferred) = self.deferred.take_if(is_due) else {
            return;
        };
        let report = ReloadReport {
            outcomes: deferred.outcomes.into_values().collect(),
            refused: self.refused.clone(),
        };
        for promise in deferred.promises {
            promise.keep(Ok(report.clone()));
        }
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
                let report = self.pass(true, Forget::All);
                self.publish();
                self.defer(promises, Ok(report));
            }
            Message::Compiled(compiled) => {
                if let Some(queue) = &self.queue {
                    queue.take_in(*compiled);
                }
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
        let now = look(
            self.config.directory.as_deref(),
            self.config.policies_file.as_deref(),
        );
        if self.looked.as_ref() != Some(&now) {
            self.pass(false, Forget::Transient);
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

impl Deferred {
    /// The latest word on each policy that is one: that nothing changed since is none.
    fn take(&mut self, report: &ReloadReport) {
        for outcome in &report.outcomes {
            let before = self.outcomes.get(&outcome.name);
            let is_news = outcome.change != ReloadChange::Unchanged
                || before.is_none_or(|before| before.change == ReloadChange::Refused);
            if is_news {
                self.outcomes
                    .insert(Arc::clone(&outcome.name), outcome.clone());
            }
        }
    }
}
