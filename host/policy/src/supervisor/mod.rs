//! The supervisor: decides which version of which policy is asked, on a thread of its own.
//!
//! ```text
//!  directory ─┐ look, 1 s                ┌─ read, hash ─▶ load ─▶ admit ─▶ seat ──▶ Seats (the pipeline)
//!  SIGHUP ────┼─────────▶ policy-supervisor │              │      └─▶ hold
//!  commands ──┘             ▲      │        └─ nothing     └─ not compiled yet ─▶ policy-compiler ─┐
//!          turned, compiled │      └──▶ Board ──▶ Policies (the API)                               │
//!            policies' threads ◀──────── gone over again ──────────────────────────────────────────┘
//! ```
//!
//! What a name is shown as ([`Phase`](device_api_core::policy_status::Phase)) follows from who has its seat:
//!
//! ```text
//!  nobody:  Compiling ──came──▶ what the site wants: Running ⇄ BackOff ──▶ quarantined ──▶ another: LastGood, StandIn
//!              └───────refused──▶ Refused                │ paused                            │ or nobody:
//!                                                      Paused                              Quarantined
//! ```
//!
//! A version that is compiled or refused while another judges is told in the detail of that one's phase.
//!
//! The life of one version is drawn on top of `host/wasm/src/lifecycle.rs`. Which version takes the seat of one
//! that is quarantined or unusable, in this order: the last good one of that name, the bundled one, nobody.
//! **Invariant:** a set that can't be read changes nothing; a policy is swapped as a whole or not at all.

mod admit;
mod answer;
mod board;
mod brake;
mod cards;
mod claims;
mod commands;
mod compiling;
mod deferred;
mod doubt;
mod heirs;
mod inbox;
mod quarantine;
mod reading;
mod reload;
mod returning;
mod seat;
mod set;
mod slot;
mod stand_in;
mod told;
mod types;
mod unlisted;
mod unsettled;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use device_api_core::clock::Clock;
use device_api_core::limits::Bounds;
use device_api_core::ports::{Policies, Seats};
use device_api_wasm::{Compiler, CompilerError, CompilerSettings, Engine, Limits, Patience};

use crate::error::PolicyHostError;
use crate::load::{Loader, PolicyHost};
use crate::loaded::lock;
use crate::shadow::Shadows;
use crate::source::PolicySource;
use board::Board;
use compiling::CompileQueue;
use inbox::Inbox;
use worker::{Message, Worker};

/// How often the directory is looked at by default: a change is to be noticed within 2 s (design H6).
pub const POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// How long a start waits for the bundled policies, and for what needs no compile. They take a second or
/// two where nothing is cached; a node that is so busy that they take longer is better served without them,
/// and what comes meanwhile is judged by them later.
pub const SEATED_WAIT: Duration = Duration::from_secs(5);

/// What becomes of a `*.wasm` of the directory that `policies.yaml` does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlisted {
    /// It is refused; the others are not.
    Refuse,
    /// It runs with the defaults.
    #[default]
    Defaults,
}

/// Who compiles.
#[derive(Clone, Debug)]
pub enum Loading {
    /// This process, without a bound: for tools and tests.
    InProcess,
    /// A child process, with a cache (design H10).
    Child(CompilerSettings),
}

/// When a version counts as good, so that its bytes are kept to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Decisions on real signals. Default 10: at its admission it answered the whole catalogue already,
    /// and a quiet node has few faults.
    pub calls: u64,
    /// Time in its seat without a back-off. Default a minute: many times what it takes to be quarantined.
    pub time: Duration,
}

impl Default for Proof {
    fn default() -> Self {
        Self {
            calls: 10,
            time: Duration::from_mins(1),
        }
    }
}

/// What a supervisor begins with. Start from [`SupervisorConfig::new`].
#[derive(Clone, Debug)]
pub struct SupervisorConfig {
    /// Each with the origin `bundled/NAME`, under the name that it gives itself.
    pub bundled: Vec<PolicySource>,
    pub directory: Option<PathBuf>,
    /// `None`: `policies.yaml` in the directory, where there is one.
    pub policies_file: Option<PathBuf>,
    pub unlisted: Unlisted,
    /// No guest is run; the fallback applies to every signal.
    pub safe_mode: bool,
    /// Of a policy for which `policies.yaml` sets none.
    pub limits: Limits,
    /// What `policies.yaml` may set a call's deadline to: readers must not stop waiting before a fallback is
    /// written (design C3).
    pub call_deadline_max: Duration,
    /// `policies/` in it holds what survives a restart; `None`: nothing does.
    pub state_dir: Option<PathBuf>,
    pub loading: Loading,
    pub poll_interval: Duration,
    /// Whether what drills cause counts for health (design N8).
    pub drills_count: bool,
    /// The pipeline's onlooker, so that shadows see what is committed.
    pub shadows: Arc<Shadows>,
    pub patience: Patience,
    pub proof: Proof,
}

impl SupervisorConfig {
    /// These bundled policies and nothing else, compiled in this process, remembered nowhere.
    #[must_use]
    pub fn new(bundled: Vec<PolicySource>) -> Self {
        Self {
            bundled,
            directory: None,
            policies_file: None,
            unlisted: Unlisted::default(),
            safe_mode: false,
            limits: Limits::default(),
            call_deadline_max: Bounds::default().barrier_wait / 2,
            state_dir: None,
            loading: Loading::InProcess,
            poll_interval: POLL_INTERVAL_DEFAULT,
            drills_count: false,
            shadows: Shadows::new(),
            patience: Patience::default(),
            proof: Proof::default(),
        }
    }
}

/// The supervisor at work. Dropped, it ends its threads and unloads its shadows; policies in their seats
/// stay until the pipeline lets go of them.
pub struct Supervisor {
    board: Arc<Board>,
    inbox: Inbox,
    compiler: Option<Compiler>,
    queue: Option<CompileQueue>,
    begun: Arc<Begun>,
    threads: Vec<JoinHandle<()>>,
}

/// Whether the first set is seated, as far as it is waited for.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    is_so: Mutex<bool>,
    changed: Condvar,
}

impl Begun {
    pub(crate) fn tell(&self) {
        *lock(&self.is_so) = true;
        self.changed.notify_all();
    }

    fn wait(&self, limit: Duration) -> bool {
        let is_so = lock(&self.is_so);
        let waited = self
            .changed
            .wait_timeout_while(is_so, limit, |is_so| !*is_so);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Supervisor {
    /// [`Self::begin`], and waits as [`Self::await_seated`] does; without a bound where this process compiles.
    ///
    /// # Errors
    /// No policy can be run on this machine.
    pub fn start(
        config: SupervisorConfig,
        seats: Arc<dyn Seats>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PolicyHostError> {
        let limit = match config.loading {
            Loading::InProcess => Duration::MAX,
            Loading::Child(_) => SEATED_WAIT,
        };
        let supervisor = Self::begin(config, seats, clock)?;
        supervisor.begun.wait(limit);
        Ok(supervisor)
    }

    /// Has the first set loaded and seated by a thread of its own, and goes on there. A policy that can't be
    /// used is told of, and holds nobody up; one that is still to be compiled has its stand-in.
    ///
    /// # Errors
    /// No policy can be run on this machine, or a later daemon wrote what is remembered of them.
    pub fn begin(
        config: SupervisorConfig,
        seats: Arc<dyn Seats>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PolicyHostError> {
        let inbox = Inbox::default();
        let board = Arc::new(Board::new(inbox.clone(), Arc::clone(&clock)));
        let mut supervisor = Self {
            board,
            inbox,
            compiler: None,
            queue: None,
            begun: Arc::default(),
            threads: Vec::new(),
        };
        if config.safe_mode {
            tracing::warn!(
                "safe mode: no policy is run, and the vendor's class for each fault is assumed"
            );
            supervisor.board.safe_mode(&config.bundled);
            supervisor.begun.tell();
            return Ok(supervisor);
        }
        let engine = Engine::new()?;
        let loader: Arc<dyn Loader> = match &config.loading {
            Loading::InProcess => Arc::new(engine),
            Loading::Child(settings) => {
                let compiler = compiler(&engine, settings)?;
                let queue = CompileQueue::new(compiler.clone(), supervisor.inbox.clone());
                let thread = queue.start().map_err(PolicyHostError::Thread)?;
                supervisor.threads.push(thread);
                supervisor.compiler = Some(compiler);
                supervisor.queue = Some(queue.clone());
                Arc::new(queue)
            }
        };
        let worker = Worker::new(
            config,
            loader,
            supervisor.queue.clone(),
            seats,
            clock,
            Arc::clone(&supervisor.board),
            supervisor.inbox.clone(),
        )?;
        let begun = Arc::clone(&supervisor.begun);
        let thread = thread::Builder::new()
            .name("policy-supervisor".to_owned())
            .spawn(move || worker.run(&begun))
            .map_err(PolicyHostError::Thread)?;
        supervisor.threads.push(thread);
        Ok(supervisor)
    }

    /// Waits until the bundled policies and all that needs no compile are seated, at most [`SEATED_WAIT`];
    /// says whether they are. Returns at once where it is stopped.
    pub fn await_seated(&self) -> bool {
        self.begun.wait(SEATED_WAIT)
    }

    /// Ends what is being compiled and takes no command any more: those that wait are answered `Unavailable`.
    /// What judges goes on judging.
    pub fn stop(&self) {
        self.board.close();
        self.inbox.stop();
        // A compile may take minutes, and nobody waits for it any more.
        if let Some(queue) = &self.queue {
            queue.stop();
        }
        self.begun.tell();
    }

    /// For the API and for metrics.
    #[must_use]
    pub fn policies(&self) -> Arc<dyn Policies> {
        Arc::clone(&self.board) as Arc<dyn Policies>
    }

    /// Looks at the directory now (`SIGHUP`); what comes of it is in the log.
    pub fn reload(&self) {
        // Where nobody listens any more the daemon goes down, or is in safe mode.
        let _ = self.inbox.send(Message::Reload(Vec::new()));
    }

    /// Whether every policy is as the site wants it, and a line for `/readyz`.
    #[must_use]
    pub fn report(&self) -> (bool, String) {
        self.board.report()
    }

    /// Who compiles, for metrics; `None` in safe mode, and where it is this process.
    #[must_use]
    pub fn compiler(&self) -> Option<&Compiler> {
        self.compiler.as_ref()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            // Every panic in them is caught.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("board", &self.board)
            .finish_non_exhaustive()
    }
}

/// A cache that can't be used costs time at each start, not the policies.
fn compiler(engine: &Engine, settings: &CompilerSettings) -> Result<Compiler, CompilerError> {
    match Compiler::new(engine.clone(), settings.clone()) {
        Err(error) if error.is_about_cache() => {
            let without = CompilerSettings {
                cache_dir: None,
                ..settings.clone()
            };
            let compiler = Compiler::new(engine.clone(), without)?;
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "compiled policies are not cached: each start compiles them anew"
            );
            Ok(compiler)
        }
        made => made,
    }
}

/// What loads for a worker.
fn host(loader: Arc<dyn Loader>, markers: Option<Arc<crate::marker::Markers>>) -> PolicyHost {
    PolicyHost::on(loader, markers)
}
