//! Compiling in a process of its own, and keeping what it made.
//!
//! ```text
//!  Compiler::load ──▶ size, kind, digest ──▶ cache ──hit──────────────────────────────▶ Loaded
//!                          │ refused           │ nothing, or damaged (deleted)           ▲
//!                          ▼                   ▼                                         │
//!                      LoadError         one process at a time ──code, sealed──▶ cache ──┘
//!                          ▲                   │ refused, too long, too large, died
//!                          └───────────────────┘
//! ```
//!
//! # The boundary
//! Compiling is the one step in which a stranger's bytes use time and memory without a limit of the
//! engine's, so it has a process of its own ([`compile_worker`]): low priority, a bound on its memory,
//! a deadline, no descriptor of the daemon's, and the end together with the daemon.
//! A component that is too much for it costs that component.
//!
//! That process is **no security boundary**: the code that it makes runs in the daemon, so it is
//! trusted as the compiler was when it ran in the daemon. **Native code is never taken from outside**: it
//! comes from that process, started from the daemon's own program a moment ago, or from the cache, a
//! directory that nobody else can enter, under a digest of its content. The digest tells damage, not
//! forgery: who can write there is us. See docs/adr/0011.
//!
//! **Invariant:** a cache that fails costs time, never a policy.

mod cache;
mod child;
mod counters;
mod error;
mod frame;
mod memory;
mod native;
mod procfs;
pub(crate) mod seal;
mod turns;
mod worker;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::component::Component;

pub use counters::{CompileCounters, CompileRefusal};
pub use error::CompilerError;
pub use memory::{COMPILE_MEMORY_BYTES_MAX, COMPILE_MEMORY_BYTES_MIN, compile_memory_bytes};
pub use worker::compile_worker;

use crate::engine::Engine;
use crate::error::LoadError;
use crate::limits::Limits;
use crate::load::Loaded;
use cache::{Cache, Found};
use child::{Failure, Job, Written};
use counters::{Counting, add};
use frame::{Answer, NO_KEY, NoAnswer, Request, Status};
use seal::{Key, compatibility};
use turns::Switch;

/// Default of [`CompilerSettings::deadline`]: a Python guest takes 8 to 15 s on an idle processor, a
/// JavaScript guest 17, and either may get a fraction of one. Nothing waits for it but that policy and those
/// that are to be compiled after it.
pub const COMPILE_DEADLINE_DEFAULT: Duration = Duration::from_mins(2);

/// Less than a process needs to start; more than anyone waits for a policy.
const DEADLINE_MIN: Duration = Duration::from_millis(100);
const DEADLINE_MAX: Duration = Duration::from_hours(1);

/// Settings may go below what [`compile_memory_bytes`] gives (a test's), but not to nothing, and above
/// it (a giant's), but not to where nothing is bounded.
const MEMORY_MIN: u64 = 16 << 20;
const MEMORY_MAX: u64 = 16 << 30;

/// The program that compiles: one whose `main` is [`compile_worker`] when it is given these arguments,
/// built from the same sources as this. The daemon names itself (`/proc/self/exe`), which stays the same
/// program when its file is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

/// How to compile.
#[derive(Clone, Debug)]
pub struct CompilerSettings {
    pub worker: Worker,
    /// A directory for compiled code alone, which is made if the one it is in exists; `None` compiles
    /// at each start.
    pub cache_dir: Option<PathBuf>,
    /// What a process may use beyond what its program takes; see [`compile_memory_bytes`].
    pub memory_bytes_max: u64,
    /// Wall time of one process, from its start; see [`COMPILE_DEADLINE_DEFAULT`].
    pub deadline: Duration,
}

/// Loads components as [`Engine::load`] does, with their code from the cache or a process. A handle:
/// clones share one cache, and one process at a time.
#[derive(Clone)]
pub struct Compiler {
    shared: Arc<Shared>,
}

/// What [`Compiler::cached`] found.
#[derive(Debug)]
pub enum Cached {
    Code(Loaded),
    /// It is to be compiled. The component's SHA-256, lower-case hex.
    Nothing {
        digest: String,
    },
}

struct Shared {
    engine: Engine,
    compatibility: seal::Hash,
    settings: CompilerSettings,
    cache: Option<Cache>,
    /// Held while a process runs.
    turn: Mutex<()>,
    stopped: AtomicBool,
    stop: Switch,
    put_off: Switch,
    counting: Counting,
}

impl Compiler {
    /// Checks the settings and opens the cache. Whether the worker can be started shows when it is.
    ///
    /// # Errors
    /// [`CompilerError`]; where it is about the cache, the caller decides whether to do without.
    pub fn new(engine: Engine, settings: CompilerSettings) -> Result<Self, CompilerError> {
        if !(DEADLINE_MIN..=DEADLINE_MAX).contains(&settings.deadline) {
            return Err(CompilerError::Deadline {
                given: settings.deadline,
                min: DEADLINE_MIN,
                max: DEADLINE_MAX,
            });
        }
        if !(MEMORY_MIN..=MEMORY_MAX).contains(&settings.memory_bytes_max) {
            return Err(CompilerError::Memory {
                given: settings.memory_bytes_max,
                min: MEMORY_MIN,
                max: MEMORY_MAX,
            });
        }
        let cache = settings.cache_dir.as_deref().map(Cache::open).transpose()?;
        let switch = || Switch::new().map_err(|error| CompilerError::Files(error.into()));
        Ok(Self {
            shared: Arc::new(Shared {
                compatibility: compatibility(engine.wasmtime()),
                engine,
                settings,
                cache,
                turn: Mutex::new(()),
                stopped: AtomicBool::new(false),
                stop: switch()?,
                put_off: switch()?,
                counting: Counting::default(),
            }),
        })
    }

    /// Checks a component and takes its code from the cache, or has it compiled: a millisecond or two,
    /// or some 100 ms for a small one and 15 s for an interpreter. Blocks, and waits for its turn:
    /// how many wait is for the callers to bound. The process dies with the calling thread.
    ///
    /// # Errors
    /// All of [`LoadError`] but what [`Program::link`](crate::Program::link) finds. Nothing is kept of
    /// what was refused.
    pub fn load(&self, bytes: &[u8], limits: Limits) -> Result<Loaded, LoadError> {
        let component = Loaded::check(bytes, &limits)?;
        let shared = &self.shared;
        let key = Key {
            engine: shared.compatibility,
            component,
        };
        let code = match shared.cached(&key) {
            Some(code) => code,
            None => shared.in_turn(&key, bytes)?,
        };
        Ok(Loaded::new(
            &shared.engine,
            code,
            seal::hex(&component),
            limits,
        ))
    }

    /// What of [`Self::load`] needs no process: from the cache, a millisecond or two.
    ///
    /// # Errors
    /// What can be said of the component without compiling it.
    pub fn cached(&self, bytes: &[u8], limits: Limits) -> Result<Cached, LoadError> {
        let component = Loaded::check(bytes, &limits)?;
        let shared = &self.shared;
        let key = Key {
            engine: shared.compatibility,
            component,
        };
        let digest = seal::hex(&component);
        Ok(match shared.cached(&key) {
            Some(code) => Cached::Code(Loaded::new(&shared.engine, code, digest, limits)),
            None => Cached::Nothing { digest },
        })
    }

    /// Ends the process that runs, if one does, and starts no other: loads that wait or come are refused,
    /// except those whose code is in the cache.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.shared.stop.throw();
    }

    /// For metrics.
    #[must_use]
    pub fn counters(&self) -> CompileCounters {
        self.shared.counting.snapshot()
    }
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler")
            .field("settings", &self.shared.settings)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// From the cache. Whatever is wrong with it, the component can be compiled.
    fn cached(&self, key: &Key) -> Option<Component> {
        let cache = self.cache.as_ref()?;
        let failed = |what: &str, error: &dyn fmt::Display| {
            add(&self.counting.cache_errors, 1);
            tracing::warn!(%error, "the code cache can't be {what}: compiling instead");
        };
        let begun = Instant::now();
        let code = match cache.get(key) {
            Ok(Found::Code(code)) => code,
            Ok(Found::Nothing) => return None,
            Ok(Found::Damaged(broken)) => {
                add(&self.counting.cache_damaged, 1);
                let digest = seal::hex(&key.component);
                tracing::warn!(digest, "a file of the code cache was deleted: {broken}");
                return None;
            }
            Err(error) => {
                failed("read", &error);
                return None;
            }
        };
        match native::component(self.engine.wasmtime(), &code) {
            Ok(component) => {
                add(&self.counting.cache_hits, 1);
                let took = begun.elapsed();
                tracing::debug!(
                    digest = seal::hex(&key.component),
                    ?took,
                    "compiled code was cached"
                );
                Some(component)
            }
            Err(error) => {
                add(&self.counting.cache_damaged, 1);
                tracing::warn!(%error, "a file of the code cache was deleted: the engine does not take it");
                if let Err(error) = cache.forget(key) {
                    failed("cleaned up", &error);
                }
                None
            }
        }
    }

    /// Has it compiled once nobody else's is.
    fn in_turn(&self, key: &Key, bytes: &[u8]) -> Result<Component, LoadError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was before may have compiled the very same.
        if let Some(component) = self.cached(key) {
            return Ok(component);
        }
        let compiled = self.compile(key, bytes);
        if let Err(error) = &compiled
            && let Some(refusal) = refusal(error)
        {
            self.counting.refused(refusal);
        }
        compiled
    }

    fn compile(&self, key: &Key, bytes: &[u8]) -> Result<Component, LoadError> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(LoadError::Stopped);
        }
        let begun = Instant::now();
        let written = child::run(
            &self.settings.worker,
            &self.job(&self.request(bytes), bytes),
        );
        let wall = begun.elapsed();
        self.counting.took(wall);
        let Written { head, whole } = written.map_err(|failure| self.refused(failure))?;
        self.counting.peaked(head.memory_peak_bytes);
        // What was refused before the component was read is about none.
        let key_of_answer = if head.is_of_no_component() {
            &NO_KEY
        } else {
            key
        };
        let answer = head
            .open(key_of_answer, whole)
            .map_err(|broken| self.no_answer(&broken))?;
        let code = match answer {
            Answer::Code(code) => code,
            Answer::Refusal(status, words) => return Err(self.said_no(status, words)),
        };
        let component = native::component(self.engine.wasmtime(), &code)
            .map_err(|error| self.no_answer(&error))?;
        add(&self.counting.compiled, 1);
        tracing::debug!(
            digest = seal::hex(&key.component),
            bytes = bytes.len(),
            code_bytes = code.as_bytes().len(),
            memory_peak_bytes = head.memory_peak_bytes,
            took = ?wall,
            "compiled a component"
        );
        self.keep(key, &code);
        Ok(component)
    }

    fn keep(&self, key: &Key, code: &seal::Code) {
        let Some(cache) = &self.cache else { return };
        match cache.put(key, code) {
            Ok(written) => add(&self.counting.cache_evicted, written.evicted),
            Err(error) => {
                add(&self.counting.cache_errors, 1);
                tracing::warn!(%error, "compiled code can't be cached: the next start compiles again");
            }
        }
    }

    fn request(&self, bytes: &[u8]) -> Vec<u8> {
        let request = Request {
            parent: std::process::id(),
            memory_bytes_max: self.settings.memory_bytes_max,
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        };
        request.encode()
    }

    fn job<'a>(&'a self, head: &'a [u8], component: &'a [u8]) -> Job<'a> {
        Job {
            head,
            component,
            deadline: self.settings.deadline,
            stop: self.stop.as_fd(),
            put_off: self.put_off.as_fd(),
        }
    }

    fn refused(&self, failure: Failure) -> LoadError {
        let program = self.settings.worker.program.clone();
        match failure {
            Failure::Start(source) => LoadError::WorkerStart { program, source },
            Failure::Io(source) => LoadError::WorkerPipe { program, source },
            Failure::Deadline { cpu } => LoadError::CompileDeadline {
                limit: self.settings.deadline,
                cpu,
            },
            Failure::Stopped => LoadError::Stopped,
            Failure::PutOff => LoadError::PutOff,
            Failure::NoAnswer(NoAnswer::TooLong { bytes, max }) => {
                LoadError::CodeTooLarge { bytes, max }
            }
            Failure::NoAnswer(NoAnswer::Broken(broken)) => self.no_answer(&broken),
            Failure::Died { said, .. } if said.contains(ALLOCATION_FAILED) => self.out_of_memory(),
            Failure::Died { status, said } => LoadError::WorkerDied {
                how: child::ending(status),
                said,
            },
        }
    }

    fn said_no(&self, status: Status, words: String) -> LoadError {
        match status {
            Status::Invalid => LoadError::Invalid(words.into()),
            Status::Panic => LoadError::CompilerPanic { message: words },
            Status::Memory => self.out_of_memory(),
            Status::Setup => LoadError::WorkerSetup { what: words },
            // An answer with code is no refusal.
            Status::Code => self.no_answer(&words),
        }
    }

    fn out_of_memory(&self) -> LoadError {
        LoadError::CompileMemory {
            limit_bytes: self.settings.memory_bytes_max,
        }
    }

    fn no_answer(&self, what: &dyn fmt::Display) -> LoadError {
        LoadError::WorkerAnswer {
            program: self.settings.worker.program.clone(),
            what: what.to_string(),
        }
    }
}

/// What the allocator says before it ends a process that it has no memory for. A test holds it.
const ALLOCATION_FAILED: &str = "memory allocation of ";

/// Under what a refusal of the process is counted.
fn refusal(error: &LoadError) -> Option<CompileRefusal> {
    Some(match error {
        LoadError::Invalid(_) | LoadError::CompilerPanic { .. } => CompileRefusal::Invalid,
        LoadError::CompileDeadline { .. } => CompileRefusal::Deadline,
        LoadError::CompileMemory { .. } => CompileRefusal::Memory,
        LoadError::CodeTooLarge { .. } | LoadError::WorkerAnswer { .. } => CompileRefusal::Answer,
        LoadError::WorkerDied { .. } => CompileRefusal::Died,
        LoadError::WorkerStart { .. }
        | LoadError::WorkerPipe { .. }
        | LoadError::WorkerSetup { .. } => CompileRefusal::Start,
        LoadError::Stopped => CompileRefusal::Stopped,
        LoadError::Compiling
        | LoadError::PutOff
        | LoadError::Before(_)
        | LoadError::Limits(_)
        | LoadError::TooLarge { .. }
        | LoadError::Truncated { .. }
        | LoadError::NotWasm { .. }
        | LoadError::CoreModule
        | LoadError::BinaryVersion { .. }
        | LoadError::Version { .. }
        | LoadError::Import { .. }
        | LoadError::Export { .. }
        | LoadError::Link { .. } => return None,
    })
}

#[cfg(test)]
#[path = "compile/answers_tests.rs"]
mod answers_tests;
