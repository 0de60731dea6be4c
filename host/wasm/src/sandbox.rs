//! One warm instance, and the only way into it.
//!
//! ```text
//!  start ──ok──▶ warm ──call ok──▶ warm … needs_replacement() says when it is worn
//!    │             └──any error──▶ retired: every later call answers `Retired`
//!    └──error──▶ nothing left
//! ```

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{AsContextMut, Store, StoreContextMut, Trap, WasmBacktrace};

use crate::error::CallError;
use crate::limits::{GUEST_STACK_BYTES, Limits, MESSAGE_BYTES_MAX};
use crate::meter::{Ctx, HostCallsExhausted, Meter};
use crate::program::{Program, World};
use crate::words::one_line;

/// What the last start or call cost, whether it succeeded or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    /// Time that passed.
    pub wall: Duration,
    /// Processor time of the calling thread; much less than `wall` on a starved node.
    pub cpu: Duration,
    /// All linear memories together, afterwards. They never shrink.
    pub memory_bytes: usize,
}

/// Why an instance should be replaced although nothing failed yet, or because it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wear {
    /// A call failed; no other will be let in.
    Retired,
    /// [`Limits::calls_per_instance_max`] calls.
    Calls,
    /// Its memory is close to the limit.
    Memory,
}

impl Wear {
    /// A metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retired => "retired",
            Self::Calls => "calls",
            Self::Memory => "memory",
        }
    }
}

/// Calls within which no honest guest fills its memory: a leak takes thousands, and what an interpreter holds
/// at rest is below the mark.
const WORN_EARLY_CALLS: u64 = 16;

/// One store with one guest. Belongs to one thread at a time; calls are synchronous.
pub struct Sandbox<W: World> {
    program: Program<W>,
    store: Store<Ctx<W::Data>>,
    guest: W::Guest,
    stats: CallStats,
    calls: u64,
    retired: bool,
}

impl<W: World> Sandbox<W> {
    /// Instantiates and configures, both within [`Limits::start_deadline`]. Whatever `configure`
    /// returns is handed back beside the sandbox.
    ///
    /// # Errors
    /// Any [`CallError`]; `data` is dropped with the instance.
    pub fn start<R>(
        program: &Program<W>,
        data: W::Data,
        configure: impl FnOnce(StoreContextMut<'_, Ctx<W::Data>>, &W::Guest) -> wasmtime::Result<R>,
    ) -> Result<(Self, R), CallError> {
        let mut store = program.store(data)?;
        let mut instantiated = false;
        let deadline = program.limits().start_deadline;
        let (started, stats) = guarded(program, &mut store, deadline, |mut store| {
            let guest = W::instantiate(store.as_context_mut(), program.linked())?;
            instantiated = true;
            let configured = configure(store, &guest)?;
            Ok((guest, configured))
        });
        match started {
            Ok((guest, configured)) => {
                let program = program.clone();
                Ok((
                    Self {
                        program,
                        store,
                        guest,
                        stats,
                        calls: 0,
                        retired: false,
                    },
                    configured,
                ))
            }
            // What the engine says of an instance it can't make is nobody's host function.
            Err(CallError::Host { message }) if !instantiated => {
                Err(CallError::Instantiate { message })
            }
            Err(error) => Err(error),
        }
    }

    /// One call, within [`Limits::call_deadline`] and the other limits. What the guest *returns* is
    /// the caller's business, an `err` of its own included; an error of the engine that the closure
    /// passes on retires the sandbox.
    ///
    /// # Errors
    /// Any [`CallError`]. A panic in a host function, or in `call` itself, is caught and is one of them.
    pub fn call<R>(
        &mut self,
        call: impl FnOnce(StoreContextMut<'_, Ctx<W::Data>>, &W::Guest) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        if self.retired {
            return Err(CallError::Retired);
        }
        self.calls = self.calls.saturating_add(1);
        let guest = &self.guest;
        let deadline = self.program.limits().call_deadline;
        let (outcome, stats) = guarded(&self.program, &mut self.store, deadline, |store| {
            call(store, guest)
        });
        self.stats = stats;
        self.retired = outcome.is_err();
        outcome
    }

    /// The cost of the last call that was let in, or of the start.
    #[must_use]
    pub fn last_stats(&self) -> CallStats {
        self.stats
    }

    /// True after any error: the instance was left in the middle.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// Whether a new instance should take over, and why. To be asked between calls, off the hot path.
    #[must_use]
    pub fn needs_replacement(&self) -> Option<Wear> {
        let limits = self.program.limits();
        if self.retired {
            Some(Wear::Retired)
        } else if self.calls >= limits.calls_per_instance_max {
            Some(Wear::Calls)
        } else if self.stats.memory_bytes > limits.worn_memory_bytes() {
            Some(Wear::Memory)
        } else {
            None
        }
    }

    /// Whether its memory is close to the limit after its first few calls: one that is replaced so often is
    /// always starting, and who waits for it pays.
    #[must_use]
    pub fn is_worn_early(&self) -> bool {
        self.calls <= WORN_EARLY_CALLS && self.needs_replacement() == Some(Wear::Memory)
    }

    /// What host functions left behind; readable after a failure too (a guest's last log line).
    #[must_use]
    pub fn data(&self) -> &W::Data {
        &self.store.data().data
    }

    /// To prepare the next call, or to take what the last one left.
    pub fn data_mut(&mut self) -> &mut W::Data {
        &mut self.store.data_mut().data
    }

    #[must_use]
    pub fn program(&self) -> &Program<W> {
        &self.program
    }
}

impl<W: World> fmt::Debug for Sandbox<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("program", &self.program)
            .field("calls", &self.calls)
            .field("retired", &self.retired)
            .field("last_stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Runs `work` in the store with meter, deadline, ticker and panic catch in place.
fn guarded<W: World, R>(
    program: &Program<W>,
    store: &mut Store<Ctx<W::Data>>,
    limit: Duration,
    work: impl FnOnce(StoreContextMut<'_, Ctx<W::Data>>) -> wasmtime::Result<R>,
) -> (Result<R, CallError>, CallStats) {
    let cpu_before = thread_cpu_time();
    let begun = Instant::now();
    store.data_mut().meter.begin(begun + limit);
    let armed = program.engine().arm();
    // One tick: the store's callback looks at the clock at each and goes on if there is time left.
    store.set_epoch_deadline(1);
    // Whatever a panic leaves half done is in the store, which no call enters again.
    let outcome = catch_unwind(AssertUnwindSafe(|| work(store.as_context_mut())));
    drop(armed);
    let stats = CallStats {
        wall: begun.elapsed(),
        cpu: thread_cpu_time().saturating_sub(cpu_before),
        memory_bytes: store.data().memory_bytes(),
    };
    let result = match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(classify(
            &error,
            &store.data().meter,
            program.limits(),
            limit,
            stats,
        )),
        Err(panic) => Err(CallError::HostPanic {
            message: panic_message(panic.as_ref()),
        }),
    };
    (result, stats)
}

/// The cause comes before the symptom: a limit that was hit, then the trap that followed.
fn classify(
    error: &wasmtime::Error,
    meter: &Meter,
    limits: &Limits,
    deadline: Duration,
    stats: CallStats,
) -> CallError {
    if let Some(HostCallsExhausted { limit }) = error.downcast_ref() {
        return CallError::HostCalls { limit: *limit };
    }
    let message = bounded(&error.root_cause().to_string());
    let trap = error.downcast_ref::<Trap>();
    match trap {
        Some(Trap::Interrupt) => {
            return CallError::Deadline {
                limit: deadline,
                wall: stats.wall,
                cpu: stats.cpu,
            };
        }
        Some(Trap::StackOverflow) => {
            return CallError::Stack {
                limit_bytes: GUEST_STACK_BYTES,
            };
        }
        Some(_) | None => {}
    }
    if let Some(denial) = meter.denial(&message) {
        return denial;
    }
    if trap.is_some() {
        return CallError::Trap {
            message,
            at: frames(error),
        };
    }
    if message.contains(CROSSING_EXHAUSTED) {
        return CallError::CrossingLimit {
            limit_bytes: limits.crossing_bytes_max,
        };
    }
    CallError::Host { message }
}

/// Words of the engine for this failure, whose type it keeps private. A test holds them.
const CROSSING_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// `inner < middle < outer`, as far as the component has names.
fn frames(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return String::new();
    };
    let names: Vec<&str> = backtrace
        .frames()
        .iter()
        .filter_map(wasmtime::FrameInfo::func_name)
        .collect();
    bounded(&names.join(" < "))
}

/// The text of a panic, where it has one.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    bounded(text.unwrap_or("no message"))
}

/// A guest's words, fit for a log line.
fn bounded(text: &str) -> String {
    one_line(text, MESSAGE_BYTES_MAX)
}

/// Processor time that the calling thread has had.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    // Both parts of a thread's processor time are non-negative.
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
