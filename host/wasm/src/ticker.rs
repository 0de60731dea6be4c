//! The metronome that makes running guests look at the clock: one OS thread an engine, asleep
//! unless a call is in flight.
//!
//! ```text
//!  parked ──arm (0 → 1 calls)──▶ ticking ──a tick finds no call──▶ parked
//!     └────────────── engine dropped ──────┴────────▶ ended (joined)
//! ```
//!
//! It holds the engine weakly: an engine kept alive by its own ticker would never end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::limits::EPOCH_TICK;

/// `in_flight` and `parked` are a handshake and need one total order (`SeqCst`): the caller raises
/// `in_flight` and then looks at `parked`, the ticker raises `parked` and then looks at `in_flight`,
/// so at least one of them sees the other.
#[derive(Debug, Default)]
struct Shared {
    in_flight: AtomicUsize,
    parked: AtomicBool,
    closed: AtomicBool,
    running: AtomicBool,
    ticks: AtomicU64,
}

impl Shared {
    fn idle(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0
    }

    fn closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// Ends and joins the thread when dropped, which takes a tick at most.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn spawn(engine: wasmtime::EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            running: AtomicBool::new(true),
            ..Shared::default()
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("wasm-epoch".to_owned())
            .spawn(move || {
                run(&of_thread, &engine);
                of_thread.running.store(false, Ordering::SeqCst);
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Ticks for as long as the guard lives. Costs an atomic, and a wake-up where nothing ran.
    pub(crate) fn arm(&self) -> Armed<'_> {
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.wake();
        }
        Armed {
            shared: &self.shared,
        }
    }

    pub(crate) fn view(&self) -> TickerView {
        TickerView {
            shared: Arc::clone(&self.shared),
        }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It can't have panicked: nothing in `run` does. Nor would there be anything to do.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, engine: &wasmtime::EngineWeak) {
    while !shared.closed() {
        if shared.idle() {
            shared.parked.store(true, Ordering::SeqCst);
            while shared.idle() && !shared.closed() {
                thread::park();
            }
            shared.parked.store(false, Ordering::SeqCst);
        }
        thread::park_timeout(EPOCH_TICK);
        let Some(engine) = engine.upgrade() else {
            return;
        };
        engine.increment_epoch();
        shared.ticks.fetch_add(1, Ordering::Relaxed);
    }
}

/// One call in flight.
#[derive(Debug)]
pub(crate) struct Armed<'a> {
    shared: &'a Shared,
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Looks at an engine's ticker, for metrics and tests; does not keep it alive.
#[derive(Clone)]
pub struct TickerView {
    shared: Arc<Shared>,
}

impl TickerView {
    /// Ticks since the engine was made.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.shared.ticks.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::SeqCst)
    }

    /// True while the thread sleeps until the next call; within a tick of the last one.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.shared.parked.load(Ordering::SeqCst)
    }

    /// False once the engine, and all that was made from it, is gone.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.shared.running.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for TickerView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TickerView").field(&self.shared).finish()
    }
}
