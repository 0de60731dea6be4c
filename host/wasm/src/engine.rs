//! The compiler and runtime, configured once, with its ticker.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::error::EngineError;
use crate::limits::{GUEST_STACK_BYTES, MEMORY_GUARD, MEMORY_RESERVATION, TRAP_FRAMES_MAX};
use crate::ticker::{Armed, Ticker, TickerView};

/// Compiles components and runs them. A handle: clones share one engine and one ticker, which end
/// with the last handle, [`Loaded`](crate::Loaded), [`Program`](crate::Program) and
/// [`Sandbox`](crate::Sandbox) made from it.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    wasmtime: wasmtime::Engine,
    ticker: Ticker,
}

impl Engine {
    /// # Errors
    /// [`EngineError`], if the machine is not supported or a thread can't be started.
    pub fn new() -> Result<Self, EngineError> {
        let wasmtime = wasmtime::Engine::new(&config())
            .map_err(|error| EngineError::Configure(error.into()))?;
        let ticker = Ticker::spawn(wasmtime.weak()).map_err(EngineError::Ticker)?;
        Ok(Self {
            inner: Arc::new(Inner { wasmtime, ticker }),
        })
    }

    /// For metrics and tests.
    #[must_use]
    pub fn ticker(&self) -> TickerView {
        self.inner.ticker.view()
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.wasmtime
    }

    pub(crate) fn arm(&self) -> Armed<'_> {
        self.inner.ticker.arm()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("ticker", &self.inner.ticker)
            .finish_non_exhaustive()
    }
}

/// Everything that could make two runs of one call differ is off or canonical, so that a replay, and
/// a fresh instance, give what the first run gave.
pub(crate) fn config() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        .strategy(wasmtime::Strategy::Cranelift)
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        // Bits of a NaN differ between processors.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .gc_support(false)
        .concurrency_support(false)
        .shared_memory(false)
        // All that 32 bits can address, and a guard on both sides: an access out of bounds hits no one's
        // memory, without a check in the code. It costs addresses only: no page is touched, and nothing
        // is counted where overcommitting is off. 16 policies with three instances each, of 64 memories
        // each, take 12.5 of 128 TiB. Under a limit on address space (`ulimit -v`) an instance that finds no
        // room is refused at its start (tests/address_space.rs); less reserved would mean checks in
        // the code. A memory that has it all never moves, and code that may know so is a quarter
        // faster in a loop over memory (84 to 62 ms); a fresh instance takes 22 µs in place of 16.
        .memory_reservation(MEMORY_RESERVATION)
        .memory_guard_size(MEMORY_GUARD)
        .guard_before_linear_memory(true)
        .memory_may_move(false)
        // Names in a trap's message cost something only when there is one; byte offsets and debug
        // information cost memory in every program.
        .wasm_backtrace_max_frames(NonZeroUsize::new(TRAP_FRAMES_MAX))
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable)
        .generate_address_map(false);
    config
}
